"""The IPv6 packet around a Mobility Header, or an ICMPv6 message of Mobile IPv6 (RFC 6275 §6.3, §6.4, §11.3).

Class: `Packet`.

Functions: `parse_packet`, `build_packet`.
"""

from dataclasses import dataclass, field
from ipaddress import IPv6Address

from testbed.wire.address import is_unicast_routable
from testbed.wire.codec import MOBILITY_HEADER, Codec
from testbed.wire.error import ParseError
from testbed.wire.icmpv6 import ICMPV6, Icmpv6Message, build_icmpv6, parse_icmpv6
from testbed.wire.message import Message

_HOP_BY_HOP = 0
_ROUTING = 43
_FRAGMENT = 44
_DESTINATION_OPTIONS = 60
_HOME_ADDRESS = 0xC9
_PAD1 = 0


@dataclass(frozen=True, slots=True)
class Packet:
    """A mobility message and the addresses that it travels with.

    `source` and `destination` are those of the IPv6 header. `home_address` is the sender's, in a Home Address
    option: then `source` is the sender's care-of address. `routing_address` is the receiver's home address,
    in a type 2 routing header: then `destination` is the receiver's care-of address. `mobility_header` is
    what was received, for authenticators to be verified over. `protected`: it came in by the IPsec security
    association of the home address.
    """

    source: IPv6Address
    destination: IPv6Address
    message: Message | Icmpv6Message
    home_address: IPv6Address | None = None
    routing_address: IPv6Address | None = None
    mobility_header: bytes = field(default=b"", compare=False, repr=False)
    protected: bool = False


def parse_packet(data: bytes, codec: Codec) -> Packet:
    """Return what a whole IPv6 packet carries. Raises ParseError; its pointer counts from the IPv6 header."""
    data = bytes(data)
    if len(data) < 40 or data[0] >> 4 != 6:
        raise ParseError("not an IPv6 packet")
    end = 40 + int.from_bytes(data[4:6], "big")
    if end > len(data):
        raise ParseError(f"IPv6 packet of {end} octets is truncated after {len(data)}")
    source = IPv6Address(data[8:24])
    destination = IPv6Address(data[24:40])
    home_address = routing_address = None
    header, offset, pointer = data[6], 40, 6
    while header not in (MOBILITY_HEADER, ICMPV6):
        if header not in (_HOP_BY_HOP, _ROUTING, _FRAGMENT, _DESTINATION_OPTIONS):
            raise ParseError(f"packet has header {header} in place of a Mobility Header")
        if header == _HOP_BY_HOP and offset != 40:
            raise ParseError("Hop-by-Hop Options header is not the first", pointer, code=1)
        if offset + 8 > end:
            raise ParseError(f"extension header {header} is truncated")
        stop = offset + 8 + (0 if header == _FRAGMENT else 8 * data[offset + 1])
        if stop > end:
            raise ParseError(f"extension header {header} is truncated")
        if header == _FRAGMENT:
            if int.from_bytes(data[offset + 2 : offset + 4], "big") & 0xFFF9:
                raise ParseError("packet is a fragment")
        elif header == _ROUTING:
            if data[offset + 3] != 0:  # RFC 8200 §4.4: with no segments left, it is to be ignored
                if routing_address is not None:
                    raise ParseError("packet has more than one type 2 routing header")
                routing_address = _parse_routing(data, offset)
        else:
            found = _parse_options(data, offset + 2, stop)
            if found is not None:
                if home_address is not None or header == _HOP_BY_HOP:
                    raise ParseError("packet has a Home Address option where none may be")
                home_address = found
        header, offset, pointer = data[offset], stop, offset
    for name, address in (("Home Address option", home_address), ("type 2 routing header", routing_address)):
        if address is not None and not is_unicast_routable(address):
            raise ParseError(f"{name} has {address}, which is not a routable unicast address")
    if header == ICMPV6:
        message = parse_icmpv6(data[offset:end], home_address or source, routing_address or destination)
        return Packet(source, destination, message, home_address, routing_address)
    mobility_header = data[offset:end]
    try:
        message = codec.parse(mobility_header, home_address or source, routing_address or destination)
    except ParseError as error:
        if error.pointer is not None:
            error.pointer += offset
        raise
    return Packet(source, destination, message, home_address, routing_address, mobility_header)


def _parse_routing(data: bytes, offset: int) -> IPv6Address:
    """Return the home address in the type 2 routing header at `offset` (RFC 6275 §6.4)."""
    if data[offset + 2] != 2:
        raise ParseError(f"routing header of type {data[offset + 2]} is not supported", pointer=offset + 2)
    if data[offset + 1] != 2:
        raise ParseError(f"type 2 routing header has length {data[offset + 1]}", pointer=offset + 1)
    if data[offset + 3] != 1:
        raise ParseError(f"type 2 routing header has {data[offset + 3]} segments left", pointer=offset + 3)
    return IPv6Address(data[offset + 8 : offset + 24])


def _parse_options(data: bytes, offset: int, end: int) -> IPv6Address | None:
    """Return the address of a Home Address option among the options up to `end` (RFC 8200 §4.2)."""
    home_address = None
    while offset < end:
        kind = data[offset]
        if kind == _PAD1:
            offset += 1
            continue
        if offset + 1 == end:
            raise ParseError(f"IPv6 option {kind} has no length")
        stop = offset + 2 + data[offset + 1]
        if stop > end:
            raise ParseError(f"IPv6 option {kind} runs past the end of its header")
        if kind == _HOME_ADDRESS:
            if stop - offset != 18:
                raise ParseError("Home Address option does not have length 16", pointer=offset + 1)
            if home_address is not None:
                raise ParseError("packet has more than one Home Address option")
            home_address = IPv6Address(data[offset + 2 : stop])
        elif kind >> 6 == 1:
            raise ParseError(f"IPv6 option {kind} is not known")
        elif kind >> 6 > 1:
            raise ParseError(f"IPv6 option {kind} is not known", pointer=offset, code=2)
        offset = stop
    return home_address


def build_packet(packet: Packet, codec: Codec, hop_limit: int = 64) -> bytes:
    """Return the whole IPv6 packet. Raises ValueError as Codec.build does."""
    extension = b""
    ends = packet.home_address or packet.source, packet.routing_address or packet.destination
    if isinstance(packet.message, Icmpv6Message):
        next_header, upper = ICMPV6, build_icmpv6(packet.message, *ends)
    else:
        next_header, upper = MOBILITY_HEADER, codec.build(packet.message, *ends)
    if packet.home_address is not None:
        # PadN of four octets puts the address at a multiple of 8 (alignment 8n + 6)
        options = bytes((1, 2, 0, 0, _HOME_ADDRESS, 16)) + packet.home_address.packed
        extension = bytes((next_header, 2)) + options
        next_header = _DESTINATION_OPTIONS
    if packet.routing_address is not None:
        routing = bytes((next_header, 2, 2, 1)) + bytes(4) + packet.routing_address.packed
        extension = routing + extension
        next_header = _ROUTING
    payload = extension + upper
    return (
        bytes((0x60, 0, 0, 0))
        + len(payload).to_bytes(2, "big")
        + bytes((next_header, hop_limit))
        + packet.source.packed
        + packet.destination.packed
        + payload
    )
