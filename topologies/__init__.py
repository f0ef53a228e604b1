"""Mininet topologies: `multihome`, and like it `hierarchical` (with anchor points), `nemo` (a mobile router),
`sdn` (switches that steer) and `distance` (home agent or correspondent node far away)."""
