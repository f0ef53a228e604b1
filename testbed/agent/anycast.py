"""An anycast address of this node. Class: `AnycastAddress`."""

import socket
import struct
from ipaddress import IPv6Address

_IPV6_JOIN_ANYCAST = 27


class AnycastAddress:
    """While it is open, the kernel takes packets to `address`, and answers neighbours on `interface` that
    look for it (RFC 4861 §7.2.7). Raises OSError. Needs CAP_NET_ADMIN."""

    def __init__(self, address: IPv6Address, interface: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        try:
            member = struct.pack("16si", address.packed, socket.if_nametoindex(interface))
            self._socket.setsockopt(socket.IPPROTO_IPV6, _IPV6_JOIN_ANYCAST, member)
        except OSError:
            self._socket.close()
            raise

    def close(self) -> None:
        """Give the address up."""
        self._socket.close()
