"""Route optimisation in the kernel: packets between home address and correspondent go straight.

Class: `OptimisedRoutes`. In the network namespace of the calling thread:

- nf_tables table `ip6 NAME` decides by marks which of its care-of addresses a mobile node sends from, and
  which one of a mobile node its correspondent sends to; and takes in what arrives (see `optimisation_rules`);
- policy rules of priority 124 and routes in tables from 29001 on take marked packets out; where they go to a
  mobile node, table 29000 (rules of priority 125) has a route to each home address, with an MTU that leaves
  room for the headers, by the way that its default care-of address has;
- a carrier (see `carrier`) puts the headers in: a BPF program on the interfaces, at the speed of plain
  routing; the kernel's own Mobile IPv6 (XFRM), where BPF is not allowed; or a process behind TUN devices
  `NAME0`..., where there is neither.

A node may be both mobile node and correspondent node: its packets to another mobile node carry both headers.
Those that leave from a regional care-of address (RFC 5380) carry the Home Address option alone: what they go
into is the tunnel of `Datapath` to the anchor point; that needs BPF.

Not done: UDP sends of many datagrams in one call (UDP_SEGMENT) over an optimised route; a type 2 routing
header in what goes through the tunnel to the home agent, or comes from a care-of address.
"""

import errno
import itertools
import socket
import struct
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Network

from testbed.datapath import mark
from testbed.datapath.bpf import BpfError, is_available
from testbed.datapath.carrier import (
    OWNER,
    TABLE_BASE,
    TABLE_END,
    BpfCarrier,
    Carrier,
    Peer,
    TunnelledWay,
    Way,
)
from testbed.datapath.classifier import EMPTY, HomeRules
from testbed.datapath.error import DatapathError
from testbed.datapath.netlink import NETFILTER, ROUTE, Netlink, NetlinkError, attribute, attributes
from testbed.datapath.optimisation_programs import HEADER_OCTETS
from testbed.datapath.optimisation_rules import (
    FIRST_NUMBER,
    PEER_BITS,
    TALKERS,
    WAY_BITS,
    WAY_MASK,
    OptimisationClassifier,
    number_of,
)
from testbed.datapath.probe import in_private_namespace
from testbed.datapath.rejected import RejectedPackets
from testbed.datapath.route import KernelObject, PolicyRule, Route, dump_routes, dump_rules
from testbed.datapath.ruleset import Ruleset
from testbed.datapath.traffic_control import is_ethernet, local_addresses
from testbed.datapath.tunnel import explain
from testbed.datapath.xfrm import DESTINATION_OPTIONS, ROUTE_OPTIMISATION, why_not
from testbed.datapath.xfrm_carrier import XfrmCarrier
from testbed.mobility.forwarding import Pair, Path, RouteOptimisation, Side

_PRIORITY = 125
_GET_ROUTE = 26
_ENCAPSULATION = 22
#: Ethernet's MTU, octets.
_LINK_MTU = 1500


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What one pair has in the kernel: routes and rules, nf_tables rules, what the carrier has to know."""

    objects: frozenset[KernelObject]
    rules: HomeRules
    ways: frozenset[Way | TunnelledWay | Peer]


_NOTHING = _Wanted(frozenset(), EMPTY, frozenset())


def choose_carrier(forced: str = "auto") -> str:
    """The name of the carrier to use: "bpf", "xfrm", "tun"; or, for "auto", the first of them that there is.

    Raises DatapathError for one that is not there.
    """
    if forced == "auto":
        if is_available():
            return "bpf"
        return "tun" if _why_no_xfrm() else "xfrm"
    missing = _why_no_xfrm() if forced == "xfrm" else None
    if missing is not None:
        raise DatapathError(
            f"this kernel cannot do Mobile IPv6 (XFRM, CONFIG_IPV6_MIP6) itself: {missing}; use another "
            'route_carrier, or "auto".'
        )
    return forced


def _why_no_xfrm() -> str | None:
    try:
        return in_private_namespace(lambda: why_not(DESTINATION_OPTIONS, ROUTE_OPTIMISATION))
    except OSError as error:
        return f"no private network namespace to try it in ({error.strerror})"


class OptimisedRoutes:
    """The optimised routes of one node. Nothing is changed before the first call of `apply` or `reconcile`.

    `side`: what this node is. A mobile node is a `correspondent` at the same time where that is so, and is
    told its `homes`, for which it takes packets at once, whoever thinks that the route is optimised.
    `carrier`: see `choose_carrier`. `talkers`: see the method of that name. `regional`: whether it may have
    regional care-of addresses (RFC 5380); `slots`: those of the tunnels, by home address and BID, among which
    are the tunnels of these (see Datapath).
    Raises DatapathError, in `apply` with the kernel's tables as they were before.
    """

    def __init__(
        self,
        side: Side,
        name: str = "flowbind_ro",
        carrier: str = "auto",
        correspondent: bool = False,
        homes: Iterable[IPv6Address] = (),
        talkers: bool = False,
        regional: bool = False,
        slots: Callable[[], Mapping[IPv6Address, Mapping[int, int]]] = dict,
    ) -> None:
        self.side = side
        self._sides = {side, Side.CORRESPONDENT} if correspondent else {side}
        self._homes = tuple(homes)
        self._talkers = talkers
        self._regional = regional
        self._slots = slots
        #: What `listen` was told.
        self._listening: tuple[tuple, tuple] = (), ()
        self._carrier_wanted = carrier
        self.name = name
        self._opened = False
        self._optimisations: dict[Pair, RouteOptimisation] = {}
        self._wanted: dict[Pair, _Wanted] = {}
        self._uses: Counter[KernelObject] = Counter()
        #: Of the mobile nodes that are registered here: home address -> BID -> number.
        self._numbers: dict[IPv6Address, dict[int, int]] = {}
        self._ways: dict[tuple[str | None, IPv6Address | None], int] = {}
        self._reports: RejectedPackets | None = None

    def listen(
        self,
        care_of_addresses: Iterable[IPv6Address],
        regional: Iterable[tuple[IPv6Address, IPv6Address]] = (),
    ) -> None:
        """At a mobile node: take packets to its home addresses that come to these addresses with a type 2
        routing header, though no route is optimised there yet. A correspondent node uses a care-of address
        before the mobile node knows that it has been accepted (RFC 6275 §9.5.4). `regional`: of anchor points
        the regional addresses, whose packets come in tunnels."""
        try:
            self._open()
            before, self._listening = self._listening, (tuple(care_of_addresses), tuple(regional))
            old, new = self._classifier.base(*before), self._classifier.base(*self._listening)
            self._ruleset.change({None: old}, {None: new})
        except (NetlinkError, BpfError) as error:
            raise DatapathError(f"the kernel refused route optimisation: {_words(error)}.") from error

    def apply(self, changes: Mapping[Pair, RouteOptimisation | None]) -> None:
        """Change what is wanted for these pairs (None: nothing any more)."""
        try:
            self._open()
            self._apply(changes)
        except (NetlinkError, BpfError) as error:
            raise DatapathError(f"the kernel refused route optimisation: {_words(error)}.") from error

    def refresh(self) -> None:
        """At a mobile node whose tunnels have changed: packets to its peers take another way first."""
        if any(wanted.side is Side.CORRESPONDENT for wanted in self._optimisations.values()):
            self.apply({})

    def reconcile(self, complete: Mapping[Pair, RouteOptimisation]) -> None:
        """Make the kernel have exactly what is wanted, whatever an earlier life has left."""
        try:
            self._open()
            gone = {pair: None for pair in self._wanted if pair not in complete}
            self._apply({**gone, **complete})
            self._remove_strays()
            self._ruleset.repair({None: self._classifier.base(*self._listening), **self._rules()})
        except (NetlinkError, BpfError) as error:
            raise DatapathError(f"route optimisation cannot be repaired: {_words(error)}.") from error

    def counters(self) -> dict[tuple[IPv6Address, IPv6Address, int | None], tuple[int, int]]:
        """(home address, correspondent, FID or None for the default) -> packets, octets sent."""
        if not self._opened:
            return {}
        found = self._ruleset._counters()
        return {
            (home_address, pair[1], fid): found[name]
            for pair, wanted in self._wanted.items()
            for name, (home_address, fid) in wanted.rules.counters.items()
            if name in found
        }

    def talkers(self) -> list[IPv6Address]:
        """Who has sent packets to the home addresses through the tunnel within the last few seconds.

        Raises DatapathError.
        """
        if not self._opened:
            return []
        try:
            return sorted(IPv6Address(element.key) for element in self._ruleset.elements(TALKERS))
        except NetlinkError as error:
            raise DatapathError(f"the kernel does not tell who has sent: {_words(error)}.") from error

    @property
    def carrier(self) -> str:
        """"bpf", "xfrm" or "tun", "none" before it has been needed."""
        return self._carrier.name if self._opened else "none"

    @property
    def within_tunnels(self) -> bool:
        """Whether packets may leave from regional care-of addresses, in the tunnels of anchor points."""
        return self._carrier_wanted == BpfCarrier.name

    @property
    def correspondent(self) -> bool:
        """Whether mobile nodes register with this node."""
        return Side.CORRESPONDENT in self._sides

    def reports(self) -> RejectedPackets | None:
        """Where packets with a Home Address option that no binding allows are told, once `reconcile` or
        `apply` has been called; None at what is no correspondent node."""
        return self._reports

    def close(self) -> None:
        """Remove everything from the kernel; calling it again does nothing."""
        if not self._opened:
            return
        self._opened = False
        try:
            self._ruleset.delete()
            self._netlink.attempt([o.remove(socket.if_nametoindex) for o in self._there()])
            self._carrier.close()
        except NetlinkError as error:
            raise DatapathError(f"route optimisation cannot be removed: {_words(error)}.") from error
        finally:
            self._netlink.close()
            self._filter.close()
            if self._reports is not None:
                self._reports.close()
                self._reports = None
            self._wanted.clear()
            self._optimisations.clear()
            self._uses.clear()
            self._ways.clear()

    def _open(self) -> None:
        if self._opened:
            return
        try:
            self._netlink, self._filter = Netlink(ROUTE), Netlink(NETFILTER)
        except OSError as error:
            raise DatapathError(f"this kernel has no nf_tables or no rtnetlink: {error.strerror}.") from error
        self._carrier = self._make_carrier()
        try:
            self._carrier.open()
        except OSError as error:
            raise DatapathError(f"no carrier for optimised routes: {_words(error)}.") from error
        if Side.CORRESPONDENT in self._sides:
            self._reports = RejectedPackets()
        mtu = _LINK_MTU - HEADER_OCTETS * len(self._sides)
        self._classifier = OptimisationClassifier(
            self._sides,
            self.name,
            mtu,
            self._homes,
            self._carrier.devices,
            self._talkers,
            self._regional,
        )
        self._ruleset = Ruleset(self._filter, self.name, f"owned by flowbind ({self.side.value})")
        self._ruleset.classifier = self._classifier
        self._ruleset.repair({None: self._classifier.base(*self._listening)})
        self._opened = True

    def _make_carrier(self) -> Carrier:
        wanted = choose_carrier(self._carrier_wanted)
        if wanted == "bpf":
            return BpfCarrier(self.name, self._netlink)
        if wanted == "xfrm":
            return XfrmCarrier()
        from testbed.datapath.userspace_carrier import UserspaceCarrier

        return UserspaceCarrier(self.name)

    def _apply(self, changes: Mapping[Pair, RouteOptimisation | None]) -> None:
        optimisations = {**self._optimisations, **changes}
        optimisations = {pair: wanted for pair, wanted in optimisations.items() if wanted is not None}
        used = {(o.table - TABLE_BASE) >> PEER_BITS for o in self._uses}
        self._ways = {way: number for way, number in self._ways.items() if number in used}
        numbers = self._number_peers(changes)
        wanted = {pair: self._want(new, numbers) if new else _NOTHING for pair, new in changes.items()}
        wanted |= self._dependent(changes, optimisations, numbers)
        before = {pair: self._wanted.get(pair, _NOTHING) for pair in wanted}
        uses: Counter[KernelObject] = Counter()
        for pair in wanted:
            uses.subtract(before[pair].objects)
            uses.update(wanted[pair].objects)
        added = sorted((o for o, n in uses.items() if n > 0 and not self._uses[o]), key=_order)
        removed = [o for o, n in uses.items() if n < 0 and self._uses[o] + n == 0]
        final = {**self._wanted, **wanted}
        # first what is new beside what is old, then marks lead to what is new, then what is old goes
        self._carry([*before.values(), *final.values()], optimisations)
        self._install(added)
        self._ruleset.change(
            {pair: old.rules for pair, old in before.items()},
            {pair: new.rules for pair, new in wanted.items()},
        )
        self._wanted.update(wanted)
        for pair, new in wanted.items():
            if new is _NOTHING:
                del self._wanted[pair]
        self._uses.update(uses)
        self._uses += Counter()
        self._numbers = numbers
        keys_added = {o.key for o in added}
        removed = sorted((o for o in removed if o.key not in keys_added), key=_order, reverse=True)
        self._netlink.attempt([o.remove(socket.if_nametoindex) for o in removed])
        self._optimisations = optimisations
        self._carry(self._wanted.values(), optimisations)

    def _dependent(
        self,
        changes: Mapping[Pair, RouteOptimisation | None],
        optimisations: Mapping[Pair, RouteOptimisation],
        numbers: dict[IPv6Address, dict[int, int]],
    ) -> dict[Pair, _Wanted]:
        """At a mobile node, what follows from changes: ways to a peer that has changed; and the way that
        packets to its peers take first, as it may have left or come home."""
        found: dict[Pair, _Wanted] = {}
        if Side.MOBILE not in self._sides:
            return found
        homes = {pair[0] for pair in changes}
        for pair, wanted in optimisations.items():
            if pair not in changes and (wanted.side is Side.CORRESPONDENT or pair[1] in homes):
                try:
                    found[pair] = self._want(wanted, numbers)
                except DatapathError:
                    continue  # no way to it just now: what it has had is as good
        return found

    def _carry(
        self, wanted: Iterable[_Wanted], optimisations: Mapping[Pair, RouteOptimisation]
    ) -> None:
        """Tell the carrier all that it has to know, and the interfaces that this node has now."""
        paths = {path.interface for wanted in optimisations.values() for path in wanted.paths}
        if any(wanted.side is Side.CORRESPONDENT for wanted in optimisations.values()):
            paths = {name for _, name in socket.if_nameindex()}
        indices = {_index(name) for name in paths if name is not None and is_ethernet(name)}
        # of two of one key, the later one counts
        all_ways = dict.fromkeys(way for each in wanted for way in each.ways)
        ways = [way for way in all_ways if not isinstance(way, Peer)]
        self._carrier.carry(ways, [peer for peer in all_ways if isinstance(peer, Peer)], indices)

    def _want(self, wanted: RouteOptimisation, numbers: dict[IPv6Address, dict[int, int]]) -> _Wanted:
        if wanted.side is Side.MOBILE:
            return self._want_mobile(wanted, numbers.get(wanted.correspondent, {}).values())
        return self._want_correspondent(wanted, numbers[wanted.home_address])

    def _want_mobile(self, wanted: RouteOptimisation, peers: Iterable[int]) -> _Wanted:
        numbers: dict[int, int] = {}
        objects: set[KernelObject] = set()
        ways: set[Way | TunnelledWay] = set()
        for path in wanted.paths:
            if path.interface is None:
                raise DatapathError(f"BID {path.bid} of {wanted.home_address} has no interface.")
            if not is_ethernet(path.interface):
                raise DatapathError(f"{path.interface} is no Ethernet interface; routes are not optimised.")
            addresses = wanted.home_address.packed, wanted.correspondent.packed, path.local.packed
            if path.via is not None:
                numbers[path.bid] = mark.slot_number(self._slot(path))
                ways.add(TunnelledWay(_index(path.interface), path.via.remote.packed, *addresses))
                continue
            way = self._way(path.interface, path.gateway)
            numbers[path.bid] = number_of(way)
            objects.update(self._carrier.way(way, path.interface, path.gateway, list(peers)))
            ways.add(Way(way, _index(path.interface), *addresses))
        return _Wanted(frozenset(objects), self._classifier.pair(wanted, numbers), frozenset(ways))

    def _slot(self, path: Path) -> int:
        """The slot of the tunnel to the anchor point of a path from a regional care-of address."""
        if not self._carrier.within_tunnels:
            raise DatapathError(
                f'the route carrier "{self._carrier.name}" puts no headers into tunnels of anchor points.'
            )
        slot = self._slots().get(path.local, {}).get(path.bid)
        if slot is None:
            raise DatapathError(f"there is no tunnel of BID {path.bid} of {path.local}.")
        return slot

    def _way(self, interface: str, gateway: IPv6Address | None) -> int:
        """The number of a way out."""
        way = self._ways.get((interface, gateway))
        if way is None:
            taken = set(self._ways.values())
            way = next((n for n in range(1, 1 << WAY_BITS) if n not in taken), None)
            if way is None:
                raise DatapathError("there are too many ways out for route optimisation.")
            self._ways[interface, gateway] = way
        return way

    def _number_peers(
        self, changes: Mapping[Pair, RouteOptimisation | None]
    ) -> dict[IPv6Address, dict[int, int]]:
        """A number for each BID of each home address, which does not change while the BID is there."""
        numbers = dict(self._numbers)
        for pair, wanted in changes.items():
            if wanted is None:
                numbers.pop(pair[0], None)
            elif wanted.side is Side.CORRESPONDENT:
                known = self._numbers.get(wanted.home_address, {})
                bids = [path.bid for path in wanted.paths]
                mine = numbers[wanted.home_address] = {bid: known[bid] for bid in bids if bid in known}
                for bid in bids:
                    if bid not in mine:
                        mine[bid] = next(n for n in itertools.count(1) if n not in mine.values())
                if len(mine) >= 1 << PEER_BITS:
                    raise DatapathError(f"{wanted.home_address} has too many care-of addresses.")
        return numbers

    def _want_correspondent(self, wanted: RouteOptimisation, numbers: dict[int, int]) -> _Wanted:
        default = next(path for path in wanted.paths if path.bid == wanted.default_bid)
        objects: set[KernelObject] = {
            self._route_like(wanted.home_address, default.remote),
            # without a mark as yet, or without a way
            PolicyRule(_PRIORITY, TABLE_BASE, 0, mark.NUMBER_MASK, owner=OWNER),
            PolicyRule(_PRIORITY, TABLE_BASE, mark.value(FIRST_NUMBER), WAY_MASK, owner=OWNER),
        }
        ways = set()
        for path in wanted.paths:
            number = numbers[path.bid]
            objects.update(self._carrier.peer(number))
            ways.add(Peer(number, wanted.home_address.packed, path.remote.packed))
        return _Wanted(frozenset(objects), self._classifier.pair(wanted, numbers), frozenset(ways))

    def _route_like(self, home_address: IPv6Address, care_of_address: IPv6Address) -> Route:
        """A route to the home address that goes where packets to the care-of address go."""
        header = struct.pack("=BBBBBBBBI", socket.AF_INET6, 128, 0, 0, 0, 0, 0, 0, 0)
        try:
            answer = self._netlink.request(_GET_ROUTE, header + attribute(1, care_of_address.packed))
        except NetlinkError as error:
            raise DatapathError(f"there is no route to {care_of_address}: {explain(error)}.") from None
        found = attributes(answer, 12)
        interface = socket.if_indextoname(struct.unpack("=I", found[4])[0])
        gateway = IPv6Address(found[5]) if 5 in found else care_of_address
        if _ENCAPSULATION in found:  # at a mobile node, whose packets get marks (see `mark.entrance`)
            gateway = mark.DETOUR_GATEWAY
        # at a mobile node, packets come from its home address unless told otherwise
        ours = local_addresses()
        source = next((home for home in self._homes if home.packed in ours), None)
        metrics = attributes(found.get(8, b""))
        (mtu,) = struct.unpack("=I", metrics[2]) if 2 in metrics else (0,)
        mtu = min(filter(None, (mtu, _device_mtu(interface)))) - HEADER_OCTETS * len(self._sides)
        prefix = IPv6Network((home_address, 128))
        return Route(TABLE_BASE, prefix, interface, gateway, source=source, mtu=mtu)

    def _install(self, objects: list[KernelObject]) -> None:
        done = []
        for o in objects:
            try:
                self._netlink.execute([o.install(_index)])
            except NetlinkError as error:
                if error.errno == errno.EEXIST:
                    continue
                self._netlink.attempt([each.remove(_index) for each in done])
                raise DatapathError(f"the kernel refused {o}: {explain(error)}.") from error
            done.append(o)

    def _rules(self) -> dict[Pair, HomeRules]:
        return {pair: wanted.rules for pair, wanted in self._wanted.items()}

    def _there(self) -> list[KernelObject]:
        rules = [rule for rule in dump_rules(self._netlink) if rule.owner == OWNER]
        return [*rules, *dump_routes(self._netlink, TABLE_BASE, TABLE_END)]

    def _remove_strays(self) -> None:
        keys = {o.key for o in self._uses}
        strays = [o for o in self._there() if o.key not in keys]
        self._netlink.attempt([o.remove(_index) for o in strays])
        for index, _ in socket.if_nameindex():
            self._carrier.clean(index)


def _order(o: KernelObject) -> int:
    return isinstance(o, PolicyRule)


def _index(name: str) -> int:
    try:
        return socket.if_nametoindex(name)
    except OSError:
        raise DatapathError(f"there is no interface {name}.") from None


def _device_mtu(name: str) -> int:
    with open(f"/proc/sys/net/ipv6/conf/{name}/mtu") as file:
        return int(file.read())


def _words(error: OSError) -> str:
    return explain(error) if isinstance(error, NetlinkError) else str(error.args[1])
