"""The daemon around a protocol role: sockets, netlink, timers, configuration, logs, control.

`python -m testbed.agent FILE.toml` runs one, `flowbind` talks to it.

Modules: `daemon` (the asyncio shell that all roles share), `mobile_node`, `home_agent` and
`correspondent_node` (what is particular to them), `configuration`, `validation` and `selector_text` (what
people write), `mobility_socket`, `tunnelled_socket` and `packet_filter` (Mobility Header packets),
`netlink`, `neighbour_discovery` and `movement` (where the node is attached), `events` (the log of what
happened), `state` (what survives a restart), `requests`, `control_server` and `control` (the control socket
and its two ends), `command` (the `flowbind` command) and `presentation` (its tables).
"""
