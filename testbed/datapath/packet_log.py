"""Packets that a rule of nf_tables has dropped for their Home Address option (RFC 6275 §9.3.1). Class:
`LoggedPackets`."""

import socket
import struct
from collections.abc import Iterator
from itertools import islice

from testbed.datapath.netlink import NETFILTER, Netlink, attribute, attributes
from testbed.datapath.rejected import PACKET_OCTETS, Rejected, parse_rejected

#: Number of the group that the rule logs to.
GROUP = 177
_SUBSYSTEM = 4 << 8
_PACKET, _CONFIGURE = 0, 1
_COMMAND, _MODE, _THRESHOLD = 1, 2, 5
_BIND, _COPY_PACKET = 1, 2
_PAYLOAD = 9


class LoggedPackets:
    """What RejectedPackets tells, where the kernel itself takes accepted options out: packet sockets have had
    all packets by then, hence a rule logs those that it drops.

    In the network namespace of the calling thread. Raises OSError where the kernel has no nfnetlink_log.
    """

    def __init__(self) -> None:
        self._netlink = Netlink(NETFILTER)
        header = struct.pack(">BBH", socket.AF_UNSPEC, 0, GROUP)
        mode = struct.pack(">IBx", PACKET_OCTETS, _COPY_PACKET)
        for part in (
            attribute(_COMMAND, bytes([_BIND])),
            attribute(_MODE, mode) + attribute(_THRESHOLD, struct.pack(">I", 1)),
        ):
            self._netlink.execute([(_SUBSYSTEM | _CONFIGURE, 0, header + part)])

    def fileno(self) -> int:
        """Becomes readable when there is one."""
        return self._netlink.fileno()

    def read(self, limit: int = 64) -> Iterator[Rejected]:
        """Those that are waiting, at most `limit` messages: a flood must not starve the caller."""
        try:
            for kind, body in islice(self._netlink.notices(), limit):
                packet = attributes(body, 4).get(_PAYLOAD, b"")
                rejected = parse_rejected(packet) if kind == _SUBSYSTEM | _PACKET else None
                if rejected is not None:
                    yield rejected
        except OSError:  # there were more of them than the kernel keeps
            return

    def close(self) -> None:
        self._netlink.close()
