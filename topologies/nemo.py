"""A multihomed mobile router with a mobile network behind it (RFC 3963), else as topologies/multihome.py.

Class: `NemoTopology`. For Mininet's own command, too: `mn --custom topologies/nemo.py --topo nemo`.

==========================  =========================================================================
2001:db8:1000::/64          the mobile network, bridge lan0 in mr: mr ::1, its nodes mnn, mnn2, ... by SLAAC
2001:db8:100::/64           the home link, as ever: mr's home address is ::100
==========================  =========================================================================

The nodes of the mobile network know nothing of mobility. core routes the mobile network's prefix to ha.
"""

from collections.abc import Iterable, Mapping
from ipaddress import IPv6Network

from testbed.emulation.link import ShapedLink
from testbed.emulation.node import Host, MobileRouter
from topologies.multihome import CORE_PREFIXES, MultihomeTopology

MOBILE_NETWORK = IPv6Network("2001:db8:1000::/64")
MAX_NODES = 99


class NemoTopology(MultihomeTopology):
    """The network above.

    nodes: how many there are in the mobile network ("mnn", "mnn2", ...); mode: whether the mobile router
    names its prefix ("explicit") or the home agent knows it ("implicit"); the rest as for MultihomeTopology.

    Raises ValueError that names the parameter.
    """

    mobile_name = "mr"

    def build(self, *arguments, nodes: int = 1, mode: str = "explicit", **parameters) -> None:
        if isinstance(nodes, bool) or not isinstance(nodes, int) or not 1 <= nodes <= MAX_NODES:
            raise ValueError(f"nodes: {nodes!r} is not a whole number from 1 to {MAX_NODES}")
        if mode not in ("explicit", "implicit"):
            raise ValueError(f"mode: {mode!r} is neither explicit nor implicit")
        if parameters.get("mobile_nodes", 1) != 1:
            raise ValueError("mobile_nodes: there is one mobile router")
        self.mode = mode
        super().build(*arguments, **parameters)
        self.nodeInfo("core")["routes"].append((str(MOBILE_NETWORK), str(CORE_PREFIXES[0][2])))
        #: Names of the nodes of the mobile network.
        self.mobile_network_nodes = [f"mnn{number if number > 1 else ''}" for number in range(1, nodes + 1)]
        for name in self.mobile_network_nodes:
            self.addHost(name, cls=Host)
            self.addLink(name, self.mobile_name, cls=ShapedLink, intfName1=f"{name}-mr",
                         intfName2=f"mr-{name}", params2={"bridge": MobileRouter.bridge})

    def _add_mobile_node(self, name: str, agents: bool) -> None:
        self.addHost(name, cls=MobileRouter, home_address=str(self.home_addresses[name]),
                     prefix=str(MOBILE_NETWORK),
                     addresses={MobileRouter.bridge: [f"{MOBILE_NETWORK[1]}/64"]},
                     access_interfaces=[f"{name}-{network.name}" for network in self.access_networks],
                     agent_configuration=self.mobile_node_configuration(name) if agents else None)

    def home_agent_configuration(self, **more: object) -> dict:
        """The configuration of the home agent's agent, with the prefix table; `more` changes keys."""
        table = [{"home_address": str(self.home_addresses[self.mobile_name]),
                  "prefixes": [str(MOBILE_NETWORK)]}]
        return super().home_agent_configuration(mobile_router=table) | more

    def mobile_node_configuration(self, name: str | None = None, preferred: str | None = None,
                                  flows: Iterable[Mapping] = (), **more: object) -> dict:
        """The configuration of the mobile router's agent; the parameters are those of MultihomeTopology."""
        network = {"prefixes": [str(MOBILE_NETWORK)], "interfaces": [MobileRouter.bridge], "mode": self.mode}
        return super().mobile_node_configuration(name, preferred, flows, mobile_network=network) | more

    def draw(self) -> str:
        """The network as text, with addresses and the parameters of the access links."""
        nodes = ", ".join(self.mobile_network_nodes)
        return f"{super().draw()}{'':>3}behind mr: lan0 {MOBILE_NETWORK} ---- {nodes}\n"


topos = {"nemo": NemoTopology}
