"""A network in memory for protocol roles: delays, losses, duplicates, a clock that only the test moves.

Every message passes the real codec, as octets.
"""

import heapq
import itertools
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv6Address, IPv6Network

from testbed.mobility.authentication import SecurityAssociation
from testbed.mobility.correspondent_node import CorrespondentNode, CorrespondentNodeConfiguration
from testbed.mobility.forwarding import RouteOptimisation
from testbed.mobility.home_agent import HomeAgent, HomeAgentConfiguration
from testbed.mobility.mobile_node import MobileNode
from testbed.mobility.mobile_node_configuration import InterfaceConfiguration, MobileNodeConfiguration
from testbed.mobility.policy import Policy
from testbed.mobility.role import Event, Role
from testbed.wire.codec import Codec
from testbed.wire.packet import Packet, build_packet, parse_packet

HOME_AGENT = IPv6Address("2001:db8:100::1")
HOME_ADDRESS = IPv6Address("2001:db8:100::100")
CORRESPONDENT = IPv6Address("2001:db8:300::2")
HOME_PREFIX = IPv6Network("2001:db8:100::/64")
WLAN, CELLULAR = IPv6Address("2001:db8:201::a"), IPv6Address("2001:db8:202::a")
ROUTER = IPv6Address("fe80::1")
#: Link-layer address of the interface "wlan".
HARDWARE = bytes.fromhex("020000000001")
INTERFACES = (InterfaceConfiguration("wlan", 1, 20), InterfaceConfiguration("cellular", 2, 10))

KEY = SecurityAssociation(1000, bytes(range(16)))


class Simulation:
    """Carries the transmissions of roles to each other. `fate(packet)` gives the delays, in seconds, after
    which copies of a packet arrive: `[0.01]` is a good network, `[]` loses it, two values duplicate it."""

    def __init__(
        self, fate: Callable[[Packet], list[float]] = lambda packet: [0.01], dialect: str = "draft"
    ) -> None:
        self.now = 1000.0
        self.fate = fate
        self.codec = Codec(dialect)
        #: Whether all packets come by IPsec.
        self.protecting = False
        #: Of roles that have another one.
        self.codecs: dict[str, Codec] = {}
        self.roles: dict[str, Role] = {}
        self.addresses: dict[IPv6Address, str] = {}
        self.history: list[tuple[float, str, Event]] = []
        self.packets: list[Packet] = []
        self.failing: set[str] = set()
        self.cut: set[IPv6Address] = set()
        self.optimised: dict[tuple, RouteOptimisation | None] = {}
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()

    def add(self, name: str, role: Role, *addresses: IPv6Address) -> None:
        self.roles[name] = role
        self.addresses.update(dict.fromkeys(addresses, name))

    def settle(self) -> None:
        """Do for each role what its agent would."""
        for name, role in self.roles.items():
            first, self_changes = role.transmissions(), role.changes()
            changed = role.optimisation_changes()
            self.optimised.update({(name, *pair): wanted for pair, wanted in changed.items()})
            self_changes.update({pair[0]: None for pair in changed})
            if name in self.failing:
                role.hold(t for t in first if t.after_datapath)
                for home_address in self_changes:
                    role.datapath_failed(home_address, "no room", self.now)
                first = [t for t in first if not t.after_datapath] + role.transmissions()
            for transmission in first:
                self._fly(transmission.packet)
            self.history.extend((self.now, name, event) for event in role.events())

    def run(self, seconds: float) -> None:
        """Let time pass."""
        end = self.now + seconds
        self.settle()
        while True:
            timers = [(role.timer(), name) for name, role in self.roles.items() if role.timer() is not None]
            planned = self._agenda[0][0] if self._agenda else float("inf")
            timer, name = min(timers, default=(float("inf"), ""))
            if min(planned, timer) > end:
                break
            self.now = max(self.now, min(planned, timer))
            if planned <= timer:
                heapq.heappop(self._agenda)[2]()
            else:
                self.expire(name)
            self.settle()
        self.now = end

    def expire(self, name: str) -> None:
        """A role's timer is due."""
        self.roles[name].handle_timer(self.now)

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        """Have something happen when this time is over."""
        heapq.heappush(self._agenda, (self.now + seconds, next(self._count), action))

    def deliver(self, name: str, octets: bytes) -> None:
        """A packet arrives at a role, if that is there."""
        if name in self.roles:
            packet = parse_packet(octets, self.codecs.get(name, self.codec))
            if self.protecting:
                packet = replace(packet, protected=True)
            self.roles[name].receive(packet, "eth0", self.now)

    def _fly(self, packet: Packet) -> None:
        self.packets.append(packet)
        name = self.addresses.get(self._through_tunnel(packet.destination))
        if name is None or (packet.source in self.cut or packet.destination in self.cut):
            return
        octets = build_packet(packet, self.codecs.get(self.addresses.get(packet.source), self.codec))
        for delay in self.fate(packet):
            self.later(delay, lambda: self.deliver(name, octets))

    def _through_tunnel(self, destination: IPv6Address) -> IPv6Address:
        """Where the home agent that intercepts packets to `destination` tunnels them, if there is one."""
        for role in self.roles.values():
            wanted = role.home_binding(destination) if isinstance(role, HomeAgent) else None
            if wanted is not None and destination not in self.addresses:
                return next(path.remote for path in wanted.paths if path.bid == wanted.default_bid)
        return destination

    def events(self, name: str) -> list[dict]:
        return [event.fields for _, _, event in self.history if event.name == name]


def pair(
    fate: Callable[[Packet], list[float]] = lambda packet: [0.01],
    *,
    lifetime_s: int = 60,
    key: SecurityAssociation | None = KEY,
    dialect: str = "draft",
    returning_home: str = "complete",
    **home_agent: object,
) -> tuple[Simulation, MobileNode, HomeAgent]:
    """A mobile node, not attached yet, and its home agent. Without `key` nothing is authenticated."""
    simulation = Simulation(fate, dialect)
    security = {"associations": {HOME_ADDRESS: key}} if key else {"accept_unauthenticated": True}
    home_agent = {**security, "dialect": dialect, **home_agent}
    configuration = HomeAgentConfiguration(HOME_AGENT, (HOME_PREFIX,), **home_agent)
    agent = HomeAgent(configuration, simulation.now)
    node = MobileNode(
        MobileNodeConfiguration(
            HOME_ADDRESS,
            HOME_AGENT,
            INTERFACES,
            lifetime_s,
            association=key,
            dialect=dialect,
            returning_home=returning_home,
        ),
        simulation.now,
        sequence=65530,
        link_layer_address={"wlan": HARDWARE, "cellular": b""}.__getitem__,
    )
    simulation.add("ha", agent, HOME_AGENT)
    simulation.add("mn", node, WLAN, CELLULAR)
    return simulation, node, agent


def attached_pair(*arguments: object, **keywords: object) -> tuple[Simulation, MobileNode, HomeAgent]:
    """The same, both interfaces attached and registered."""
    simulation, node, agent = pair(*arguments, **keywords)
    node.attach("wlan", WLAN, ROUTER, simulation.now)
    node.attach("cellular", CELLULAR, ROUTER, simulation.now)
    simulation.run(1)
    return simulation, node, agent


def trio(
    fate: Callable[[Packet], list[float]] = lambda packet: [0.01],
    *,
    policy: Policy | None = None,
    **keywords: object,
) -> tuple[Simulation, MobileNode, CorrespondentNode]:
    """A mobile node with both interfaces registered, its home agent, and a correspondent node."""
    simulation, node, _ = attached_pair(fate, **keywords)
    configuration = CorrespondentNodeConfiguration(
        policy=policy or Policy(), dialect=simulation.roles["ha"].configuration.dialect
    )
    correspondent = CorrespondentNode(configuration, simulation.now)
    simulation.add("cn", correspondent, CORRESPONDENT)
    return simulation, node, correspondent


def as_received(packet: Packet) -> Packet:
    """What a receiver makes of a packet: with its octets, which authenticators are verified over."""
    return parse_packet(build_packet(packet, Codec()), Codec())


def agree(node: MobileNode, agent: HomeAgent) -> None:
    """The mobile node's list and the home agent's cache say the same."""
    entry = agent.cache.get(HOME_ADDRESS)
    registration = node.registration
    listed = {b.bid: b.registered for b in registration.bindings.values() if b.registered}
    assert listed == ({b.bid: b.care_of_address for b in entry.bindings.values()} if entry else {})
    flows = {fid: item.registered for fid, item in registration.flows.items() if item.registered}
    assert flows == (entry.flows if entry else {})
