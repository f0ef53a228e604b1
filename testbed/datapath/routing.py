"""Which routes, rules, addresses and proxies each home address needs. Class: `Routing`.

At an anchor, table of slot N has a route for each home address whose BID has that slot. At a mobile node,
each BID has a slot of its own, with two tables: what goes into the tunnel, and how tunnel packets and
signalling leave (by the interface of their care-of address, whatever the default route is).
"""

from collections.abc import Collection
from dataclasses import replace
from ipaddress import IPv6Address, IPv6Network

from testbed.datapath import mark
from testbed.datapath.route import (
    BLACKHOLE,
    FIRST_LOCAL_RULE,
    LOCAL,
    THROW,
    HomeAddress,
    KernelObject,
    Neighbour,
    PolicyRule,
    Proxy,
    Route,
)
from testbed.datapath.tunnel import Tunnel
from testbed.mobility.forwarding import HomeBinding, OnLink, Path, Side

_LAST_RESORT = 4096
_SCOPED = IPv6Network("fe80::/10"), IPv6Network("ff00::/8")


class Routing:
    """Translates bindings into routes. Nothing in here talks to the kernel.

    `detour`: name of the detour device. `home_interface`: where to answer Neighbour Solicitations, or None.
    """

    def __init__(
        self,
        side: Side,
        tunnel: Tunnel,
        detour: str,
        home_interface: str | None,
        mtu: int,
        kernel_mobility: bool = False,
    ) -> None:
        self._anchor = side is Side.ANCHOR
        self._tunnel = tunnel
        self._detour = detour
        self._home_interface = home_interface
        self._mtu = mtu
        self._kernel_mobility = kernel_mobility

    def base(self, first: HomeBinding | None, slots: dict[int, int]) -> set[KernelObject]:
        """What is needed whatever the bindings; at a mobile node, `first` serves packets without a source."""
        objects = {
            *self._tunnel.base(),
            # numbers DETOUR and DISCARD
            PolicyRule(
                mark.DETOUR_PRIORITY,
                mark.DETOUR_TABLE,
                mark.value(mark.DETOUR),
                mark.NUMBER_MASK & ~mark.value(1),
            ),
            self._by_detour(mark.DETOUR_TABLE, mark.ANY),
            PolicyRule(mark.HOME_PRIORITY, mark.HOME_TABLE),
            self._by_detour(mark.HOME_TABLE, IPv6Network(mark.COPY_GATEWAY)),
        }
        if not self._tunnel.by_route:
            objects.add(FIRST_LOCAL_RULE)
        elif self._anchor:
            objects.add(self._by_detour(mark.INNER_TABLE, mark.ANY))
        if first is not None and not self._anchor:
            objects |= self._default(first, slots)
        return objects

    @staticmethod
    def by_marks(objects: Collection[KernelObject]) -> frozenset[KernelObject]:
        """The same, but that rules mark all packets, whatever way their route takes already."""

        def leads_in(o: KernelObject) -> bool:
            return isinstance(o, Route) and o.source is not None and o.gateway == mark.entrance(o.source)

        return frozenset(replace(o, gateway=None) if leads_in(o) else o for o in objects)

    def _default(self, first: HomeBinding, slots: dict[int, int]) -> set[KernelObject]:
        """Packets that have neither source nor mark yet: they get the home address and the default path."""
        objects: set[KernelObject] = {Route(mark.HOME_TABLE, scope, kind=THROW) for scope in _SCOPED}
        # networks that this node is connected to are reached as ever
        objects.add(PolicyRule(mark.SPECIFIC_PRIORITY, mark.MAIN_TABLE, specific=True))
        objects |= {Route(mark.HOME_TABLE, prefix, kind=THROW) for prefix in first.prefixes}
        path = next((path for path in first.paths if path.bid == first.default_bid), None)
        if path is None:
            detour = self._by_detour(mark.HOME_TABLE, mark.ANY)
            objects.add(
                Route(
                    detour.table, detour.prefix, detour.interface, detour.gateway, source=first.home_address
                )
            )
            return objects
        if path.on_link is not None:
            leave = Route(
                mark.HOME_TABLE,
                mark.ANY,
                path.interface,
                path.gateway,
                source=first.home_address,
                volatile=True,
            )
            return objects | {leave}
        route = self._tunnel.route(mark.HOME_TABLE, mark.ANY, path, first.home_address)
        objects.add(replace(route, gateway=mark.entrance(first.home_address)))
        if self._tunnel.by_route or path.via is not None:
            objects.add(
                PolicyRule(mark.CARE_OF_PRIORITY, mark.outer_table(slots[path.bid]), source=mark.PLACEHOLDER)
            )
        return objects

    def home(
        self, binding: HomeBinding, slots: dict[int, int], other: Collection[tuple[Path, int]] = ()
    ) -> set[KernelObject]:
        """What one home address needs; `slots`: BID -> slot. Without what the paths with their slots in
        `other` need, which is there before and after."""
        destinations = [IPv6Network(binding.home_address), *binding.prefixes]
        objects: set[KernelObject] = set()
        for path in binding.paths:
            slot = slots[path.bid]
            if (path, slot) in other and path.on_link is None:  # neighbours may vanish by themselves
                continue
            table = mark.slot_table(slot)
            priority = mark.ANCHOR_SLOT_PRIORITY if self._anchor else mark.SLOT_PRIORITY
            objects.add(PolicyRule(priority, table, mark.value(mark.slot_number(slot)), mark.NUMBER_MASK))
            if path.on_link is not None:
                objects |= self._on_link(binding.home_address, path, path.on_link, table)
            elif self._anchor:
                objects |= {self._tunnel.route(table, prefix, path) for prefix in destinations}
            else:
                objects.add(self._tunnel.route(table, mark.ANY, path))
                objects |= {Route(table, prefix, kind=THROW) for prefix in binding.prefixes}
                objects |= self._outer_via(path.via, slot) if path.via else self._outer(path, slot)
        if self._anchor:
            objects |= {self._by_detour(mark.HOME_TABLE, prefix) for prefix in destinations}
            if self._home_interface is not None:
                objects |= {Proxy(address, self._home_interface) for address in binding.defended_addresses}
        else:
            objects.add(HomeAddress(binding.home_address, for_kernel=self._kernel_mobility))
            if self._tunnel.by_route:
                objects.add(Route(mark.HERE_TABLE, destinations[0], "lo", kind=LOCAL))
                if binding.regional:  # where tunnels within tunnels end
                    objects.add(self._tunnel.end(mark.INNER_TABLE, destinations[0]))
                else:
                    objects.add(Route(mark.INNER_TABLE, destinations[0], "lo", kind=LOCAL))
                objects |= {self._by_detour(mark.INNER_TABLE, prefix) for prefix in binding.prefixes}
        if self._tunnel.by_route and (self._anchor or binding.prefixes):
            ends = {(path.via or path).local for path in binding.paths if path.on_link is None}
            objects |= {self._tunnel.onward(end) for end in ends}
        return objects

    def _on_link(
        self, home_address: IPv6Address, path: Path, on_link: OnLink, table: int
    ) -> set[KernelObject]:
        if self._anchor:
            return self._at_home(home_address, on_link, table)
        return self._from_home(path, on_link, table)

    def _at_home(self, home_address: IPv6Address, on_link: OnLink, table: int) -> set[KernelObject]:
        """How an anchor sends to a mobile node on the home link (RFC 5648 §5.6.2, §6.3)."""
        interface = self._home_interface
        objects: set[KernelObject] = {Route(table, IPv6Network(home_address), interface, volatile=True)}
        if on_link.link_layer_address:
            permanent = not on_link.neighbour_discovery
            objects.add(Neighbour(home_address, interface, on_link.link_layer_address, permanent))
        return objects

    @staticmethod
    def _from_home(path: Path, on_link: OnLink, table: int) -> set[KernelObject]:
        """How a mobile node sends on the home link (RFC 5648 §5.6.4): by its router, whose link-layer address
        the kernel knows from Router Advertisements; to its neighbours itself, where it may be one."""
        objects: set[KernelObject] = {
            Route(table, mark.ANY, path.interface, path.gateway, volatile=True),
            # without the interface, packets are lost, rather than leave elsewhere
            Route(table, mark.ANY, kind=BLACKHOLE, metric=_LAST_RESORT),
        }
        if on_link.prefix is not None:
            objects.add(Route(table, on_link.prefix, path.interface, volatile=True))
        return objects

    def _outer(self, path: Path, slot: int) -> set[KernelObject]:
        """How packets with the care-of address of `path` leave this mobile node."""
        table = mark.outer_table(slot)
        link = IPv6Network((path.local, 64), strict=False)
        objects: set[KernelObject] = {
            *(Route(table, scope, kind=THROW) for scope in _SCOPED),
            Route(table, link, path.interface, volatile=True),
            Route(table, mark.ANY, path.interface, path.gateway, volatile=True),
            # without the interface, packets get lost, as they do in any network: no error for applications
            Route(table, mark.ANY, self._detour, mark.DETOUR_GATEWAY, metric=_LAST_RESORT),
            PolicyRule(mark.CARE_OF_PRIORITY, table, source=path.local),
        }
        if self._tunnel.by_route:
            objects.add(_outer_rule(slot))
        return objects

    def _outer_via(self, via: Path, slot: int) -> set[KernelObject]:
        """How packets of a tunnel that is inside of the tunnel `via` leave this mobile node: into that one,
        whose own packets leave by its interface."""
        table = mark.outer_table(slot)
        end = IPv6Network(via.remote)
        out = {
            Route(table, end, via.interface, via.gateway, volatile=True),
            Route(table, end, self._detour, mark.DETOUR_GATEWAY, metric=_LAST_RESORT),
        }
        return {
            *(Route(table, scope, kind=THROW) for scope in _SCOPED),
            self._tunnel.route(table, mark.ANY, via),
            *(out if self._tunnel.by_route else ()),  # elsewhere they have a source of their own by then
            _outer_rule(slot),
        }

    def _by_detour(self, table: int, prefix: IPv6Network) -> Route:
        return Route(table, prefix, self._detour, mark.DETOUR_GATEWAY)


def _outer_rule(slot: int) -> PolicyRule:
    """What takes packets of a slot's tunnel that have no source of their own yet to its table."""
    number = mark.value(mark.slot_number(slot))
    table = mark.outer_table(slot)
    return PolicyRule(mark.OUTER_PRIORITY, table, number, mark.NUMBER_MASK, source=mark.PLACEHOLDER)
