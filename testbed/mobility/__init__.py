"""The protocol core, sans-IO: which bindings there are, who keeps them, which messages follow from which.

Modules: `forwarding` (what is asked of the datapath), `binding`, `binding_cache`, `policy`, `registrar` and
`home_agent` (receiving Binding Updates), `prefix_table` (mobile routers at a home agent), `registration`,
`update_list`, `mobile_network` and `mobile_node` (sending them), `role` (what all share), `snapshot`
(surviving a restart). No sockets, no clock, no kernel.
"""
