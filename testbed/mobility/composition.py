"""What one Binding Update has to say: bindings, and the flow bindings that go with them (draft §4.7, §6).

Class: `Composition`. Functions: `compose`, `flow_option`.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

from testbed.mobility.listed_flows import ListedFlows
from testbed.mobility.update_list import ListedBinding, ListedFlow, option_length
from testbed.wire.flow import FlowIdentification, Pro

#: Octets of options in one Binding Update: with its headers it passes any IPv6 link (1280) untouched.
MAX_OPTIONS_LENGTH = 1120
#: Octets of a Binding Identifier or Mobile Network Prefix option, at most.
_OPTION_LENGTH = 24


class Composition(NamedTuple):
    """The bindings, and the flow options with their PRO, of one Binding Update."""

    bids: tuple[ListedBinding, ...] = ()
    flows: tuple[FlowIdentification, ...] = ()


def compose(
    bindings: Mapping[int, ListedBinding], flows: ListedFlows, whole: bool, bulk: bool, prefixes: int
) -> Composition:
    """The bindings that changed (all of them: `whole`), or one for each flow binding that changed; and every
    flow binding that is attached to these, lest it be lost (draft §4.7). The home binding is in each message:
    one without the H flag ends it (RFC 5648 §5.6.5).

    `bulk`: whether there may be more than one BID. `prefixes`: how many options are in the message besides.
    """
    able = {b.bid: b for b in bindings.values() if b.care_of_address and b.refused is None}
    pending = flows.pending()
    chosen = _choose(able, pending, whole, bulk)
    known = chosen | {bid for bid, binding in able.items() if binding.registered}
    options = []
    room = MAX_OPTIONS_LENGTH - _OPTION_LENGTH * (len(chosen) + prefixes)
    # those that would be lost first, then the new ones while there is room; the rest goes next time
    for listed in sorted(flows.values(), key=lambda listed: listed.registered is None):
        kept = listed.registered is not None and (
            flows.dialect.renews_all or not chosen.isdisjoint(listed.registered.bids)
        )
        asked = listed in pending and (listed.operation is Pro.REMOVE or known.issuperset(listed.flow.bids))
        option = flow_option(listed, asked)
        if (kept or asked) and (kept or room >= option_length(option)):
            options.append(option)
            room -= option_length(option)
    bids = tuple(able[bid] for bid in sorted(chosen))
    return Composition(bids, tuple(options) if flows.supported else ())


def _choose(
    able: Mapping[int, ListedBinding], pending: list[ListedFlow], whole: bool, bulk: bool
) -> set[int]:
    """The BIDs that the message is about."""
    chosen = {bid for bid, binding in able.items() if binding.dirty or whole}
    if not bulk and len(chosen) > 1:
        chosen = {min(chosen, key=lambda bid: (able[bid].priority, bid))}
    for listed in pending:
        attached = [bid for bid in (*listed.flow.bids, *able) if bid in able]
        named = attached if listed.operation is Pro.REMOVE else listed.flow.bids
        if attached and chosen.isdisjoint(named) and (not chosen or bulk):
            chosen.add(attached[0])
    return chosen | {bid for bid, binding in able.items() if chosen and binding.home}


def flow_option(listed: ListedFlow, asked: bool) -> FlowIdentification:
    """The pending operation where it is asked for, else a refresh."""
    flow, operation = listed.flow, listed.operation
    if not asked:
        flow, operation = listed.registered or flow, Pro.REFRESH
    option = FlowIdentification(flow.fid, flow.priority, int(flow.action), pro=operation)
    if operation in (Pro.REFRESH, Pro.REMOVE):
        return option
    # draft §6.2: no description where only the care-of address changes
    same_filter = listed.registered is not None and listed.registered.selector == flow.selector
    return replace(
        option,
        binding_reference=flow.bids,
        selector=None if operation is Pro.REPLACE and same_filter else flow.selector,
    )
