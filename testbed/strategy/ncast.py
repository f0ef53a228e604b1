"""Packets of real-time flows over several networks at once. Classes: `NCastHandover`, `NCastAlways`."""

from collections.abc import Mapping, Sequence

from testbed.strategy.fixed import Static
from testbed.strategy.strategy import Binding, Event, Flow, Link

#: N-cast goes on for so long after a link has come back.
HOLD_S = 1.0


class NCastHandover(Static):
    """As `static`, but real-time flows take all networks while one is leaving or has just come back."""

    name = "ncast-handover"
    summary = "by application; real-time flows over all networks during a handover"

    def __init__(self) -> None:
        self._until_s = float("-inf")

    def decide(self, flows: Sequence[Flow], links: Sequence[Link], event: Event) -> Mapping[str, Binding]:
        answer = dict(super().decide(flows, links, event))
        if event.name == "link-up":
            self._until_s = event.at_s + HOLD_S
        if any(link.leaving for link in links) or event.at_s < self._until_s:
            answer |= over_all(flows, links)
        return answer


class NCastAlways(Static):
    """As `static`, but real-time flows take all networks all the time."""

    name = "ncast-always"
    summary = "by application; real-time flows over all networks, always"

    def decide(self, flows: Sequence[Flow], links: Sequence[Link], event: Event) -> Mapping[str, Binding]:
        return {**super().decide(flows, links, event), **over_all(flows, links)}


def over_all(flows: Sequence[Flow], links: Sequence[Link]) -> dict[str, Binding]:
    """Real-time flows by all links. Those of TCP are left alone: it takes copies for signs of loss."""
    networks = tuple(link.number for link in links)
    return {flow.name: Binding(networks) for flow in flows if flow.real_time and flow.protocol == "udp"}
