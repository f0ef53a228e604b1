"""What OpenFlow can select: traffic selectors (RFC 6088) as masked matches.

Class: `Selection`. Functions: `select`, `blocks`, `cover`, `networks_of`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from ipaddress import IPv6Address, IPv6Network
from itertools import product
from math import prod

from controllers.rule import ETH_TYPE_IPV6, Match, match
from testbed.wire.selector import IPv4TrafficSelector, IPv6Range, IPv6TrafficSelector, TrafficSelector

#: Protocols with ports that OpenFlow has fields for, with the beginning of the fields' names.
PORT_FIELDS = {6: "tcp", 17: "udp", 132: "sctp"}
#: Protocols with ports that it has no fields for: DCCP and UDP-Lite.
PORTS_OUT_OF_REACH = (33, 136)
#: A block of numbers: (value, mask) as OpenFlow compares them.
Block = tuple[int, int]
ANY: Block = (0, 0)


@dataclass(frozen=True, slots=True)
class Selection:
    """The packets of a flow, as matches.

    exact: packets that are of the flow for sure. doubtful: those of which the switch cannot tell; they
    may also be of another flow, so that they must stay with the home agent, which can. reason: why there
    are any, in words.
    """

    exact: tuple[Match, ...] = ()
    doubtful: tuple[Match, ...] = ()
    reason: str | None = None


def blocks(start: int, end: int, bits: int) -> list[Block]:
    """The fewest (value, mask) that cover the numbers from `start` to `end` and no others."""
    full = (1 << bits) - 1
    found = []
    while start <= end:
        size = start & -start or 1 << bits
        while size > end - start + 1:
            size >>= 1
        found.append((start, full & ~(size - 1)))
        start += size
    return found


def cover(start: int, end: int, bits: int) -> Block:
    """The smallest single block that has all the numbers from `start` to `end`."""
    mask = (1 << bits) - (1 << (start ^ end).bit_length())
    return start & mask, mask


@dataclass(frozen=True, slots=True)
class _Field:
    """The choices for one field; `widened` is one choice that includes them all."""

    name: str
    choices: tuple[Block, ...]
    widened: Block

    @classmethod
    def of(cls, name: str, numbers: tuple[int, int], bits: int) -> "_Field":
        return cls(name, tuple(blocks(*numbers, bits)), cover(*numbers, bits))


def select(
    selector: TrafficSelector | None, home: Sequence[IPv6Network], max_matches: int = 256
) -> Selection:
    """The packets to the networks `home` (home address, mobile network prefixes) that `selector` describes.

    At most `max_matches` matches for each network come of it: a selector that would need more is not
    expressed exactly, but by fewer matches that are all doubtful.
    """
    if isinstance(selector, IPv4TrafficSelector):
        return Selection(reason="an IPv4 selector matches no IPv6 packet")
    selector = selector or IPv6TrafficSelector()
    parts = [_select(selector, network, max_matches) for network in home]
    exact = sum((part.exact for part in parts), ())
    doubtful = sum((part.doubtful for part in parts), ())
    reason = next((part.reason for part in parts if part.reason), None)
    if not exact and not doubtful:
        reason = "it matches no packet to the home address"
    return Selection(exact, doubtful, reason)


def _select(selector: IPv6TrafficSelector, home: IPv6Network, max_matches: int) -> Selection:
    destination = _intersection(selector.destination_address, home)
    if destination is None:
        return Selection()
    fields = [_Field.of("ipv6_dst", destination, 128)]
    if selector.source_address:
        fields.append(_Field.of("ipv6_src", _numbers(selector.source_address), 128))
    if selector.flow_label:
        fields.append(_Field.of("ipv6_flabel", selector.flow_label, 20))
    if selector.traffic_class:  # only the DS field, its upper six bits, counts; OpenFlow has no mask for it
        first, last = (octet >> 2 for octet in selector.traffic_class)
        values = tuple((value, 0x3F) for value in range(first, last + 1))
        fields.append(_Field("ip_dscp", (ANY,) if len(values) == 64 else values, ANY))
    protocols = _protocols(selector)
    ports = [
        _Field.of(end, numbers, 16)
        for end, numbers in (("src", selector.source_port), ("dst", selector.destination_port))
        if numbers
    ]
    if ports:
        known = [number for number in PORT_FIELDS if protocols is None or number in protocols]
        unknown = [number for number in PORTS_OUT_OF_REACH if protocols is None or number in protocols]
        exact = [
            [
                *fields,
                _protocol([number]),
                *(replace(port, name=f"{PORT_FIELDS[number]}_{port.name}") for port in ports),
            ]
            for number in known
        ]
        doubtful = [[*fields, _protocol(unknown)]] if unknown else []
    else:
        exact = [[*fields, _protocol(protocols)]] if protocols is None or protocols else []
        doubtful = []
    return _judge(selector, exact, doubtful, max_matches)


def _judge(
    selector: IPv6TrafficSelector, exact: list[list[_Field]], doubtful: list[list[_Field]], max_matches: int
) -> Selection:
    needed = sum(prod(len(field.choices) for field in fields) for fields in exact)
    reason = "the switch sees no ports of DCCP and UDP-Lite" if doubtful and not exact else None
    if selector.spi:
        reason = "OpenFlow cannot match an SPI"
    elif needed > max_matches:
        reason = f"it needs {needed} switch rules, more than {max_matches}"
    if reason:
        doubtful, exact = [*exact, *doubtful], []
    narrowed = [_narrow(fields, max_matches) for fields in doubtful]
    return Selection(_matches(exact), _matches(narrowed), reason)


def _narrow(fields: list[_Field], max_matches: int) -> list[_Field]:
    """Widen the field with the most choices, again and again, until the matches are few enough."""
    fields = list(fields)
    while prod(len(field.choices) for field in fields) > max_matches:
        worst = max(range(len(fields)), key=lambda index: len(fields[index].choices))
        fields[worst] = replace(fields[worst], choices=(fields[worst].widened,))
    return fields


def _matches(alternatives: list[list[_Field]]) -> tuple[Match, ...]:
    return tuple(
        match(
            eth_type=ETH_TYPE_IPV6,
            **{field.name: choice for field, choice in zip(fields, chosen, strict=True)},
        )
        for fields in alternatives
        for chosen in product(*(field.choices for field in fields))
    )


def _protocol(numbers: "list[int] | None") -> _Field:
    """Protocols are compared as a whole: OpenFlow has no mask for them."""
    choices = (ANY,) if numbers is None else tuple((number, 0xFF) for number in numbers)
    return _Field("ip_proto", choices, ANY)


def _protocols(selector: IPv6TrafficSelector) -> "list[int] | None":
    """The numbers asked for; None where any will do."""
    if selector.next_header in (None, (0, 0xFF)):
        return None
    return list(range(selector.next_header[0], selector.next_header[1] + 1))


def _numbers(addresses: IPv6Range) -> tuple[int, int]:
    return int(addresses[0]), int(addresses[1])


def _intersection(addresses: IPv6Range | None, network: IPv6Network) -> tuple[int, int] | None:
    first, last = int(network.network_address), int(network.broadcast_address)
    if addresses is not None:
        first, last = max(first, int(addresses[0])), min(last, int(addresses[1]))
    return (first, last) if first <= last else None


def networks_of(home_address: IPv6Address, prefixes: Sequence[IPv6Network]) -> list[IPv6Network]:
    """The networks whose packets a binding is about, none inside another."""
    networks = [IPv6Network(home_address), *prefixes]
    return reduce(
        lambda kept, network: kept if any(network.subnet_of(other) for other in kept) else [*kept, network],
        sorted(networks, key=lambda network: network.prefixlen),
        [],
    )
