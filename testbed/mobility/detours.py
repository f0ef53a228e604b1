"""Flow bindings that go elsewhere while their interface has no care-of address (draft §6.2, the first way).

Class: `Detours`.
"""

from collections.abc import Sequence
from dataclasses import replace

from testbed.mobility.binding import FlowBinding
from testbed.mobility.forwarding import Action
from testbed.mobility.registration import Registration
from testbed.wire.flow import Pro


class Detours:
    """Replaces flow bindings one by one as BIDs come and go, and remembers what was wanted of each."""

    def __init__(self) -> None:
        self._wanted: dict[int, FlowBinding] = {}

    def wanted(self, flow: FlowBinding) -> FlowBinding:
        """What its user has asked for, where that is not what there is now."""
        return self._wanted.get(flow.fid, flow)

    def forget(self, fid: int) -> None:
        """Its user has asked for something else."""
        self._wanted.pop(fid, None)

    def apply(self, registration: Registration, bids: Sequence[int]) -> None:
        """Have flow bindings name only `bids`, those with care-of addresses, the most preferred first."""
        if not bids:
            return
        for listed in list(registration.flows.values()):
            if listed.operation is Pro.REMOVE:
                continue
            wanted = self.wanted(listed.flow)
            named = tuple(bid for bid in wanted.bids if bid in bids) or (bids[0],)
            # an n-cast to one BID would be a copy to the address that it goes to anyway (draft §8.1)
            alone = wanted.action is Action.N_CAST and len(named) == 1
            flow = replace(wanted, bids=named, action=Action.FORWARD if alone else wanted.action)
            if flow == wanted:
                self.forget(flow.fid)
            else:
                self._wanted[flow.fid] = wanted
            if flow != listed.flow:
                registration.flows.replace(flow)
