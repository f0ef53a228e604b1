"""Messages that the kernel protects by IPsec, or has found authentic. Class: `ProtectedSocket`."""

import socket
import struct
import time
from collections.abc import Collection, Iterator
from ipaddress import IPv6Address

from testbed.agent.mobility_socket import Datagram
from testbed.agent.packet_filter import DESTINATION_OPTIONS, ICMPV6, ROUTING
from testbed.datapath import mark

_IPV6_FREEBIND, _IPV6_RECEIVE_OPTIONS, _IPV6_RECEIVE_ROUTING = 78, 58, 56
_IPV6_OPTIONS, _IPV6_ROUTING = 59, 57
_ICMPV6_FILTER = 1
_SO_MARK = 36
_HOP_LIMIT = 64
_HOME_ADDRESS_OPTION = bytes((0xC9, 16))
_MAX_PACKET = 65535
_ANCILLARY_OCTETS = 1024


class ProtectedSocket:
    """A raw socket of one upper-layer protocol for `address`, the end of security associations of this node.

    The kernel exchanges home address and care-of address, looks for policies by the home address, and
    transforms the packet; hence messages are sent from and to home addresses, and what comes in is put
    together again as it was on the wire, without ESP. Needs CAP_NET_RAW.
    """

    def __init__(
        self, address: IPv6Address, peers: Collection[IPv6Address], protocol: int, kinds: tuple[int, ...] = ()
    ) -> None:
        """`peers`: the other ends of the associations, which the kernel's policies are about; others are not
        heard. `kinds`: the only ICMPv6 messages that are of interest."""
        kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        self._address, self._peers, self._protocol = address, peers, protocol
        self._socket = socket.socket(socket.AF_INET6, kind, protocol)
        try:
            for option in (_IPV6_FREEBIND, _IPV6_RECEIVE_OPTIONS, _IPV6_RECEIVE_ROUTING):
                self._socket.setsockopt(socket.IPPROTO_IPV6, option, 1)
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_MARK, mark.value(mark.LEFT_ALONE))
            if protocol == ICMPV6:
                blocked = sum(1 << kind for kind in range(256) if kind not in kinds)
                self._socket.setsockopt(ICMPV6, _ICMPV6_FILTER, blocked.to_bytes(32, "little"))
            self._socket.bind((str(address), 0))
        except OSError:
            self._socket.close()
            raise

    def fileno(self) -> int:
        """The descriptor that becomes readable when a message has come in."""
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def send(self, data: bytes, destination: IPv6Address, interface: str | None = None) -> None:
        """Send a message, whose checksum the kernel puts in. Raises OSError."""
        index = socket.if_nametoindex(interface) if interface else 0
        information = struct.pack("16sI", self._address.packed, index)
        control = [(socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, information)]
        self._socket.sendmsg([data], control, 0, (str(destination), 0))

    def receive(self, limit: int = 64) -> Iterator[Datagram]:
        """The packets that are waiting, at most `limit`."""
        for _ in range(limit):
            try:
                data, ancillary, _, peer = self._socket.recvmsg(_MAX_PACKET, _ANCILLARY_OCTETS)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:  # an ICMPv6 error about something sent earlier
                continue
            source = IPv6Address(peer[0].partition("%")[0])
            packet = self._packet(data, source, ancillary) if source in self._peers else b""
            if packet:
                yield Datagram(packet, "ipsec", time.monotonic(), True)

    def _packet(self, data: bytes, source: IPv6Address, ancillary: list[tuple[int, int, bytes]]) -> bytes:
        """The packet as it was before the kernel has put the home address in the place of the other one; none
        where the header that had it is not as RFC 6275 §6.3 and §6.4 have it."""
        addresses, protocol = [source.packed, self._address.packed], self._protocol
        for level, kind, header in ancillary:
            if level != socket.IPPROTO_IPV6 or kind not in (_IPV6_OPTIONS, _IPV6_ROUTING):
                continue
            of_sender = kind == _IPV6_OPTIONS
            if len(header) != 24 or (of_sender and header[6:8] != _HOME_ADDRESS_OPTION):
                return b""
            replaced = 0 if of_sender else 1
            home, addresses[replaced] = addresses[replaced], header[8:]
            start = header[1:8] if of_sender else header[1:3] + b"\1" + header[4:8]  # one segment was left
            data = bytes([protocol]) + start + home + data
            protocol = DESTINATION_OPTIONS if of_sender else ROUTING
        beginning = struct.pack("!IHBB", 6 << 28, len(data), protocol, _HOP_LIMIT)
        return beginning + b"".join(addresses) + data
