"""One figure a run, for comparisons. Class: `Metric`. Functions: `meets_goal`, `by_name`. `METRICS`.

What they mean: docs/metrics.md. A figure is None where a run has none. "While things happen" is the window
"events" of a run of a scenario, or the whole run where there is no such window.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from testbed.report.result import Flow, Result, WindowFigures

#: A flow is concerned if at least this share of its octets took the network that something happened to.
_CONCERNED = 0.1


@dataclass(frozen=True, slots=True)
class Metric:
    """`better` is "low" or "high"; `scale` brings it to `unit`."""

    name: str
    title: str
    unit: str
    better: str
    of: Callable[[Result], float | None]
    digits: int = 1

    def text(self, value: float | None) -> str:
        """A value with the digits that it deserves."""
        return "–" if value is None else f"{value:.{self.digits}f}"


def window(result: Result, name: str = "events") -> dict[str, WindowFigures | Flow]:
    """The flows while things happen (or in another part), by name."""
    if result.windows:
        return dict(result.windows.get(name, {}))
    return {flow.name: flow for flow in result.flows} if name == "events" else {}


def is_udp(result: Result, flow: str) -> bool:
    return result.flow(flow).protocol == "udp"


def concerned(result: Result) -> set[str]:
    """The flows that took, before anything happened, a network to which something happened."""
    touched = {event.get("interface") for event in result.events
               if event["node"] == "experiment" and event["event"] in (
                   "link-down", "link-going-down", "link-change", "move") and event["at_s"] > 0}  # fmt: skip
    begin = next((phase["end_s"] for phase in result.metadata.get("phases", ())), 0.0)
    bins = max(int(begin / result.time_series.interval_s), 1)
    found = set()
    for name, series in result.time_series.flows.items():
        octets = {interface: sum(values[:bins]) for interface, values in series.throughput_bps.items()}
        total = sum(octets.values())
        if total and sum(octets.get(interface, 0) for interface in touched) >= _CONCERNED * total:
            found.add(name)
    return found


def _worst(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def interruption_ms(result: Result) -> float | None:
    """The longest gap of any flow while things happen."""
    return _worst(flow.interruption_ms for flow in window(result).values())


def baseline_ms(result: Result) -> float | None:
    return _worst(flow.interruption_ms for flow in window(result, "baseline").values())


def first_packet_ms(result: Result) -> float | None:
    """From the first loss of a link to the first packet of any flow by another path; None where the loss was
    announced, as flows have left before, and where an interface moved, as they stay on it."""
    return _stage_ms(result, "first_packet", ("link-down",))


def acknowledged_ms(result: Result) -> float | None:
    """From the first loss of a link, or movement, to the acknowledgement of its Binding Update; None where
    the loss was announced."""
    return _stage_ms(result, "binding_acknowledgement_received", ("link-down", "move"))


def _stage_ms(result: Result, stage: str, causes: tuple[str, ...]) -> float | None:
    if any(event["event"] == "link-going-down" for event in result.events):
        return None
    return next((one.stages_ms.get(stage) for one in result.handovers
                 if one.cause in causes and one.at_s >= 0), None)  # fmt: skip


def _share(field: str) -> Callable[[Result], float | None]:
    def of(result: Result) -> float | None:
        flows = [figures for name, figures in window(result).items() if is_udp(result, name)]
        sent = sum(flow.sent for flow in flows)
        return 100 * sum(getattr(flow, field) or 0 for flow in flows) / sent if sent else None

    return of


def reordering_extent(result: Result) -> float | None:
    """The most arrivals that a datagram was late by, of the flow with the largest such extent."""
    return _worst(float(flow.reordering_extent) for name, flow in window(result).items()
                  if is_udp(result, name))  # fmt: skip


def delay_p95_ms(result: Result) -> float | None:
    """The 95 % quantile of the one-way delay, of the flow for which it is the longest."""
    return _worst(flow.one_way_delay_ms.p95 for flow in window(result).values() if flow.one_way_delay_ms)


def variation_p95_ms(result: Result) -> float | None:
    return _worst(flow.delay_variation_ms.p95 for flow in window(result).values() if flow.delay_variation_ms)


def goodput_mbit(result: Result) -> float | None:
    """Of all flows together."""
    rates = [flow.goodput_bps for flow in window(result).values() if flow.goodput_bps is not None]
    return sum(rates) / 1e6 if rates else None


def disturbance_ms(result: Result) -> float | None:
    """By how much the longest gap of a flow that is not concerned grew over its baseline's; at least 0."""
    before, touched = window(result, "baseline"), concerned(result)
    grown = [
        figures.interruption_ms - before[name].interruption_ms
        for name, figures in window(result).items()
        if name not in touched and name in before
        and figures.interruption_ms is not None and before[name].interruption_ms is not None
    ]  # fmt: skip
    return max(0.0, *grown) if grown else None


def recovery_ms(result: Result) -> float | None:
    """Until a bulk transfer has 90 % of its earlier rate again, after the first loss of a link or
    movement."""
    for handover in result.handovers:
        if handover.cause in ("link-down", "move") and handover.at_s >= 0:
            return _worst(flow.recovery_ms for flow in handover.flows.values())
    return None


def overhead_percent(result: Result) -> float | None:
    """What the access links carried beyond the payload that applications got, by that payload: headers,
    tunnels, copies, retransmissions, acknowledgements, signalling, Router Advertisements."""
    carried = sum(capture.octets for capture in result.captures if capture.host != "cn")
    payload = sum((flow.goodput_bps or 0) * result.duration_s / 8 for flow in result.flows)
    if result.windows:  # together they are the whole run
        payload = sum(one.goodput_bps * (one.end_s - one.start_s) / 8
                      for part in result.windows.values() for one in part.values())  # fmt: skip
    return 100 * (carried / payload - 1) if carried and payload else None


def signalling_packets(result: Result) -> float | None:
    return float(sum(message.at_s >= 0 for message in result.signalling.messages))


def signalling_octets(result: Result) -> float | None:
    return float(sum(message.octets for message in result.signalling.messages if message.at_s >= 0))


def retransmits(result: Result) -> float | None:
    values = [flow.retransmits for flow in result.flows if flow.retransmits is not None]
    return float(sum(values)) if values else None


def tcp_round_trip_ms(result: Result) -> float | None:
    """The kernel's smoothed round trip, median over the run, of the bulk transfer for which it is the
    longest."""
    return _worst(flow.round_trip_ms.p50 for flow in result.flows if flow.round_trip_ms)


def setup_ms(result: Result) -> float | None:
    """From the start of the first agent until all bindings of all mobile nodes are registered."""
    return result.metadata.get("setup_ms")


def storm_p95_ms(result: Result) -> float | None:
    """From the loss of a network, for all mobile nodes at once, to their acknowledgements: the 95 %
    quantile."""
    values = sorted(result.metadata.get("storm_ms", ()))
    return values[math.ceil(0.95 * len(values)) - 1] if values else None


METRICS = (
    Metric("interruption_ms", "longest interruption of any flow", "ms", "low", interruption_ms),
    Metric("baseline_interruption_ms", "longest gap before anything happens", "ms", "low", baseline_ms),
    Metric("first_packet_ms", "loss to first packet on the new path", "ms", "low", first_packet_ms),
    Metric("acknowledged_ms", "loss or movement to acknowledgement", "ms", "low", acknowledged_ms),
    Metric("lost_percent", "datagrams lost", "%", "low", _share("lost"), 2),
    Metric("late_percent", "datagrams later than 150 ms", "%", "low", _share("late"), 2),
    Metric("duplicates_percent", "datagrams that came twice", "%", "low", _share("duplicates"), 1),
    Metric("reordered_percent", "datagrams out of order", "%", "low", _share("reordered"), 2),
    Metric("reordering_extent", "reordering, arrivals late at most", "", "low", reordering_extent, 0),
    Metric("delay_p95_ms", "95th-percentile one-way delay, worst flow", "ms", "low", delay_p95_ms),
    Metric("variation_p95_ms", "95th-percentile delay variation, worst flow", "ms", "low", variation_p95_ms),
    Metric("goodput_mbit", "goodput of all flows", "Mbit/s", "high", goodput_mbit, 2),
    Metric("disturbance_ms", "longer gaps of flows not concerned", "ms", "low", disturbance_ms),
    Metric("recovery_ms", "until 90 % of the earlier rate", "ms", "low", recovery_ms, 0),
    Metric("retransmits", "TCP segments sent again", "", "low", retransmits, 0),
    Metric("tcp_round_trip_ms", "TCP's round trip (kernel)", "ms", "low", tcp_round_trip_ms),
    Metric("overhead_percent", "octets on access links beyond payload", "%", "low", overhead_percent),
    Metric("setup_ms", "until all is registered", "ms", "low", setup_ms, 0),
    Metric("storm_p95_ms", "loss to acknowledgement, 95 % of mobile nodes", "ms", "low", storm_p95_ms, 0),
    Metric("signalling_packets", "signalling messages", "", "low", signalling_packets, 0),
    Metric("signalling_octets", "signalling octets", "", "low", signalling_octets, 0),
)


def by_name(name: str) -> Metric:
    """The metric of that name. Raises KeyError."""
    return {metric.name: metric for metric in METRICS}[name]


def meets_goal(result: Result) -> bool | None:
    """Whether every flow got what the scenario asks for; None if it asks for nothing."""
    goal = result.metadata.get("goal")
    if not goal:
        return None
    for name, figures in window(result).items():
        if (figures.interruption_ms or 0) > goal["interruption_ms"]:
            return False
        lost = 100 * figures.lost / figures.sent if figures.sent else 0
        if is_udp(result, name) and lost > goal["lost_percent"]:
            return False
    return True
