"""Whether neighbours can still be reached, as the kernel's Neighbour Unreachability Detection finds out.

Class: `Reachability`. RFC 4861 §7.3; RFC 6275 §11.5.1 has a mobile node look for another router when the one
in use does not answer any more.
"""

import errno
import socket
import struct
from collections.abc import Iterator
from ipaddress import IPv6Address

from testbed.datapath.netlink import CREATE, REPLACE, ROUTE, Netlink, NetlinkError, attribute, attributes

# linux/rtnetlink.h, linux/neighbour.h
_NEIGHBOURS = 0x4  # group
_NEW_NEIGHBOUR = 28
_REACHABLE, _PROBE, _FAILED = 0x02, 0x10, 0x20
_USE = 0x01
_DESTINATION = 1
_neighbour = struct.Struct("=BxHiHBB")
_header = struct.Struct("=IHHII")


class Reachability:
    """Asks the kernel to look whether neighbours answer, and hears what it has found, asked or not.

    In the network namespace of the calling thread. Needs CAP_NET_ADMIN.
    """

    def __init__(self) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._reports = socket.socket(socket.AF_NETLINK, kind, ROUTE)
        self._reports.bind((0, _NEIGHBOURS))
        self._requests = Netlink(ROUTE)

    def fileno(self) -> int:
        """The descriptor that becomes readable when the kernel has reported something."""
        return self._reports.fileno()

    def close(self) -> None:
        self._reports.close()
        self._requests.close()

    def probe(self, interface: str, address: IPv6Address) -> None:
        """Have neighbour `address` solicited, by unicast where its link-layer address is known. Raises
        OSError."""
        try:
            self._requests.execute([self._request(interface, address, REPLACE, _PROBE, 0)])
        except NetlinkError as error:
            if error.errno not in (errno.ENOENT, errno.EINVAL):
                raise
            self._requests.execute([self._request(interface, address, CREATE | REPLACE, 0, _USE)])

    @staticmethod
    def _request(
        interface: str, address: IPv6Address, how: int, state: int, flags: int
    ) -> tuple[int, int, bytes]:
        index = socket.if_nametoindex(interface)
        body = _neighbour.pack(socket.AF_INET6, 0, index, state, flags, 0)
        return _NEW_NEIGHBOUR, how, body + attribute(_DESTINATION, address.packed)

    def read(self) -> Iterator[tuple[str, IPv6Address, bool]]:
        """What has been found since the last call: interface, neighbour, whether it answers."""
        while True:
            try:
                data = self._reports.recv(65536)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:  # some reports are lost: routers are probed again
                    raise
                continue
            yield from _findings(data)


def _findings(data: bytes) -> Iterator[tuple[str, IPv6Address, bool]]:
    offset = 0
    while offset + _header.size <= len(data):
        length, kind, *_ = _header.unpack_from(data, offset)
        body = data[offset + _header.size : offset + length]
        offset += max(length + 3 & ~3, _header.size)
        if kind != _NEW_NEIGHBOUR or len(body) < _neighbour.size:
            continue
        family, _, index, state, _, _ = _neighbour.unpack_from(body)
        packed = attributes(body, _neighbour.size).get(_DESTINATION, b"")
        if family != socket.AF_INET6 or len(packed) != 16 or state not in (_REACHABLE, _FAILED):
            continue
        try:
            yield socket.if_indextoname(index), IPv6Address(packed), state == _REACHABLE
        except OSError:  # the interface is gone
            continue
