"""The flow bindings that a mobile node has at a correspondent node (draft §6.3, §7.1).

Class: `CorrespondentFlows`.
"""

from collections.abc import Iterable
from dataclasses import replace
from ipaddress import IPv6Address
from typing import Any

from testbed.mobility.binding import FlowBinding
from testbed.mobility.forwarding import Action
from testbed.mobility.listed_flows import FlowError, ListedFlows
from testbed.mobility.update_list import ListedFlow
from testbed.wire.flow import Pro


class CorrespondentFlows(ListedFlows):
    """Those of all flow bindings that concern `peer`, as it can have them."""

    def __init__(self, peer: IPv6Address, *arguments: Any) -> None:
        """`arguments`: as for ListedFlows."""
        super().__init__(*arguments)
        self._peer = peer
        self._refused_before: dict[int, FlowBinding] = {}

    def want(self, flows: Iterable[FlowBinding]) -> None:
        """Want these flow bindings and no others; they name BIDs in order of preference.

        Each is bound to the first of its BIDs that is bound here. What cannot be had of a correspondent
        node is left out: n-casting (draft §7.1), what this one has refused, flows of other nodes.
        """
        wanted = {}
        for flow in flows:
            bids = [bid for bid in flow.bids if (b := self._bindings.get(bid)) and b.care_of_address]
            usable = [bid for bid in bids if self._bindings[bid].refused is None]
            if not self.supported or flow.action is Action.N_CAST or not usable:
                continue
            if self._concerns_peer(flow):
                narrowed = self.dialect.wanted(replace(flow, bids=(usable[0],)))
                if self._refused_before.get(flow.fid) != narrowed:
                    wanted[flow.fid] = narrowed
        for fid in [fid for fid in self if fid not in wanted]:
            if self[fid].operation is not Pro.REMOVE:
                self.remove(fid)
        for fid, flow in wanted.items():
            listed = self.get(fid)
            if listed is None:
                try:
                    self.add(flow)
                except FlowError as error:
                    self._refused_before[fid] = flow
                    self._note("flow-not-optimised", fid=fid, reason=str(error))
            elif listed.operation is Pro.REMOVE or listed.flow != flow:
                listed.flow = flow
                listed.operation = Pro.ADD if listed.registered is None else Pro.REPLACE

    def _concerns_peer(self, flow: FlowBinding) -> bool:
        source = getattr(flow.selector, "source_address", None)
        if source is None:
            return flow.selector is None or flow.selector.ts_format == 2
        return type(source[0]) is IPv6Address and source[0] <= self._peer <= source[1]

    def _refused(self, listed: ListedFlow, operation: Pro, status: int) -> None:
        self._refused_before[listed.flow.fid] = listed.flow
        super()._refused(listed, operation, status)
