"""A Mininet testbed for Mobile IPv6 flow bindings (draft-soliman-monami6-flow-binding-05)."""
