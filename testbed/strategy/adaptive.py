"""Flows by what the links are worth at the moment. Class: `Adaptive`."""

from collections.abc import Mapping, Sequence

from testbed.strategy.strategy import Binding, Event, Flow, Link, Strategy, by_number

#: A lost packet is as bad as this delay, ms.
LOSS_COST_MS = 1000.0
#: Another link has to be better by this factor and by so many ms before a flow moves to it ...
BETTER_FACTOR, BETTER_MS = 0.8, 15.0
#: ... and a flow stays for so long where it has been moved to.
STAY_S = 1.5


class Adaptive(Strategy):
    """Each flow by the link of the least measured cost: round trip + loss, and for a flow that takes as much
    as it gets, the time that a full-sized packet takes on the link, too. Hysteresis keeps flows from
    flapping."""

    name = "adaptive"
    summary = "by measured delay and loss of each path"
    measures = True

    def __init__(self) -> None:
        self._at: dict[str, int] = {}
        self._moved_s: dict[str, float] = {}

    def decide(self, flows: Sequence[Flow], links: Sequence[Link], event: Event) -> Mapping[str, Binding]:
        known = by_number(links)
        usable = [link for link in links if link.usable]
        for flow in flows:
            here = known[self._at.setdefault(flow.name, min(flow.network, len(links)))]
            best = min(usable, key=lambda link: cost_ms(flow, link), default=here)
            if best.number == here.number or not here.up:
                continue  # from a lost link, flows follow by their BID
            settled = event.at_s - self._moved_s.get(flow.name, -STAY_S) >= STAY_S
            better = cost_ms(flow, best) < min(
                cost_ms(flow, here) * BETTER_FACTOR, cost_ms(flow, here) - BETTER_MS
            )
            if here.leaving or (settled and better):
                self._at[flow.name] = best.number
                self._moved_s[flow.name] = event.at_s
        return {name: Binding((number,)) for name, number in self._at.items()}


def cost_ms(flow: Flow, link: Link) -> float:
    """What a packet of this flow costs on this link; nothing is known of a link: as if it were perfect."""
    cost = (link.round_trip_ms or 0.0) + LOSS_COST_MS * (link.loss or 0.0)
    if flow.rate_bps is None:
        cost += 100 * 12_000 / (link.bandwidth_mbit * 1e3)  # a window of a hundred packets
    return cost
