"""RFC 6088 traffic selectors as nf_tables expressions. Functions: `matches`, `matches_inside`, where `Inside`
says what is where.

Every field is matched in the packet itself, behind any IPv6 extension headers:

- ports: TCP, UDP, UDP-Lite, SCTP and DCCP, which all begin with source and destination port;
- next header: the upper-layer protocol, that is, the first header that is no extension header; 51 (AH), 0,
  43, 44, 60: that such an extension header is present;
- SPI: of an ESP or an AH header, wherever it is;
- traffic class: the DS field; the two ECN bits are ignored on both sides (RFC 6088 §3.2);
- format 1 selectors (IPv4) match no IPv6 packet, hence yield no alternative.

Fragments are put together before (see `nftables.reassemble`), so that all of them follow their first one.
"""

import struct
from typing import NamedTuple

from testbed.datapath.nftables import (
    EQUAL,
    NETWORK,
    TRANSPORT,
    UPPER_PROTOCOL,
    compare,
    found_in,
    load,
    load_extension,
    load_meta,
    masked,
    within,
)
from testbed.wire.selector import IPv6TrafficSelector, TrafficSelector

TCP, UDP, DCCP, SCTP, UDP_LITE = 6, 17, 33, 132, 136
WITH_PORTS = (TCP, UDP, DCCP, SCTP, UDP_LITE)
ESP, AH = 50, 51
#: Set of the table with the protocols that have ports.
PORT_PROTOCOLS = "protocols_with_ports"
#: Next header values of extension headers, which the kernel skips on its way to the upper layer.
_EXTENSIONS = (0, 43, 44, 51, 60)
#: Where an IPv6 header has its addresses.
_SOURCE, _DESTINATION = 8, 24


def matches(selector: TrafficSelector | None, destination: int = _DESTINATION) -> list[bytes]:
    """The alternatives: a packet belongs to the flow if one of these sequences of expressions matches.

    None, the wild card, has one alternative without a condition. `destination`: where the destination address
    is, from the beginning of the packet.
    """
    if selector is None:
        return [b""]
    if not isinstance(selector, IPv6TrafficSelector):
        return []
    alternatives = [b""]
    header = _header(selector, NETWORK, destination)
    # ports first: most packets have others, and to ask for the protocol, too, takes twice the time
    for condition in (header, _ports(selector), _protocol(selector), _spi(selector)):
        alternatives = [a + b for a in alternatives for b in condition]
    return alternatives


class Inside(NamedTuple):
    """A packet inside of a tunnel packet: where the octets are, counted from its own beginning, that name its
    next headers, and where its upper-layer header is; None: that is not known."""

    next_headers: tuple[int, ...]
    upper: int | None


def matches_inside(selector: TrafficSelector | None, inside: Inside) -> list[bytes]:
    """The same for what is inside of a tunnel packet (RFC 2473), that is, right behind the outer header."""
    if selector is None:
        return [b""]
    if not isinstance(selector, IPv6TrafficSelector):
        return []
    alternatives = _header(selector, TRANSPORT)
    for condition in (_next_header_inside, _ports_inside, _spi_inside):
        alternatives = [a + b for a in alternatives for b in condition(selector, inside)]
    return alternatives


def _next_header_inside(selector: IPv6TrafficSelector, inside: Inside) -> list[bytes]:
    if selector.next_header is None:
        return [b""]
    limits = within(*(bytes([number]) for number in selector.next_header))
    return [load(TRANSPORT, at, 1) + limits for at in inside.next_headers]


def _ports_inside(selector: IPv6TrafficSelector, inside: Inside) -> list[bytes]:
    ports = [(0, selector.source_port), (2, selector.destination_port)]
    ports = [(offset, limits) for offset, limits in ports if limits is not None]
    if not ports:
        return [b""]
    if inside.upper is None:
        return []
    parts = [load(TRANSPORT, inside.next_headers[-1], 1) + found_in(PORT_PROTOCOLS)]
    for offset, limits in ports:
        octets = (struct.pack(">H", port) for port in limits)
        parts.append(load(TRANSPORT, inside.upper + offset, 2) + within(*octets))
    return [b"".join(parts)]


def _spi_inside(selector: IPv6TrafficSelector, inside: Inside) -> list[bytes]:
    if selector.spi is None:
        return [b""]
    if inside.upper is None:
        return []
    limits = within(*(struct.pack(">I", spi) for spi in selector.spi))
    kind = load(TRANSPORT, inside.next_headers[-1], 1)
    return [
        kind + compare(EQUAL, bytes([protocol])) + load(TRANSPORT, offset, 4) + limits
        for protocol, offset in ((ESP, inside.upper), (AH, inside.upper + 4))
    ]


def _header(selector: IPv6TrafficSelector, base: int, destination: int = _DESTINATION) -> list[bytes]:
    """Fields of the IPv6 header itself, which is at `base`."""
    parts = []
    for offset, addresses in (
        (_SOURCE, selector.source_address),
        (destination, selector.destination_address),
    ):
        if addresses is not None:
            parts.append(load(base, offset, 16) + _addresses(int(addresses[0]), int(addresses[1])))
    if selector.traffic_class is not None:
        start, end = (struct.pack(">H", (octet & 0xFC) << 4) for octet in selector.traffic_class)
        parts.append(load(base, 0, 2) + masked(b"\x0f\xc0") + within(start, end))
    if selector.flow_label is not None:
        start, end = (label.to_bytes(3, "big") for label in selector.flow_label)
        parts.append(load(base, 1, 3) + masked(b"\x0f\xff\xff") + within(start, end))
    return [b"".join(parts)]


def _addresses(start: int, end: int) -> bytes:
    """Register 1 holds an address from start to end; a prefix needs one comparison only."""
    host = start ^ end
    if host & (host + 1) == 0 and start & host == 0 and host:
        mask = ((1 << 128) - 1) ^ host
        if not mask:
            return b""
        return masked(mask.to_bytes(16, "big")) + compare(EQUAL, start.to_bytes(16, "big"))
    return within(start.to_bytes(16, "big"), end.to_bytes(16, "big"))


def _protocol(selector: IPv6TrafficSelector) -> list[bytes]:
    if selector.next_header is None:
        return [b""]
    start, end = selector.next_header
    upper = load_meta(UPPER_PROTOCOL) + within(bytes([start]), bytes([end]))
    present = [load_extension(number, 0, 1) for number in _EXTENSIONS if start <= number <= end]
    if start == end and start in _EXTENSIONS:
        return present
    return [upper, *present]


def _ports(selector: IPv6TrafficSelector) -> list[bytes]:
    if selector.source_port is None and selector.destination_port is None:
        return [b""]
    start, end = selector.next_header or (0, 255)
    possible = [number for number in WITH_PORTS if start <= number <= end]
    if not possible and not any(start <= number <= end for number in _EXTENSIONS):
        return []
    parts = []
    for offset, ports in ((0, selector.source_port), (2, selector.destination_port)):
        if ports is not None:
            parts.append(load(TRANSPORT, offset, 2) + within(*(struct.pack(">H", port) for port in ports)))
    if start != end or not possible:  # if not possible: those of whatever follows the extension header
        parts.append(load_meta(UPPER_PROTOCOL) + found_in(PORT_PROTOCOLS))
    return [b"".join(parts)]


def _spi(selector: IPv6TrafficSelector) -> list[bytes]:
    if selector.spi is None:
        return [b""]
    limits = within(*(struct.pack(">I", spi) for spi in selector.spi))
    return [load_extension(ESP, 0, 4) + limits, load_extension(AH, 4, 4) + limits]
