"""Route optimisation in the kernel: packets between home address and correspondent go straight.

Class: `OptimisedRoutes`. In the network namespace of the calling thread:

- nf_tables table `ip6 NAME` decides which care-of address a packet takes, by marks (see
  `optimisation_rules`);
- at a mobile node, policy rules of priority 124 and routes in tables from 29000 on take marked packets to the
  interface of that care-of address; at a correspondent node, table 29000 (rule of priority 125) has a route
  to each home address, with an MTU that leaves room for the header, by the way that its default care-of
  address has;
- a carrier (see `carrier`) puts the headers in and takes them out: BPF programs on the interfaces, at the
  speed of plain routing; the kernel's own Mobile IPv6 (XFRM), where BPF is not allowed; or a process behind
  TUN devices `NAME0`..., where there is neither. Home Address options that no binding allows are left in,
  hence dropped by nf_tables; `reports` tells them.

Not done: UDP sends of many datagrams in one call (UDP_SEGMENT) over an optimised route; packets that carry
both headers, as between two mobile nodes.
"""

import errno
import itertools
import socket
import struct
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Network

from testbed.datapath import mark
from testbed.datapath.bpf import BpfError, is_available
from testbed.datapath.carrier import BpfCarrier, Carrier, Way
from testbed.datapath.classifier import EMPTY, HomeRules
from testbed.datapath.error import DatapathError
from testbed.datapath.netlink import NETFILTER, ROUTE, Netlink, NetlinkError, attribute, attributes
from testbed.datapath.optimisation_programs import HEADER_OCTETS
from testbed.datapath.optimisation_rules import FIRST_NUMBER, OptimisationClassifier
from testbed.datapath.probe import in_private_namespace
from testbed.datapath.rejected import RejectedPackets
from testbed.datapath.route import KernelObject, PolicyRule, Route, dump_routes, dump_rules
from testbed.datapath.ruleset import Ruleset
from testbed.datapath.traffic_control import is_ethernet, local_addresses
from testbed.datapath.tunnel import explain
from testbed.datapath.xfrm import DESTINATION_OPTIONS, ROUTE_OPTIMISATION, why_not
from testbed.datapath.xfrm_carrier import XfrmCarrier
from testbed.mobility.forwarding import Pair, RouteOptimisation, Side

TABLE_BASE, TABLE_END = 29000, 30000
_PRIORITY = 125
#: Tells our rules from those of the tunnels.
_OWNER = mark.PROTOCOL + 1
_GET_ROUTE = 26
#: Packets that may go into an optimised route: Ethernet's MTU less the header.
_MTU = 1500 - HEADER_OCTETS


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What one pair has in the kernel: routes and rules, nf_tables rules, ways of the carrier."""

    objects: frozenset[KernelObject]
    rules: HomeRules
    ways: frozenset[Way]


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

    `carrier`: see `choose_carrier`.
    Raises DatapathError, in `apply` with the kernel's tables as they were before.
    """

    def __init__(self, side: Side, name: str = "flowbind_ro", carrier: str = "auto") -> None:
        self.side = side
        self._carrier_wanted = carrier
        self.name = name
        self._opened = False
        self._optimisations: dict[Pair, RouteOptimisation] = {}
        self._wanted: dict[Pair, _Wanted] = {}
        self._uses: Counter[KernelObject] = Counter()
        #: At a correspondent node: home address -> BID -> number.
        self._numbers: dict[IPv6Address, dict[int, int]] = {}
        self._ways: dict[tuple[str | None, IPv6Address | None], int] = {}
        self._homes: frozenset[IPv6Address] = frozenset()
        self._listening: frozenset[str] = frozenset()

    # -- the interface

    def listen(self, home_addresses: Iterable[IPv6Address], interfaces: Iterable[str]) -> None:
        """At a mobile node: take packets to these home addresses that come by these interfaces with a type 2
        routing header, at every address that this node has now, though no route is optimised there yet. A
        correspondent node uses a care-of address before the mobile node knows that it has been accepted
        (RFC 6275 §9.5.4). To be called again when addresses have changed."""
        self._homes, self._listening = frozenset(home_addresses), frozenset(interfaces)
        try:
            self._open()
            self._carry(self._wanted.values(), self._optimisations)
        except (NetlinkError, BpfError) as error:
            raise DatapathError(f"the kernel refused route optimisation: {_words(error)}.") from error

    def apply(self, changes: Mapping[Pair, RouteOptimisation | None]) -> None:
        """Change what is wanted for these pairs (None: nothing any more)."""
        try:
            self._open()
            self._apply(changes)
        except (NetlinkError, BpfError) as error:
            raise DatapathError(f"the kernel refused route optimisation: {_words(error)}.") from error

    def reconcile(self, complete: Mapping[Pair, RouteOptimisation]) -> None:
        """Make the kernel have exactly what is wanted, whatever an earlier life has left."""
        try:
            self._open()
            gone = {pair: None for pair in self._wanted if pair not in complete}
            self._apply({**gone, **complete})
            self._remove_strays()
            self._ruleset.repair({None: self._classifier.base(), **self._rules()})
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

    @property
    def carrier(self) -> str:
        """"bpf", "xfrm" or "tun", "none" before it has been needed."""
        return self._carrier.name if self._opened else "none"

    def reports(self) -> RejectedPackets | None:
        """Where packets with a Home Address option that no binding allows are told, once `reconcile` or
        `apply` has been called; None at a mobile node."""
        return self._carrier.reports()

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
            self._wanted.clear()
            self._optimisations.clear()
            self._uses.clear()
            self._ways.clear()
            self._homes, self._listening = frozenset(), frozenset()

    # -- start

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
        self._classifier = OptimisationClassifier(
            self.side, self.name, _MTU, self._carrier.kernel_headers
        )
        self._ruleset = Ruleset(self._filter, self.name, f"owned by flowbind ({self.side.value})")
        self._ruleset.classifier = self._classifier
        self._ruleset.repair({None: self._classifier.base()})
        self._opened = True

    def _make_carrier(self) -> Carrier:
        wanted = choose_carrier(self._carrier_wanted)
        if wanted == "bpf":
            return BpfCarrier(self.side, self.name, self._netlink)
        if wanted == "xfrm":
            return XfrmCarrier(self.side)
        from testbed.datapath.userspace_carrier import UserspaceCarrier

        return UserspaceCarrier(self.side, self.name)

    # -- from what is wanted to what the kernel shall have

    def _apply(self, changes: Mapping[Pair, RouteOptimisation | None]) -> None:
        optimisations = {**self._optimisations, **changes}
        optimisations = {pair: wanted for pair, wanted in optimisations.items() if wanted is not None}
        used = {o.table - TABLE_BASE for o in self._uses}
        self._ways = {way: number for way, number in self._ways.items() if number in used}
        wanted = {pair: self._want(new) if new else _NOTHING for pair, new in changes.items()}
        before = {pair: self._wanted.get(pair, _NOTHING) for pair in changes}
        uses: Counter[KernelObject] = Counter()
        for pair in changes:
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
        keys = {o.key for o in added}
        removed = sorted((o for o in removed if o.key not in keys), key=_order, reverse=True)
        self._netlink.attempt([o.remove(socket.if_nametoindex) for o in removed])
        self._optimisations = optimisations
        self._carry(final.values(), optimisations)

    def _carry(self, wanted: Iterable[_Wanted], optimisations: Mapping[Pair, RouteOptimisation]) -> None:
        """Tell the carrier all the ways, and the interfaces and addresses that this node has now."""
        if self.side is Side.MOBILE:
            names = {path.interface for wanted in optimisations.values() for path in wanted.paths}
            names |= self._listening
        else:
            names = {name for _, name in socket.if_nameindex()}
        indices = {_index(name) for name in names if name is not None and is_ethernet(name)}
        # of two ways of one key, the later one counts
        ways = list(dict.fromkeys(way for each in wanted for way in each.ways))
        homes = [home_address.packed for home_address in self._homes]
        self._carrier.carry(ways, local_addresses(), indices, homes)

    def _want(self, wanted: RouteOptimisation) -> _Wanted:
        return self._want_mobile(wanted) if self.side is Side.MOBILE else self._want_correspondent(wanted)

    def _want_mobile(self, wanted: RouteOptimisation) -> _Wanted:
        numbers: dict[int, int] = {}
        objects: set[KernelObject] = set()
        ways = set()
        for path in wanted.paths:
            if path.interface is None:
                raise DatapathError(f"BID {path.bid} of {wanted.home_address} has no interface.")
            if not is_ethernet(path.interface):
                raise DatapathError(f"{path.interface} is no Ethernet interface; routes are not optimised.")
            way = self._way(path.interface, path.gateway)
            table = TABLE_BASE + way
            number = numbers[path.bid] = FIRST_NUMBER + way
            route = Route(table, mark.ANY, path.interface, path.gateway)
            objects.update(self._carrier.steering(table, _rule(table, number), route))
            addresses = wanted.home_address.packed, wanted.correspondent.packed, path.local.packed
            ways.add(Way(mark.value(number), _index(path.interface), *addresses))
        return _Wanted(frozenset(objects), self._classifier.pair(wanted, numbers), frozenset(ways))

    def _way(self, interface: str, gateway: IPv6Address | None) -> int:
        """The number of a way out."""
        way = self._ways.get((interface, gateway))
        if way is None:
            taken = set(self._ways.values())
            way = next((n for n in range(TABLE_END - TABLE_BASE) if n not in taken), None)
            if way is None:
                raise DatapathError("there are too many ways out for route optimisation.")
            self._ways[interface, gateway] = way
        return way

    def _want_correspondent(self, wanted: RouteOptimisation) -> _Wanted:
        # a number is one BID's of each home address; they must not change while the BID is there
        known = self._optimisations.get((wanted.home_address, wanted.correspondent))
        numbers = dict(self._numbers.get(wanted.home_address, {})) if known else {}
        numbers = {path.bid: numbers[path.bid] for path in wanted.paths if path.bid in numbers}
        for path in wanted.paths:
            if path.bid not in numbers:
                taken = set(numbers.values())
                numbers[path.bid] = next(n for n in itertools.count(FIRST_NUMBER) if n not in taken)
        self._numbers[wanted.home_address] = numbers
        default = next(path for path in wanted.paths if path.bid == wanted.default_bid)
        objects: set[KernelObject] = {
            self._route_like(wanted.home_address, default.remote),
            PolicyRule(_PRIORITY, TABLE_BASE, owner=_OWNER),
        }
        ways = set()
        for path in wanted.paths:
            number = numbers[path.bid]
            table = TABLE_BASE + 1 + number - FIRST_NUMBER
            objects.update(self._carrier.steering(table, _rule(table, number), None))
            addresses = wanted.home_address.packed, bytes(16), path.remote.packed
            ways.add(Way(mark.value(number), 0, *addresses))
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
        metrics = attributes(found.get(8, b""))
        (mtu,) = struct.unpack("=I", metrics[2]) if 2 in metrics else (0,)
        mtu = min(filter(None, (mtu, _device_mtu(interface)))) - HEADER_OCTETS
        prefix = IPv6Network((home_address, 128))
        return Route(TABLE_BASE, prefix, interface, gateway, mtu=mtu)

    # -- to the kernel

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
        rules = [rule for rule in dump_rules(self._netlink) if rule.owner == _OWNER]
        return [*rules, *dump_routes(self._netlink, TABLE_BASE, TABLE_END)]

    def _remove_strays(self) -> None:
        keys = {o.key for o in self._uses}
        strays = [o for o in self._there() if o.key not in keys]
        self._netlink.attempt([o.remove(_index) for o in strays])
        for index, _ in socket.if_nameindex():
            self._carrier.clean(index)


def _rule(table: int, number: int) -> PolicyRule:
    return PolicyRule(_PRIORITY - 1, table, mark.value(number), mark.NUMBER_MASK, owner=_OWNER)


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
