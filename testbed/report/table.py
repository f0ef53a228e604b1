"""Tables for people at a terminal. Functions: `report`, `flow_table`, `handover_table`; of many results
`comparison_table`.

They fit the width: columns that matter less go first, and a table says which it left out.
"""

import shutil
import statistics
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from testbed.report.collection import Collection, Entry, text_of, values_of
from testbed.report.metric import Metric
from testbed.report.result import Flow, Handover, Result

_STAGE_HEADINGS = {
    "detected": "detected", "care_of_address": "address", "binding_update_sent": "BU sent",
    "binding_update_received": "BU at HA", "datapath_ready": "HA ready",
    "binding_acknowledgement_sent": "BA sent", "binding_acknowledgement_received": "BA back",
    "first_packet": "1st packet"}


@dataclass(frozen=True, slots=True)
class _Column:
    """`importance`: columns of the highest number are left out first, those of 0 never."""

    heading: str
    values: list[str]
    importance: int
    left: bool = False

    @property
    def width(self) -> int:
        return max(map(len, (self.heading, *self.values)))


def report(result: Result, width: int | None = None, unicode: bool | None = None) -> str:
    """All that a person wants to see at the end of a run; ends with a newline.

    `width` defaults to the terminal's, `unicode` to whether standard output can encode it.
    """
    parts = ["Flows", flow_table(result, width, unicode), "", "Handovers (ms after the cause)",
             handover_table(result, width, unicode)]
    messages = result.signalling
    parts += ["", f"Signalling on the access links: {messages.packets} messages, {messages.octets} octets."]
    if result.warnings:
        wide = shutil.get_terminal_size((100, 24)).columns if width is None else width
        parts += ["", *(textwrap.fill(f"Warning: {warning}", max(wide, 40), subsequent_indent="  ")
                        for warning in result.warnings)]
    return "\n".join(parts) + "\n"


def flow_table(result: Result, width: int | None = None, unicode: bool | None = None) -> str:
    """One line a flow."""
    flows = result.flows
    return _table([
        _Column("flow", [flow.name for flow in flows], 0, left=True),
        _Column("FID", [_text(flow.fid) for flow in flows], 2),
        _Column("BID", [_bid(flow) for flow in flows], 5),
        _Column("path", [_paths(flow, result.interfaces) for flow in flows], 1, left=True),
        _Column("Mbit/s", [_number(flow.goodput_bps, 1e-6, 2) for flow in flows], 0),
        _Column("sent", [str(flow.sent) for flow in flows], 3),
        _Column("lost", [str(flow.lost) for flow in flows], 0),
        _Column("dup", [str(flow.duplicates) for flow in flows], 2),
        _Column("reord", [str(flow.reordered) for flow in flows], 4),
        _Column("gap ms", [_number(flow.interruption_ms) for flow in flows], 0),
        _Column("delay ms p50", [_delay(flow, "p50") for flow in flows], 1),
        _Column("p95", [_delay(flow, "p95") for flow in flows], 1),
        _Column("max", [_delay(flow, "max") for flow in flows], 3),
        _Column("selector", [flow.selector for flow in flows], 6, left=True),
    ], width, unicode)


def handover_table(result: Result, width: int | None = None, unicode: bool | None = None) -> str:
    """One line a handover: its stages, and which flows moved or lost packets."""
    found = result.handovers
    if not found:
        return "(none)"
    importance = {"detected": 2, "care_of_address": 5, "binding_update_sent": 2,
                  "binding_update_received": 4, "binding_acknowledgement_sent": 5,
                  "binding_acknowledgement_received": 3, "datapath_ready": 3, "first_packet": 0}
    return _table([
        _Column("at s", [f"{one.at_s:.2f}" for one in found], 0),
        _Column("cause", [one.text for one in found], 0, left=True),
        *(_Column(heading, [_number(one.stages_ms.get(stage)) for one in found], importance[stage])
          for stage, heading in _STAGE_HEADINGS.items()
          if any(one.stages_ms.get(stage) is not None for one in found) or stage == "first_packet"),
        _Column("moved", [_moved(one) for one in found], 1, left=True),
        _Column("lost", [_lost(one) for one in found], 1, left=True),
    ], width, unicode)


def comparison_table(collection: Collection, metrics: Sequence[Metric], width: int | None = None,
                     unicode: bool | None = None) -> str:
    """One line a case: the median of each metric over its repetitions, "*" where the machine was too busy."""
    groups = list(collection.groups().values())
    shared = {name: value for name, value in groups[0][0].parameters.items() if len(groups) > 1 and all(
        entries[0].parameters.get(name) == value for entries in groups)} if groups else {}

    def title(entries: list[Entry]) -> str:
        words = [text_of(value, name) for name, value in entries[0].parameters.items() if name not in shared]
        return (", ".join(words) or entries[0].kind) + "*" * any(not entry.trusted for entry in entries)

    def median(entries: list[Entry], metric: Metric) -> str:
        values = values_of(entries, metric)
        return metric.text(statistics.median(values) if values else None).replace("–", "-")

    columns = [_Column("case", [title(entries) for entries in groups], 0, left=True),
               _Column("runs", [str(len(entries)) for entries in groups], 0)]
    for place, metric in enumerate(metrics, 1):
        values = [median(entries, metric) for entries in groups]
        if any(value != "-" for value in values):
            heading = metric.name.replace("_", " ").replace(" percent", " %").replace(" mbit", " Mbit/s")
            columns.append(_Column(heading, values, place))
    common = ", ".join(text_of(value, name) for name, value in shared.items())
    return _table(columns, width, unicode) + (f"\n(medians; all: {common})" if common else "\n(medians)")


def _text(value: object) -> str:
    return "-" if value is None else str(value)


def _number(value: float | None, scale: float = 1.0, digits: int = 1) -> str:
    return "-" if value is None else f"{value * scale:.{digits}f}"


def _delay(flow: Flow, quantile: str) -> str:
    return _number(getattr(flow.one_way_delay_ms, quantile)) if flow.one_way_delay_ms else "-"


def _bid(flow: Flow) -> str:
    return "+".join(map(str, flow.bid)) if isinstance(flow.bid, list) else _text(flow.bid)


def _paths(flow: Flow, interfaces: Sequence[str]) -> str:
    """The links that carried the flow and their shares, without what all their names begin with."""
    total = sum(path.packets for path in flow.paths)
    if not total:
        return "-"
    shares = sorted(((path.packets / total, short_name(path.interface, interfaces)) for path in flow.paths),
                    reverse=True)
    return shares[0][1] if len(shares) == 1 else ", ".join(f"{name} {share:.0%}" for share, name in shares)


def short_name(interface: str, interfaces: Sequence[str]) -> str:
    """`mn-wlan` as `wlan`, if all begin with `mn-`."""
    prefix = interface.split("-", 1)[0] + "-"
    if all(name.startswith(prefix) and name != prefix for name in interfaces):
        return interface.removeprefix(prefix)
    return interface


def _moved(handover: Handover) -> str:
    moved = [name for name, flow in handover.flows.items() if flow.first_packet_ms is not None]
    return ", ".join(moved) or "none"


def _lost(handover: Handover) -> str:
    return ", ".join(f"{name} {flow.lost}" for name, flow in handover.flows.items() if flow.lost) or "none"


def _table(columns: list[_Column], width: int | None, unicode: bool | None) -> str:
    """Lay out the columns that fit."""
    width = shutil.get_terminal_size((100, 24)).columns if width is None else width
    if unicode is None:
        unicode = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    line = "─" if unicode else "-"
    kept: list[_Column] = []
    for column in sorted(columns, key=lambda column: column.importance):
        if not column.importance or sum(one.width + 2 for one in (*kept, column)) - 2 <= width:
            kept.append(column)
    kept.sort(key=columns.index)

    def row(cells: Sequence[str]) -> str:
        return "  ".join(cell.ljust(column.width) if column.left else cell.rjust(column.width)
                         for column, cell in zip(kept, cells, strict=True)).rstrip()

    rows = [row([column.heading for column in kept]), "  ".join(line * column.width for column in kept)]
    rows += [row(cells) for cells in zip(*(column.values for column in kept), strict=True)]
    left_out = [column.heading for column in columns if column not in kept]
    if left_out:
        rows.append(f"(left out for want of width: {', '.join(left_out)})")
    return "\n".join(rows)
