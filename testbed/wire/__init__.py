"""Mobile IPv6 messages as octets: dataclasses, parsed strictly and built aligned. No I/O.

Modules: `selector` (RFC 6088), `option` and `flow` (mobility options), `dialect` (how a flow binding is laid
out), `message` (Mobility Header messages), `codec` (Mobility Header), `packet` (the IPv6 packet around it),
`checksum`, `error`.
"""
