"""What a result must show, judged by its own figures. Functions: `path_checks`, `loss_check`, `summary`."""

from collections.abc import Iterable

from testbed.report.result import Check, Handover, Result

#: After a cause, paths are judged once a handover must be over: its longest stage is two round trips.
SETTLED_S = 0.6
#: The share of a flow's octets that the access links must show on the path that it is bound to.
ON_PATH = 0.99


def path_checks(result: Result) -> list[Check]:
    """One check a phase: each flow was on the access links that it was bound to, by the captures there."""
    return [_path_check(result, phase) for phase in result.metadata["phases"]]


def _path_check(result: Result, phase: dict) -> Check:
    width = result.time_series.interval_s
    first = int((phase["start_s"] + SETTLED_S) / width) + 1
    last = min(int(phase["end_s"] / width), result.time_series.bins)
    wrong = []
    for flow, wanted in phase["paths"].items():
        spacing_ms = result.flow(flow).nominal_spacing_ms
        if spacing_ms is not None and spacing_ms > (last - first) * width * 1000:
            continue  # it need not have sent anything
        octets = {
            name: sum(values[first:last])
            for name, values in result.time_series.flows[flow].throughput_bps.items()
        }
        total = sum(octets.values())
        used = {name: value / total for name, value in octets.items() if value and total}
        astray = sum(share for name, share in used.items() if name not in wanted)
        missing = [name for name in wanted if used.get(name, 0) < (1 - ON_PATH)]
        if (total and not wanted) or astray > 1 - ON_PATH or missing:
            shares = ", ".join(f"{name} {share:.1%}" for name, share in used.items()) or "nothing"
            wrong.append(f"{flow} on {shares}")
    return Check(
        text=f"{phase['name']}: every flow on the access network that it is bound to",
        passed=not wrong,
        detail="; ".join(wrong) or f"from the captures on {' and '.join(result.interfaces)}",
    )


def find_handover(result: Result, cause: str, occurrence: int = 0) -> Handover | None:
    """The handover of that cause, counted from 0."""
    found = [handover for handover in result.handovers if handover.cause == cause]
    return found[occurrence] if occurrence < len(found) else None


def loss_check(text: str, handover: Handover | None, flows: Iterable[str]) -> Check:
    """No packet of these flows was lost in a handover."""
    if handover is None:
        return Check(text=text, passed=False, detail="the handover did not happen")
    lost = {name: handover.flows[name].lost for name in flows if name in handover.flows}
    losers = [f"{name} lost {count} of {handover.flows[name].sent}" for name, count in lost.items() if count]
    sent = sum(handover.flows[name].sent for name in lost)
    return Check(
        text=text,
        passed=bool(lost) and not losers,
        detail=", ".join(losers) or f"{sent} packets of {', '.join(lost)} sent, none lost",
    )


def summary(checks: Iterable[Check]) -> str:
    """The checks as lines for a person."""
    return "\n".join(
        f"  {'ok  ' if check.passed else 'FAIL'}  {check.text}\n          {check.detail}" for check in checks
    )
