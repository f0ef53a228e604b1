"""What an agent exchanges under the protection of IPsec (RFC 6275 §5.1). Class: `ProtectedSignalling`."""

from collections.abc import Collection, Iterable, Mapping
from ipaddress import IPv6Address
from typing import Any

from testbed.agent.packet_filter import ICMPV6, MOBILITY
from testbed.agent.protected_socket import ProtectedSocket
from testbed.datapath.protection import Keys, Protection, Sequences
from testbed.mobility.forwarding import HomeBinding, Path, Side
from testbed.wire.icmpv6 import Icmpv6Message, MobilePrefixAdvertisement, MobilePrefixSolicitation
from testbed.wire.message import HomeTestInit
from testbed.wire.packet import Packet

_IPV6_OCTETS, _EXTENSION_OCTETS = 40, 24


class ProtectedSignalling:
    """Mobility Header messages, and those of prefix discovery, between home addresses and their home agent;
    in a tunnel between the two, Home Test Init and Home Test, where there are keys for that.

    An anchor point is a home agent, too, to regional addresses. Raises DatapathError where the kernel cannot
    do it.
    """

    def __init__(self, side: Side, keys: Iterable[Keys]) -> None:
        self._mobile = side is Side.MOBILE
        keys = tuple(keys)
        self._pairs = {(each.home_address, each.home_agent) for each in keys}
        self._protection = Protection(side, keys)
        #: By protocol and our end of the associations.
        self._sockets: dict[tuple[int, IPv6Address], ProtectedSocket] = {}
        self._restored: dict[IPv6Address, Sequences] = {}
        self._with_tunnel = {each.home_address for each in keys if each.tunnel_to_home_agent}
        #: The tunnels that are in use, by home address.
        self._tunnels: dict[IPv6Address, Path] = {}

    def restore(self, saved: Mapping[str, Any]) -> None:
        """Take up what `snapshot` of an earlier life has told, before `open`. Raises ValueError."""
        try:
            self._restored = {
                IPv6Address(home): (_triple(*transport), _triple(*tunnel))
                for home, (transport, tunnel) in saved.items()
            }
        except (TypeError, AttributeError) as error:
            raise ValueError(f"not what IPsec has to remember: {error!r}") from error

    def snapshot(self) -> dict[str, Any]:
        """Sequence numbers, which must not begin anew: keys are configured. JSON-able."""
        return {str(home): list(numbers) for home, numbers in self._protection.sequences().items()}

    def open(self) -> None:
        """Put everything into the kernel."""
        self._protection.open(self._restored)
        kind = MobilePrefixAdvertisement if self._mobile else MobilePrefixSolicitation
        ends = [pair if self._mobile else pair[::-1] for pair in self._pairs]
        for own in {own for own, _ in ends}:
            peers = frozenset(peer for end, peer in ends if end == own)
            self._sockets[MOBILITY, own] = ProtectedSocket(own, peers, MOBILITY)
            self._sockets[ICMPV6, own] = ProtectedSocket(own, peers, ICMPV6, (kind.icmp_type,))

    def follow(self, changes: Mapping[IPv6Address, HomeBinding | None]) -> None:
        """Have the tunnels of these home addresses where they are now (RFC 3776 §4.3). Raises
        DatapathError."""
        for home_address, binding in changes.items():
            if home_address not in self._with_tunnel:
                continue
            paths = binding.paths if binding is not None else ()
            path = next((path for path in paths if path.bid == binding.default_bid), None)
            if path is None or path.on_link is not None:
                self._tunnels.pop(home_address, None)
                self._protection.tunnel(home_address, None)
            else:
                self._protection.tunnel(home_address, path.local if self._mobile else path.remote)
                self._tunnels[home_address] = path

    def _is_tunnelled(self, packet: Packet) -> bool:
        own = self._mobile and packet.home_address is None and packet.source in self._tunnels
        return own and isinstance(packet.message, HomeTestInit)

    @property
    def sockets(self) -> Collection[ProtectedSocket]:
        """What to receive from; the kernel has dropped what was not protected."""
        return self._sockets.values()

    def covers(self, packet: Packet) -> bool:
        """Whether this packet has to be sent by `send`."""
        message = packet.message
        if self._is_tunnelled(packet):
            return True
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
        if self._is_tunnelled(packet):
            path = self._tunnels[packet.source]
            sock = self._sockets[MOBILITY, packet.source]
            return sock.send(data[_IPV6_OCTETS:], packet.destination, path.interface)
        home_address, home_agent = self._ends(packet)
        if self._mobile:
            away, care_of_address = packet.home_address is not None, packet.source
        else:
            away, care_of_address = packet.routing_address is not None, packet.destination
        self._protection.towards(home_address, care_of_address if away else None)
        message = data[_IPV6_OCTETS + (_EXTENSION_OCTETS if away else 0) :]
        protocol = ICMPV6 if isinstance(packet.message, Icmpv6Message) else MOBILITY
        own, destination = (home_address, home_agent) if self._mobile else (home_agent, home_address)
        if hardware is not None:
            self._protection.neighbour(destination, interface, hardware)
        self._sockets[protocol, own].send(message, destination, interface)

    def close(self) -> None:
        """Remove everything from the kernel. Raises DatapathError."""
        for sock in self._sockets.values():
            sock.close()
        self._sockets.clear()
        self._protection.close()


def _triple(sent: int, received: int, bitmap: int) -> tuple[int, int, int]:
    return int(sent), int(received), int(bitmap)
