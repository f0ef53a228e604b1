"""The flow bindings of a binding update list entry: what is wanted of a receiver, beside what it has.

Classes: `ListedFlows`, `FlowError`. draft-soliman-monami6-flow-binding-05 §6.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

from testbed.mobility.binding import NO_BID, FlowBinding
from testbed.mobility.dialect import Draft
from testbed.mobility.update_list import ListedBinding, ListedFlow
from testbed.wire.flow import FlowStatus, Pro
from testbed.wire.message import BindingAcknowledgement

#: A message that renews a BID carries all its flow bindings (draft §4.7), so these have to fit one message.
MAX_FLOWS_PER_BID = 80


class FlowError(ValueError):
    """A flow binding cannot be had as asked; the message is one sentence for the one who asked."""


class ListedFlows(dict[int, ListedFlow]):
    """Flow bindings by FID. `bindings`: the BIDs that they may name, with what the receiver has of these.

    `note` takes events: "flow-changed" for each operation that is settled.
    """

    def __init__(
        self,
        bindings: Mapping[int, ListedBinding],
        dialect: Draft,
        note: Callable[..., None],
    ) -> None:
        super().__init__()
        #: Whether the receiver knows flow bindings at all.
        self.supported = True
        self.dialect = dialect
        self._bindings = bindings
        self._note = note

    def add(self, flow: FlowBinding) -> None:
        """Want a new flow binding. Raises FlowError if its FID is in use (draft §6.1.1)."""
        if flow.fid in self:
            raise FlowError(f"FID {flow.fid} is in use already: replace or remove it")
        self._check(flow)
        self[flow.fid] = ListedFlow(self.dialect.wanted(flow))

    def replace(self, flow: FlowBinding) -> None:
        """Want a flow binding to change; no selector means the one it has (draft §6.2). Raises FlowError
        if there is no such FID (draft §6.1.1)."""
        listed = self._find(flow.fid)
        self._check(flow)
        if flow.selector is None:
            flow = replace(flow, selector=listed.flow.selector)
        listed.flow = flow
        listed.operation = Pro.ADD if listed.registered is None else Pro.REPLACE

    def remove(self, fid: int) -> None:
        """Want a flow binding gone. Raises FlowError if there is no such FID (draft §6.1.1)."""
        listed = self._find(fid)
        if listed.registered is None and listed.times_sent == 0:
            del self[fid]
            self._settled(fid, Pro.REMOVE, FlowStatus.SUCCESS)
        else:
            listed.operation = Pro.REMOVE

    def wanted(self) -> list[FlowBinding]:
        """Those that are not to be removed."""
        return [listed.flow for listed in self.values() if listed.operation is not Pro.REMOVE]

    def registered(self) -> list[FlowBinding]:
        """What the receiver has, with the priorities that it has them by."""
        return [listed.told for listed in self.values() if listed.registered is not None]

    def _find(self, fid: int) -> ListedFlow:
        listed = self.get(fid)
        if listed is None or listed.operation is Pro.REMOVE:
            raise FlowError(f"there is no flow binding with FID {fid}")
        return listed

    def _check(self, flow: FlowBinding) -> None:
        reason = self.dialect.refusal(flow)
        if reason is not None:
            raise FlowError(f"flow binding {flow.fid}: {reason}")
        if not flow.bids:
            raise FlowError(f"flow binding {flow.fid} names no BID")
        if NO_BID in self._bindings:
            raise FlowError("flow bindings need multiple care-of addresses, and there is only one binding")
        if not self.supported:
            raise FlowError("the receiver of Binding Updates does not support flow bindings")
        for bid in flow.bids:
            if bid not in self._bindings:
                known = ", ".join(str(known) for known in sorted(self._bindings)) or "none"
                raise FlowError(f"there is no BID {bid} (known: {known})")
            attached = sum(bid in listed.bids for fid, listed in self.items() if fid != flow.fid)
            if attached >= MAX_FLOWS_PER_BID:
                raise FlowError(
                    f"BID {bid} has {attached} flow bindings already: more do not fit the Binding Update "
                    "that refreshes them"
                )

    def pending(self) -> list[ListedFlow]:
        """Those whose pending operation can be asked for: their BIDs must be known to the receiver
        (draft §3.2)."""
        return [listed for listed in self.values() if self._is_sendable(listed)]

    def _is_sendable(self, listed: ListedFlow) -> bool:
        if listed.operation is None or not self.supported:
            return False
        if listed.operation is Pro.REMOVE:
            return True
        return all(
            (binding := self._bindings.get(bid)) and binding.care_of_address and binding.refused is None
            for bid in listed.flow.bids
        )

    def answered(
        self, message: BindingAcknowledgement, asked: Mapping[int, tuple[Pro, FlowBinding]]
    ) -> None:
        """Take the statuses of what was `asked` (draft §6.1.4, RFC 6089 §5.2.6)."""
        statuses = self.dialect.statuses(message, asked)
        if statuses is None:
            self.supported = False
            self._note("flow-bindings-unsupported")
        for fid, (operation, sent) in asked.items():
            listed = self.get(fid)
            if listed is None:
                continue
            status = FlowStatus.REASON_UNSPECIFIED if statuses is None else statuses[fid]
            if status < 128:
                self._accepted(listed, operation, sent)
            elif not self._retried(listed, operation, status):
                self._refused(listed, operation, status)

    def _accepted(self, listed: ListedFlow, operation: Pro, sent: FlowBinding) -> None:
        if operation is Pro.REFRESH:
            return
        changed_since = listed.operation is not operation or listed.flow != sent
        if operation is Pro.REMOVE:
            listed.registered = None
            if listed.operation is Pro.REMOVE:
                del self[sent.fid]
        else:
            listed.registered, listed.told = sent, self.dialect.told(sent)
            if not changed_since:
                listed.operation = None
            elif listed.operation is Pro.ADD:
                listed.operation = Pro.REPLACE
        listed.times_sent = 0
        self._settled(sent.fid, operation, FlowStatus.SUCCESS)

    def _retried(self, listed: ListedFlow, operation: Pro, status: int) -> bool:
        """Whether a refusal only says that our picture of the receiver was wrong, and what mends it."""
        if operation is Pro.ADD and status == FlowStatus.FID_IN_USE and listed.times_sent > 1:
            # an earlier copy of this message arrived, its acknowledgement did not: bring it to what we want
            listed.registered = None
            listed.operation = Pro.REPLACE if listed.operation is Pro.ADD else listed.operation
            listed.times_sent = 0
            return True
        unknown = status in (FlowStatus.FID_NOT_FOUND, FlowStatus.POORLY_FORMED)
        if operation is Pro.REMOVE and unknown:
            self._accepted(listed, operation, listed.flow)
            return True
        if operation in (Pro.REFRESH, Pro.REPLACE) and unknown and listed.registered is not None:
            # the receiver has lost it
            listed.registered = None
            listed.operation = listed.operation if listed.operation is Pro.REMOVE else Pro.ADD
            listed.times_sent = 0
            return True
        return False

    def _refused(self, listed: ListedFlow, operation: Pro, status: int) -> None:
        """What the receiver does not do is not wanted any more: back to what it has, if anything."""
        fid = listed.flow.fid
        if listed.registered is None:
            del self[fid]
        else:
            listed.flow = listed.registered
            listed.operation = None
            listed.times_sent = 0
        self._settled(fid, operation, status)

    def _settled(self, fid: int, operation: Pro, status: int) -> None:
        name = operation.name.lower()
        self._note("flow-changed", fid=fid, operation=name, status=int(status), accepted=status < 128)

    def forget_lost(self) -> None:
        """The receiver has forgotten the flow bindings none of whose BIDs it has any more."""
        alive = {binding.bid for binding in self._bindings.values() if binding.registered}
        for listed in self.values():
            there = listed.flow if listed.operation is Pro.REPLACE else listed.registered
            if there is not None and alive.isdisjoint((listed.registered or there).bids):
                listed.registered = None
                listed.operation = listed.operation if listed.operation is Pro.REMOVE else Pro.ADD
