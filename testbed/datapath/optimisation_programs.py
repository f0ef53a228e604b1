"""The BPF program that puts in the type 2 routing header and the Home Address option (RFC 6275 §6.3, §6.4).

Function: `put_headers`. Traffic control runs it as the last thing before a packet leaves an interface. Each
header has 24 octets; they come right after the IPv6 header, before a Fragment header (§6.3), the routing
header first (§11.3.2). The checksum of the upper layer has been, and will be, computed with the home
addresses, so that nothing in the packet behind the new headers changes. Packets in segments yet to be cut
(TSO) pass uncut.
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
_DESTINATION_OPTIONS, _ROUTING, _MOBILITY = 60, 43, 135
_ETHERTYPE_IPV6 = socket.htons(0x86DD)
_FIXED_GSO = 1
_RECOMPUTE_CHECKSUM = 1

# the stack: the IPv6 header, then the extension headers, then a key
_BASE = -128
_LENGTH, _NEXT, _SOURCE, _DESTINATION = _BASE + 4, _BASE + 6, _BASE + 8, _BASE + 24
_EXTENSION = _BASE + _IPV6
_KEY = _EXTENSION + 2 * HEADER_OCTETS


def put_headers(link_octets: int, ways: Map, peers: Map) -> bytes:
    """`ways`: interface index, home address, correspondent -> care-of address, the new source; `peers`: mark
    (its bits PEER_MASK), home address -> care-of address, the new destination. Others go on as they are."""
    program = Assembler()
    _begin(program, link_octets)
    program.load(4, R0, R6, SKB_INTERFACE)
    program.store(4, FP, _KEY, R0)
    program.move(32, FP, _KEY + 4, FP, _SOURCE, by=4)
    _look_up(program, ways)
    program.copy(R7, R0)
    program.load(4, R0, R6, SKB_MARK)
    program.mask(R0, PEER_MASK)
    program.store(4, FP, _KEY, R0)
    program.move(16, FP, _KEY + 4, FP, _DESTINATION)
    _look_up(program, peers)
    program.copy(R9, R0)
    program.jump_if_equal(R7, 0, "no way")
    program.jump_if_equal(R9, 0, "way only")

    _routing_header(program)
    program.store_constant(1, FP, _EXTENSION, _DESTINATION_OPTIONS)
    _home_address(program, _EXTENSION + HEADER_OCTETS)
    _insert(program, link_octets, _ROUTING, 2 * HEADER_OCTETS)
    program.label("way only")
    _home_address(program, _EXTENSION)
    _insert(program, link_octets, _DESTINATION_OPTIONS, HEADER_OCTETS)
    program.label("no way")
    program.jump_if_equal(R9, 0, "leave")
    _routing_header(program)
    program.store(1, FP, _EXTENSION, R8)
    _insert(program, link_octets, _ROUTING, HEADER_OCTETS)
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
    program.copy(R1, R6)
    program.set(R2, link_octets)
    program.address(R3, _BASE)
    program.set(R4, _IPV6)
    program.call(LOAD_BYTES)
    program.jump_unless_equal(R0, 0, "leave")
    program.load(1, R8, FP, _NEXT)
    program.jump_if_equal(R8, _MOBILITY, "leave")


def _look_up(program: Assembler, table: Map) -> None:
    """R0 = the address of the value of the key on the stack, 0 if there is none."""
    program.map(R1, table)
    program.address(R2, _KEY)
    program.call(MAP_LOOKUP)


def _routing_header(program: Assembler) -> None:
    """All but its first octet; the destination becomes what R9 points to."""
    program.store_constant(1, FP, _EXTENSION + 1, 2)
    program.store_constant(1, FP, _EXTENSION + 2, 2)  # type
    program.store_constant(1, FP, _EXTENSION + 3, 1)  # segments left
    program.store_constant(4, FP, _EXTENSION + 4, 0)
    program.move(16, FP, _EXTENSION + 8, FP, _DESTINATION)
    program.move(16, FP, _DESTINATION, R9, 0)


def _home_address(program: Assembler, at: int) -> None:
    """The whole options header; the source becomes what R7 points to."""
    program.store(1, FP, at, R8)
    for offset, octet in enumerate((2, 1, 2, 0, 0, 0xC9, 16), 1):  # PadN of four octets, then the option
        program.store_constant(1, FP, at + offset, octet)
    program.move(16, FP, at + 8, FP, _SOURCE)
    program.move(16, FP, _SOURCE, R7, 0)


def _insert(program: Assembler, link_octets: int, kind: int, octets: int) -> None:
    """What is on the stack goes into the packet, which leaves."""
    program.store_constant(1, FP, _NEXT, kind)
    program.load(2, R0, FP, _LENGTH)
    program.to_big_endian(R0, 16)
    program.add(R0, octets)
    program.to_big_endian(R0, 16)
    program.store(2, FP, _LENGTH, R0)
    program.copy(R1, R6)
    program.set(R2, octets)
    program.set(R3, 0)  # BPF_ADJ_ROOM_NET: behind the IPv6 header
    program.set(R4, _FIXED_GSO)
    program.call(ADJUST_ROOM)
    program.jump_unless_equal(R0, 0, "drop")
    program.copy(R1, R6)
    program.set(R2, link_octets)
    program.address(R3, _BASE)
    program.set(R4, _IPV6 + octets)
    program.set(R5, _RECOMPUTE_CHECKSUM)
    program.call(STORE_BYTES)
    program.end(ACT_OK)
