"""A world for the random walk: all roles, networks that mobile nodes roam, tunnels, kernels that may fail.

Classes: `World`, `Station`, `Turn`. Functions: `registrar`, `mobile`.
"""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv6Address, IPv6Network

from simulation import CORRESPONDENT, HOME_AGENT, HOME_PREFIX, INTERFACES, ROUTER, Simulation

from testbed.mobility.anchor_point import AnchorPoint, AnchorPointConfiguration
from testbed.mobility.authentication import SecurityAssociation
from testbed.mobility.binding import FlowBinding
from testbed.mobility.binding_cache import CacheEntry
from testbed.mobility.correspondent_node import (
    ANY_OF_OURS,
    CorrespondentNode,
    CorrespondentNodeConfiguration,
)
from testbed.mobility.forwarding import HomeBinding, Pair, RouteOptimisation
from testbed.mobility.hierarchical_node import HierarchicalMobileNode
from testbed.mobility.home_agent import HomeAgent, HomeAgentConfiguration
from testbed.mobility.mobile_correspondent import MobileCorrespondent
from testbed.mobility.mobile_node import MobileNode
from testbed.mobility.mobile_node_configuration import MobileNodeConfiguration
from testbed.mobility.policy import Policy
from testbed.mobility.registrar import Registrar
from testbed.mobility.role import Role
from testbed.wire.message import BindingUpdate, CareOfTest, HomeTest
from testbed.wire.packet import Packet, build_packet, parse_packet
from testbed.wire.router_advertisement import INFINITE_S, MobilityAnchorPoint

ANCHORS = {"map1": IPv6Address("2001:db8:500::1"), "map2": IPv6Address("2001:db8:600::1")}
#: Where interfaces can be: which anchor point routers there advertise.
PLACES = {"north": "map1", "north2": "map1", "south": "map2", "wild": None, "home": None}
MOBILE_PREFIX = IPv6Network("2001:db8:1000::/64")
#: Mobile nodes that are correspondent nodes of others.
MOBILE_CORRESPONDENTS = ("mn1", "mn2")
LIFETIME_S = 40
DETECTION_S = 1.0


@dataclass
class Station:
    """A mobile node: its role, where its interfaces are, what its user has asked for.

    `wished`: the flow bindings asked for, by FID; `doubtful`: FIDs of which something was refused.
    """

    name: str
    number: int
    role: MobileNode
    make: Callable[[], Role]
    places: dict[str, str] = field(default_factory=dict)
    wished: dict[int, FlowBinding] = field(default_factory=dict)
    doubtful: set[int] = field(default_factory=set)

    @property
    def home_address(self) -> IPv6Address:
        return self.role.configuration.home_address

    def address(self, interface: str, place: str) -> IPv6Address:
        """The care-of address that an interface gets somewhere."""
        index = [each.name for each in INTERFACES].index(interface)
        if place == "home":
            return HOME_PREFIX[0xA000 + 16 * self.number + index]
        number = list(PLACES).index(place)
        return IPv6Address(f"2001:db8:{0x200 + 16 * number + index:x}::{self.number + 1:x}")


@dataclass
class Turn:
    """What happens to one role at once: what arrived, and what the role had before."""

    name: str
    packet: Packet | None = None
    before: dict[IPv6Address, CacheEntry] = field(default_factory=dict)


def registrar(role: Role) -> Registrar | None:
    """The part of a role that Binding Updates are for, None if it has none."""
    if isinstance(role, MobileCorrespondent):
        return role.correspondent
    return role if isinstance(role, Registrar) else None


def mobile(role: Role) -> MobileNode | None:
    """The part of a role that is a mobile node, None if it has none."""
    if isinstance(role, MobileCorrespondent):
        return role.mobile
    return role if isinstance(role, MobileNode) else None


class World(Simulation):
    """Three mobile nodes (an ordinary and a hierarchical one, which are correspondent nodes, too; a mobile
    router), a home agent, two anchor points and a correspondent node. `observe(what, *arguments)` is told of
    everything worth a look."""

    def __init__(
        self,
        dialect: str = "draft",
        policy: Policy | None = None,
        flow_updates: str = "together",
        detection: bool = False,
        observe: Callable[..., None] = lambda *arguments: None,
    ) -> None:
        super().__init__(self._fate, dialect)
        self.dialect = dialect
        self.observe = observe
        self.random = random.Random(1)
        self.loss = self.duplication = 0.0
        #: The forwarding state in each role's kernel.
        self.applied: dict[str, dict[IPv6Address, HomeBinding]] = {}
        self.routes: dict[str, dict[Pair, RouteOptimisation]] = {}
        #: Roles that may want something since nobody has looked.
        self._untold: set[str] = set()
        #: What a kernel that failed has not been brought to.
        self.behind: dict[str, set] = {}
        self.silent: set[str] = set()
        self.turn = Turn("")
        #: Binding Updates by receiver, home address and sequence number, as they arrived.
        self.asked: dict[tuple[str, IPv6Address, int], Packet] = {}
        #: The octets of those that were processed, and when.
        self.processed: list[tuple[float, str, bytes]] = []
        #: When a Care-of Test of which correspondent node reached which mobile node at which address.
        self.tested: dict[tuple[str, str, IPv6Address], float] = {}
        #: The first Care-of Test of each nonce, by correspondent node, mobile node, address and nonce index;
        #: the Home Tests in the same way.
        self.given: dict[tuple[str, str, IPv6Address, int], tuple[float, CareOfTest]] = {}
        self.given_home: dict[tuple[str, str, int], HomeTest] = {}
        #: When a role lost its memory.
        self.forgot: dict[str, float] = {}
        policy = policy or Policy()
        self._make: dict[str, Callable[[], Role]] = self._receivers(policy, detection)
        self.own = {"ha": HOME_AGENT, "cn": CORRESPONDENT, **ANCHORS}
        for name, make in self._make.items():
            self._start(name, make())
        self.stations = {
            station.name: station
            for station in (
                self._station("mn1", 0, MobileNode, flow_updates=flow_updates),
                self._station("mn2", 1, HierarchicalMobileNode),
                self._station("mr", 2, MobileNode, prefixes=(MOBILE_PREFIX,)),
            )
        }

    @property
    def receivers(self) -> dict[str, IPv6Address]:
        """Whom Binding Updates are sent to, and where."""
        return self.own | {name: self.stations[name].home_address for name in MOBILE_CORRESPONDENTS}

    def _receivers(self, policy: Policy, detection: bool) -> dict[str, Callable[[], Role]]:
        homes = [HOME_PREFIX[0x100 + number] for number in range(3)]
        keys = [SecurityAssociation(1000 + number, bytes([number] * 16)) for number in range(3)]
        common = {"policy": policy, "dialect": self.dialect, "duplicate_address_detection": detection}
        home_agent = HomeAgentConfiguration(
            HOME_AGENT,
            (HOME_PREFIX,),
            prefix_table={homes[2]: (MOBILE_PREFIX,)},
            associations=dict(zip(homes, keys, strict=True)),
            **common,
        )
        anchors = {
            name: AnchorPointConfiguration(
                address, (IPv6Network((address, 64), strict=False),), keys=tuple(keys), **common
            )
            for name, address in ANCHORS.items()
        }
        correspondent = CorrespondentNodeConfiguration(policy=policy, dialect=self.dialect)
        return {
            "ha": lambda: HomeAgent(home_agent, self.now),
            **{
                name: (lambda configuration=each: AnchorPoint(configuration, self.now))
                for name, each in anchors.items()
            },
            "cn": lambda: CorrespondentNode(correspondent, self.now, random=self.random.randbytes),
        }

    def _station(self, name: str, number: int, role: type[MobileNode], **more: object) -> Station:
        key = SecurityAssociation(1000 + number, bytes([number] * 16))
        configuration = MobileNodeConfiguration(
            HOME_PREFIX[0x100 + number],
            HOME_AGENT,
            INTERFACES,
            LIFETIME_S,
            association=key,
            dialect=self.dialect,
            **more,
        )
        keys = {"local_association": key} if role is HierarchicalMobileNode else {}

        def make() -> Role:
            node = role(configuration, self.now, random=self.random.randbytes, **keys)
            return MobileCorrespondent(node, self._make["cn"]()) if name in MOBILE_CORRESPONDENTS else node

        made = make()
        self._start(name, made)
        return Station(name, number, mobile(made), make)

    def _start(self, name: str, role: Role) -> None:
        """Its kernel is brought to what it wants."""
        self.add(name, role, *([self.own[name]] if name in self.own else []))
        self._untold.add(name)
        role.changes(), role.optimisation_changes()
        self.applied[name], self.routes[name] = role.forwarding(), role.optimisations()

    def move(self, station: Station, interface: str, place: str | None) -> None:
        """An interface comes to another place, or to none."""
        station.places.pop(interface, None)
        if place is not None:
            station.places[interface] = place
        held = {station.address(*each): station.name for each in station.places.items()}
        if "home" in station.places.values():
            held[station.home_address] = station.name
        others = {a: name for a, name in self.addresses.items() if name != station.name}
        self.addresses = others | held
        if station.name not in self.roles:
            return  # it is down: it will find out
        if place is None:
            station.role.detach(interface, self.now)
            return
        if isinstance(station.role, HierarchicalMobileNode):
            anchor = PLACES[place]
            options = []
            if anchor:  # routers repeat it
                options = [MobilityAnchorPoint(ANCHORS[anchor], 2, valid_lifetime_s=INFINITE_S)]
            station.role.anchors_advertised(interface, options, self.now)
        station.role.attach(interface, station.address(interface, place), ROUTER, self.now)

    def restart(self, name: str, with_memory: bool, seconds: float) -> None:
        """A role ends, as if it was killed, and comes back; its kernel stays as it is meanwhile."""
        saved = json.dumps(self.roles[name].snapshot(self.now)) if with_memory else None
        saved_at = self.now
        station = self.stations.get(name)
        gone = self.roles.pop(name)
        make = station.make if station else self._make[name]

        def back() -> None:
            role = make()
            if saved is not None:
                role.restore(json.loads(saved), saved_at, self.now)
            else:
                self.forgot[name] = self.now
            self.observe("restarted", name, gone, role, saved is not None)
            self._start(name, role)
            if station is not None:
                station.role = mobile(role)
                for interface, place in list(station.places.items()):
                    self.move(station, interface, place)

        self.later(seconds, back)

    def run(self, seconds: float) -> None:
        self._untold = set(self.roles)
        super().run(seconds)

    def settle(self) -> None:
        names, self._untold = sorted(self._untold), set()
        for name in names:
            if name in self.roles:
                self._turn(name)

    def expire(self, name: str) -> None:
        self._begin(name, None)
        super().expire(name)
        self._turn(name)

    def deliver(self, name: str, octets: bytes) -> None:
        role = self.roles.get(name)
        if role is None or name in self.silent:
            return
        packet = parse_packet(octets, self.codec)
        self._begin(name, packet)
        if isinstance(packet.message, BindingUpdate) and registrar(role) is not None:
            home_address = packet.home_address or packet.source
            self.asked[name, home_address, packet.message.sequence] = packet
            self.processed.append((self.now, name, octets))
        if isinstance(packet.message, CareOfTest | HomeTest):
            tester = next(each for each, own in self.receivers.items() if own == packet.source)
            self._given(tester, name, packet)
        role.receive(packet, "eth0", self.now)
        self._turn(name)

    def _given(self, tester: str, name: str, packet: Packet) -> None:
        message, address = packet.message, packet.destination
        if isinstance(message, HomeTest):
            self.given_home[tester, name, message.home_nonce_index] = message
        else:
            self.tested[tester, name, address] = self.now
            key = tester, name, address, message.care_of_nonce_index
            self.given.setdefault(key, (self.now, message))

    def _begin(self, name: str, packet: Packet | None) -> None:
        cache = getattr(registrar(self.roles[name]), "cache", ())
        self.turn = Turn(name, packet, {entry.home_address: entry.copy() for entry in cache})

    def _turn(self, name: str) -> None:
        """Do what its agent would."""
        role = self.roles[name]
        transmissions = role.transmissions()
        for transmission in transmissions:
            if not transmission.after_datapath:
                self.observe("sent", name, transmission.packet, False)
                self._leave(name, transmission.packet)
        held = [transmission for transmission in transmissions if transmission.after_datapath]
        for kernel, changes in (
            (self.applied[name], role.changes()),
            (self.routes[name], role.optimisation_changes()),
        ):
            changes = {key: wanted for key, wanted in changes.items() if wanted != kernel.get(key)}
            refused = {key for key in changes if name in self.failing and self._of_others(name, key)}
            if refused:
                role.hold(held)
                for key in refused:
                    role.datapath_failed(key[0] if isinstance(key, tuple) else key, "no room", self.now)
                    del changes[key]
                held = role.transmissions()
                self.behind.setdefault(name, set()).update(refused)
            for key, wanted in changes.items():
                self.behind.get(name, set()).discard(key)
                kernel.pop(key, None)
                if wanted is not None:
                    kernel[key] = wanted
        for transmission in held:
            self.observe("sent", name, transmission.packet, True)
            self._leave(name, transmission.packet)
        for event in role.events():
            self.history.append((self.now, name, event))
            self.observe("event", name, event)
        if isinstance(role, HomeAgent):
            for home_address in role.probes():
                self.later(DETECTION_S, lambda address=home_address: self._detected(name, address))
        self.observe("turned", name)

    def _of_others(self, name: str, key: IPv6Address | Pair) -> bool:
        """Whether it is bindings of other nodes that a role wants something for: only that is refused, as a
        mobile node has nobody to tell that its own is not to be had."""
        return mobile(self.roles[name]) is None or (isinstance(key, tuple) and key[1] == ANY_OF_OURS)

    def _detected(self, name: str, home_address: IPv6Address) -> None:
        if name in self.roles:
            self._begin(name, None)
            self.roles[name].dad_result(home_address, True, self.now)
            self._turn(name)

    def _fate(self, packet: Packet) -> list[float]:
        if self.random.random() < self.loss:
            return []
        copies = 2 if self.random.random() < self.duplication else 1
        return [self.random.uniform(0.005, 0.3) for _ in range(copies)]

    def _leave(self, name: str, packet: Packet) -> None:
        if name in self.silent or not self._gets_out(name, packet.source):
            return
        octets = build_packet(packet, self.codec)
        for delay in self.fate(packet):
            self.later(delay, lambda: self._arrive(octets, packet.destination))

    def _gets_out(self, name: str, source: IPv6Address) -> bool:
        """Whether a packet with this source leaves its node, through tunnels if need be, and is taken out
        of these: their ends accept what a registered path would bring."""
        for _ in range(3):
            if self.addresses.get(source) == name:
                return True
            uplink = self.applied[name].get(source)
            path = next((p for p in uplink.paths if p.bid == uplink.default_bid), None) if uplink else None
            anchor = next((each for each, own in self.own.items() if path and own == path.remote), None)
            if anchor is None:
                return False
            accepted = self.applied[anchor].get(source)
            if accepted is None or path.local not in {p.remote for p in accepted.paths}:
                return False
            source = path.local
        return False

    def _arrive(self, octets: bytes, destination: IPv6Address) -> None:
        """Home agents and anchor points intercept what is for others."""
        for _ in range(3):
            name = self.addresses.get(destination)
            if name is not None:
                return self.deliver(name, octets)
            tunnels = (self.applied[anchor].get(destination) for anchor in self.own)
            binding = next((each for each in tunnels if each is not None and each.paths), None)
            if binding is None:
                return
            destination = next(p.remote for p in binding.paths if p.bid == binding.default_bid)
