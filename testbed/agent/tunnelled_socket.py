"""Mobility Header packets to the home address that have come out of a tunnel. Class: `TunnelledSocket`."""

import socket
import struct
import time
from collections.abc import Iterator
from ipaddress import IPv6Address

from testbed.agent.mobility_socket import Datagram
from testbed.datapath.rejected import EMPTY_OPTION, home_address_in

_MOBILITY_HEADER = 135
_DESTINATION_OPTIONS, _HOME_ADDRESS_OPTION = 60, 0xC9
_IPV6_CHECKSUM, _IPV6_RECVDSTOPTS, _IPV6_DSTOPTS, _IPV6_FREEBIND = 7, 58, 59, 78
_ANCILLARY_OCTETS = 512
_MAX_PACKET = 65535
_HOP_LIMIT = 255


class TunnelledSocket:
    """What the home agent forwards to a mobile node: Home Tests, Binding Refresh Requests (RFC 6275 §9.5.5);
    or, where `home_address` is a regional care-of address, what its anchor point forwards: Care-of Tests.

    A raw socket, as packet sockets do not see what the kernel decapsulates. Others do not get here: the
    datapath drops Mobility Header packets before decapsulation, hence RFC 6275 §11.6.2's "received in a
    tunnel" holds. The kernel hands over no IPv6 header; one takes its place, with the Home Address option of
    a Binding Update from another mobile node, which nf_tables has made an option that the kernel skips.
    """

    def __init__(self, home_address: IPv6Address) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        self._home_address = home_address
        self._socket = socket.socket(socket.AF_INET6, kind, _MOBILITY_HEADER)
        try:
            self._socket.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)
            self._socket.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVDSTOPTS, 1)
            self._socket.setsockopt(socket.IPPROTO_IPV6, _IPV6_CHECKSUM, -1)  # the codec looks at it
            self._socket.bind((str(home_address), 0))
        except OSError:
            self._socket.close()
            raise

    def fileno(self) -> int:
        """The descriptor that becomes readable when a packet has come in."""
        return self._socket.fileno()

    def receive(self, limit: int = 64) -> Iterator[Datagram]:
        """The packets that are waiting, at most `limit`."""
        for _ in range(limit):
            try:
                data, ancillary, _, address = self._socket.recvmsg(_MAX_PACKET, _ANCILLARY_OCTETS)
            except (BlockingIOError, InterruptedError):
                return
            source = IPv6Address(address[0].partition("%")[0])
            following = _MOBILITY_HEADER
            options = next((value for _, kind, value in ancillary if kind == _IPV6_DSTOPTS), b"")
            if home_address_in(options, EMPTY_OPTION) is not None:
                data = options[:6] + bytes([_HOME_ADDRESS_OPTION]) + options[7:] + data
                following = _DESTINATION_OPTIONS
            header = struct.pack("!IHBB", 6 << 28, len(data), following, _HOP_LIMIT)
            packet = header + source.packed + self._home_address.packed + data
            yield Datagram(packet, "tunnel", time.monotonic())

    def close(self) -> None:
        self._socket.close()
