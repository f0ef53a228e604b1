"""Two domains of hierarchical Mobile IPv6 (RFC 5380), else as topologies/multihome.py.

Class: `HierarchicalTopology`. Also: `mn --custom topologies/hierarchical.py --topo hierarchical`.

==========================  =========================================================================
map1, map2                  mobility anchor points, on core links 2001:db8:ff65::/64 and 2001:db8:ff66::/64
2001:db8:500::/64           region of map1, bridge region0 in it: map1 ::1; of map2: 2001:db8:600::/64
ar1, ar2                    access routers of the two access networks, in the domain of map1
ar3                         a third one in the domain of map1, with no mobile node in the beginning
ar4                         one in the domain of map2; ar5: one without any anchor point
==========================  =========================================================================
"""

from collections.abc import Iterable, Mapping
from ipaddress import IPv6Network

from testbed.emulation.node import HomeAgent
from testbed.emulation.security import METHODS, SPI
from topologies.multihome import CORE_PREFIXES, MultihomeTopology, access_prefix

REGIONAL_INTERFACE = "region0"
REGIONS = {"map1": IPv6Network("2001:db8:500::/64"), "map2": IPv6Network("2001:db8:600::/64")}
#: The tunnel to the home agent is inside of the tunnel to the anchor point: 40 octets less than otherwise.
TUNNEL_MTU = 1420
MAP_KEY = "6d6f62696c69747920616e63686f7220"
_FIRST_CORE_LINK = 101
_DOMAINS = {"map1": (1, 2, 3), "map2": (4,)}
_SPARE_ROUTERS = (3, 4, 5)


class HierarchicalTopology(MultihomeTopology):
    """The network above. The parameters are those of MultihomeTopology; there are two access networks."""

    mobile_name = "mn"

    def build(self, *arguments, **parameters) -> None:
        super().build(*arguments, **parameters)
        if self.security.method != METHODS[0]:
            raise ValueError(f"security: {self.security.method} does not go with anchor points")
        if len(self.access_networks) != 2:
            raise ValueError(f"access_networks: {len(self.access_networks)} given, expected 2")
        for number in _SPARE_ROUTERS:
            self._add_access_router(number)
        agents = parameters.get("agents", False)
        for number, (name, region) in enumerate(REGIONS.items(), start=_FIRST_CORE_LINK):
            configuration = self.anchor_point_configuration(name) if agents else None
            self.addHost(name, cls=HomeAgent, home_interface=REGIONAL_INTERFACE, home_prefix=str(region),
                         addresses={REGIONAL_INTERFACE: [f"{region[1]}/64"]},
                         agent_configuration=configuration)
            self._connect_to_core(name, CORE_PREFIXES[number], behind=region)

    def _add_access_router(self, number: int) -> None:
        super()._add_access_router(number)
        self.nodeInfo(f"ar{number}")["anchor_points"] = [
            f"{REGIONS[name][1]},2" for name, numbers in _DOMAINS.items() if number in numbers]

    def anchor_point_configuration(self, name: str, **more: object) -> dict:
        """The configuration of an anchor point's agent; `more` adds or replaces keys."""
        return {
            "role": "anchor-point", "name": name, "address": str(REGIONS[name][1]),
            "regional_interface": REGIONAL_INTERFACE, "regional_prefixes": [str(REGIONS[name])],
            # RFC 5380 section 8: the previous anchor point forwards into the neighbouring domain
            "local_prefixes": [str(access_prefix(number)) for number in range(1, 5)],
            "security_association": [{"spi": SPI + index, "key": MAP_KEY}
                                     for index in range(len(self.home_addresses))],
            "duplicate_address_detection": False, "max_lifetime_s": 420,
            "datapath": {"tunnel_backend": self.tunnel_backend}} | more

    def home_agent_configuration(self, **more: object) -> dict:
        """The configuration of the home agent's agent: as ever, with room for a second tunnel header."""
        datapath = {"tunnel_backend": self.tunnel_backend, "tunnel_mtu": TUNNEL_MTU}
        return super().home_agent_configuration(datapath=datapath) | more

    def mobile_node_configuration(self, name: str | None = None, preferred: str | None = None,
                                  flows: Iterable[Mapping] = (), **more: object) -> dict:
        """The configuration of a mobile node's agent; the parameters are those of MultihomeTopology."""
        index = list(self.home_addresses).index(name or self.mobile_name)
        hierarchy = {"hierarchical": True, "map_security": {"spi": SPI + index, "key": MAP_KEY},
                     "datapath": {"tunnel_backend": self.tunnel_backend}}
        return super().mobile_node_configuration(name, preferred, flows) | hierarchy | more

    def draw(self) -> str:
        """The network as text, with addresses and the parameters of the access links."""
        domains = ", ".join(f"{name} {region[1]} (ar{', ar'.join(map(str, _DOMAINS[name]))})"
                            for name, region in REGIONS.items())
        return f"{super().draw()} domains: {domains}; elsewhere: ar5\n"


topos = {"hierarchical": HierarchicalTopology}
