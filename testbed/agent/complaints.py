"""What comes back of packets between a correspondent node and mobile nodes. Class: `Complaints`."""

from collections import Counter
from collections.abc import Callable
from ipaddress import IPv6Address

from testbed.datapath.rejected import RejectedPackets
from testbed.mobility.correspondent_node import CorrespondentNode
from testbed.wire.icmp_error import DESTINATION_UNREACHABLE, PORT_UNREACHABLE, IcmpError, care_of_path


class Complaints:
    """Tells the role of a correspondent node; its agent has to `turn` then. `is_ours(address)`: whether it is
    this node's; `counters` counts "unverified" packets."""

    def __init__(
        self, role: CorrespondentNode, is_ours: Callable[[IPv6Address], bool], counters: Counter[str]
    ) -> None:
        self._role = role
        self._is_ours = is_ours
        self._counters = counters

    def read_rejected(self, reports: RejectedPackets, now: float) -> None:
        """Packets with a Home Address option that no binding allows (RFC 6275 §9.3.1)."""
        for packet in reports.read():
            self._counters["unverified"] += 1
            if self._is_ours(packet.destination):
                self._role.unverified_home_address(
                    packet.source, packet.destination, packet.home_address, now
                )

    def error(self, error: IcmpError, now: float) -> None:
        """RFC 6275 §9.3.4. Port Unreachable comes from the mobile node itself: it has been reached."""
        path = care_of_path(error.quoted)
        if error.kind != DESTINATION_UNREACHABLE or error.code == PORT_UNREACHABLE or path is None:
            return
        source, care_of_address, home_address = path
        if self._is_ours(source):
            self._role.unreachable(home_address, care_of_address, now)
