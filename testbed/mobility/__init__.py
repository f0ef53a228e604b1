"""The protocol core, sans-IO: which bindings there are, who keeps them, which messages follow from which.

Modules: `forwarding` (what is asked of the datapath), `binding`, `binding_cache`, `policy`, `registrar` and
`home_agent` (receiving Binding Updates), `anchor_point`, `prefix_table` (mobile routers at a home agent),
`home_link` and `prefix_advertiser` (what it tells of its link), `registration`, `update_list`,
`mobile_network`, `detours`, `home_discovery`, `returning_home`, `mobile_node` and `hierarchical_node`
(sending them), `role` (what all share), `snapshot` (surviving a restart). Of route optimisation:
`return_routability` (tokens and what they authorise), `correspondent_node` and `rate_limit`,
`correspondent_registration` and `route_optimisation` (at the mobile node). No sockets, no clock, no kernel.
"""
