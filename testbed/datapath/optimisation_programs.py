"""The BPF program that puts in the type 2 routing header and the Home Address option (RFC 6275 §6.3, §6.4).

Function: `put_headers`. Traffic control runs it as the last thing before a packet leaves an interface. Each
header has 24 octets; they come right after the IPv6 header, before a Fragment header (§6.3), the routing
header first (§11.3.2). The checksum of the upper layer has been, and will be, computed with the home
addresses, so that nothing in the packet behind the new headers changes. Packets in segments yet to be cut
(TSO) pass uncut. In the tunnel of an anchor point (RFC 5380 §6.1.1), the packet inside gets the Home Address
option.
"""

import socket

from testbed.datapath.bpf import (
    ACT_OK,
    ACT_SHOT,
    ADJUST_ROOM,
    FP,
    LOAD_BYTES,
    MAP_LOOKUP,
    R0,
    R1,
    R2,
    R3,
    R4,
    R5,
    R6,
    R7,
    R8,
    R9,
    SKB_INTERFACE,
    SKB_MARK,
    SKB_PROTOCOL,
    STORE_BYTES,
    Assembler,
    Map,
)
from testbed.datapath.optimisation_rules import PEER_MASK

#: What each of the two headers takes.
HEADER_OCTETS = 24
_IPV6 = 40
_DESTINATION_OPTIONS, _ROUTING, _MOBILITY, _TUNNEL = 60, 43, 135, 41
_ETHERTYPE_IPV6 = socket.htons(0x86DD)
_FIXED_GSO = 1
_RECOMPUTE_CHECKSUM = 1

# the stack: the IPv6 header, then the extension headers, then a key
_BASE = -176
_LENGTH, _NEXT, _SOURCE, _DESTINATION = _BASE + 4, _BASE + 6, _BASE + 8, _BASE + 24
_EXTENSION = _BASE + _IPV6
_KEY = _EXTENSION + 2 * HEADER_OCTETS
# with a tunnel: both IPv6 headers, then the extension header, then a key
_INNER = _BASE + _IPV6
_INNER_LENGTH, _INNER_NEXT, _INNER_SOURCE = _INNER + 4, _INNER + 6, _INNER + 8
_INNER_EXTENSION = _INNER + _IPV6
_INNER_KEY = _INNER_EXTENSION + HEADER_OCTETS


def put_headers(link_octets: int, ways: Map, peers: Map, tunnelled: Map) -> bytes:
    """`ways`: interface index, home address, correspondent -> care-of address, the new source; `peers`: mark
    (its bits PEER_MASK), home address -> care-of address, the new destination; `tunnelled`: interface index,
    anchor point, home address, correspondent -> regional care-of address, the new source inside of the tunnel
    to the anchor point. Others go on as they are."""
    program = Assembler()
    _begin(program, link_octets)
    _into_tunnel(program, link_octets, tunnelled)
    program.load(4, R0, R6, SKB_INTERFACE)
    program.store(4, FP, _KEY, R0)
    program.move(32, FP, _KEY + 4, FP, _SOURCE, by=4)
    _look_up(program, ways, _KEY)
    program.copy(R7, R0)
    program.load(4, R0, R6, SKB_MARK)
    program.mask(R0, PEER_MASK)
    program.store(4, FP, _KEY, R0)
    program.move(16, FP, _KEY + 4, FP, _DESTINATION)
    _look_up(program, peers, _KEY)
    program.copy(R9, R0)
    program.jump_if_equal(R7, 0, "no way")
    program.jump_if_equal(R9, 0, "way only")

    _routing_header(program)
    program.store_constant(1, FP, _EXTENSION, _DESTINATION_OPTIONS)
    _home_address(program, _EXTENSION + HEADER_OCTETS)
    _insert_behind(program, link_octets, _ROUTING, 2 * HEADER_OCTETS)
    program.label("way only")
    _home_address(program, _EXTENSION)
    _insert_behind(program, link_octets, _DESTINATION_OPTIONS, HEADER_OCTETS)
    program.label("no way")
    program.jump_if_equal(R9, 0, "leave")
    _routing_header(program)
    program.store(1, FP, _EXTENSION, R8)
    _insert_behind(program, link_octets, _ROUTING, HEADER_OCTETS)
    program.label("leave")
    program.end(ACT_OK)
    program.label("drop")
    program.end(ACT_SHOT)
    return program.octets()


def _begin(program: Assembler, link_octets: int) -> None:
    """R6 = the packet, whose IPv6 header is on the stack, R8 = its next header. No signalling."""
    program.copy(R6, R1)
    program.load(4, R2, R6, SKB_PROTOCOL)
    program.jump_unless_equal(R2, _ETHERTYPE_IPV6, "leave")
    _read(program, link_octets, _BASE, "leave")
    program.load(1, R8, FP, _NEXT)
    program.jump_if_equal(R8, _MOBILITY, "leave")


def _read(program: Assembler, offset: int, stack_offset: int, otherwise: str) -> None:
    """Bring the IPv6 header at this offset of the packet to the stack; jump where there is none."""
    program.copy(R1, R6)
    program.set(R2, offset)
    program.address(R3, stack_offset)
    program.set(R4, _IPV6)
    program.call(LOAD_BYTES)
    program.jump_unless_equal(R0, 0, otherwise)


def _into_tunnel(program: Assembler, link_octets: int, tunnelled: Map) -> None:
    """The packet leaves with a Home Address option in the tunnel, or is none of these."""
    program.jump_unless_equal(R8, _TUNNEL, "no tunnel")
    _read(program, link_octets + _IPV6, _INNER, "no tunnel")
    program.load(1, R8, FP, _INNER_NEXT)
    program.jump_if_equal(R8, _MOBILITY, "no tunnel")
    program.load(4, R0, R6, SKB_INTERFACE)
    program.store(4, FP, _INNER_KEY, R0)
    program.move(16, FP, _INNER_KEY + 4, FP, _DESTINATION)
    program.move(32, FP, _INNER_KEY + 20, FP, _INNER_SOURCE)
    _look_up(program, tunnelled, _INNER_KEY)
    program.copy(R7, R0)
    program.jump_if_equal(R7, 0, "no tunnel")
    _home_address(program, _INNER_EXTENSION, _INNER_SOURCE)
    program.store_constant(1, FP, _INNER_NEXT, _DESTINATION_OPTIONS)
    _lengthen(program, _INNER_LENGTH, HEADER_OCTETS)
    _insert(program, link_octets, 2 * _IPV6, HEADER_OCTETS)
    program.label("no tunnel")
    program.load(1, R8, FP, _NEXT)


def _look_up(program: Assembler, table: Map, key: int) -> None:
    """R0 = the address of the value of the key on the stack, 0 if there is none."""
    program.map(R1, table)
    program.address(R2, key)
    program.call(MAP_LOOKUP)


def _routing_header(program: Assembler) -> None:
    """All but its first octet; the destination becomes what R9 points to."""
    program.store_constant(1, FP, _EXTENSION + 1, 2)
    program.store_constant(1, FP, _EXTENSION + 2, 2)  # type
    program.store_constant(1, FP, _EXTENSION + 3, 1)  # segments left
    program.store_constant(4, FP, _EXTENSION + 4, 0)
    program.move(16, FP, _EXTENSION + 8, FP, _DESTINATION)
    program.move(16, FP, _DESTINATION, R9, 0)


def _home_address(program: Assembler, at: int, source: int = _SOURCE) -> None:
    """The whole options header; the source becomes what R7 points to."""
    program.store(1, FP, at, R8)
    for offset, octet in enumerate((2, 1, 2, 0, 0, 0xC9, 16), 1):  # PadN of four octets, then the option
        program.store_constant(1, FP, at + offset, octet)
    program.move(16, FP, at + 8, FP, source)
    program.move(16, FP, source, R7, 0)


def _lengthen(program: Assembler, at: int, octets: int) -> None:
    """Add to the payload length at this offset of the stack."""
    program.load(2, R0, FP, at)
    program.to_big_endian(R0, 16)
    program.add(R0, octets)
    program.to_big_endian(R0, 16)
    program.store(2, FP, at, R0)


def _insert_behind(program: Assembler, link_octets: int, kind: int, octets: int) -> None:
    """Extension headers, of which `kind` is the first one, come behind the IPv6 header."""
    program.store_constant(1, FP, _NEXT, kind)
    _insert(program, link_octets, _IPV6, octets)


def _insert(program: Assembler, link_octets: int, known: int, octets: int) -> None:
    """What is on the stack replaces `known` octets of the packet, which leaves with so many more."""
    _lengthen(program, _LENGTH, octets)
    program.copy(R1, R6)
    program.set(R2, octets)
    program.set(R3, 0)  # BPF_ADJ_ROOM_NET: behind the (outer) IPv6 header
    program.set(R4, _FIXED_GSO)
    program.call(ADJUST_ROOM)
    program.jump_unless_equal(R0, 0, "drop")
    program.copy(R1, R6)
    program.set(R2, link_octets)
    program.address(R3, _BASE)
    program.set(R4, known + octets)
    program.set(R5, _RECOMPUTE_CHECKSUM)
    program.call(STORE_BYTES)
    program.end(ACT_OK)
