"""The multihomed network with OpenFlow switches in the core and in each access network.

Class: `SdnTopology`. Start it in a `testbed.emulation.switched_network.SwitchedNetwork`, or by
`mn --custom topologies/sdn.py --topo sdn,agents=True --controller flowbind`.

Addresses, hosts and links are those of `topologies.multihome`, but:

- s0 stands between the correspondent node and core;
- s1, s2, ... are the access networks: ports of mobile nodes, and of their access router;
- s0 and each of these are linked. Nothing goes there by itself (each link has a VLAN of its own at s0): only
  what a controller's rules steer.

An access network's switch filters what mobile nodes send by source address (RFC 2827): only addresses of the
access network get through, unless a controller's rule lets a flow pass.
"""

from collections.abc import Iterable

from testbed.emulation.controller import FlowBindingController
from testbed.emulation.link import ShapedLink
from testbed.emulation.node import AccessRouter, MobileNode
from testbed.emulation.openvswitch import OpenVSwitch
from testbed.isolation import PRIVATE_DIRECTORY
from topologies.multihome import DEFAULT_ACCESS_NETWORKS, AccessNetwork, MultihomeTopology, access_prefix

CORE_SWITCH = "s0"
#: Datapath number of s0; that of sN is this + N.
CORE_DATAPATH = 1
#: VLAN at s0 of the link to sN: this + N.
FIRST_VLAN = 100
EDGE_PORT = f"{CORE_SWITCH}-cn"


class SdnTopology(MultihomeTopology):
    """The network above. Parameters are those of MultihomeTopology."""

    def build(
        self,
        access_networks: Iterable[AccessNetwork] | str = DEFAULT_ACCESS_NETWORKS,
        **parameters: object,
    ) -> None:
        if isinstance(access_networks, str):
            access_networks = [AccessNetwork.parse(text) for text in access_networks.split("+")]
        access_networks = tuple(access_networks)
        numbers = range(1, len(access_networks) + 1)
        vlans = {f"{CORE_SWITCH}-s{number}": FIRST_VLAN + number for number in numbers}
        self.addSwitch(CORE_SWITCH, cls=OpenVSwitch, dpid=f"{CORE_DATAPATH:016x}", vlans=vlans)
        super().build(access_networks, **parameters)

    def addLink(self, node1: str, node2: str, **options) -> object:
        if {node1, node2} == {"cn", "core"}:
            super().addLink(
                "core", CORE_SWITCH, cls=ShapedLink, intfName1="core-cn", intfName2=f"{CORE_SWITCH}-core"
            )
            return super().addLink(
                "cn", CORE_SWITCH, cls=ShapedLink, intfName1="cn-core", intfName2=EDGE_PORT
            )
        if issubclass(self.nodeInfo(node1)["cls"], MobileNode):
            options.pop("params2", None)  # it is a port of the switch, not of the access router's bridge
            node2 = f"s{node2.removeprefix('ar')}"
        return super().addLink(node1, node2, **options)

    def _add_access_router(self, number: int) -> None:
        super()._add_access_router(number)
        router, switch = f"ar{number}", f"s{number}"
        self.addSwitch(
            switch,
            cls=OpenVSwitch,
            dpid=f"{CORE_DATAPATH + number:016x}",
            base_rules=self._base_rules(number),
        )
        super().addLink(
            router,
            switch,
            cls=ShapedLink,
            intfName1=f"{router}-lan",
            intfName2=f"{switch}-{router}",
            params1={"bridge": AccessRouter.bridge},
        )
        super().addLink(
            CORE_SWITCH,
            switch,
            cls=ShapedLink,
            intfName1=f"{CORE_SWITCH}-{switch}",
            intfName2=f"{switch}-{CORE_SWITCH}",
        )

    def _base_rules(self, number: int) -> list[str]:
        """Source address filtering: from the network all, from mobile nodes what belongs to the access
        network."""
        own = [str(access_prefix(number)), "fe80::/10", "::/128"]
        return [
            *(f"priority=30,in_port={port},actions=NORMAL" for port in self.network_ports(number)),
            *(f"priority=20,ipv6,ipv6_src={prefix},actions=NORMAL" for prefix in own),
            "priority=10,ipv6,actions=drop",
            "priority=0,actions=NORMAL",
        ]

    def mobile_node_configuration(self, *arguments: object, **more: object) -> dict:
        """As in the multihomed network, but the mobile node answers without a tunnel where packets come
        without one; it takes a controller to make them come so."""
        configuration = super().mobile_node_configuration(*arguments, **more)
        return configuration | {"datapath": {"native_uplink": True} | configuration["datapath"]}

    @staticmethod
    def network_ports(number: int) -> list[str]:
        """Ports of sN that do not lead to mobile nodes."""
        return [f"s{number}-ar{number}", f"s{number}-{CORE_SWITCH}"]

    def fabric(self, feeds: Iterable[str], **more: object) -> dict:
        """The description of the switches for a FlowBindingController; `feeds`: agents' control sockets;
        `more` adds keys."""
        return {
            "core": CORE_DATAPATH,
            "edge_ports": [EDGE_PORT],
            "feeds": list(feeds),
            **more,
            "access": [
                {
                    "name": network.name,
                    "prefix": str(access_prefix(number)),
                    "switch": CORE_DATAPATH + number,
                    "core_port": f"{CORE_SWITCH}-s{number}",
                    "network_ports": self.network_ports(number),
                }
                for number, network in enumerate(self.access_networks, start=1)
            ],
        }


def _controller(name: str, **parameters: object) -> FlowBindingController:
    """For `mn`: a controller for this topology with its default access networks."""
    fabric = SdnTopology().fabric([f"{PRIVATE_DIRECTORY}/ha.sock"])
    return FlowBindingController(name, fabric=fabric, **parameters)


topos = {"sdn": SdnTopology}
controllers = {"flowbind": _controller}
