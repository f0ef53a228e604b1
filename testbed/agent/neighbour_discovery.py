"""The Neighbour Discovery that an agent takes part in itself (RFC 4861).

Classes: `NeighbourDiscoverySocket`, `RouterAdvertisement`. A mobile node solicits routers when a link comes
back, which the kernel does not, listens to what they advertise, and introduces its care-of addresses to them;
a home agent advertises the home addresses that it defends.
"""

import fcntl
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import IPv6Address, IPv6Network

from testbed.wire import router_advertisement

#: RFC 4861 §10
MAX_RTR_SOLICITATIONS, RTR_SOLICITATION_INTERVAL_S = 3, 4.0
MAX_NEIGHBOR_ADVERTISEMENT, RETRANS_TIMER_S = 3, 1.0

_ROUTER_SOLICITATION, _ROUTER_ADVERTISEMENT = 133, 134
_NEIGHBOUR_SOLICITATION, _NEIGHBOUR_ADVERTISEMENT = 135, 136
_SOURCE_LINK_LAYER_ADDRESS, _TARGET_LINK_LAYER_ADDRESS = 1, 2
_OVERRIDE = 0x20000000
_ALL_NODES, _ALL_ROUTERS = "ff02::1", "ff02::2"
_SOLICITED_NODE = int(IPv6Address("ff02::1:ff00:0"))
_ANY_SOURCE = IPv6Address(0)
_ICMPV6_FILTER, _HOP_LIMIT = 1, 255
_SIOCGIFHWADDR, _ARPHRD_ETHER = 0x8927, 1


@dataclass(frozen=True, slots=True)
class RouterAdvertisement:
    """What movement detection needs of a Router Advertisement (RFC 4861 §4.2): the router's link-local
    address, for how many seconds it is a default router, the prefixes to form addresses from, and a global
    address of the router's (RFC 6275 §7.2)."""

    router: IPv6Address
    lifetime_s: int
    prefixes: tuple[IPv6Network, ...]
    global_address: IPv6Address | None = None
    message: router_advertisement.RouterAdvertisement = field(compare=False, repr=False, default=None)

    @classmethod
    def parse(cls, router: IPv6Address, data: bytes) -> "RouterAdvertisement":
        """Raises ValueError for what RFC 4861 §6.1.2 has a host discard."""
        message = router_advertisement.RouterAdvertisement.parse(data)
        if not router.is_link_local:
            raise ValueError(f"Router Advertisement comes from {router}, which is not link-local")
        options = message.all_options(router_advertisement.PrefixInformation)
        prefixes = tuple(option.prefix for option in options if option.autonomous)
        own = next((option.address for option in options if option.router_address), None)
        return cls(router, message.router_lifetime_s, prefixes, own, message)


class NeighbourDiscoverySocket:
    """A raw ICMPv6 socket that receives Router Advertisements only. Needs CAP_NET_RAW."""

    def __init__(self) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        self._socket = socket.socket(socket.AF_INET6, kind, socket.IPPROTO_ICMPV6)
        blocked = [0xFFFFFFFF] * 8  # a bit an ICMPv6 type
        blocked[_ROUTER_ADVERTISEMENT // 32] &= ~(1 << _ROUTER_ADVERTISEMENT % 32)
        self._socket.setsockopt(socket.IPPROTO_ICMPV6, _ICMPV6_FILTER, struct.pack("8I", *blocked))
        self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT, 1)
        self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, _HOP_LIMIT)
        self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 0)

    def fileno(self) -> int:
        """The descriptor that becomes readable when a Router Advertisement has come in."""
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def receive(self, limit: int = 16) -> Iterator[tuple[str, RouterAdvertisement]]:
        """The valid advertisements that are waiting, each with the name of its interface."""
        for _ in range(limit):
            try:
                data, ancillary, _flags, address = self._socket.recvmsg(65535, 64)
            except (BlockingIOError, InterruptedError):
                return
            hop_limits = [value for level, kind, value in ancillary if kind == socket.IPV6_HOPLIMIT]
            if hop_limits != [struct.pack("i", _HOP_LIMIT)]:  # forwarded, so not from this link
                continue
            try:
                advertisement = RouterAdvertisement.parse(IPv6Address(address[0].partition("%")[0]), data)
                yield socket.if_indextoname(address[3]), advertisement
            except (ValueError, OSError):
                continue

    def solicit_routers(self, interface: str) -> None:
        """Send a Router Solicitation (RFC 4861 §6.3.7). Raises OSError."""
        option = _link_layer_address(_SOURCE_LINK_LAYER_ADDRESS, interface)
        self._multicast(struct.pack("!BBHI", _ROUTER_SOLICITATION, 0, 0, 0) + option, _ALL_ROUTERS, interface)

    def introduce(self, address: IPv6Address, router: IPv6Address, interface: str) -> None:
        """Let `router` know the link-layer address of `address`, one of ours, before it has anything to
        deliver: it learns that of whoever solicits it (RFC 4861 §7.2.3). Raises OSError."""
        group = str(IPv6Address(_SOLICITED_NODE | int(router) & 0xFFFFFF))
        header = struct.pack("!BBHI", _NEIGHBOUR_SOLICITATION, 0, 0, 0) + router.packed
        option = _link_layer_address(_SOURCE_LINK_LAYER_ADDRESS, interface)
        self._multicast(header + option, group, interface, address)

    def advertise(self, target: IPv6Address, interface: str) -> None:
        """Claim `target` on the link with an unsolicited Neighbour Advertisement, Override set, Router and
        Solicited clear (RFC 6275 §10.4.1). Raises OSError."""
        header = struct.pack("!BBHI", _NEIGHBOUR_ADVERTISEMENT, 0, 0, _OVERRIDE) + target.packed
        option = _link_layer_address(_TARGET_LINK_LAYER_ADDRESS, interface)
        self._multicast(header + option, _ALL_NODES, interface)

    def _multicast(
        self, data: bytes, group: str, interface: str, source: IPv6Address = _ANY_SOURCE
    ) -> None:
        # The kernel fills in the checksum and, where none is given, the interface's link-local address
        index = socket.if_nametoindex(interface)
        packet_information = source.packed + struct.pack("i", index)
        ancillary = [(socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, packet_information)]
        self._socket.sendmsg([data], ancillary, 0, (group, 0, 0, index))


def hardware_address(interface: str) -> bytes:
    """The interface's link-layer address, empty where it has none. Raises OSError."""
    # not by a packet socket, whose end would make us wait for all processors
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        found = fcntl.ioctl(sock, _SIOCGIFHWADDR, struct.pack("16sH14x", interface.encode(), 0))
    _, kind_of_link, content = struct.unpack("16sH14s", found)
    return content[:6] if kind_of_link == _ARPHRD_ETHER else b""


def _link_layer_address(kind: int, interface: str) -> bytes:
    """The option with the interface's link-layer address, nothing where it has none."""
    address = hardware_address(interface)
    padding = -(2 + len(address)) % 8
    return bytes([kind, (2 + len(address) + padding) // 8]) + address + bytes(padding) if address else b""
