"""A multihomed mobile node, its home agent and a correspondent node, over any number of access networks.

Classes: `AccessNetwork`, `MultihomeTopology`. For Mininet's own command, too:
`mn --custom topologies/multihome.py --topo multihome`.

==========================  =========================================================================
2001:db8:300::/64           the correspondent node's link: core ::1, cn ::2
2001:db8:ff00::/64          core ::1, ha ::2
2001:db8:ff0N::/64          core ::1, access router arN ::2 (N in hexadecimal, added to ff00)
2001:db8:100::/64           the home link, bridge home0 in ha: ha ::1 (the home agent's address), hn ::2,
                            home addresses ::100, ::101, ...
2001:db8:200+N::/64         access network N, bridge lan0 in arN: arN ::1, mobile nodes by SLAAC
==========================  =========================================================================
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Network

from mininet.topo import Topo

from testbed.emulation.agent import home_agent_configuration, mobile_node_configuration
from testbed.emulation.link import LinkParameters, ShapedLink
from testbed.emulation.node import AccessRouter, CorrespondentNode, HomeAgent, MobileNode, Router
from testbed.emulation.node import Host as HomeNode
from testbed.emulation.security import METHODS, Security

MAX_ACCESS_NETWORKS = 254
MAX_MOBILE_NODES = 999
HOME_PREFIX = IPv6Network("2001:db8:100::/64")
HOME_AGENT = HOME_PREFIX[1]
HOME_INTERFACE = "home0"
#: From core to the home agent (0), to access router N (N).
CORE_PREFIXES = [IPv6Network((int(IPv6Address("2001:db8:ff00::")) + (number << 80), 64))
                 for number in range(MAX_ACCESS_NETWORKS + 1)]


def access_prefix(number: int) -> IPv6Network:
    """The prefix of access network `number`, counted from 1."""
    return IPv6Network((int(IPv6Address("2001:db8:200::")) + (number << 80), 64))


@dataclass(frozen=True, slots=True)
class AccessNetwork:
    """One access network; its parameters are those of each direction of a mobile node's access link.

    name: a letter, then at most 7 letters and digits. bandwidth_mbit in Mbit/s (None: not limited); delay_ms
    and jitter_ms one way, in ms; loss_percent 0 to 100; queue_packets. ValueError names what is wrong.
    """

    name: str
    bandwidth_mbit: float | None
    delay_ms: float
    jitter_ms: float = 0.0
    loss_percent: float = 0.0
    queue_packets: int = 100

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9]{0,7}", self.name):
            raise ValueError(f"name: {self.name!r} is not a lower-case letter with up to 7 letters or digits "
                             "behind it")
        try:
            self.parameters()
        except ValueError as error:
            raise ValueError(f"access network {self.name}: {error}") from None

    def parameters(self, seed: int | None = None) -> LinkParameters:
        """What its links do to packets."""
        return LinkParameters(self.bandwidth_mbit, self.delay_ms, self.jitter_ms, self.loss_percent,
                              self.queue_packets, seed)

    @classmethod
    def parse(cls, text: str) -> "AccessNetwork":
        """An access network from `NAME:MBIT:DELAY_MS[:JITTER_MS[:LOSS_PERCENT[:QUEUE_PACKETS]]]`."""
        name, *numbers = text.split(":")
        kinds = (float, float, float, float, int)
        if not 2 <= len(numbers) <= len(kinds):
            raise ValueError(f"access network {text!r}: expected "
                             "NAME:MBIT:DELAY_MS[:JITTER_MS[:LOSS_PERCENT[:QUEUE_PACKETS]]]")
        try:
            values = [kind(number) for kind, number in zip(kinds, numbers, strict=False)]
        except ValueError:
            raise ValueError(f"access network {text!r}: expected numbers behind the name "
                             "(MBIT:DELAY_MS[:JITTER_MS[:LOSS_PERCENT[:QUEUE_PACKETS]]])") from None
        return cls(name, *values)

    def __str__(self) -> str:
        rate = f"{self.bandwidth_mbit:g} Mbit/s" if self.bandwidth_mbit else "no rate limit"
        parts = [rate, f"{self.delay_ms:g} ms" + (f" +-{self.jitter_ms:g}" if self.jitter_ms else "")]
        return ", ".join(parts + ([f"{self.loss_percent:g} % loss"] if self.loss_percent else []))


DEFAULT_ACCESS_NETWORKS = (AccessNetwork("wlan", 50, 10), AccessNetwork("cellular", 20, 40))


class MultihomeTopology(Topo):
    """The network above.

    access_networks: two or more, as AccessNetwork or as one text `wlan:50:10+cellular:20:40` (see
    AccessNetwork.parse); mobile_nodes: how many ("mn", "mn2", "mn3", ...), each with an interface in every
    access network; link_backend: how the access links get their parameters; tunnel_backend: of the agents;
    agents: start them with the network, without flow bindings; seed: of the access links' loss and jitter;
    home_advertisements: Router Advertisements on the home link, for mobile nodes that are to come there;
    security: what protects the messages between mobile nodes and home agent, "mobility-options" (RFC 4285) or
    "ipsec" (RFC 3776, where the kernel has it).

    Raises ValueError that names the parameter.
    """

    #: Names of mobile nodes: this, then with 2, 3, ... behind it.
    mobile_name = "mn"

    def build(self, access_networks: Iterable[AccessNetwork] | str = DEFAULT_ACCESS_NETWORKS,
              mobile_nodes: int = 1, link_backend: str = "auto", tunnel_backend: str = "auto",
              agents: bool = False, seed: int | None = None, home_advertisements: bool = False,
              security: str = METHODS[0]) -> None:
        if isinstance(access_networks, str):
            access_networks = [AccessNetwork.parse(text) for text in access_networks.split("+")]
        self.access_networks = tuple(access_networks)
        self.tunnel_backend = tunnel_backend
        self.security = Security(security)
        names = [network.name for network in self.access_networks]
        if not 2 <= len(names) <= MAX_ACCESS_NETWORKS:
            raise ValueError(f"access_networks: {len(names)} given, expected 2 to {MAX_ACCESS_NETWORKS}")
        if len(set(names)) < len(names):
            raise ValueError(f"access_networks: a name stands twice in {', '.join(names)}")
        if isinstance(mobile_nodes, bool) or not isinstance(mobile_nodes, int) \
                or not 1 <= mobile_nodes <= MAX_MOBILE_NODES:
            raise ValueError(f"mobile_nodes: {mobile_nodes!r} is not a whole number from 1 to "
                             f"{MAX_MOBILE_NODES}")

        #: Names of mobile nodes with their home addresses.
        self.home_addresses = {f"{self.mobile_name}{number if number > 1 else ''}": HOME_PREFIX[0xFF + number]
                               for number in range(1, mobile_nodes + 1)}
        self.host_names = {"cn": "2001:db8:300::2", "core": "2001:db8:300::1", "ha": str(HOME_AGENT),
                           "hn": str(HOME_PREFIX[2])}
        for number in range(1, len(names) + 1):
            self.host_names[f"ar{number}"] = str(access_prefix(number)[1])
        self.host_names |= {name: str(address) for name, address in self.home_addresses.items()}
        self.addHost("core", cls=Router, addresses={}, routes=[])
        self._add_correspondent_node(agents)
        self._add_home_network(agents, home_advertisements)
        for number in range(1, len(names) + 1):
            self._add_access_router(number)
        for index, name in enumerate(self.home_addresses):
            self._add_mobile_node(name, agents)
            for number, network in enumerate(self.access_networks, start=1):
                self.addLink(
                    name, f"ar{number}", cls=ShapedLink, intfName1=f"{name}-{network.name}",
                    intfName2=f"{network.name}-{name}", params2={"bridge": AccessRouter.bridge},
                    backend=link_backend, parameters=network.parameters(
                        None if seed is None else seed + index * len(names) + number))

    def addHost(self, name: str, **options) -> str:
        return super().addHost(name, host_names=self.host_names, **options)

    def _add_correspondent_node(self, agents: bool) -> None:
        configuration = {"role": "correspondent-node", "name": "cn"} if agents else None
        self.addHost("cn", cls=CorrespondentNode, agent_configuration=configuration)
        self._connect_to_core("cn", IPv6Network("2001:db8:300::/64"))

    def _add_home_network(self, agents: bool, advertise: bool) -> None:
        self.addHost("ha", cls=HomeAgent, home_interface=HOME_INTERFACE, home_prefix=str(HOME_PREFIX),
                     advertise=advertise,
                     addresses={HOME_INTERFACE: [f"{HOME_AGENT}/64"]},
                     agent_configuration=self.home_agent_configuration() if agents else None)
        self._connect_to_core("ha", CORE_PREFIXES[0], behind=HOME_PREFIX)
        self.addHost("hn", cls=HomeNode, addresses={"hn-ha": [f"{HOME_PREFIX[2]}/64"]},
                     routes=[("default", str(HOME_AGENT))])
        self.addLink("hn", "ha", cls=ShapedLink, intfName1="hn-ha", intfName2="ha-hn",
                     params2={"bridge": HOME_INTERFACE})

    def _add_access_router(self, number: int) -> None:
        prefix = access_prefix(number)
        self.addHost(f"ar{number}", cls=AccessRouter, prefix=str(prefix),
                     addresses={AccessRouter.bridge: [f"{prefix[1]}/64"]})
        self._connect_to_core(f"ar{number}", CORE_PREFIXES[number], behind=prefix)

    def _add_mobile_node(self, name: str, agents: bool) -> None:
        self.addHost(name, cls=MobileNode, home_address=str(self.home_addresses[name]),
                     access_interfaces=[f"{name}-{network.name}" for network in self.access_networks],
                     agent_configuration=self.mobile_node_configuration(name) if agents else None)

    def _connect_to_core(self, name: str, prefix: IPv6Network, behind: IPv6Network | None = None) -> None:
        """A link between a node (::2) and core (::1), and the routes: all to core, `behind` to the node."""
        self.addLink(name, "core", cls=ShapedLink, intfName1=f"{name}-core", intfName2=f"core-{name}")
        node, core = self.nodeInfo(name), self.nodeInfo("core")
        node["addresses"] = {f"{name}-core": [f"{prefix[2]}/64"]} | node.get("addresses", {})
        node["routes"] = [("default", str(prefix[1]))]
        core["addresses"][f"core-{name}"] = [f"{prefix[1]}/64"]
        if behind:
            core["routes"].append((str(behind), str(prefix[2])))

    def home_agent_configuration(self, **more: object) -> dict:
        """The configuration of the home agent's agent; `more` adds or replaces keys."""
        return home_agent_configuration("ha", HOME_AGENT, HOME_INTERFACE, [HOME_PREFIX],
                                        self.security.of_home_agent(self.home_addresses),
                                        tunnel_backend=self.tunnel_backend) | more

    def mobile_node_configuration(self, name: str | None = None, preferred: str | None = None,
                                  flows: Iterable[Mapping] = (), **more: object) -> dict:
        """The configuration of a mobile node's agent.

        BIDs are the numbers of the access networks, from 1. `preferred` names the access network of the
        default binding (else the last); `flows` are flow bindings; `more` adds or replaces keys.
        """
        name = name or self.mobile_name
        names = [network.name for network in self.access_networks]
        if preferred is not None and preferred not in names:
            raise ValueError(f"preferred: there is no access network {preferred!r} among {', '.join(names)}")
        interfaces = [{"name": f"{name}-{network}", "bid": bid,
                       "priority": 10 if network == (preferred or names[-1]) else 20}
                      for bid, network in enumerate(names, start=1)]
        return mobile_node_configuration(name, self.home_addresses[name], HOME_AGENT, interfaces,
                                         self.security.of_mobile_node(name), flows,
                                         tunnel_backend=self.tunnel_backend) | more

    def draw(self) -> str:
        """The network as text, with addresses and the parameters of the access links."""
        count, (first, last) = len(self.home_addresses), (min(self.home_addresses.values()),
                                                          max(self.home_addresses.values()))
        name = self.mobile_name
        mobile = (f"{name}  home address {first}" if count == 1 else
                  f"{name} ... {name}{count}  home addresses {first} to {last}")
        rows = [(f" +-- ar{number} -- lan0 {access_prefix(number)} --[ {network} ]",
                 f" {name}-{network.name} ")
                for number, network in enumerate(self.access_networks, start=1)]
        left, right = max(len(row[0]) for row in rows), max(len(row[1]) for row in rows)
        lines = [f" cn  2001:db8:300::2{'correspondent node':>25}", " |",
                 f" core ---- ha  {HOME_AGENT} ---- home0 {HOME_PREFIX} ---- hn  {HOME_PREFIX[2]}", " |"]
        for index, (network, interface) in enumerate(rows):
            middle = index == len(rows) - 1
            if index:
                lines.append(f" |{'|':>{left + right + 5}}")
            lines.append(f"{network:-<{left + 2}}{interface:-<{right + 2}}+" + f"-- {mobile}" * middle)
        return "\n".join(lines) + "\n"


topos = {"multihome": MultihomeTopology}
