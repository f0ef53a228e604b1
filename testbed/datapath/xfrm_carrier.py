"""Optimised routes by the kernel's own Mobile IPv6 (XFRM, CONFIG_IPV6_MIP6). Class: `XfrmCarrier`.

Each number is a policy: nf_tables marks a packet, the policy with that mark takes it, and asks for the states
of its way and its peer, which have the care-of addresses.

Not done: large datagrams to another mobile node that is not registered here itself. The kernel cuts them for
the link once they have their header, which is too long for the tunnel of that one's home agent.
"""

from collections.abc import Collection, Iterator
from ipaddress import IPv6Address, IPv6Network

from testbed.datapath import mark
from testbed.datapath.carrier import Carrier, Peer, Way
from testbed.datapath.optimisation_rules import PEER_MASK, WAY_MASK, number_of
from testbed.datapath.xfrm import (
    DESTINATION_OPTIONS,
    FIRST_REQUEST,
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

#: Behind those of signalling.
_REQUEST = FIRST_REQUEST + 512


class XfrmCarrier(Carrier):
    """By the kernel itself."""

    name = "xfrm"

    def open(self) -> None:
        self._transformations = Transformations(_REQUEST)
        self._transformations.clean()

    def carry(self, ways: Collection[Way], peers: Collection[Peer], interfaces: Collection[int]) -> None:
        wanted: list[State | TransformPolicy] = []
        by_home: dict[bytes, list[Peer]] = {}
        for peer in peers:
            by_home.setdefault(peer.home_address, []).append(peer)
            wanted += _peer(peer)
        for way in ways:
            wanted += _way(way, by_home.get(way.correspondent, ()))
        self._transformations.become(wanted)

    def close(self) -> None:
        self._transformations.close()


def _peer(peer: Peer) -> Iterator[State | TransformPolicy]:
    home, number = IPv6Address(peer.home_address), mark.value(number_of(peer=peer.peer))
    yield _state(UNSPECIFIED, home, ROUTING, peer.care_of_address, (number, PEER_MASK))
    yield _policy(UNSPECIFIED, home, (ROUTING,), number)


def _way(way: Way, peers: Collection[Peer]) -> Iterator[State | TransformPolicy]:
    """To a peer, with both headers."""
    home, correspondent = IPv6Address(way.home_address), IPv6Address(way.correspondent)
    number = mark.value(number_of(way.way))
    yield _state(home, correspondent, DESTINATION_OPTIONS, way.care_of_address, (number, WAY_MASK))
    yield _policy(home, correspondent, (DESTINATION_OPTIONS,), number)
    for peer in peers:
        number = mark.value(number_of(way.way, peer.peer))
        yield _policy(home, correspondent, (ROUTING, DESTINATION_OPTIONS), number)


def _state(
    source: IPv6Address, destination: IPv6Address, protocol: int, care_of: bytes, marked: tuple[int, int]
) -> State:
    return State(
        source, destination, protocol, ROUTE_OPTIMISATION, _REQUEST,
        care_of_address=IPv6Address(care_of), mark=marked,
    )  # fmt: skip


def _policy(
    source: IPv6Address, destination: IPv6Address, headers: Collection[int], number: int
) -> TransformPolicy:
    templates = tuple(Template(header, ROUTE_OPTIMISATION, _REQUEST) for header in headers)
    selector = Selector(_network(source), _network(destination))
    return TransformPolicy(OUT, selector, templates, _REQUEST, (number, mark.NUMBER_MASK))


def _network(address: IPv6Address) -> IPv6Network:
    """The address, or any."""
    return IPv6Network((address, 128 if address != UNSPECIFIED else 0))
