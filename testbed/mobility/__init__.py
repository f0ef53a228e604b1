"""The protocol core, sans-IO: which bindings there are, who keeps them, which messages follow from which.

Modules: `forwarding` (what is asked of the datapath), `binding`, `binding_cache`, `policy`, `registrar` and
`home_agent` (receiving Binding Updates), `registration` and `mobile_node` (sending them), `role` (what all
share), `snapshot` (surviving a restart). No sockets, no clock, no kernel.
"""
