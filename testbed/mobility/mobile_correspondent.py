"""A mobile node that is a correspondent node of other mobile nodes at the same time (RFC 6275 §8.1, §8.5).

Class: `MobileCorrespondent`.
"""

from collections.abc import Iterable
from ipaddress import IPv6Address
from typing import Any

from testbed.mobility.correspondent_node import CorrespondentNode
from testbed.mobility.forwarding import HomeBinding, Pair, RouteOptimisation
from testbed.mobility.mobile_node import MobileNode
from testbed.mobility.role import Event, Role, Transmission
from testbed.wire.message import (
    BindingAcknowledgement,
    BindingRefreshRequest,
    BindingUpdate,
    CareOfTestInit,
    HomeTestInit,
)
from testbed.wire.packet import Packet

#: What a correspondent node receives; all else is for the mobile node.
_RECEIVED = HomeTestInit, CareOfTestInit, BindingUpdate


class MobileCorrespondent(Role):
    """Both roles side by side; neither knows of the other. What the correspondent node sends has the home
    address as its source, hence goes to the home agent by reverse tunnel while the node is away
    (RFC 6275 §11.3.1; §6.1: mobility messages bypass binding cache and binding update list)."""

    def __init__(self, mobile: MobileNode, correspondent: CorrespondentNode) -> None:
        super().__init__()
        self.mobile = mobile
        self.correspondent = correspondent
        self._both: tuple[Role, Role] = (mobile, correspondent)

    def receive(self, packet: Packet, interface: str, now: float) -> None:
        role = self.correspondent if isinstance(packet.message, _RECEIVED) else self.mobile
        role.receive(packet, interface, now)

    def handle_timer(self, now: float) -> None:
        for role in self._both:
            role.handle_timer(now)

    def timer(self) -> float | None:
        return min((when for role in self._both if (when := role.timer()) is not None), default=None)

    def datapath_failed(self, home_address: IPv6Address, reason: str, now: float) -> None:
        """`home_address` is that of a mobile node which is registered here, or our own."""
        role = self.correspondent if self.correspondent.cache.get(home_address) else self.mobile
        role.datapath_failed(home_address, reason, now)

    def transmissions(self) -> list[Transmission]:
        return [transmission for role in self._both for transmission in role.transmissions()]

    def hold(self, transmissions: Iterable[Transmission]) -> None:
        answers = BindingAcknowledgement, BindingRefreshRequest
        for transmission in reversed(list(transmissions)):
            answered = isinstance(transmission.packet.message, answers)
            (self.correspondent if answered else self.mobile).hold([transmission])

    def events(self) -> list[Event]:
        return [event for role in self._both for event in role.events()]

    def home_binding(self, home_address: IPv6Address) -> HomeBinding | None:
        return self.mobile.home_binding(home_address)

    def forwarding(self) -> dict[IPv6Address, HomeBinding]:
        return self.mobile.forwarding()

    def changes(self) -> dict[IPv6Address, HomeBinding | None]:
        return self.mobile.changes()

    def optimisations(self) -> dict[Pair, RouteOptimisation]:
        """Those of both: at each end of a pair of mobile nodes, one for each direction."""
        return {**self.mobile.optimisations(), **self.correspondent.optimisations()}

    def optimisation_changes(self) -> dict[Pair, RouteOptimisation | None]:
        return {**self.mobile.optimisation_changes(), **self.correspondent.optimisation_changes()}

    def bindings(self, now: float) -> list[dict[str, Any]]:
        """The mobile node's own; `correspondent` has those of the others."""
        return self.mobile.bindings(now)

    def snapshot(self, now: float) -> dict[str, Any]:
        return {**self.mobile.snapshot(now), "correspondent_node": self.correspondent.snapshot(now)}

    def unsaved(self, now: float) -> dict[str, Any] | None:
        """All of it, where there is anything."""
        changes = [role.unsaved(now) for role in self._both]
        return None if changes == [None, None] else self.snapshot(now)

    def restore(self, snapshot: dict[str, Any], saved_at: float, now: float) -> None:
        """Take up an earlier life, that of a mobile node alone as well. Raises ValueError."""
        self.mobile.restore(snapshot, saved_at, now)
        self.correspondent.restore(snapshot.get("correspondent_node", {}), saved_at, now)
