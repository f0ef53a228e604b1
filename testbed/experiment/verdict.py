"""What a result must show, judged by its own figures. Functions: `path_checks`, `loss_check`,
`lost_in_stalls`, `find_handover`, `summary`.
"""

from collections.abc import Iterable

from testbed.report.result import Check, Handover, Result, ResultError

#: After a cause, paths are judged once a handover must be over: its longest stage is two round trips.
SETTLED_S = 0.6
#: The share of a flow's octets that the access links must show on the path that it is bound to.
ON_PATH = 0.99


def path_checks(result: Result) -> list[Check]:
    """One check for each phase that says which paths its flows were to take: each flow was on the access
    links that it was bound to, by the captures there. A phase of which nothing can be judged has not shown
    that.

    Raises ResultError: the result was saved by a version that did not record all that is judged here.
    """
    if lacking := _lacking(result):
        raise ResultError(
            f"This result of {result.experiment} has no {', no '.join(lacking)}: it was saved before results "
            f"of schema version {result.schema_version} had all that paths are judged by; judge it with the "
            "version that wrote it, named in its metadata, or run the experiment again."
        )
    return [_path_check(result, phase) for phase in result.metadata["phases"] if phase["paths"]]


def _lacking(result: Result) -> list[str]:
    """The fields without which paths cannot be judged, of those that results have not always had."""
    if "phases" not in result.metadata:
        return ["metadata.phases"]
    named = {flow for phase in result.metadata["phases"] for flow in phase["paths"]}
    series = [found for flow, found in result.time_series.flows.items() if flow in named]
    bins, names = result.time_series.bins, result.interfaces
    values = {
        "sent": [each.sent for each in series],
        "carried_octets": [each.carried_octets.get(name, []) for each in series for name in names],
    }
    lacking = [name for name, lists in values.items() if any(len(each) < bins for each in lists)]
    return [f"time_series.flows.*.{name}" for name in lacking]


def _path_check(result: Result, phase: dict) -> Check:
    passed, detail = _judge_paths(result, phase)
    text = f"{phase['name']}: every flow on the access network that it is bound to"
    return Check(text=text, passed=passed, detail=detail)


def _judge_paths(result: Result, phase: dict) -> tuple[bool, str]:
    bins = _judged_bins(result, phase)
    if not bins:
        return False, f"nothing to judge: {_why_no_bins(result, phase)}"
    silent = [flow for flow in phase["paths"] if _may_be_silent(result, flow, bins)]
    judged = {flow: wanted for flow, wanted in phase["paths"].items() if flow not in silent}
    if not judged:
        return False, f"nothing to judge: {', '.join(silent)} sent nothing, and need not have"
    found = {flow: _off_path(result, flow, wanted, bins) for flow, wanted in judged.items()}
    wrong = [f"{flow} {what}" for flow, what in found.items() if what is not None]
    detail = "; ".join(wrong) or f"from the captures on {' and '.join(result.interfaces)}"
    return not wrong, detail + (f"; not judged, as silent: {', '.join(silent)}" if silent else "")


def _why_no_bins(result: Result, phase: dict) -> str:
    if _settled_bins(result, phase):
        return "the machine stood still, or had shortly before, all the time after a handover's"
    return (
        f"the phase lasted {phase['end_s'] - phase['start_s']:.1f} s, and no whole bin of the time series is "
        f"left after the {SETTLED_S:g} s that a handover may take"
    )


def _off_path(result: Result, flow: str, wanted: list[str], bins: list[int]) -> str | None:
    """What became of the packets that the flow sent in these bins, if they did not go where they were to go,
    else None."""
    series = result.time_series.flows[flow]
    octets = {name: sum(values[number] for number in bins) for name, values in series.carried_octets.items()}
    total = sum(octets.values())
    if not total and not any(series.sent[number] for number in bins):
        return None if _silence_expected(result, flow, wanted) else "sent nothing"
    used = {name: value / total for name, value in octets.items() if value and total}
    astray = sum(share for name, share in used.items() if name not in wanted)
    missing = [name for name in wanted if used.get(name, 0) < (1 - ON_PATH)]
    if (total and not wanted) or astray > 1 - ON_PATH or missing:
        return "on " + (", ".join(f"{name} {share:.1%}" for name, share in used.items()) or "nothing")
    return None


def _silence_expected(result: Result, flow: str, wanted: list[str]) -> bool:
    """Whether a flow shows that it is discarded by sending nothing: TCP waits longer and longer for what is
    not acknowledged (RFC 6298 §5.5), and what the mobile node discards is not on its wire."""
    return not wanted and (result.flow(flow).protocol == "tcp" or not result.flow(flow).downlink)


def _may_be_silent(result: Result, flow: str, bins: list[int]) -> bool:
    """Whether a flow has not sent anything in these bins, and need not have: it does so too rarely, or what
    it sent last was when the machine stood still. (TCP has seen a round trip as long as that, and waits for
    longer before it sends again what was lost then; RFC 6298 §2.)"""
    sent = result.time_series.flows[flow].sent
    if any(sent[number] for number in bins):
        return False
    spacing_ms = result.flow(flow).nominal_spacing_ms
    if spacing_ms is not None and spacing_ms > len(bins) * result.time_series.interval_s * 1000:
        return True
    return _stood_still(result, max((number for number in range(bins[-1]) if sent[number]), default=0))


def _judged_bins(result: Result, phase: dict) -> list[int]:
    """Those of the phase in which every handover is over, and in which the machine did not stand still."""
    return [number for number in _settled_bins(result, phase) if not _stood_still(result, number)]


def _settled_bins(result: Result, phase: dict) -> range:
    """Those of the phase in which every handover is over."""
    width = result.time_series.interval_s
    first = int((phase["start_s"] + SETTLED_S) / width) + 1
    return range(first, min(int(phase["end_s"] / width), result.time_series.bins))


def _stood_still(result: Result, number: int) -> bool:
    """Whether the machine stood still in this bin, or had shortly before: not all has settled then."""
    width = result.time_series.interval_s
    begin, end = number * width, (number + 1) * width
    return any(span.start_s < end and begin < span.end_s + SETTLED_S for span in result.standstills)


def lost_in_stalls(result: Result, flow: str, start_s: float, end_s: float) -> int:
    """How many of the packets of this time were lost because the machine stood still: senders make up for it
    with a burst, which no queue holds."""
    lost = result.time_series.flows[flow].lost
    bins = _bins_around(result, start_s, end_s)
    return sum(lost[number] for number in bins if _stood_still(result, number))


def _bins_around(result: Result, start_s: float, end_s: float) -> range:
    width = result.time_series.interval_s
    return range(max(int(start_s / width) - 1, 0), min(int(end_s / width) + 1, result.time_series.bins))


def find_handover(result: Result, cause: str, occurrence: int = 0) -> Handover | None:
    """The handover of that cause, counted from 0."""
    found = [handover for handover in result.handovers if handover.cause == cause]
    return found[occurrence] if occurrence < len(found) else None


def loss_check(result: Result, text: str, handover: Handover | None, flows: Iterable[str]) -> Check:
    """No packet of these flows was lost in a handover, but for what a machine that stood still has lost. If
    they sent none, or it stood still all the time, that is not shown."""
    if handover is None:
        return Check(text=text, passed=False, detail="the handover did not happen")
    bins = _bins_around(result, handover.at_s, handover.until_s)
    if all(_stood_still(result, number) for number in bins):
        return Check(text=text, passed=False, detail="nothing to judge: the machine stood still all the time")
    lost = {
        name: max(
            0, handover.flows[name].lost - lost_in_stalls(result, name, handover.at_s, handover.until_s)
        )
        for name in flows
        if name in handover.flows and handover.flows[name].sent
    }
    if not lost:
        return Check(text=text, passed=False, detail="nothing to judge: none of these flows sent anything")
    losers = [f"{name} lost {count} of {handover.flows[name].sent}" for name, count in lost.items() if count]
    sent = sum(handover.flows[name].sent for name in lost)
    return Check(
        text=text,
        passed=not losers,
        detail=", ".join(losers) or f"{sent} packets of {', '.join(lost)} sent, none lost",
    )


def summary(checks: Iterable[Check]) -> str:
    """The checks as lines for a person."""
    return "\n".join(
        f"  {'ok  ' if check.passed else 'FAIL'}  {check.text}\n          {check.detail}" for check in checks
    )
