"""Makes wanted forwarding state true in the kernel. Classes: `Datapath`, `DatapathConfiguration`.

Everything is in the network namespace of the calling thread:

- nf_tables table `ip6 flowbind` (see `classifier`), and no other;
- policy rules and routes with `proto 177`, in tables 20000 to 28999 (see `mark`, `routing`); with the seg6
  backend the rule for the local table moves from priority 0 to 102, behind decapsulation;
- devices `flowbind0` and `flowbind1` (the detour), `flowbind2` with the ip6tnl backend, and, for tunnels
  within tunnels, `flowbind3`;
- the home addresses on the loopback interface of a mobile node; on the home link, proxy neighbour entries,
  and the neighbour entries of mobile nodes that are there and abroad at once;
- sysctls: `forwarding` and `proxy_ndp`, and on the home link `proxy_delay`, at an anchor. A mobile node that
  forwards for mobile network prefixes must have forwarding switched on by its owner, as that ends the
  acceptance of Router Advertisements on interfaces without `accept_ra=2`.

What the datapath does with seg6 and what it cannot do:

- the tunnel's entry does not count down the hop limit, and drops a packet that comes with 1 without an ICMPv6
  Time Exceeded; the copies made by n-casting pass a hop; congestion marks of the outer header are not copied
  to the inner one (RFC 6040 §4.2);
- ICMPv6 errors about tunnel packets are not relayed to the inner source (RFC 2473 §8): links inside the
  tunnels must carry `mtu` + 40 octets.
"""

import errno
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv6Address

from testbed.datapath import mark
from testbed.datapath.classifier import EMPTY, OWN_SETS, Classifier, HomeRules, counters_of
from testbed.datapath.device import DetourDevice, sysctl
from testbed.datapath.error import DatapathError
from testbed.datapath.netlink import NETFILTER, ROUTE, Netlink, NetlinkError
from testbed.datapath.nftables import parse_counter
from testbed.datapath.probe import choose_tunnel_backend
from testbed.datapath.route import (
    FIRST_LOCAL_RULE,
    KernelObject,
    LinkIndices,
    PolicyRule,
    UnknownInterface,
    dump_addresses,
    dump_neighbours,
    dump_proxies,
    dump_routes,
    dump_rules,
)
from testbed.datapath.routing import Routing
from testbed.datapath.ruleset import Ruleset
from testbed.datapath.slots import Slots
from testbed.datapath.tunnel import Seg6Tunnel, Tunnel, explain, ip6_tunnel
from testbed.mobility.forwarding import HomeBinding, Path, Side

#: Errors that say of something to be removed that it is not there.
_GONE = {errno.ESRCH, errno.ENOENT, errno.ENODEV, errno.EADDRNOTAVAIL, errno.ENXIO}


@dataclass(frozen=True, slots=True)
class DatapathConfiguration:
    """`tunnel_backend`: "auto", "seg6", "ip6tnl". `home_interface`: where an anchor answers Neighbour
    Solicitations for home addresses, None for nowhere. `mtu`: of the tunnels, octets. `name`: of the table,
    and of the devices with a digit behind it (at most 14 characters). `kernel_mobility`: a mobile node's home
    addresses are marked as such, for the kernel's own Mobile IPv6 (IPsec, the carrier "xfrm")."""

    tunnel_backend: str = "auto"
    home_interface: str | None = None
    mtu: int = 1460
    name: str = "flowbind"
    kernel_mobility: bool = False


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What one home address (or the base, under the key None) has in the kernel."""

    objects: frozenset[KernelObject]
    rules: HomeRules


_NOTHING = _Wanted(frozenset(), EMPTY)


class Datapath:
    """The forwarding state of one node. Its methods do not wait for anything but the kernel.

    Raises DatapathError where the tunnel backend is not to be had. Nothing is changed before the first call
    of `apply` or `reconcile`.
    """

    def __init__(self, side: Side, configuration: DatapathConfiguration | None = None) -> None:
        configuration = configuration or DatapathConfiguration()
        self.side = side
        self.configuration = configuration
        try:
            self.backend = choose_tunnel_backend(configuration.tunnel_backend)
        except ValueError as error:
            raise DatapathError(str(error)) from None
        self._route: Netlink | None = None
        self._filter: Netlink | None = None
        self._bindings: dict[IPv6Address, HomeBinding] = {}
        self._slots = Slots(shared=side is Side.ANCHOR)
        #: How many home addresses need each of the objects that are not of one only.
        self._uses: Counter[KernelObject] = Counter()
        self._sysctls: dict[str, int] = {}

    def apply(self, changes: Mapping[IPv6Address, HomeBinding | None]) -> None:
        """Change what is wanted for these home addresses (None: nothing any more).

        New routes are there before marks lead to them, and old ones until none does. Raises DatapathError,
        with everything as it was before.
        """
        if self._route is None:
            self.reconcile({})
        changed = [binding for binding in changes.values() if binding is not None]
        slots = self._slots.assign(changed)
        for address, binding in changes.items():
            if binding is not None and binding.home_address != address:
                raise DatapathError(f"the binding given for {address} is one of {binding.home_address}.")
        before: dict[IPv6Address | None, _Wanted] = {}
        wanted: dict[IPv6Address | None, _Wanted] = {}
        for address, binding in changes.items():
            if binding is not None:
                self._check(binding)
            old = self._bindings.get(address), self._slots.of.get(address, {})
            new = binding, slots.get(address, {})
            before[address] = self._want(*old, *new)
            wanted[address] = self._want(*new, *old)
        if self.side is Side.MOBILE:  # which home address is the first one, and its default path
            bindings = {**self._bindings, **changes}
            bindings = {address: binding for address, binding in bindings.items() if binding is not None}
            before[None] = self._base(self._bindings, self._slots.of)
            wanted[None] = self._base(bindings, {**self._slots.of, **slots})
        self._set_source(changed)
        self._prepare({**self._bindings, **changes}.values())
        if before.get(None) == wanted.get(None):
            self._commit(before, wanted)
        else:
            self._commit_default(before, wanted)
        for address, binding in changes.items():
            if binding is None:
                self._bindings.pop(address, None)
                self._slots.of.pop(address, None)
                self._classifier.forget(address)
            else:
                self._bindings[address] = binding
                self._slots.of[address] = slots[address]

    def reconcile(self, complete: Mapping[IPv6Address, HomeBinding]) -> int:
        """Make the kernel have exactly what is wanted, whatever it has now; what is right is not touched.

        Returns the number of repairs. Raises DatapathError.
        """
        try:
            return self._reconcile(complete)
        except NetlinkError as error:
            raise DatapathError(f"the kernel's state cannot be repaired: {explain(error)}.") from error

    def counters(self) -> dict[tuple[IPv6Address, int | None], tuple[int, int]]:
        """(home address, FID or None for the default) -> packets, octets, since each of them exists.

        Raises DatapathError.
        """
        found = self._all_counters()
        return {
            key: found[name]
            for address, binding in self._bindings.items()
            for name, key in counters_of(address, binding.rules).items()
            if name in found
        }

    @property
    def slots(self) -> Mapping[IPv6Address, Mapping[int, int]]:
        """The slot of each BID, by home address (see `mark`)."""
        return self._slots.of

    def totals(self) -> dict[str, int]:
        """Packets that no flow binding decided on: rejected tunnel packets, signalling, dropped outer
        packets."""
        return {
            name: packets
            for name, (packets, _) in self._all_counters().items()
            if name in Classifier.BASE_COUNTERS
        }

    def close(self) -> None:
        """Remove everything from the kernel. Raises DatapathError; calling it again does nothing."""
        if self._route is None or self._filter is None:
            return
        try:
            self._ruleset.delete()
            objects = self._objects_there()
            if not any(rule == FIRST_LOCAL_RULE for rule in objects):
                self._install([FIRST_LOCAL_RULE])
            self._remove([o for o in objects if o != FIRST_LOCAL_RULE])
            self._tunnel.close()
            self._detour.remove()
        except NetlinkError as error:
            raise DatapathError(f"the kernel's state cannot be removed: {explain(error)}.") from error
        finally:
            self._route.close()
            self._filter.close()
            self._route = self._filter = None
            for name, value in self._sysctls.items():
                try:
                    sysctl(name, value)
                except DatapathError:
                    pass  # an interface that is gone
            self._sysctls.clear()
            self._bindings.clear()
            self._uses.clear()
            self._slots.of.clear()

    def _open(self) -> None:
        """Sockets, devices and sysctls: done at the first call, looked after in each `reconcile`."""
        name, mtu = self.configuration.name, self.configuration.mtu
        if self._route is None:
            try:
                self._filter = Netlink(NETFILTER)
                self._route = Netlink(ROUTE)
            except OSError as error:
                raise DatapathError(
                    f"this kernel has no nf_tables or no rtnetlink: {error.strerror}."
                ) from error
            self._detour = DetourDevice(self._route, f"{name}0", f"{name}1", mtu)
            self._tunnel: Tunnel = (
                Seg6Tunnel(self.side, self._route, self._detour, mtu)
                if self.backend == "seg6"
                else ip6_tunnel(self.side, self._route, name, mtu)
            )
            self._tunnel.open()
            self._routing = Routing(
                self.side,
                self._tunnel,
                self._detour.name,
                self.configuration.home_interface,
                mtu,
                self.configuration.kernel_mobility,
            )
            own = OWN_SETS if self.side is Side.ANCHOR else frozenset()
            self._ruleset = Ruleset(self._filter, name, f"owned by flowbind ({self.side.value})", own)
        self._detour.ensure()
        device = getattr(self._tunnel, "device", None)
        if device is not None:
            device.ensure()
        self._ruleset.classifier = self._classifier = Classifier(
            self.side,
            name,
            (self._detour.index, self._detour.exit_index),
            self._tunnel.by_route,
            device.index if device is not None else 0,
            mtu,
        )
        if self.side is Side.ANCHOR:
            self._set_sysctl("ipv6/conf/all/forwarding", 1)
            home = self.configuration.home_interface
            if home is not None:
                self._set_sysctl(f"ipv6/conf/{home}/proxy_ndp", 1)
                # or packets to link-local addresses are forwarded (RFC 6275 §10.4.2)
                self._set_sysctl("ipv6/conf/all/proxy_ndp", 1)
                self._set_sysctl(f"ipv6/neigh/{home}/proxy_delay", 0)

    def _set_sysctl(self, name: str, value: int) -> None:
        self._sysctls.setdefault(name, sysctl(name, value))

    def _set_source(self, bindings: Iterable[HomeBinding]) -> None:
        if self.side is not Side.ANCHOR:
            return
        for binding in bindings:
            for path in binding.paths:
                self._tunnel.set_source(path.local)

    def _prepare(self, bindings: Iterable[HomeBinding | None]) -> None:
        try:
            self._tunnel.prepare([binding for binding in bindings if binding is not None])
        except NetlinkError as error:
            raise DatapathError(f"the kernel refused a tunnel device: {explain(error)}.") from error

    def _check(self, binding: HomeBinding) -> None:
        """Raise DatapathError for what no kernel could do."""
        bids = {path.bid for path in binding.paths}
        for path in binding.paths:
            inside = [
                path.remote == binding.home_address and path.on_link is None,
                *(path.remote in prefix for prefix in binding.prefixes),
            ]
            if any(inside):
                raise DatapathError(
                    f"the tunnel of BID {path.bid} of {binding.home_address} ends inside itself."
                )
            home_link = self.side is Side.MOBILE or self.configuration.home_interface is not None
            if path.on_link is not None and not home_link:
                raise DatapathError(f"BID {path.bid} of {binding.home_address} is on no home link of ours.")
            if self.side is Side.MOBILE and path.interface is None:
                raise DatapathError(f"BID {path.bid} of {binding.home_address} has no interface.")
        for rule in binding.rules:
            if not bids.issuperset(rule.bids):
                unknown = min(set(rule.bids) - bids)
                raise DatapathError(
                    f"flow binding {rule.fid} of {binding.home_address} names BID {unknown}, "
                    "which has no path."
                )

    def _want(
        self,
        binding: HomeBinding | None,
        slots: dict[int, int],
        other: HomeBinding | None = None,
        other_slots: dict[int, int] | None = None,
    ) -> _Wanted:
        """What the kernel shall have for a binding; of the costly parts only those that the same is not had
        of by `other`, the one before or after it."""
        if binding is None:
            return _NOTHING
        if other is None:
            return _Wanted(
                frozenset(self._routing.home(binding, slots)), self._classifier.home(binding, slots)
            )
        alike = self.side is Side.ANCHOR and not (binding.prefixes or other.prefixes)
        # what a mobile node's paths need may vanish by itself, hence is had again
        paths = _placed(other, other_slots) if alike else ()
        return _Wanted(
            frozenset(self._routing.home(binding, slots, paths)),
            self._classifier.home(binding, slots, other, other_slots),
        )

    def _base(
        self, bindings: Mapping[IPv6Address, HomeBinding], slots: Mapping[IPv6Address, dict[int, int]]
    ) -> _Wanted:
        first = min(bindings.values(), key=lambda b: (b.regional, b.home_address), default=None)
        of_first = slots[first.home_address] if first is not None else {}
        elements = set(self._classifier.base_elements())
        path = next((path for path in first.paths if path.bid == first.default_bid), None) if first else None
        if path is not None:
            elements |= self._classifier.sources(0, path)
        return _Wanted(frozenset(self._routing.base(first, of_first)), HomeRules({}, {}, frozenset(elements)))

    def _commit_default(
        self, before: dict[IPv6Address | None, _Wanted], wanted: dict[IPv6Address | None, _Wanted]
    ) -> None:
        """The same where the default path of packets without a mark changes, for which rules and routes would
        have to change in one: they have marks meanwhile."""
        old, new = before[None], wanted[None]
        old_by_marks, new_by_marks = (
            replace(each, objects=self._routing.by_marks(each.objects)) for each in (old, new)
        )
        self._commit({None: old}, {None: old_by_marks})
        try:
            self._commit(before | {None: old_by_marks}, wanted | {None: new_by_marks})
        except DatapathError:
            self._commit({None: old_by_marks}, {None: old})
            raise
        self._commit({None: new_by_marks}, {None: new})

    def _commit(
        self, before: dict[IPv6Address | None, _Wanted], wanted: dict[IPv6Address | None, _Wanted]
    ) -> None:
        """Go from `before`, which the kernel has, to `wanted`, which has the same keys."""
        uses: Counter[KernelObject] = Counter()
        for key in wanted:
            uses.subtract(before[key].objects)
            uses.update(wanted[key].objects)
        added = [o for o, change in uses.items() if change > 0 and not self._uses[o]]
        removed = [o for o, change in uses.items() if change < 0 and self._uses[o] + change <= 0]
        replaced = {o.key: o for o in removed}
        fresh = set(added)
        again = [o for new in wanted.values() for o in new.objects if o.volatile and o not in fresh]
        keys = {o.key for o in added}
        removed = [o for o in removed if o.key not in keys]
        added.sort(key=_order)
        done: list[KernelObject] = []
        try:
            self._install(added + again, done)
            self._ruleset.change(
                {key: new.rules for key, new in before.items()},
                {key: new.rules for key, new in wanted.items()},
            )
        except (DatapathError, NetlinkError) as error:
            done = [o for o in reversed(done) if o in fresh]
            self._remove(o for o in done if o.key not in replaced)
            self._attempt_install([replaced[o.key] for o in done if o.key in replaced])
            if isinstance(error, NetlinkError):
                raise DatapathError(f"the kernel refused the flow rules: {explain(error)}.") from error
            raise
        removed.sort(key=_order, reverse=True)
        self._count(uses)
        self._remove(removed)

    def _count(self, uses: Mapping[KernelObject, int]) -> None:
        """At an anchor, all but policy rules belong to one home address, or to none."""
        for o, change in uses.items():
            if change and (self.side is not Side.ANCHOR or isinstance(o, PolicyRule)):
                self._uses[o] += change
                if not self._uses[o]:
                    del self._uses[o]

    def _install(self, objects: list[KernelObject], done: list[KernelObject] | None = None) -> None:
        """Install in this order; `done` gets what was. Raises DatapathError for the first refusal."""
        links = LinkIndices()
        try:
            messages = [o.install(links) for o in objects]
        except UnknownInterface as error:
            raise DatapathError(f"there is no interface {error}.") from None
        refused: tuple[KernelObject, NetlinkError] | None = None
        for o, error in zip(objects, self._route.attempt(messages), strict=True):
            if error is None or error.errno == errno.EEXIST:
                if done is not None and error is None:
                    done.append(o)
            elif refused is None:
                refused = o, error
        if refused is not None:
            o, error = refused
            raise DatapathError(f"the kernel refused {o}: {explain(error)}.") from error

    def _attempt_install(self, objects: list[KernelObject]) -> None:
        try:
            self._install(objects)
        except DatapathError:
            pass  # what was there before has lost its interface meanwhile

    def _remove(self, objects: Iterable[KernelObject]) -> None:
        """Remove what is there of these. Raises NetlinkError for what the kernel will not give up."""
        links = LinkIndices()
        messages = []
        for o in objects:
            try:
                messages.append(o.remove(links))
            except UnknownInterface:
                pass  # gone, with all that was on it
        for error in self._route.attempt(messages):
            if error is not None and error.errno not in _GONE:
                raise error

    def _reconcile(self, complete: Mapping[IPv6Address, HomeBinding]) -> int:
        self._open()
        there = self._objects_there()
        self._adopt(complete, there)
        slots = self._slots.assign(complete.values())
        wanted: dict[IPv6Address | None, _Wanted] = {}
        for address, binding in complete.items():
            self._check(binding)
            wanted[address] = self._want(binding, slots[address])
        wanted[None] = self._base(complete, slots)
        self._set_source(complete.values())
        self._prepare(complete.values())
        uses: Counter[KernelObject] = Counter()
        for new in wanted.values():
            uses.update(new.objects)

        by_key: dict[tuple, list[KernelObject]] = {}
        for o in there:
            by_key.setdefault(o.key, []).append(o)
        twice = [o for group in by_key.values() if len(group) > 1 for o in group]
        missing = sorted((o for o in uses if by_key.get(o.key) != [o]), key=_order)
        keys = {o.key for o in uses}
        extra = sorted((o for o in there if o.key not in keys), key=_order, reverse=True)
        self._remove(twice)
        self._install(missing)
        repairs = self._ruleset.repair({key: new.rules for key, new in wanted.items()})
        self._remove(extra)
        self._uses.clear()
        self._count(uses)
        self._bindings = dict(complete)
        self._slots.of = dict(slots)
        return repairs + len(missing) + len(extra)

    def _objects_there(self) -> list[KernelObject]:
        """Routes in our tables, what else carries our mark, and the kernel's first rule, which we move."""

        def is_ours(rule: PolicyRule) -> bool:
            return rule.owner == mark.PROTOCOL or rule == FIRST_LOCAL_RULE

        objects: list[KernelObject] = [rule for rule in dump_rules(self._route) if is_ours(rule)]
        objects += dump_routes(self._route, mark.TABLE_BASE, mark.TABLE_END)
        objects += dump_addresses(self._route, "lo")
        objects += dump_proxies(self._route)
        objects += dump_neighbours(self._route)
        return objects

    def _adopt(self, complete: Mapping[IPv6Address, HomeBinding], there: list[KernelObject]) -> None:
        """Keep the slots that the kernel's routes have for these paths, so that traffic is not disturbed."""
        first = mark.slot_table(0)
        if self._slots.of:
            return
        known: dict[tuple, int] = {}
        for o in there:
            if isinstance(o, PolicyRule):
                if o.priority == mark.CARE_OF_PRIORITY and o.source is not None:
                    known[None, o.source] = o.table - mark.outer_table(0)
            elif getattr(o, "encapsulation", None) and first <= o.table < mark.OUTER_TABLE_BASE:
                known[o.prefix.network_address, self._tunnel.remote(o)] = o.table - first
        for address, binding in complete.items():
            slots: dict[int, int] = {}
            for path in binding.paths:
                key = (address, path.remote) if self.side is Side.ANCHOR else (None, path.local)
                slot = known.pop(key, None)
                if slot is not None and 0 <= slot < mark.SLOTS:
                    slots[path.bid] = slot
            self._slots.of[address] = slots

    def _all_counters(self) -> dict[str, tuple[int, int]]:
        if self._filter is None:
            return {}
        try:
            return dict(map(parse_counter, self._filter.dump(*self._classifier.table.counters_request())))
        except NetlinkError as error:
            raise DatapathError(f"the kernel's counters cannot be read: {explain(error)}.") from error


def _placed(binding: HomeBinding, slots: Mapping[int, int]) -> list[tuple[Path, int]]:
    return [(path, slots[path.bid]) for path in binding.paths]


def _order(o: KernelObject) -> int:
    """Addresses before the routes that name them as source, routes before the rules that lead to them."""
    kind = o.key[0]
    return ("address", "route", "neighbour", "proxy", "rule").index(kind)
