"""Mininet topologies. Modules: `multihome`."""
