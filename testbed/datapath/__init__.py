"""Wanted forwarding state (`testbed.mobility.forwarding`) made true in the Linux kernel.

Modules, each standing on those above it:

- `error`: `DatapathError`
- `netlink`: netlink sockets, attributes, acknowledgements, dumps
- `nftables`: nf_tables expressions and objects as netlink messages
- `route`: routes, policy rules, addresses, proxy neighbours, links as netlink messages
- `device`: the datapath's own network devices
- `mark`: what the bits of the packet mark mean, table numbers, rule priorities
- `match`: an RFC 6088 traffic selector as nf_tables expressions
- `recent_flows`, `many_rules`: which rule a connection has met, where there are many
- `regional_rules`: the rules of a regional care-of address at an anchor point (RFC 5380)
- `exemption`: which packets are the kernel's own IPsec's
- `tunnel`: the kernel's ways to encapsulate (RFC 2473)
- `tunnel_packets`: the rules for tunnel packets
- `classifier`: the nf_tables table: its base, and what each home address adds to it
- `routing`: the routes and rules that each home address needs
- `slots`: which mark and table each path has
- `ruleset`: the nf_tables table in the kernel
- `probe`: which tunnel backends this kernel has
- `mobile_network`: ingress filter of a mobile router, routes of mobile networks without a binding
- `native_uplink`: what leaves a mobile node without a tunnel
- `datapath`: `Datapath`, which agents use

Of route optimisation, with nothing but the first of these in common:

- `bpf`, `traffic_control`: programs, and the two ends of an interface that run them
- `optimisation_programs`: Home Address option and type 2 routing header, put in and taken out
- `rejected`: packets that are dropped for their Home Address option
- `xfrm`: the kernel's IPsec and Mobile IPv6
- `carrier`, `xfrm_carrier`, `userspace_carrier` and `forwarder`: the ways to carry optimised routes
- `optimisation_rules`: the nf_tables table of optimised routes
- `optimisation`: `OptimisedRoutes`, which agents use

Of IPsec, with `xfrm`: `protection`, which agents use.
"""
