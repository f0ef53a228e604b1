"""What other nodes say of packets that we have sent (RFC 6275 §9.3.4, §11.3.5).

Classes: `IcmpErrorSocket`, `Outbox`. Anybody can send an ICMPv6 error; that it is about a message of ours is
shown by the copy of the message in it, with its cookie or authenticator, which only nodes on its path know.
"""

import hashlib
import socket
import struct
from collections import OrderedDict
from collections.abc import Iterator
from ipaddress import IPv6Address

from testbed.wire.error import ParseError
from testbed.wire.icmp_error import DESTINATION_UNREACHABLE, PARAMETER_PROBLEM, IcmpError
from testbed.wire.packet import Packet

_ICMPV6_FILTER = 1
_MAX_PACKET = 65535
#: Messages that are remembered: errors come within a round trip, of some correspondent nodes at once.
_MAX_REMEMBERED = 256
#: What comes back of a long packet: the least MTU less two headers (RFC 4443 §2.4).
_MAX_QUOTED = 1280 - 48


class IcmpErrorSocket:
    """A raw ICMPv6 socket that receives Destination Unreachable and Parameter Problem only, to any address of
    this node, out of tunnels as well; the kernel verifies checksums. Needs CAP_NET_RAW."""

    def __init__(self) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        self._socket = socket.socket(socket.AF_INET6, kind, socket.IPPROTO_ICMPV6)
        blocked = [0xFFFFFFFF] * 8  # a bit an ICMPv6 type
        blocked[0] &= ~(1 << DESTINATION_UNREACHABLE | 1 << PARAMETER_PROBLEM)
        self._socket.setsockopt(socket.IPPROTO_ICMPV6, _ICMPV6_FILTER, struct.pack("8I", *blocked))

    def fileno(self) -> int:
        """The descriptor that becomes readable when an error has come in."""
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def receive(self, limit: int = 16) -> Iterator[IcmpError]:
        """The errors that are waiting, at most `limit`."""
        for _ in range(limit):
            try:
                data, address = self._socket.recvfrom(_MAX_PACKET)
            except (BlockingIOError, InterruptedError):
                return
            try:
                yield IcmpError.parse(IPv6Address(address[0].partition("%")[0]), data)
            except ParseError:
                continue


class Outbox:
    """The packets that were sent last, to be found by what others quote of them."""

    def __init__(self) -> None:
        self._sent: OrderedDict[bytes, Packet] = OrderedDict()

    def remember(self, data: bytes, packet: Packet) -> None:
        """`data` is `packet` as it was sent."""
        self._sent[_digest(data)] = packet
        if len(self._sent) > _MAX_REMEMBERED:
            self._sent.popitem(last=False)

    def find(self, quoted: bytes) -> Packet | None:
        """The packet that this is a copy of, None if there is none."""
        return self._sent.get(_digest(quoted))


def _digest(data: bytes) -> bytes:
    """Of what routers do not change: not the first four octets, not the Hop Limit."""
    return hashlib.sha256(data[4:7] + data[8:_MAX_QUOTED]).digest()
