"""Duplicate address detection on behalf of mobile nodes (RFC 6275 §10.3.1, RFC 4862 §5.4).

Class: `DuplicateAddressDetection`.
"""

import asyncio
import logging
import socket
import struct
from collections.abc import Callable
from ipaddress import IPv6Address

from testbed.agent.neighbour_discovery import RETRANS_TIMER_S
from testbed.wire.checksum import checksum

logger = logging.getLogger(__name__)

_ETH_P_IPV6, _PACKET_OUTGOING, _PACKET_MR_ALLMULTI = 0x86DD, 4, 2
_SOL_PACKET, _PACKET_ADD_MEMBERSHIP = 263, 1
_ICMPV6, _HOP_LIMIT = 58, 255
_NEIGHBOUR_SOLICITATION, _NEIGHBOUR_ADVERTISEMENT = 135, 136
#: A timer that is so late, in seconds, says that this machine stood still: so may the answer have.
_STOOD_STILL_S = 0.1
#: So many waits end it, however late each was: after as many without an answer there is no such neighbour
#: (RFC 4861 §7.2.2, MAX_MULTICAST_SOLICIT), and RFC 4862 §5.4 is content with one.
MAX_WAITS = 3
_UNSPECIFIED = IPv6Address(0)
_SOLICITED_NODE = int(IPv6Address("ff02::1:ff00:0"))


class DuplicateAddressDetection:
    """Asks for addresses on one link. A packet socket: the address is not this node's, and the source of the
    question is the unspecified address. Open while there is something to wait for. Needs CAP_NET_RAW."""

    def __init__(self, interface: str) -> None:
        self._interface = interface
        self._socket: socket.socket | None = None
        #: The link-layer addresses of those who use addresses that were asked for.
        self.claimants: dict[IPv6Address, bytes] = {}
        self._waiting: dict[IPv6Address, tuple[asyncio.TimerHandle, Callable[[bool], None]]] = {}

    def probe(self, address: IPv6Address, done: Callable[[bool], None]) -> None:
        """Call `done(unique)` when it is known whether somebody else uses `address`: if so at once, else
        after RETRANS_TIMER_S (DupAddrDetectTransmits is 1) in which this machine did not stand still, or
        after MAX_WAITS of them in which it did: so much silence is an answer, too. Raises OSError."""
        loop = asyncio.get_running_loop()
        if self._socket is None:
            self._open()
            loop.add_reader(self._socket.fileno(), self._receive)
        self._wait(address, done)
        group = IPv6Address(_SOLICITED_NODE | int(address) & 0xFFFFFF)
        message = struct.pack("!BBHI", _NEIGHBOUR_SOLICITATION, 0, 0, 0) + address.packed
        total = checksum(message, _UNSPECIFIED, group, _ICMPV6)
        message = message[:2] + total.to_bytes(2, "big") + message[4:]
        header = struct.pack("!IHBB", 6 << 28, len(message), _ICMPV6, _HOP_LIMIT)
        packet = header + _UNSPECIFIED.packed + group.packed + message
        hardware = b"\x33\x33" + group.packed[12:]
        self._socket.sendto(packet, (self._interface, _ETH_P_IPV6, 0, 0, hardware))

    def _wait(self, address: IPv6Address, done: Callable[[bool], None], times: int = 1) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time() + RETRANS_TIMER_S

        def silence() -> None:
            was_late = loop.time() - due > _STOOD_STILL_S
            if was_late and times < MAX_WAITS:
                return self._wait(address, done, times + 1)
            if was_late:
                logger.warning(
                    "%s: %s is taken for unique: nobody has claimed it in %d waits, "
                    "in each of which this machine stood still",
                    self._interface,
                    address,
                    times,
                )
            self._found(address, True)

        self._waiting[address] = loop.call_at(due, silence), done

    def close(self) -> None:
        """Stop waiting; nobody is told."""
        for handle, _ in self._waiting.values():
            handle.cancel()
        self._waiting.clear()
        self._shut()

    def _open(self) -> None:
        kind = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        sock = socket.socket(socket.AF_PACKET, kind, 0)
        try:
            index = socket.if_nametoindex(self._interface)
            membership = struct.pack("iHH8s", index, _PACKET_MR_ALLMULTI, 0, bytes(8))
            sock.setsockopt(_SOL_PACKET, _PACKET_ADD_MEMBERSHIP, membership)
            sock.bind((self._interface, _ETH_P_IPV6))
        except OSError:
            sock.close()
            raise
        self._socket = sock

    def _shut(self) -> None:
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None

    def _receive(self) -> None:
        while self._socket is not None:
            try:
                data, address = self._socket.recvfrom(2048)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:  # the interface went down: the probes end by themselves
                return
            if address[2] != _PACKET_OUTGOING:
                target = claimed_address(data)
                if target in self._waiting:
                    self.claimants[target] = address[4]
                    self._found(target, False)

    def _found(self, address: IPv6Address, unique: bool) -> None:
        handle, done = self._waiting.pop(address)
        handle.cancel()
        if not self._waiting:
            self._shut()
        done(unique)


def claimed_address(data: bytes) -> IPv6Address | None:
    """The address that the sender of an IPv6 packet claims, or is about to claim (RFC 4862 §5.4.3, §5.4.4):
    the target of a valid Neighbour Advertisement, or of a Neighbour Solicitation without source address."""
    if len(data) < 64 or data[6] != _ICMPV6 or data[7] != _HOP_LIMIT or data[41] != 0:
        return None
    source, destination = IPv6Address(data[8:24]), IPv6Address(data[24:40])
    end = 40 + int.from_bytes(data[4:6], "big")
    asks = data[40] == _NEIGHBOUR_SOLICITATION and source == _UNSPECIFIED
    if not asks and data[40] != _NEIGHBOUR_ADVERTISEMENT:
        return None
    if end > len(data) or checksum(data[40:end], source, destination, _ICMPV6) != 0:
        return None
    return IPv6Address(data[48:64])
