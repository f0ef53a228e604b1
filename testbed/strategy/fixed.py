"""Strategies that look at nothing but the user's choice. Classes: `Single`, `Static`."""

from collections.abc import Mapping, Sequence

from testbed.strategy.strategy import Binding, Carrier, Event, Flow, Link, Strategy, by_number, refuge


class Single(Strategy):
    """All flows by the only care-of address, registered without BID: plain Mobile IPv6 (RFC 6275)."""

    name = "single"
    carrier = Carrier.ONE_CARE_OF_ADDRESS
    summary = "plain Mobile IPv6: one care-of address for everything"

    def decide(self, flows: Sequence[Flow], links: Sequence[Link], event: Event) -> Mapping[str, Binding]:
        first = links[0]
        if not first.leaving:
            return {}  # the default path
        return {flow.name: Binding((refuge(links, first.number),)) for flow in flows}


class Static(Strategy):
    """Each flow by the network that its user chose for its application, as in §5 of the draft."""

    name = "static"
    summary = "by application, as in the draft's section 5"

    def decide(self, flows: Sequence[Flow], links: Sequence[Link], event: Event) -> Mapping[str, Binding]:
        known = by_number(links)
        chosen = {flow.name: min(flow.network, len(links)) for flow in flows}
        return {
            name: Binding((refuge(links, number) if known[number].leaving else number,))
            for name, number in chosen.items()
        }
