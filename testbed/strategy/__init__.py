"""Steering strategies: which access network carries which flow.

`strategy` has the interface; `registry` finds by name what the other modules have: `outside` (what competes
with flow bindings), `fixed`, `balanced`, `adaptive`, `ncast` and `elsewhere`.
Nothing in here knows agents, sockets or Mininet: a strategy is given flows, links and events, and answers
bindings. docs/strategies.md shows how to add one.
"""
