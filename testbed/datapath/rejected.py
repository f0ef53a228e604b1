"""Packets that are dropped for their Home Address option (RFC 6275 §9.3.1). Classes: `RejectedPackets`,
`Rejected`."""

import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv6Address

#: The upper-layer protocol that nf_tables gives such a packet, so that nothing but this socket gets it
#: (RFC 3692), and the type of the option then, which the kernel skips (RFC 4727 §3.5).
REJECTED_PROTOCOL, EMPTY_OPTION = 253, 0x1E
_IPV6_RECVPKTINFO, _IPV6_PKTINFO, _IPV6_RECVDSTOPTS, _IPV6_DSTOPTS = 49, 50, 58, 59
_ANCILLARY_OCTETS = 512
_BUFFER_OCTETS = 1 << 17


@dataclass(frozen=True, slots=True)
class Rejected:
    """The addresses of such a packet."""

    source: IPv6Address
    destination: IPv6Address
    home_address: IPv6Address


class RejectedPackets:
    """Packets with a Home Address option that no binding allows, as `OptimisationClassifier` passes them on:
    from the wire, or out of a tunnel from the home agent.

    A raw socket in the network namespace of the calling thread. Raises PermissionError without CAP_NET_RAW.
    """

    def __init__(self) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        self._socket = socket.socket(socket.AF_INET6, kind, REJECTED_PROTOCOL)
        for option in (_IPV6_RECVPKTINFO, _IPV6_RECVDSTOPTS):
            self._socket.setsockopt(socket.IPPROTO_IPV6, option, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_OCTETS)

    def fileno(self) -> int:
        """Becomes readable when there is one."""
        return self._socket.fileno()

    def read(self, limit: int = 64) -> Iterator[Rejected]:
        """Those that are waiting, at most `limit`: a flood must not starve the caller."""
        for _ in range(limit):
            try:
                _, ancillary, _, address = self._socket.recvmsg(0, _ANCILLARY_OCTETS)
            except (BlockingIOError, InterruptedError):
                return
            found = {kind: data for _, kind, data in ancillary}
            home_address = home_address_in(found.get(_IPV6_DSTOPTS, b""), EMPTY_OPTION)
            if home_address is not None and _IPV6_PKTINFO in found:
                (destination,) = struct.unpack_from("16s", found[_IPV6_PKTINFO])
                source = IPv6Address(address[0].partition("%")[0])
                yield Rejected(source, IPv6Address(destination), home_address)

    def close(self) -> None:
        self._socket.close()


def home_address_in(options: bytes, kind: int) -> IPv6Address | None:
    """The address in a destination options header of 24 octets, whose only option is of that type."""
    if len(options) != 24 or options[6:8] != bytes((kind, 16)):
        return None
    return IPv6Address(options[8:24])
