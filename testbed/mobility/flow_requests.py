"""What the user of a mobile node asks for of its flows (draft §6).

Class: `FlowRequests`.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from testbed.mobility.binding import FlowBinding
from testbed.mobility.detours import Detours
from testbed.mobility.mobile_node_configuration import InterfaceConfiguration
from testbed.mobility.registration import Registration


class FlowRequests:
    """Wants of registrations what its user asks for. `note` takes events.

    `detours`: how flow bindings go elsewhere one by one, None if they do not.
    """

    def __init__(
        self,
        interfaces: Collection[InterfaceConfiguration],
        detours: Detours | None,
        note: Callable[..., None],
    ) -> None:
        self._interfaces = interfaces
        self._detours = detours
        self._note = note

    def add(self, registration: Registration, flow: FlowBinding) -> None:
        """Bind a new flow. Raises FlowError in one sentence if it cannot be had as asked."""
        registration.flows.add(self._with_bids(flow))
        self._note("flow-requested", fid=flow.fid, operation="add")

    def replace(self, registration: Registration, flow: FlowBinding) -> None:
        """Change a flow binding; no selector keeps the one it has. Raises FlowError."""
        registration.flows.replace(self._with_bids(flow))
        self._forget_detour(flow.fid)
        self._note("flow-requested", fid=flow.fid, operation="replace")

    def remove(self, registration: Registration, fid: int) -> None:
        """Remove a flow binding. Raises FlowError."""
        registration.flows.remove(fid)
        self._forget_detour(fid)
        self._note("flow-requested", fid=fid, operation="remove")

    def follow(self, registration: Registration, bids: Sequence[int]) -> None:
        """Only `bids` have care-of addresses now, the most preferred first."""
        if self._detours is not None and registration.takes_bids:
            self._detours.apply(registration, bids)

    def wanted(self, flow: FlowBinding) -> FlowBinding:
        """What was asked for, where that is not what there is now."""
        return flow if self._detours is None else self._detours.wanted(flow)

    def _forget_detour(self, fid: int) -> None:
        if self._detours is not None:
            self._detours.forget(fid)

    def _with_bids(self, flow: FlowBinding) -> FlowBinding:
        """A flow binding that names no BID is attached to the default one."""
        if flow.bids or not self._interfaces:
            return flow
        preferred = min(self._interfaces, key=lambda interface: (interface.priority, interface.bid))
        return replace(flow, bids=(preferred.bid,))
