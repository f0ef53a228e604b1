"""BPF programs that put in and take out the Home Address option and the type 2 routing header.

Functions: `add_home_address`, `take_home_address`, `add_routing_header`, `take_routing_header`, each the
program for one direction at one node. RFC 6275 §6.3, §6.4; traffic control runs them, as the last thing
before a packet leaves an interface, and the first thing after one has come in.

Both headers have 24 octets and come right after the IPv6 header, before a Fragment header (§6.3). The
checksum of the upper layer has been, and will be, computed with the home address, so that nothing in the
packet behind the new header changes. Packets in segments yet to be cut (TSO) pass uncut.
"""

import socket

from testbed.datapath import mark
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
    SKB_INTERFACE,
    SKB_MARK,
    SKB_PROTOCOL,
    STORE_BYTES,
    Assembler,
    Map,
)

#: What each of the two headers takes.
HEADER_OCTETS = 24
_IPV6 = 40
_DESTINATION_OPTIONS, _ROUTING, _MOBILITY, _ESP, _AH, _ICMPV6 = 60, 43, 135, 50, 51, 58
#: The one ICMPv6 message with a type 2 routing header that is signalling (RFC 6275 §6.8).
MOBILE_PREFIX_ADVERTISEMENT = 147
_ETHERTYPE_IPV6 = socket.htons(0x86DD)
_FIXED_GSO = 1
_RECOMPUTE_CHECKSUM = 1

# the stack: the IPv6 header, then the extension header, then a key
_BASE = -112
_LENGTH, _NEXT, _SOURCE, _DESTINATION = _BASE + 4, _BASE + 6, _BASE + 8, _BASE + 24
_EXTENSION = _BASE + _IPV6
_KEY = _EXTENSION + HEADER_OCTETS


def _begin(link_octets: int, octets: int) -> Assembler:
    """R6 = the packet; its first `octets` from the IPv6 header on are on the stack. Others go on as is."""
    program = Assembler()
    program.copy(R6, R1)
    program.load(4, R2, R6, SKB_PROTOCOL)
    program.jump_unless_equal(R2, _ETHERTYPE_IPV6, "leave")
    program.copy(R1, R6)
    program.set(R2, link_octets)
    program.address(R3, _BASE)
    program.set(R4, octets)
    program.call(LOAD_BYTES)
    program.jump_unless_equal(R0, 0, "leave")
    program.load(1, R8, FP, _NEXT)
    return program


def _look_up(program: Assembler, table: Map, absent: str) -> None:
    """R7 = the value of the key on the stack."""
    program.map(R1, table)
    program.address(R2, _KEY)
    program.call(MAP_LOOKUP)
    program.jump_if_equal(R0, 0, absent)
    program.copy(R7, R0)


def _adjust(program: Assembler, octets: int, failed: str) -> None:
    """Make or take away room behind the IPv6 header."""
    program.copy(R1, R6)
    program.set(R2, octets)
    program.set(R3, 0)  # BPF_ADJ_ROOM_NET
    program.set(R4, _FIXED_GSO)
    program.call(ADJUST_ROOM)
    program.jump_unless_equal(R0, 0, failed)


def _write(program: Assembler, at: int, stack_offset: int, octets: int) -> None:
    program.copy(R1, R6)
    program.set(R2, at)
    program.address(R3, stack_offset)
    program.set(R4, octets)
    program.set(R5, _RECOMPUTE_CHECKSUM)
    program.call(STORE_BYTES)


def _change_length(program: Assembler, change: int) -> None:
    program.load(2, R0, FP, _LENGTH)
    program.to_big_endian(R0, 16)
    program.add(R0, change)
    program.to_big_endian(R0, 16)
    program.store(2, FP, _LENGTH, R0)


def _insert(program: Assembler, link_octets: int, kind: int) -> None:
    """The extension header on the stack, its first octet excepted, goes into the packet."""
    program.store(1, FP, _EXTENSION, R8)
    program.store_constant(1, FP, _NEXT, kind)
    _change_length(program, HEADER_OCTETS)
    _adjust(program, HEADER_OCTETS, "drop")
    _write(program, link_octets + 4, _LENGTH, 3)
    _write(program, link_octets + 8, _SOURCE, 32)
    _write(program, link_octets + _IPV6, _EXTENSION, HEADER_OCTETS)
    _finish(program)


def _remove(program: Assembler, link_octets: int) -> None:
    """The extension header is taken out; the IPv6 header on the stack takes the place of the packet's."""
    program.store(1, FP, _NEXT, R8)
    _change_length(program, -HEADER_OCTETS)
    _adjust(program, -HEADER_OCTETS, "drop")
    _write(program, link_octets + 4, _LENGTH, 3)
    _write(program, link_octets + 8, _SOURCE, 32)
    _finish(program)


def _finish(program: Assembler) -> None:
    program.label("leave")
    program.end(ACT_OK)
    program.label("drop")
    program.end(ACT_SHOT)


def add_home_address(link_octets: int, paths: Map) -> bytes:
    """At a mobile node, leaving. `paths`: interface index, home address, correspondent -> care-of address."""
    program = _begin(link_octets, _IPV6)
    program.jump_if_equal(R8, _MOBILITY, "leave")
    program.load(4, R0, R6, SKB_INTERFACE)
    program.store(4, FP, _KEY, R0)
    program.move(32, FP, _KEY + 4, FP, _SOURCE)
    _look_up(program, paths, "leave")
    program.store_constant(1, FP, _EXTENSION + 1, 2)
    program.store_constant(1, FP, _EXTENSION + 2, 1)  # PadN of four octets
    program.store_constant(1, FP, _EXTENSION + 3, 2)
    program.store_constant(1, FP, _EXTENSION + 4, 0)
    program.store_constant(1, FP, _EXTENSION + 5, 0)
    program.store_constant(1, FP, _EXTENSION + 6, 0xC9)
    program.store_constant(1, FP, _EXTENSION + 7, 16)
    program.move(16, FP, _EXTENSION + 8, FP, _SOURCE)
    program.move(16, FP, _SOURCE, R7, 0)
    _insert(program, link_octets, _DESTINATION_OPTIONS)
    return program.octets()


def take_home_address(link_octets: int, bindings: Map, ours: Map) -> bytes:
    """At a correspondent node, arriving. `bindings`: home address, care-of address -> anything; `ours`: our
    addresses. An option that no binding allows stays (RFC 6275 §9.3.1), as do mobility messages, ESP, AH."""
    program = _begin(link_octets, _IPV6 + HEADER_OCTETS)
    program.jump_unless_equal(R8, _DESTINATION_OPTIONS, "leave")
    for offset, expected in ((1, 2), (6, 0xC9), (7, 16)):
        program.load(1, R0, FP, _EXTENSION + offset)
        program.jump_unless_equal(R0, expected, "leave")
    program.load(1, R8, FP, _EXTENSION)
    for protocol in (_MOBILITY, _ESP, _AH):
        program.jump_if_equal(R8, protocol, "leave")
    program.move(16, FP, _KEY, FP, _DESTINATION)
    _look_up(program, ours, "leave")
    program.move(16, FP, _KEY, FP, _EXTENSION + 8)
    program.move(16, FP, _KEY + 16, FP, _SOURCE)
    _look_up(program, bindings, "leave")
    program.move(16, FP, _SOURCE, FP, _EXTENSION + 8)
    _remove(program, link_octets)
    return program.octets()


def add_routing_header(link_octets: int, paths: Map) -> bytes:
    """At a correspondent node, leaving. `paths`: number in the mark, home address -> care-of address."""
    program = _begin(link_octets, _IPV6)
    program.jump_if_equal(R8, _MOBILITY, "leave")
    program.load(4, R0, R6, SKB_MARK)
    program.mask(R0, mark.NUMBER_MASK)
    program.store(4, FP, _KEY, R0)
    program.move(16, FP, _KEY + 4, FP, _DESTINATION)
    _look_up(program, paths, "leave")
    program.store_constant(1, FP, _EXTENSION + 1, 2)
    program.store_constant(1, FP, _EXTENSION + 2, 2)  # type
    program.store_constant(1, FP, _EXTENSION + 3, 1)  # segments left
    for offset in range(4, 8):
        program.store_constant(1, FP, _EXTENSION + offset, 0)
    program.move(16, FP, _EXTENSION + 8, FP, _DESTINATION)
    program.move(16, FP, _DESTINATION, R7, 0)
    _insert(program, link_octets, _ROUTING)
    return program.octets()


def take_routing_header(link_octets: int, homes: Map, ours: Map) -> bytes:
    """At a mobile node, arriving. `homes`: home addresses; `ours`: our care-of addresses."""
    program = _begin(link_octets, _IPV6 + HEADER_OCTETS + 1)
    program.jump_unless_equal(R8, _ROUTING, "leave")
    for offset, expected in ((1, 2), (2, 2), (3, 1)):
        program.load(1, R0, FP, _EXTENSION + offset)
        program.jump_unless_equal(R0, expected, "leave")
    program.load(1, R8, FP, _EXTENSION)
    # what the agent's packet socket takes (an acknowledgement) is dropped further on
    program.jump_if_equal(R8, _MOBILITY, "leave")
    program.jump_unless_equal(R8, _ICMPV6, "data")
    program.load(1, R0, FP, _EXTENSION + HEADER_OCTETS)
    program.jump_if_equal(R0, MOBILE_PREFIX_ADVERTISEMENT, "leave")
    program.label("data")
    program.move(16, FP, _KEY, FP, _DESTINATION)
    _look_up(program, ours, "leave")
    program.move(16, FP, _KEY, FP, _EXTENSION + 8)
    _look_up(program, homes, "leave")
    program.move(16, FP, _DESTINATION, FP, _EXTENSION + 8)
    _remove(program, link_octets)
    return program.octets()
