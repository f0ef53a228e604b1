"""What passes an interface of an emulated node. Classes: `NodeCapture`, `Tunnelled`.

A packet waits in the socket from the moment it passes: nothing is missed, however late the test looks.
"""

import socket
from ipaddress import IPv6Address
from typing import NamedTuple

from testbed.emulation.link_device import Namespace
from testbed.emulation.node import Host

_ETH_P_ALL, _ETH_P_IPV6 = 3, 0x86DD  # only those who want all see what goes out
_IPV6_IN_IPV6, _UDP = 41, 17
_HEADER = 40


class Tunnelled(NamedTuple):
    """The addresses of the outer and the inner header; the destination port of what is UDP within."""

    source: str
    destination: str
    inner_source: str
    inner_destination: str
    port: int | None


class NodeCapture:
    """A context manager. What has passed the interface so far, in either direction."""

    def __init__(self, node: Host, interface: str) -> None:
        with Namespace(node.pid).entered():
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_ALL))
            self._socket.bind((interface, _ETH_P_ALL))
        self._socket.setblocking(False)
        self._packets: list[bytes] = []

    def __enter__(self) -> "NodeCapture":
        return self

    def __exit__(self, *exception: object) -> None:
        self._socket.close()

    @property
    def packets(self) -> list[bytes]:
        """Whole IPv6 packets."""
        while True:
            try:
                data, address = self._socket.recvfrom(65535)
            except BlockingIOError:
                return self._packets
            if address[1] == _ETH_P_IPV6:
                self._packets.append(data)

    @property
    def tunnelled(self) -> list[Tunnelled]:
        """Those of IPv6 in IPv6."""
        return [_parsed(data) for data in self.packets if data[6] == _IPV6_IN_IPV6]


def _parsed(data: bytes) -> Tunnelled:
    inner = data[_HEADER:]
    addresses = [data[8:24], data[24:40], inner[8:24], inner[24:40]]
    port = int.from_bytes(inner[_HEADER + 2 : _HEADER + 4], "big") if inner[6] == _UDP else None
    return Tunnelled(*(str(IPv6Address(address)) for address in addresses), port)
