"""The kernel-side filter of the packet socket: of all IPv6 packets, only the messages of Mobile IPv6.

Functions: `mobility_header_filter`, `attach`. A classic BPF program: data traffic never wakes the agent.
"""

import ctypes
import socket
import struct

#: How many extension headers may stand before the Mobility Header (RFC 6275 §6.3 and §6.4 need two).
MAX_EXTENSION_HEADERS = 4

HOP_BY_HOP, ROUTING, FRAGMENT, DESTINATION_OPTIONS, MOBILITY, ICMPV6 = 0, 43, 44, 60, 135, 58
IPV6 = 41
#: Home Agent Address Discovery Request to Mobile Prefix Advertisement (RFC 6275 §6.5 to §6.8).
FIRST_ICMP_TYPE, LAST_ICMP_TYPE = 144, 147
_IPV6_HEADER_LENGTH, _NEXT_HEADER_OFFSET = 40, 6
_PACKET_HOST = 0
_SO_ATTACH_FILTER = 26

# linux/bpf_common.h, linux/filter.h
_LD_BYTE_ABSOLUTE, _LD_BYTE_INDIRECT = 0x30, 0x50
_LDX_IMMEDIATE, _LDX_MEMORY, _LD_MEMORY, _STORE = 0x01, 0x61, 0x60, 0x02
_A_TO_INDEX, _INDEX_TO_A, _JUMP = 0x07, 0x87, 0x05
_ADD_IMMEDIATE, _ADD_INDEX, _SHIFT_LEFT = 0x04, 0x0C, 0x64
_JUMP_EQUAL, _JUMP_MORE, _JUMP_NOT_LESS, _RETURN = 0x15, 0x25, 0x35, 0x06
_PACKET_TYPE = 0xFFFFF000 + 4

Instruction = tuple[int, int, int, int]

#: Past an IPv6 header, to the end of a block: A = its next header, X += its length.
_INTO_TUNNEL: list[Instruction] = [
    (_JUMP_EQUAL, 0, 7, IPV6),
    (_LD_BYTE_INDIRECT, 0, 0, _NEXT_HEADER_OFFSET),
    (_STORE, 0, 0, 1),
    (_INDEX_TO_A, 0, 0, 0),
    (_ADD_IMMEDIATE, 0, 0, _IPV6_HEADER_LENGTH),
    (_A_TO_INDEX, 0, 0, 0),
    (_LD_MEMORY, 0, 0, 1),
    (_JUMP, 0, 0, 11),
]


def mobility_header_filter(tunnelled: bool = False) -> list[Instruction]:
    """The program, as (code, jump if true, jump if false, operand); its input begins at the IPv6 header.

    Accepts packets for this host whose chain of extension headers leads to a Mobility Header or an ICMPv6
    message of Mobile IPv6, whatever is wrong with them otherwise: what is malformed is for the parser to say.
    `tunnelled`: also where an IPv6 header is among them, that is, tunnel packets.
    """
    blocks: list[list[Instruction]] = []
    for _ in range(MAX_EXTENSION_HEADERS):
        # A: the next header; X: where the header that it names begins
        blocks.append(
            [
                (_JUMP_EQUAL, -1, 0, MOBILITY),  # -1: "accept", -2: "reject", -3: "icmp", resolved below
                (_JUMP_EQUAL, -3, 0, ICMPV6),
                *(_INTO_TUNNEL if tunnelled else []),
                (_JUMP_EQUAL, 3, 0, DESTINATION_OPTIONS),
                (_JUMP_EQUAL, 2, 0, ROUTING),
                (_JUMP_EQUAL, 1, 0, FRAGMENT),
                (_JUMP_EQUAL, 0, -2, HOP_BY_HOP),
                (_LD_BYTE_INDIRECT, 0, 0, 1),  # A = length in units of 8 octets, less the first
                (_ADD_IMMEDIATE, 0, 0, 1),
                (_SHIFT_LEFT, 0, 0, 3),
                (_ADD_INDEX, 0, 0, 0),
                (_STORE, 0, 0, 0),
                (_LD_BYTE_INDIRECT, 0, 0, 0),
                (_LDX_MEMORY, 0, 0, 0),
            ]
        )
    program = [
        (_LD_BYTE_ABSOLUTE, 0, 0, _PACKET_TYPE),
        (_JUMP_EQUAL, 0, -2, _PACKET_HOST),
        (_LD_BYTE_ABSOLUTE, 0, 0, _NEXT_HEADER_OFFSET),
        (_LDX_IMMEDIATE, 0, 0, _IPV6_HEADER_LENGTH),
        *(instruction for block in blocks for instruction in block),
        (_JUMP_EQUAL, -1, 0, MOBILITY),
        (_JUMP_EQUAL, 0, -2, ICMPV6),
        (_LD_BYTE_INDIRECT, 0, 0, 0),
        (_JUMP_NOT_LESS, 0, -2, FIRST_ICMP_TYPE),
        (_JUMP_MORE, -2, 0, LAST_ICMP_TYPE),
        (_RETURN, 0, 0, 0xFFFFFFFF),
        (_RETURN, 0, 0, 0),
    ]
    accept, reject, icmp = len(program) - 2, len(program) - 1, len(program) - 5

    def resolve(jump: int, at: int) -> int:
        return {-1: accept, -2: reject, -3: icmp}[jump] - at - 1 if jump < 0 else jump

    return [(code, resolve(yes, at), resolve(no, at), k) for at, (code, yes, no, k) in enumerate(program)]


def attach(sock: socket.socket, program: list[Instruction]) -> None:
    """Let the kernel drop what `program` rejects before it is queued on `sock`. Raises OSError."""
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *each) for each in program))
    argument = struct.pack("HP", len(program), ctypes.addressof(code))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, argument)
