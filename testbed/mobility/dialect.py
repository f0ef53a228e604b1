"""How flow bindings are spoken of in Binding Updates, and what follows from that: a class a specification.

Classes: `Draft`, `RFC6089`. Both keep the same state; they differ in the options, in the statuses, and in
what becomes of flow bindings that a message does not mention. docs/rfc6089.md has a table of that.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from testbed.mobility.binding import NO_BID, FlowBinding
from testbed.mobility.binding_cache import CacheEntry
from testbed.mobility.forwarding import Action
from testbed.mobility.policy import Policy
from testbed.wire.flow import FlowIdentification, FlowStatus, Pro, RFC6089FlowStatus
from testbed.wire.message import BindingAcknowledgement, BindingUpdate
from testbed.wire.option import FlowSummary, MobilityOption
from testbed.wire.selector import IPv6TrafficSelector

#: FIDs in one Flow Summary option: its length has 8 bits (RFC 6089 §5.2.3).
MAX_SUMMARY = 127

Asked = Mapping[int, tuple[Pro, FlowBinding]]


class Draft:
    """draft-soliman-monami6-flow-binding-05: operations (PRO) and actions are explicit."""

    name = "draft"
    #: Whether a message that says nothing of a flow binding removes it, whatever bindings it is about.
    renews_all = False
    #: Whether a flow binding outlives all bindings that it is attached to.
    keeps_inactive = False
    unspecified: int = FlowStatus.REASON_UNSPECIFIED

    def refusal(self, flow: FlowBinding) -> str | None:
        """Why this flow binding cannot be asked for, in a sentence; None if it can."""
        return None

    def wanted(self, flow: FlowBinding) -> FlowBinding:
        """The flow binding as it can be asked for."""
        return flow

    def told(self, flow: FlowBinding) -> FlowBinding:
        """A flow binding that the receiver has just acknowledged, as it has it."""
        return flow

    def options(self, flows: Sequence[FlowIdentification]) -> tuple[MobilityOption, ...]:
        """The options that say what `flows` (each with its PRO) say."""
        return tuple(flows)

    def statuses(self, message: BindingAcknowledgement, asked: Asked) -> dict[int, int] | None:
        """What the receiver says to what it was `asked`, by FID; None if it does not know flow bindings.

        Draft §6.1.4: every option must come back, with its status; none at all: not supported.
        """
        answers = {option.fid: option.status for option in message.all_options(FlowIdentification)}
        if asked and not answers:
            return None
        return {fid: answers.get(fid, FlowStatus.REASON_UNSPECIFIED) for fid in asked}

    def process(
        self, update: BindingUpdate, entry: CacheEntry, policy: Policy, bid: int | None, renewed: set[int]
    ) -> tuple[tuple[FlowIdentification, ...], list[int]]:
        """Do what a Binding Update that has been accepted says of flows: the options of the answer, and the
        FIDs of what is removed. Its bindings, which renew the BIDs `renewed`, are in `entry` already.

        `bid`: the one that the message as a whole is about; None where it has none, and may not have flows.
        Each option is judged by itself; a copy of its 8 octets comes back (§4.8, §8.2).
        """
        answers = []
        for option in update.all_options(FlowIdentification):
            status = FlowStatus.POORLY_FORMED if bid is None else self.judge(option, entry, policy, bid)
            answers.append(option.answer(status))
        mentioned = {option.fid for option in answers}
        return tuple(answers), entry.forget_flows_unmentioned(renewed, mentioned)

    def judge(self, option: FlowIdentification, entry: CacheEntry, policy: Policy, bid: int) -> FlowStatus:
        """Do what one option says, if that can be done; the status says so."""
        return entry.process(option, bid, policy)


class RFC6089(Draft):
    """RFC 6089: a Flow Identification option adds or changes, a Flow Summary keeps, omission removes.

    What a flow binding does follows from its BIDs: with several, packets are copied to each.
    """

    name = "rfc6089"
    renews_all = True
    keeps_inactive = True
    unspecified = RFC6089FlowStatus.REASON_UNSPECIFIED
    #: What the statuses are in the draft's numbers, which all other code has.
    _statuses = {
        RFC6089FlowStatus.SUCCESS: FlowStatus.SUCCESS,
        RFC6089FlowStatus.ADMINISTRATIVELY_PROHIBITED: FlowStatus.ADMINISTRATIVELY_PROHIBITED,
        RFC6089FlowStatus.REASON_UNSPECIFIED: FlowStatus.REASON_UNSPECIFIED,
        RFC6089FlowStatus.MALFORMED: FlowStatus.POORLY_FORMED,
        RFC6089FlowStatus.BID_NOT_FOUND: FlowStatus.POORLY_FORMED,
        RFC6089FlowStatus.FID_NOT_FOUND: FlowStatus.FID_NOT_FOUND,
        RFC6089FlowStatus.SELECTOR_FORMAT_NOT_SUPPORTED: FlowStatus.CLASSIFIER_LANGUAGE_NOT_SUPPORTED,
    }

    def __init__(self) -> None:
        #: The FID-PRI that the receiver may have of each FID: the acknowledged one, then what is asked for.
        self._priorities: dict[int, list[int]] = {}

    def refusal(self, flow: FlowBinding) -> str | None:
        if flow.action is Action.DISCARD:
            return "RFC 6089 has no flow bindings that discard"
        if flow.action is Action.FORWARD and len(flow.bids) > 1:
            return "RFC 6089 copies packets to every BID of a flow binding: name one, or ask for n-cast"
        return None

    def wanted(self, flow: FlowBinding) -> FlowBinding:
        """There must be a traffic selector (§5.2.2.1): one without fields means everything."""
        return flow if flow.selector is not None else replace(flow, selector=IPv6TrafficSelector())

    def told(self, flow: FlowBinding) -> FlowBinding:
        """With its FID-PRI: of flow bindings with the same priority, both ends try the same one first."""
        first, *_ = self._priorities.get(flow.fid, (flow.priority << 8,))
        return replace(flow, priority=first)

    def options(self, flows: Sequence[FlowIdentification]) -> tuple[MobilityOption, ...]:
        told: list[MobilityOption] = []
        kept = []
        mentioned = {flow.fid for flow in flows if flow.pro != Pro.REMOVE}
        self._priorities = {fid: known for fid, known in self._priorities.items() if fid in mentioned}
        for flow in flows:
            if flow.pro == Pro.REFRESH:
                kept.append(flow.fid)
            elif flow.pro != Pro.REMOVE:
                priority = self._priority(flow)
                told.append(replace(flow, priority=priority, action=int(Action.FORWARD), pro=Pro.ADD))
        summaries = (kept[first : first + MAX_SUMMARY] for first in range(0, len(kept), MAX_SUMMARY))
        return (*told, *(FlowSummary(tuple(fids)) for fids in summaries))

    def _priority(self, flow: FlowIdentification) -> int:
        """A FID-PRI of its own (§4.2): the priority, and in the low octet a number to tell it from others."""
        known = self._priorities.setdefault(flow.fid, [])
        if not known or known[-1] >> 8 != flow.priority:
            others = [numbers for fid, numbers in self._priorities.items() if fid != flow.fid]
            used = {number for numbers in others for number in numbers}
            first = flow.priority << 8
            free = (number for number in range(first + 1, first + 256) if number not in used)
            known.append(next(free, first + 255))
        return known[-1]

    def _priority_answered(self, fid: int, accepted: bool) -> None:
        """The receiver has the FID-PRI that it was asked for last, or still the one before."""
        known = self._priorities.get(fid, [])
        if accepted:
            del known[:-1]
        elif len(known) > 1:
            known.pop()

    def statuses(self, message: BindingAcknowledgement, asked: Asked) -> dict[int, int] | None:
        """§5.2.6: Flow Identification options come back, summaries and what is left out do not, unless a FID
        is not found (§5.3.3)."""
        answers = {option.fid: option.status for option in message.all_options(FlowIdentification)}
        told = [fid for fid, (operation, _) in asked.items() if operation in (Pro.ADD, Pro.REPLACE)]
        if told and not answers:
            return None
        found = {}
        for fid in asked:
            status = answers.get(fid, RFC6089FlowStatus.REASON_UNSPECIFIED if fid in told else 0)
            found[fid] = self._statuses.get(status, FlowStatus.REASON_UNSPECIFIED)
            if fid in told:
                self._priority_answered(fid, accepted=found[fid] < 128)
        return found

    def process(
        self, update: BindingUpdate, entry: CacheEntry, policy: Policy, bid: int | None, renewed: set[int]
    ) -> tuple[tuple[FlowIdentification, ...], list[int]]:
        """§5.3.2 to §5.3.4, after the bindings (§5.3.1): which of these were renewed makes no difference."""
        options = update.all_options(FlowIdentification)
        times = Counter(option.fid for option in options)
        summary = dict.fromkeys(fid for listed in update.all_options(FlowSummary) for fid in listed.fids)
        unknown = [fid for fid in summary if fid not in entry.flows and fid not in times]
        lost = [fid for fid in entry.flows if fid not in times and fid not in summary]
        for fid in lost:
            del entry.flows[fid]
        priorities = {flow.priority for fid, flow in entry.flows.items() if fid not in times}
        answers = []
        for option in options:
            status = RFC6089FlowStatus.MALFORMED
            if times[option.fid] == 1:
                status = self._judge(option, entry, policy, priorities)
            answers.append(_copy(option, status))
        answers += [FlowIdentification(fid, 0, status=RFC6089FlowStatus.FID_NOT_FOUND) for fid in unknown]
        return tuple(answers), lost

    def _judge(
        self, option: FlowIdentification, entry: CacheEntry, policy: Policy, priorities: set[int]
    ) -> RFC6089FlowStatus:
        """Add or change one flow binding; one that is refused changes nothing."""
        known = entry.flows.get(option.fid)
        if option.unknown_selector_format is not None and option.malformed is None:
            return RFC6089FlowStatus.SELECTOR_FORMAT_NOT_SUPPORTED
        selector, bids = option.selector, option.binding_reference
        if known is not None:
            selector, bids = selector or known.selector, bids or known.bids
        if option.malformed is not None or 0 in (option.fid, option.priority) or not (selector and bids):
            return RFC6089FlowStatus.MALFORMED
        if any(bid == NO_BID or bid not in entry.bindings for bid in option.binding_reference or ()):
            return RFC6089FlowStatus.BID_NOT_FOUND
        bids = tuple(dict.fromkeys(bids))
        action = Action.N_CAST if len(bids) > 1 else Action.FORWARD
        if policy.judge(action, selector) is not FlowStatus.SUCCESS:
            return RFC6089FlowStatus.ADMINISTRATIVELY_PROHIBITED
        if option.priority in priorities or (known is None and len(entry.flows) >= policy.max_flows):
            return RFC6089FlowStatus.REASON_UNSPECIFIED
        priorities.add(option.priority)
        entry.flows[option.fid] = FlowBinding(option.fid, option.priority, action, bids, selector)
        return RFC6089FlowStatus.SUCCESS


def _copy(option: FlowIdentification, status: int) -> FlowIdentification:
    """§5.3.5: a copy with a status; of what was malformed only the part that never is."""
    if option.malformed is not None or option.unknown_selector_format is not None:
        return option.answer(status)
    return replace(option, status=status)


#: The dialects by name, as configurations and codecs know them.
DIALECTS: dict[str, type[Draft]] = {dialect.name: dialect for dialect in (Draft, RFC6089)}
