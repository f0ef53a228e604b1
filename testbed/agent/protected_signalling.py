"""What an agent exchanges under the protection of IPsec (RFC 6275 §5.1). Class: `ProtectedSignalling`."""

from collections.abc import Collection, Iterable, Mapping
from ipaddress import IPv6Address
from typing import Any

from testbed.agent.packet_filter import ICMPV6, MOBILITY
from testbed.agent.protected_socket import ProtectedSocket
from testbed.datapath.protection import Keys, Protection
from testbed.mobility.forwarding import Side
from testbed.wire.icmpv6 import Icmpv6Message, MobilePrefixAdvertisement, MobilePrefixSolicitation
from testbed.wire.packet import Packet

_IPV6_OCTETS, _EXTENSION_OCTETS = 40, 24


class ProtectedSignalling:
    """Mobility Header messages, and those of prefix discovery, between home addresses and their home agent.

    `address`: this node's end, its home address or that of the home agent. Raises DatapathError where the
    kernel cannot do it.
    """

    def __init__(self, side: Side, address: IPv6Address, keys: Iterable[Keys]) -> None:
        self._mobile = side is Side.MOBILE
        self._address = address
        keys = tuple(keys)
        self._pairs = {(each.home_address, each.home_agent) for each in keys}
        self._protection = Protection(side, keys)
        self._sockets: dict[int, ProtectedSocket] = {}
        self._restored: dict[IPv6Address, tuple[int, int, int]] = {}

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Take up what `snapshot` of an earlier life has told, before `open`. Raises ValueError."""
        try:
            self._restored = {IPv6Address(home): _triple(*numbers) for home, numbers in saved.items()}
        except (TypeError, AttributeError) as error:
            raise ValueError(f"not what IPsec has to remember: {error!r}") from error

    def snapshot(self) -> dict[str, Any]:
        """Sequence numbers, which must not begin anew: keys are configured. JSON-able."""
        return {str(home): list(numbers) for home, numbers in self._protection.sequences().items()}

    def open(self) -> None:
        """Put everything into the kernel."""
        self._protection.open(self._restored)
        kind = MobilePrefixAdvertisement if self._mobile else MobilePrefixSolicitation
        peers = frozenset(agent if self._mobile else home for home, agent in self._pairs)
        self._sockets[MOBILITY] = ProtectedSocket(self._address, peers, MOBILITY)
        self._sockets[ICMPV6] = ProtectedSocket(self._address, peers, ICMPV6, (kind.icmp_type,))

    @property
    def sockets(self) -> Collection[ProtectedSocket]:
        """What to receive from; the kernel has dropped what was not protected."""
        return self._sockets.values()

    def covers(self, packet: Packet) -> bool:
        """Whether this packet has to be sent by `send`."""
        message = packet.message
        if isinstance(message, Icmpv6Message):
            if not isinstance(message, MobilePrefixSolicitation | MobilePrefixAdvertisement):
                return False
        return self._ends(packet) in self._pairs

    def _ends(self, packet: Packet) -> tuple[IPv6Address, IPv6Address]:
        """Home address and home agent of a packet that is to be sent."""
        if self._mobile:
            return packet.home_address or packet.source, packet.destination
        return packet.routing_address or packet.destination, packet.source

    def send(self, packet: Packet, data: bytes, interface: str | None, hardware: bytes | None = None) -> None:
        """Send `packet`, whose octets are `data`, by an interface; on the home link, to this link-layer
        address. Raises OSError or DatapathError."""
        home_address, home_agent = self._ends(packet)
        if self._mobile:
            away, care_of_address = packet.home_address is not None, packet.source
        else:
            away, care_of_address = packet.routing_address is not None, packet.destination
        self._protection.towards(home_address, care_of_address if away else None)
        message = data[_IPV6_OCTETS + (_EXTENSION_OCTETS if away else 0) :]
        protocol = ICMPV6 if isinstance(packet.message, Icmpv6Message) else MOBILITY
        destination = home_agent if self._mobile else home_address
        if hardware is not None:
            self._protection.neighbour(destination, interface, hardware)
        self._sockets[protocol].send(message, destination, interface)

    def close(self) -> None:
        """Remove everything from the kernel. Raises DatapathError."""
        for sock in self._sockets.values():
            sock.close()
        self._sockets.clear()
        self._protection.close()


def _triple(sent: int, received: int, bitmap: int) -> tuple[int, int, int]:
    return int(sent), int(received), int(bitmap)
