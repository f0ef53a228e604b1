"""The figures of one flow, from its logs and the captures. Class: `FlowEvidence`; functions: `gather`,
`figures`, `series`, `in_window`, `in_handover`, `around`."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from testbed.measure.accounting import (
    Accounting,
    Received,
    Sent,
    account,
    delay_variation_ms,
    delays_ms,
    longest_gap,
    quantiles,
    recovery_s,
)
from testbed.measure.events import Handover, first_packet_on_new_path
from testbed.measure.iperf import IperfResult, read_iperf
from testbed.measure.matching import Arrivals, arrivals, path_series, segment_limit, sent_packets
from testbed.measure.packets import PacketTable
from testbed.measure.probe_log import read_probe_log
from testbed.measure.traffic import BulkTransfer, TcpProbe, Traffic, UdpProbe
from testbed.report.result import (
    Flow,
    FlowInHandover,
    FlowSeries,
    LossPlaces,
    PacketSeries,
    PathUse,
    Quantiles,
    WindowFigures,
)

#: A packet sent so long before a cause may still be under way when it strikes.
_UNDER_WAY_NS = 250_000_000
_SHOWN_BEFORE_NS, _SHOWN_AFTER_NS = 300_000_000, 1_200_000_000
_SHOWN_PACKETS = 400
#: A packet of a call that takes longer is of no use (ITU-T G.114: 150 ms one way for most applications).
LATE_MS = 150.0


@dataclass(frozen=True, slots=True)
class FlowBinding:
    """What the experiment bound: `bid` is one BID, several for n-cast, None for a discarded or unbound
    flow.
    """

    fid: int | None
    selector: str
    bid: int | list[int] | None


@dataclass(frozen=True, slots=True)
class FlowEvidence:
    """A flow's packets from origin to end. `on_links` are those on the access links, `busy` the times (ns)
    in which the application waited for data (None: always)."""

    traffic: Traffic
    sent: Sent
    received: Received
    accounting: Accounting
    at_end: Arrivals
    on_links: Arrivals
    on_wire: Sent
    records: Accounting | None
    busy: list[tuple[int, int]] | None
    pages_ms: np.ndarray | None
    lateness_ms: np.ndarray | None
    bulk: IperfResult | None
    origin_ns: int


def gather(traffic: Traffic, correspondent: Mapping[str, PacketTable], access: Mapping[str, PacketTable],
           origin_ns: int, end_ns: int) -> FlowEvidence:
    """Read the flow's logs and find its packets in the captures; only what was sent in the window counts.

    Raises ValueError or OSError if a log is missing or damaged.
    """
    key = traffic.key
    limit = segment_limit((*correspondent.values(), *access.values()), key) if key.protocol == "tcp" else 0
    on_links = arrivals(access, key, limit)
    sender, receiver = (correspondent, access) if key.downlink else (access, correspondent)
    on_wire = sent_packets(sender.values(), key, limit)
    at_end = on_links if key.downlink else arrivals(receiver, key, limit)
    records = lateness = busy = pages = bulk = None
    sent, received = on_wire.between(origin_ns, end_ns), at_end.received()
    if traffic.logs:
        logged_sent, scheduled_ns, logged_received = _read_logs(traffic)
        chosen = (logged_sent.time_ns >= origin_ns) & (logged_sent.time_ns < end_ns)
        records = account(logged_sent.between(origin_ns, end_ns), logged_received)
        if traffic.counted_by_logs:
            sent, received = logged_sent.between(origin_ns, end_ns), logged_received
        if isinstance(traffic, UdpProbe):
            records = None
        if traffic.kind == "web":
            busy, pages = _page_times(traffic, origin_ns, end_ns)
        elif traffic.kind != "bulk":  # which waits for TCP, not for its schedule
            lateness = (logged_sent.time_ns - scheduled_ns)[chosen] / 1e6
    if isinstance(traffic, BulkTransfer) and traffic.reports[0].exists():
        bulk = read_iperf(*traffic.reports)
    return FlowEvidence(traffic, sent, received, account(sent, received), at_end, on_links, on_wire, records,
                        busy, pages, lateness, bulk, origin_ns)


def _read_logs(traffic: Traffic) -> tuple[Sent, np.ndarray, Received]:
    _, sent = read_probe_log(traffic.logs[0])
    _, received = read_probe_log(traffic.logs[1])
    return (Sent(sent["sequence"], sent["sent_ns"], sent["octets"].astype(np.int64)), sent["scheduled_ns"],
            Received(received["sequence"], received["received_ns"], received["octets"].astype(np.int64)))


def _page_times(traffic: Traffic, origin_ns: int, end_ns: int) -> tuple[list[tuple[int, int]], np.ndarray]:
    """When pages were awaited (overlapping times joined), and how long each took, ms, from request to last
    octet.
    """
    _, requests = read_probe_log(traffic.log("client-sent.probe"))
    _, pages = read_probe_log(traffic.log("client-received.probe"))
    arrived = dict(zip(pages["sequence"].tolist(), pages["received_ns"].tolist(), strict=True))
    busy: list[tuple[int, int]] = []
    times = []
    for request in requests[(requests["sent_ns"] >= origin_ns) & (requests["sent_ns"] < end_ns)]:
        start, end = int(request["sent_ns"]), arrived.get(int(request["sequence"]))
        if end is not None:
            times.append((end - start) / 1e6)
        end = end_ns if end is None else end
        if busy and start <= busy[-1][1]:
            busy[-1] = busy[-1][0], max(busy[-1][1], end)
        else:
            busy.append((start, end))
    return busy, np.array(times)


def figures(evidence: FlowEvidence, binding: FlowBinding, error: str | None = None) -> Flow:
    """The figures of the whole run."""
    traffic, counts, bulk = evidence.traffic, evidence.accounting, evidence.bulk
    kernel = _kernel_figures(evidence)
    ends = _active(evidence) if counts.sent else None
    interruption = interruption_ms(evidence, *ends) if ends else None
    return Flow(
        name=traffic.name, kind=traffic.kind, protocol=traffic.key.protocol, port=traffic.key.port,
        downlink=traffic.key.downlink, fid=binding.fid, selector=binding.selector, bid=binding.bid,
        counted="probe" if traffic.counted_by_logs else "capture",
        goodput_bps=_goodput_bps(evidence), sent=counts.sent, received=counts.received, lost=counts.lost,
        duplicates=counts.duplicates, reordered=counts.reordered, reordering_extent=counts.extent,
        interruption_ms=interruption[0] if interruption else None,
        interruption_at_s=_seconds(evidence, interruption[1]) if interruption else None,
        nominal_spacing_ms=traffic.spacing_ms, one_way_delay_ms=_quantiles(delays_ms(counts)),
        delay_variation_ms=_quantiles(np.abs(delay_variation_ms(counts))),
        start_s=_seconds(evidence, ends[0]) if ends else None,
        end_s=_seconds(evidence, ends[1]) if ends else None,
        paths=_paths(evidence), lost_at=_loss_places(evidence),
        record_delay_ms=_quantiles(delays_ms(evidence.records))
        if isinstance(traffic, TcpProbe) and traffic.kind == "interactive" else None,
        page_time_ms=_quantiles(evidence.pages_ms), late=_late(counts, traffic),
        sender_lateness_ms=_quantiles(evidence.lateness_ms),
        retransmits=kernel["retransmits"],
        round_trip_ms=Quantiles(**kernel["round_trip_ms"]) if kernel["round_trip_ms"] else None,
        error=error or (bulk.error if bulk else None))


def _kernel_figures(evidence: FlowEvidence) -> dict:
    """What the kernel of a bulk transfer's sender knew of it, by libiperf or by the probe."""
    if evidence.bulk:
        return {"retransmits": evidence.bulk.retransmits, "round_trip_ms": evidence.bulk.round_trip_ms}
    sender = evidence.traffic.summaries.get("listener", {})
    return {name: sender.get(name) for name in ("retransmits", "round_trip_ms")}


def _late(counts: Accounting, traffic: Traffic) -> int | None:
    return int((delays_ms(counts) > LATE_MS).sum()) if isinstance(traffic, UdpProbe) else None


def in_window(evidence: FlowEvidence, start_s: float, end_s: float) -> WindowFigures | None:
    """The figures of packets sent from `start_s` to `end_s` (CLOCK_MONOTONIC); None if there were none."""
    start_ns, end_ns = int(start_s * 1e9), int(end_s * 1e9)
    sent = evidence.sent.between(start_ns, end_ns)
    if not len(sent.key):
        return None
    counts = account(sent, evidence.received)
    delay = delays_ms(counts)
    arrived = evidence.accounting.received_ns
    inside = (arrived >= start_ns) & (arrived < end_ns)
    # a gap counts from the last arrival before the window, not from its edge
    earlier, later = arrived[arrived < start_ns], arrived[arrived >= start_ns]
    begin_ns = int(earlier.max()) if len(earlier) else int(later.min(initial=end_ns))
    gap = interruption_ms(evidence, begin_ns, min(end_ns, _active(evidence)[1]))
    return WindowFigures(
        start_s=_seconds(evidence, start_ns), end_s=_seconds(evidence, end_ns), sent=counts.sent,
        lost=counts.lost, duplicates=counts.duplicates, reordered=counts.reordered,
        reordering_extent=counts.extent, late=_late(counts, evidence.traffic),
        interruption_ms=gap[0] if gap else None, one_way_delay_ms=_quantiles(delay),
        delay_variation_ms=_quantiles(np.abs(delay_variation_ms(counts))),
        goodput_bps=float(evidence.accounting.octets[inside].sum() * 8e9 / (end_ns - start_ns)))


def _quantiles(values: np.ndarray | None) -> Quantiles | None:
    found = None if values is None else quantiles(values)
    return Quantiles(**found) if found else None


def _seconds(evidence: FlowEvidence, time_ns: int) -> float:
    return (time_ns - evidence.origin_ns) / 1e9


def _active(evidence: FlowEvidence) -> tuple[int, int]:
    """From the first packet's arrival until the last packet should have arrived, by the median delay."""
    counts = evidence.accounting
    first, last = int(evidence.sent.time_ns[0]), int(evidence.sent.time_ns[-1])
    if not counts.received:
        return first, last
    delay = int(np.median(counts.received_ns - counts.sent_ns))
    return int(counts.received_ns[0]), max(last + delay, int(counts.received_ns[-1]))


def interruption_ms(evidence: FlowEvidence, start_ns: int, end_ns: int) -> tuple[float, int] | None:
    """The longest gap between arrivals and when it began; None if no data was awaited in that time."""
    times = evidence.accounting.received_ns
    if evidence.busy is None:
        return longest_gap(times, start_ns, end_ns) if end_ns > start_ns else None
    awaited = [(max(start, start_ns), min(end, end_ns)) for start, end in evidence.busy]
    gaps = [longest_gap(times, start, end) for start, end in awaited if start < end]
    return max(gaps, default=None)


def _goodput_bps(evidence: FlowEvidence) -> float | None:
    """What the application got, by the time in which the flow was active: the bulk transfer's own figure,
    else octets of payload or records, first copies alone."""
    if evidence.bulk and evidence.bulk.goodput_bps is not None:
        return evidence.bulk.goodput_bps
    counts = evidence.records or evidence.accounting
    if not evidence.accounting.sent:
        return None
    start_ns, end_ns = int(evidence.sent.time_ns[0]), _active(evidence)[1]
    return float(counts.octets.sum() * 8e9 / (end_ns - start_ns)) if end_ns > start_ns else None


def _paths(evidence: FlowEvidence) -> list[PathUse]:
    links = evidence.on_links
    uses = []
    for index, interface in enumerate(links.interfaces):
        rows = links.interface == index
        if rows.any():
            uses.append(PathUse(interface=interface, care_of_addresses=links.care_of_addresses[interface],
                                packets=int(rows.sum()), octets=int(links.octets[rows].sum())))
    return uses


def _loss_places(evidence: FlowEvidence) -> LossPlaces | None:
    """Where a UDP probe's losses happened: what the captures at both ends saw tells."""
    if not isinstance(evidence.traffic, UdpProbe) or not len(evidence.on_wire.key):
        return None
    lost = evidence.sent.key[_lost(evidence)]
    before = ~np.isin(lost, evidence.on_wire.key)
    after = np.isin(lost, evidence.at_end.key)
    return LossPlaces(sender=int(before.sum()), receiver=int(after.sum()),
                      link=int((~before & ~after).sum()))


def _lost(evidence: FlowEvidence) -> np.ndarray:
    lost = np.ones(len(evidence.sent.key), bool)
    lost[evidence.accounting.order] = False
    return lost


def series(evidence: FlowEvidence, bins: int, width_s: float) -> FlowSeries:
    """Throughput by path at the time of arrival; all else at the time of sending."""
    width_ns = int(width_s * 1e9)
    counts, origin_ns = evidence.accounting, evidence.origin_ns
    throughput = path_series(evidence.on_links, origin_ns, bins, width_ns)
    sent_in = (counts.sent_ns - origin_ns) // width_ns
    delay = delays_ms(counts)
    by_bin = np.lexsort((delay, sent_in))
    edges = np.searchsorted(sent_in[by_bin], np.arange(bins + 1))
    medians = [float(delay[by_bin[(start + end - 1) // 2]]) if end > start else None
               for start, end in zip(edges[:-1], edges[1:], strict=True)]

    def counted(times_ns: np.ndarray) -> list[int]:
        place = (times_ns - origin_ns) // width_ns
        return np.bincount(place[(place >= 0) & (place < bins)], minlength=bins).tolist()

    carried = path_series(_as_sent(evidence), origin_ns, bins, width_ns)
    return FlowSeries(throughput_bps={name: [float(value) for value in octets * 8 / width_s]
                                      for name, octets in throughput.items()},
                      one_way_delay_ms=medians, lost=counted(evidence.sent.time_ns[_lost(evidence)]),
                      sent=counted(evidence.on_wire.time_ns),
                      carried_octets={name: [int(value) for value in octets]
                                      for name, octets in carried.items()})


def _as_sent(evidence: FlowEvidence) -> Arrivals:
    """What the access links carried, each packet at the time when it was put on the sender's wire."""
    links, wire = evidence.on_links, evidence.on_wire
    if not len(wire.key):
        return links
    order = np.argsort(wire.key, kind="stable")
    place = np.minimum(np.searchsorted(wire.key[order], links.key), len(order) - 1)
    found = order[place]
    times = np.where(wire.key[found] == links.key, wire.time_ns[found], links.time_ns)
    return replace(links, time_ns=times)


def in_handover(evidence: FlowEvidence, handover: Handover) -> FlowInHandover | None:
    """What one handover did to this flow; None if it sent nothing then, and need not have."""
    cause_ns, until_ns = int(handover.at_s * 1e9), int(handover.until_s * 1e9)
    # what is under way when the next cause strikes belongs to that one
    window = cause_ns - _UNDER_WAY_NS, until_ns - _UNDER_WAY_NS
    sent = evidence.sent.between(*window)
    if not len(sent.key) and not _silenced(evidence, *window):
        return None
    later = evidence.received.time_ns >= cause_ns - 2 * _UNDER_WAY_NS
    received = Received(evidence.received.key[later], evidence.received.time_ns[later],
                        evidence.received.octets[later])
    counts = account(sent, received)
    times = evidence.accounting.received_ns
    start_ns = int(times[times < cause_ns].max(initial=cause_ns - _UNDER_WAY_NS))
    gap = interruption_ms(evidence, start_ns, min(until_ns, _active(evidence)[1]))
    moved = first_packet_on_new_path(evidence.on_links, cause_ns, until_ns)
    recovered = None
    if evidence.traffic.kind == "bulk":
        recovered = recovery_s(times, evidence.accounting.octets, cause_ns, end_ns=until_ns)
    return FlowInHandover(
        old_path=moved[0] if moved else None, new_path=moved[1] if moved else None,
        first_packet_ms=(moved[2] - cause_ns) / 1e6 if moved else None,
        interruption_ms=gap[0] if gap else None, sent=counts.sent, lost=counts.lost,
        duplicates=counts.duplicates, reordered=counts.reordered,
        recovery_ms=None if recovered is None else recovered * 1000)


def _silenced(evidence: FlowEvidence, start_ns: int, end_ns: int) -> bool:
    """Whether a flow that sends nothing in this time is interrupted: it sent before and does so after, and
    the time is longer than its spacing (of bulk data, than anything is under way)."""
    spacing_ms, times = evidence.traffic.spacing_ms, evidence.sent.time_ns
    spacing_ns = _UNDER_WAY_NS if spacing_ms is None else spacing_ms * 1e6
    return end_ns - start_ns > spacing_ns and bool((times < start_ns).any() and (times >= end_ns).any())


def around(evidence: FlowEvidence, handover: Handover) -> PacketSeries | None:
    """The packets sent around a cause, at most some hundreds of them; None if there were none."""
    cause_ns = int(handover.at_s * 1e9)
    end_ns = min(int(handover.until_s * 1e9), cause_ns + _SHOWN_AFTER_NS)
    times = evidence.sent.time_ns
    shown = np.flatnonzero((times >= cause_ns - _SHOWN_BEFORE_NS) & (times < end_ns))
    if not len(shown):
        return None
    stride = -(-len(shown) // _SHOWN_PACKETS)
    shown = shown[::stride]
    delay = np.full(len(times), np.nan)
    delay[evidence.accounting.order] = delays_ms(evidence.accounting)
    links = evidence.on_links
    keys, first = np.unique(links.key, return_index=True)
    wanted = evidence.sent.key[shown]
    place = np.minimum(np.searchsorted(keys, wanted), max(len(keys) - 1, 0))
    seen = keys[place] == wanted if len(keys) else np.zeros(len(wanted), bool)
    path = [int(links.interface[first[at]]) if found else None for at, found in zip(place, seen, strict=True)]
    return PacketSeries(
        sent_ms=[float(value) for value in (times[shown] - cause_ns) / 1e6], path=path, stride=stride,
        delay_ms=[None if np.isnan(value) else float(value) for value in delay[shown]])
