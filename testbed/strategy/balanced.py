"""Flows shared out by capacity. Class: `Balanced`."""

from collections.abc import Mapping, Sequence

from testbed.strategy.strategy import Binding, Event, Flow, Link, Strategy

#: What a flow counts that takes as much as it gets, bit/s.
ELASTIC_BPS = 5e6


class Balanced(Strategy):
    """Each flow as a whole to the link with the least load for its capacity, the largest flows first."""

    name = "balanced"
    summary = "per flow, weighted by capacity"

    def decide(self, flows: Sequence[Flow], links: Sequence[Link], event: Event) -> Mapping[str, Binding]:
        # A link that is down keeps its flows, which follow by their BID; it may be back at once.
        candidates = [link for link in links if not link.leaving] or list(links)
        load = {link.number: 0.0 for link in candidates}
        answer = {}
        for flow in sorted(flows, key=lambda flow: (-(flow.rate_bps or ELASTIC_BPS), flow.name)):
            rate_bps = flow.rate_bps or ELASTIC_BPS
            best = min(
                candidates, key=lambda link: (load[link.number] + rate_bps) / (link.bandwidth_mbit * 1e6)
            )
            load[best.number] += rate_bps
            answer[flow.name] = Binding((best.number,))
        return answer
