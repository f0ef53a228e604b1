"""The multihomed network with the home agent or the correspondent node far away.

Classes: `DistanceTopology`, `DistantHierarchicalTopology`. For Mininet's own command, too:
`mn --custom topologies/distance.py --topo distance,ha_distance_ms=100`.
"""

from testbed.emulation.link import LinkParameters
from topologies.hierarchical import HierarchicalTopology
from topologies.multihome import MultihomeTopology


class DistanceTopology(MultihomeTopology):
    """As MultihomeTopology, with a one-way delay between core and home agent, core and correspondent node, in
    ms.

    Raises ValueError that names the parameter.
    """

    def build(self, ha_distance_ms: float = 0.0, cn_distance_ms: float = 0.0, link_backend: str = "auto",
              **parameters: object) -> None:
        self._distances = {"ha": ha_distance_ms, "cn": cn_distance_ms}
        self._distance_backend = link_backend
        for name, distance_ms in self._distances.items():
            try:
                LinkParameters(delay_ms=distance_ms)
            except ValueError as error:
                raise ValueError(f"{name}_distance_ms: {error}") from None
        super().build(link_backend=link_backend, **parameters)

    def addLink(self, node1: str, node2: str, **options) -> object:
        distance_ms = self._distances.get(node1, 0.0) if node2 == "core" else 0.0
        if distance_ms:
            options |= {"parameters": LinkParameters(delay_ms=distance_ms), "backend": self._distance_backend}
        return super().addLink(node1, node2, **options)

    def draw(self) -> str:
        far = [f"{name} is {distance_ms:g} ms away from core" for name, distance_ms in self._distances.items()
               if distance_ms]  # fmt: skip
        return super().draw() + "".join(f" {line}\n" for line in far)


class DistantHierarchicalTopology(HierarchicalTopology, DistanceTopology):
    """The same of the network with mobility anchor points."""


topos = {"distance": DistanceTopology}
