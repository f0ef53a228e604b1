"""The protocol core, sans-IO: which bindings there are, who keeps them, which messages follow from which.

Modules: `forwarding` (what is asked of the datapath), `binding`, `binding_cache`, `policy`, `registrar` and
`home_agent` (receiving Binding Updates), `prefix_table` (mobile routers at a home agent), `registration`,
`update_list`, `mobile_network` and `mobile_node` (sending them), `role` (what all share), `snapshot`
(surviving a restart). Of route optimisation: `return_routability` (tokens and what they authorise),
`correspondent_node` and `rate_limit`, `correspondent_registration` and `route_optimisation` (at the mobile
node). No sockets, no clock, no kernel.
"""
