"""Sending and receiving whole IPv6 packets with a Mobility Header, on any kernel.

Classes: `MobilitySocket`, `Datagram`.

Sending goes through a raw socket that takes the IPv6 header from us, so that the Home Address option and
the type 2 routing header (RFC 6275 §6.3, §6.4) need nothing of the kernel. Receiving goes through a packet
socket: it sees a packet before the kernel, which without `CONFIG_IPV6_MIP6` would answer these with an
ICMPv6 Parameter Problem (the datapath drops them right after).
"""

import errno
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv6Address

from testbed.agent.packet_filter import attach, mobility_header_filter

_ETH_P_IPV6 = 0x86DD
_SO_TIMESTAMPNS = 35
_SO_RCVBUFFORCE = 33
#: Room for some thousand messages that come at once, as when an access network fails.
RECEIVE_BUFFER_OCTETS = 4 << 20
_MAX_PACKET = 65535
_MAX_AGE_S = 5.0


@dataclass(frozen=True, slots=True)
class Datagram:
    """A whole IPv6 packet as it came in, and when the kernel got it (seconds on time.monotonic's clock).
    `protected`: IPsec has found it authentic."""

    data: bytes
    interface: str
    received: float
    protected: bool = False


class MobilitySocket:
    """The Mobility Header packets of this network namespace, each exactly once. Needs CAP_NET_RAW.

    Raises PermissionError without it.
    """

    def __init__(self, tunnelled: bool = False) -> None:
        """`tunnelled`: also the tunnel packets that carry such packets (RFC 5380)."""
        kind = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        self._receiving = socket.socket(socket.AF_PACKET, kind, socket.htons(_ETH_P_IPV6))
        try:
            attach(self._receiving, mobility_header_filter(tunnelled))
            while list(self.receive()):  # what came in before the filter was there
                pass
            self._receiving.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
            self._receiving.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, RECEIVE_BUFFER_OCTETS)
            kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
            self._sending = socket.socket(socket.AF_INET6, kind, socket.IPPROTO_RAW)
        except OSError:
            self._receiving.close()
            raise

    def fileno(self) -> int:
        """The descriptor that becomes readable when a packet has come in."""
        return self._receiving.fileno()

    def close(self) -> None:
        self._receiving.close()
        self._sending.close()

    def receive(self, limit: int = 64) -> Iterator[Datagram]:
        """The packets that are waiting, at most `limit`, so that a flood cannot starve the caller."""
        for _ in range(limit):
            try:
                data, ancillary, _flags, address = self._receiving.recvmsg(_MAX_PACKET, 64)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno == errno.ENETDOWN:  # an interface went down: the socket itself is fine
                    continue
                raise
            yield Datagram(data, address[0], _received(ancillary))

    def send(
        self, data: bytes, source: IPv6Address, destination: IPv6Address, interface: str | None = None
    ) -> None:
        """Send the packet `data`, whose IPv6 header has `source` and `destination`.

        It leaves through `interface` where one is given, whatever policy rules say of its addresses; else
        the kernel routes it by both addresses. Raises OSError: no route, no such interface, `source` is not
        an address of this node, longer than the MTU.
        """
        # The kernel only insists on the interface if it is not told the source address (which is in `data`)
        index = socket.if_nametoindex(interface) if interface else 0
        told = bytes(16) if interface else source.packed
        control = [(socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, struct.pack("16sI", told, index))]
        self._sending.sendmsg([data], control, 0, (str(destination), 0))

    def send_on_link(self, data: bytes, interface: str, hardware: bytes) -> None:
        """Send the packet `data` to a link-layer address, past all routing and filtering. Raises OSError."""
        self._receiving.sendto(data, (interface, _ETH_P_IPV6, 0, 0, hardware))


def _received(ancillary: list[tuple[int, int, bytes]]) -> float:
    """The kernel's time stamp, which is on the real-time clock, on the monotonic clock."""
    now = time.monotonic()
    for level, kind, value in ancillary:
        if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPNS:
            seconds, nanoseconds = struct.unpack("qq", value[:16])
            age = time.time() - (seconds + nanoseconds / 1e9)
            if 0 <= age < _MAX_AGE_S:  # else the real-time clock was set in between
                return now - age
    return now
