"""The protocol core, sans-IO: which bindings there are, who keeps them, which messages follow from which.

All roles: `role`, `forwarding` (what is asked of the datapath), `feed` (the same as lines of JSON),
`binding`, `authentication`, `dialect` (how flow bindings are spoken of), `snapshot` (surviving a restart).

Receiving Binding Updates: `registrar`, with `binding_cache`, `policy`, `identifiers` and `refusal`;
`home_agent`, with `prefix_table` (mobile routers), `home_link` and `prefix_advertiser` (what it tells of its
link); `anchor_point`.

Sending them: `registration`, with `composition`, `update_list`, `listed_flows` and `signalling`;
`mobile_node`, with `mobile_node_configuration`, `attachments`, `flow_requests`, `detours`, `mobile_network`,
`home_discovery` and `returning_home`; `hierarchical_node`, with `known_anchors`.

Route optimisation: `return_routability` (tokens and what they authorise); `correspondent_node`, with
`rate_limit` and `unreachables`; at the mobile node `route_optimisation`, `correspondent_registration`,
`correspondent_flows` and `initiative`; `mobile_correspondent` is both in one node.

No sockets, no clock, no kernel.
"""
