"""Optimised routes by the kernel's own Mobile IPv6 (XFRM, CONFIG_IPV6_MIP6). Class: `XfrmCarrier`.

Each way is a policy and a state with the mark of the way: nf_tables marks a packet, the policy with that mark
takes it, and the state has the care-of address. Packets that arrive need no mark: one state a home address
takes their headers out, from whatever care-of address, as nf_tables has dropped what no binding allows.
"""

from collections.abc import Collection, Iterator
from ipaddress import IPv6Address, IPv6Network

from testbed.datapath import mark
from testbed.datapath.carrier import Carrier, Way
from testbed.datapath.packet_log import LoggedPackets
from testbed.datapath.route import KernelObject, PolicyRule, Route
from testbed.datapath.xfrm import (
    DESTINATION_OPTIONS,
    FIRST_REQUEST,
    IN,
    OUT,
    ROUTE_OPTIMISATION,
    ROUTING,
    UNSPECIFIED,
    Selector,
    State,
    Template,
    Transformations,
    TransformPolicy,
)
from testbed.mobility.forwarding import Side

_REQUEST = FIRST_REQUEST


class XfrmCarrier(Carrier):
    """By the kernel itself."""

    name = "xfrm"
    kernel_headers = True

    def __init__(self, side: Side) -> None:
        self._mobile = side is Side.MOBILE
        self._reports: LoggedPackets | None = None

    def open(self) -> None:
        self._transformations = Transformations(_REQUEST)
        self._transformations.clean()
        if not self._mobile:
            self._reports = LoggedPackets()

    def carry(
        self,
        ways: Collection[Way],
        ours: Collection[bytes],
        interfaces: Collection[int],
        homes: Collection[bytes] = (),
    ) -> None:
        addresses = [] if self._mobile else [a for a in map(IPv6Address, ours) if _is_global(a)]
        wanted = [part for way in ways for part in self._way(way, addresses)]
        if self._mobile:
            for home in map(IPv6Address, {*homes, *(way.home_address for way in ways)}):
                wanted.append(_state(UNSPECIFIED, home, ROUTING, UNSPECIFIED))
                wanted.append(_policy(IN, UNSPECIFIED, home, ROUTING))
        self._transformations.become(wanted)

    def _way(self, way: Way, ours: list[IPv6Address]) -> Iterator[State | TransformPolicy]:
        home, peer = IPv6Address(way.home_address), IPv6Address(way.correspondent)
        care_of_address = IPv6Address(way.care_of_address)
        marked = way.mark, mark.NUMBER_MASK
        if self._mobile:
            yield _state(home, peer, DESTINATION_OPTIONS, care_of_address, marked)
            yield _policy(OUT, home, peer, DESTINATION_OPTIONS, marked)
        else:
            yield _state(peer, home, ROUTING, care_of_address, marked)
            for address in ours:  # the kernel looks for this state by both addresses
                yield _state(home, address, DESTINATION_OPTIONS, UNSPECIFIED)
            yield _policy(OUT, peer, home, ROUTING, marked)
            yield _policy(IN, home, peer, DESTINATION_OPTIONS)

    def steering(self, table: int, rule: PolicyRule, route: Route | None) -> list[KernelObject]:
        return [] if route is None else [route, rule]

    def reports(self) -> LoggedPackets | None:
        return self._reports

    def close(self) -> None:
        self._transformations.close()
        if self._reports is not None:
            self._reports.close()
            self._reports = None


def _state(
    source: IPv6Address,
    destination: IPv6Address,
    protocol: int,
    care_of_address: IPv6Address,
    marked: tuple[int, int] = (0, 0),
) -> State:
    return State(
        source, destination, protocol, ROUTE_OPTIMISATION, _REQUEST,
        care_of_address=care_of_address, mark=marked,
    )  # fmt: skip


def _policy(
    direction: int,
    source: IPv6Address,
    destination: IPv6Address,
    protocol: int,
    marked: tuple[int, int] = (0, 0),
) -> TransformPolicy:
    template = Template(protocol, ROUTE_OPTIMISATION, _REQUEST, optional=direction == IN)
    selector = Selector(_network(source), _network(destination))
    return TransformPolicy(direction, selector, (template,), marked)


def _network(address: IPv6Address) -> IPv6Network:
    """The address, or any."""
    return IPv6Network((address, 128 if address != UNSPECIFIED else 0))


def _is_global(address: IPv6Address) -> bool:
    return not (address.is_loopback or address.is_link_local)
