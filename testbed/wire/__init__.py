"""Mobile IPv6 messages as octets: dataclasses, parsed strictly and built aligned. No I/O.

Modules: `selector` (RFC 6088), `option` and `flow` (mobility options), `dialect` (how a flow binding is laid
out), `message` (Mobility Header messages), `codec` (Mobility Header), `icmpv6` (home agent and prefix
discovery), `router_advertisement`, `packet` (the IPv6 packet around them), `parameter_problem` (the
answer to what is malformed), `icmp_error`, `address`, `checksum`, `error`.
"""
