"""The daemon around a protocol role: sockets, netlink, timers, configuration, logs, control.

`python -m testbed.agent FILE.toml` runs one, `flowbind` talks to it.

Modules: `daemon` (the asyncio shell that all roles share), `step` (one call into a role), `garbage`,
`territory` (one agent in a network namespace). Particular to a role: `home_agent`, with `duplicate_address`
and `anycast`; `anchor_point`; `correspondent_node`, with `complaints`; `mobile_node`, with
`mobile_node_commands` and `mobile_node_status`.

What comes in and goes out: `mobility_socket`, `tunnelled_socket` and `packet_filter` (Mobility Header
packets), `drops` (what cannot be used), `icmp_errors`, `advertiser`; under IPsec `protected_signalling` and
`protected_socket`; `security` (keys). Where the node is: `netlink`, `neighbour_discovery`, `access_links`,
`movement`, `reachability`; on the home link `home_presence` and `home_agent_lookup`.

What people write and read: `configuration`, `ipsec_tables`, `validation` and `selector_text`; `requests`,
`control_server` and `control` (the control socket and its two ends), `command` (the `flowbind` command),
`presentation` (its tables), `mirrored_rules`; `events` (the log of what happened), `feed` (the forwarding
state, for those that mirror it), `state` (what survives a restart).
"""
