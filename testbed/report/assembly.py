"""From what a run left behind to its result. Function: `assemble`."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from testbed.measure.capture import CaptureFile
from testbed.measure.events import STAGES, Handover, handovers, read_events
from testbed.measure.machine import busy_spans, read_machine, standstills
from testbed.measure.matching import signalling
from testbed.measure.packets import PacketTable, read_capture
from testbed.measure.traffic import Traffic
from testbed.report import result as report
from testbed.report.flow_figures import (
    FlowBinding,
    FlowEvidence,
    around,
    figures,
    gather,
    in_handover,
    in_window,
    series,
)

INTERVAL_S = 0.1
#: A sender later than this has not kept its schedule, and its figures are of another traffic.
_LATE_P95_MS, _LATE_MAX_MS = 2.0, 50.0


def assemble(*, experiment: str, metadata: dict, origin_s: float, end_s: float, traffic: Sequence[Traffic],
             bindings: Mapping[str, FlowBinding], correspondent: Sequence[CaptureFile],
             access: Sequence[CaptureFile], event_logs: Sequence[str | Path],
             machine_log: str | Path | None = None, errors: Mapping[str, str] | None = None,
             windows: Mapping[str, tuple[float, float]] | None = None, warnings: Sequence[str] = (),
             mobile_node: str = "mn", home_agent: str = "ha") -> report.Result:
    """Compute everything for what was sent from `origin_s` to `end_s` (CLOCK_MONOTONIC).

    `correspondent` are the captures of the correspondent node's interfaces, `access` those of the mobile
    node's, in the order in which paths are to be shown. `bindings` and `errors` (from `stop_traffic`) go by
    name of the flow; `windows` are parts of the run that get figures of their own: name -> begin and end
    (CLOCK_MONOTONIC). Raises ValueError or OSError if a log or capture is missing or damaged.
    """
    errors = errors or {}
    origin_ns, end_ns = int(origin_s * 1e9), int(end_s * 1e9)
    at_correspondent = {file.interface: read_capture(file.path, file.clock()) for file in correspondent}
    at_mobile = {file.interface: read_capture(file.path, file.clock()) for file in access}
    evidence = [gather(one, at_correspondent, at_mobile, origin_ns, end_ns) for one in traffic]
    events = [event for event in read_events(event_logs) if event["t"] <= end_s]
    bins = math.ceil((end_s - origin_s) / INTERVAL_S)
    samples = [] if machine_log is None else read_machine(machine_log)
    busy = [span for span in busy_spans(samples) if span.end > origin_s and span.start < end_s]
    flows = [figures(one, bindings.get(one.traffic.name, FlowBinding(None, "", None)),
                     errors.get(one.traffic.name)) for one in evidence]
    captures = [_captured(file, table, origin_ns, end_ns) for file, table in zip(
        (*correspondent, *access), (*at_correspondent.values(), *at_mobile.values()), strict=True)]
    return report.Result(
        experiment=experiment, metadata=metadata, origin_s=origin_s, duration_s=end_s - origin_s,
        interfaces=list(at_mobile), flows=flows,
        handovers=[_handover(one, evidence, origin_s) for one in handovers(
            events, mobile_node=mobile_node, home_agent=home_agent, end_s=end_s)],
        time_series=report.TimeSeries(interval_s=INTERVAL_S, bins=bins, flows={
            one.traffic.name: series(one, bins, INTERVAL_S) for one in evidence}),
        events=[{"at_s": event["t"] - origin_s, **event} for event in events],
        signalling=_signalling(at_mobile, origin_s), captures=captures,
        windows={name: {one.traffic.name: found for one in evidence
                        if (found := in_window(one, *window)) is not None}
                 for name, window in (windows or {}).items()},
        busy=[report.BusyTime(start_s=span.start - origin_s, end_s=span.end - origin_s, idle=span.idle,
                              steal=span.steal, late_ms=span.late_ms) for span in busy],
        standstills=[report.Standstill(start_s=begin - origin_s, end_s=end - origin_s)
                     for begin, end in standstills(samples) if begin < end_s],
        warnings=[*warnings, *(span.text(origin_s) for span in busy), *_warnings(flows, evidence, captures)])


def _captured(file: CaptureFile, table: PacketTable, origin_ns: int, end_ns: int) -> report.CapturedInterface:
    inside = (table.time_ns >= origin_ns) & (table.time_ns < end_ns)
    return report.CapturedInterface(host=file.host, interface=file.interface, file=file.path.name,
                                    packets=len(table), drops=file.drops(),
                                    octets=int(table.wire_octets[inside].sum()))


def _handover(one: Handover, evidence: Sequence[FlowEvidence], origin_s: float) -> report.Handover:
    flows = {each.traffic.name: found for each in evidence if (found := in_handover(each, one)) is not None}
    first = min((flow.first_packet_ms for flow in flows.values() if flow.first_packet_ms is not None),
                default=None)
    event = one.cause_event
    subject = event.get("interface") or (f"flow {event['fid']}" if "fid" in event else "")
    return report.Handover(
        at_s=one.at_s - origin_s, until_s=one.until_s - origin_s, cause=one.cause,
        text=event.get("text") or f"{one.cause} {subject}".strip(), interface=event.get("interface"),
        fid=event.get("fid"), stages_ms={stage: first if stage == "first_packet" else one.stages_ms[stage]
                                         for stage in STAGES},
        flows=flows, packets={each.traffic.name: found for each in evidence
                              if (found := around(each, one)) is not None})


def _signalling(tables: Mapping[str, PacketTable], origin_s: float) -> report.Signalling:
    messages = [report.SignallingMessage(
        at_s=one.time_ns / 1e9 - origin_s, interface=one.interface, octets=one.octets,
        message=report.MESSAGE_NAMES.get(one.message, f"type {one.message}"), from_mobile=one.from_mobile)
        for one in signalling(tables)]
    return report.Signalling(packets=len(messages), octets=sum(one.octets for one in messages),
                             messages=messages)


def _warnings(flows: Sequence[report.Flow], evidence: Sequence[FlowEvidence],
              captures: Sequence[report.CapturedInterface]) -> list[str]:
    """What a reader must know before believing the figures."""
    found = []
    for flow, proof in zip(flows, evidence, strict=True):
        late = flow.sender_lateness_ms
        if late and (late.p95 > _LATE_P95_MS or (late.max > _LATE_MAX_MS and flow.protocol == "udp")):
            found.append(f"The sender of {flow.name} was late (95 % of packets within {late.p95:.1f} ms, the "
                         f"latest {late.max:.0f} ms): its packets were not sent on schedule.")
        dropped = proof.traffic.summaries.get("listener", {}).get("socket_drops", 0)
        if dropped:
            found.append(f"The receiver of {flow.name} was too slow: {dropped} of its losses happened there.")
        if flow.error:
            found.append(f"Flow {flow.name} ended early: {flow.error}.")
    for capture in captures:
        if capture.drops:
            found.append(f"The capture of {capture.interface} in {capture.host} missed {capture.drops} "
                         "packets: figures from captures are incomplete.")
    return found
