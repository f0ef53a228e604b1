"""Steering strategies: which access network carries which flow.

`strategy` has the interface; each other module has one or a few strategies; `registry` finds them by name.
Nothing in here knows agents, sockets or Mininet: a strategy is given flows, links and events, and answers
bindings. docs/strategies.md shows how to add one.
"""
