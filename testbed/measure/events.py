"""Event logs to handovers: what happened, in which stages. Class: `Handover`.

Functions: `read_events`, `handovers`, `first_packet_on_new_path`. An event is a JSON object with `t`
(seconds of CLOCK_MONOTONIC), `node`, `event` and fields of its own. Causes are what the experiment did and
logged, stamped just before it did it.
"""

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from testbed.measure.matching import Arrivals

#: A cause and the mobile node's event that shows that it has noticed.
DETECTION = {
    "link-down": ("link-lost",), "link-up": ("link-gained",),
    "move": ("link-lost", "link-gained", "care-of-address-gained"),
    "flow-add": ("flow-requested",), "flow-replace": ("flow-requested",),
    "flow-remove": ("flow-requested",), "steer": ("flow-requested",),
}

#: The stages of a handover, in the order in which they usually happen.
STAGES = ("detected", "care_of_address", "binding_update_sent", "binding_update_received", "datapath_ready",
          "binding_acknowledgement_sent", "binding_acknowledgement_received", "first_packet")

_SETTLED_NS = 500_000_000
_LAST_PACKETS = 10
_COPIES = 0.2


@dataclass(slots=True)
class Handover:
    """One cause and when, in ms after it, each stage was reached; None where there is no trace of it.

    `until_s` is the next cause, or the end. `cause_event` has the fields that the experiment logged.
    """

    at_s: float
    until_s: float
    cause: str
    cause_event: dict
    stages_ms: dict[str, float | None] = field(default_factory=dict)


def read_events(paths: Iterable[str | Path]) -> list[dict]:
    """All events of all files in order of time. A file that is not there has none; a last line that was cut
    short is left out.

    Raises ValueError naming file and line for anything else that is no event.
    """
    events = []
    for path in map(Path, paths):
        lines = path.read_text().split("\n") if path.exists() else []
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                event = json.loads(line)
                event["t"], event["event"], event["node"] = float(event["t"]), event["event"], event["node"]
            except (ValueError, KeyError, TypeError) as error:
                if number == len(lines):
                    continue
                raise ValueError(
                    f"{path}, line {number} is no event with t, node and event: {error}") from error
            events.append(event)
    return sorted(events, key=lambda event: event["t"])


def handovers(events: Sequence[dict], *, mobile_node: str = "mn", home_agent: str = "ha",
              end_s: float | None = None) -> list[Handover]:
    """One handover for each cause that the node "experiment" logged, its stages looked for until the next."""
    causes = [event for event in events if event["node"] == "experiment" and event["event"] in DETECTION]
    last_s = end_s if end_s is not None else max((event["t"] for event in events), default=0.0)
    found = []
    for cause, following in zip(causes, [*causes, None][1:], strict=True):
        next_s = following["t"] if following else math.inf
        window = [event for event in events if cause["t"] <= event["t"] < next_s]
        stages = _stages(cause, window, mobile_node, home_agent)
        found.append(Handover(cause["t"], min(next_s, max(last_s, cause["t"])), cause["event"], cause, {
            stage: None if moment is None else (moment - cause["t"]) * 1000
            for stage, moment in stages.items()}))
    return found


def _stages(cause: dict, window: list[dict], mobile_node: str, home_agent: str) -> dict[str, float | None]:
    """The times of the stages: each is looked for after the one that it follows from."""
    def first(node: str, names: Sequence[str], after_s: float | None,
              accept: Callable[[dict], bool] = lambda event: True) -> dict | None:
        return next((event for event in window if after_s is not None and event["t"] >= after_s
                     and event["node"] == node and event["event"] in names and accept(event)), None)

    def on_interface(event: dict) -> bool:
        return "interface" not in cause or event.get("interface", cause["interface"]) == cause["interface"]

    def time(event: dict | None) -> float | None:
        return event["t"] if event else None

    detected = time(first(mobile_node, DETECTION[cause["event"]], cause["t"], on_interface))
    care_of_address = None
    if cause["event"] in ("link-up", "move"):
        care_of_address = time(first(mobile_node, ("care-of-address-gained",), cause["t"], on_interface))
    begin_s = max(moment for moment in (cause["t"], detected, care_of_address) if moment is not None)
    sent = time(first(mobile_node, ("binding-update-sent",), begin_s))
    sequences = {event["sequence"] for event in window if sent is not None and event["t"] >= sent
                 and event["node"] == mobile_node and event["event"] == "binding-update-sent"
                 and "sequence" in event}

    def of_update(event: dict) -> bool:
        return not sequences or event.get("sequence") is None or event["sequence"] in sequences

    received = time(first(home_agent, ("binding-update-received",), sent, of_update))
    answered = first(home_agent, ("binding-acknowledgement-sent",), received, of_update)
    # An acknowledgement cannot arrive before it is sent; where the home agent has no log, before the update
    # is.
    acknowledged = first(mobile_node, ("binding-acknowledgement-received",),
                         answered["t"] if answered else sent, of_update)
    return {"detected": detected, "care_of_address": care_of_address, "binding_update_sent": sent,
            "binding_update_received": received,
            "datapath_ready": time(first(home_agent, ("datapath-ready",), received)),
            "binding_acknowledgement_sent": time(answered),
            "binding_acknowledgement_received": time(acknowledged), "first_packet": None}


def first_packet_on_new_path(flow: Arrivals, cause_ns: int, until_ns: int) -> tuple[str, str, int] | None:
    """Old interface, new interface, and when (ns) the first packet came by the new one; None if the flow
    did not change its path.

    The old path is the one that carried the flow in the half second before the cause, or its last packets
    if it was silent then. A flow that came by several (n-cast) has no old path to leave.
    """
    earlier = np.flatnonzero(flow.time_ns < cause_ns)
    recent = flow.time_ns[earlier] >= cause_ns - _SETTLED_NS
    before = flow.interface[earlier[recent] if recent.any() else earlier[-_LAST_PACKETS:]]
    if not len(before):
        return None
    counts = np.bincount(before, minlength=len(flow.interfaces))
    old = int(np.argmax(counts))
    if (counts > _COPIES * counts[old]).sum() > 1:
        return None
    moved = np.flatnonzero((flow.interface != old) & (flow.time_ns >= cause_ns) & (flow.time_ns < until_ns))
    if not len(moved):
        return None
    return flow.interfaces[old], flow.interfaces[int(flow.interface[moved[0]])], int(flow.time_ns[moved[0]])
