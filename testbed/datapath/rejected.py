"""Packets that are dropped for their Home Address option (RFC 6275 §9.3.1). Classes: `RejectedPackets`,
`Rejected`. Function: `parse_rejected`."""

import ctypes
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv6Address

_ETH_P_IPV6 = 0x86DD
_SO_ATTACH_FILTER = 26
_PACKET_TYPE, _PACKET_HOST = 0xFFFFF000 + 4, 0
_LOAD_BYTE, _JUMP_EQUAL, _RETURN = 0x30, 0x15, 0x06
_DESTINATION_OPTIONS, _HOME_ADDRESS_OPTION = 60, 0xC9
_MOBILITY_HEADER, _ESP, _AH = 135, 50, 51
#: IPv6 header, then the options header with the home address at the end of its 24 octets.
PACKET_OCTETS = 64
_BUFFER_OCTETS = 1 << 17

#: Code, jump if true, jump if false, operand; "reject" is the last instruction.
_FILTER = (
    (_LOAD_BYTE, 0, 0, _PACKET_TYPE),
    (_JUMP_EQUAL, 0, 9, _PACKET_HOST),
    (_LOAD_BYTE, 0, 0, 6),
    (_JUMP_EQUAL, 0, 7, _DESTINATION_OPTIONS),
    (_LOAD_BYTE, 0, 0, 46),
    (_JUMP_EQUAL, 0, 5, _HOME_ADDRESS_OPTION),
    (_LOAD_BYTE, 0, 0, 40),
    (_JUMP_EQUAL, 3, 0, _MOBILITY_HEADER),
    (_JUMP_EQUAL, 2, 0, _ESP),
    (_JUMP_EQUAL, 1, 0, _AH),
    (_RETURN, 0, 0, PACKET_OCTETS),
    (_RETURN, 0, 0, 0),
)


@dataclass(frozen=True, slots=True)
class Rejected:
    """The addresses of such a packet."""

    source: IPv6Address
    destination: IPv6Address
    home_address: IPv6Address


def parse_rejected(packet: bytes) -> Rejected | None:
    """The addresses in the first octets of such a packet; None if these are too few."""
    if len(packet) < PACKET_OCTETS:
        return None
    return Rejected(*map(IPv6Address, (packet[8:24], packet[24:40], packet[48:64])))


class RejectedPackets:
    """Home Address options that are still there once accepted ones have been taken out.

    A packet socket for IPv6 gets a packet after traffic control has had it. In the network namespace of the
    calling thread. Raises PermissionError without CAP_NET_RAW.
    """

    def __init__(self) -> None:
        kind = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        self._socket = socket.socket(socket.AF_PACKET, kind, socket.htons(_ETH_P_IPV6))
        code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *each) for each in _FILTER))
        program = struct.pack("HP", len(_FILTER), ctypes.addressof(code))
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_OCTETS)
        while list(self.read()):  # what came in before the filter was there
            pass

    def fileno(self) -> int:
        """Becomes readable when there is one."""
        return self._socket.fileno()

    def read(self, limit: int = 64) -> Iterator[Rejected]:
        """Those that are waiting, at most `limit`: a flood must not starve the caller."""
        for _ in range(limit):
            try:
                packet = self._socket.recv(PACKET_OCTETS)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:  # an interface went down: the socket itself is fine
                continue
            rejected = parse_rejected(packet)
            if rejected is not None:
                yield rejected

    def close(self) -> None:
        self._socket.close()
