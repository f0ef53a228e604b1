"""`flows.csv`: one line a flow, for spreadsheets and notebooks. Function: `write_flows_csv`."""

import csv
from pathlib import Path

from testbed.report.result import Flow, Quantiles, Result

_PLAIN = ("name", "kind", "protocol", "port", "fid", "selector", "bid", "counted", "goodput_bps", "sent",
          "received", "lost", "duplicates", "reordered", "reordering_extent", "interruption_ms",
          "interruption_at_s", "nominal_spacing_ms", "start_s", "end_s", "retransmits", "error")
_QUANTILES = ("one_way_delay_ms", "delay_variation_ms", "record_delay_ms", "page_time_ms", "round_trip_ms")


def write_flows_csv(result: Result, path: str | Path) -> None:
    """Write the flows with the fields of `result.json`; quantiles as columns of their own (`..._p50`), one
    column of payload octets for each access interface (`octets_mn-wlan`). Raises OSError."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(_row(result, None)))
        writer.writeheader()
        writer.writerows(_row(result, flow) for flow in result.flows)


def _row(result: Result, flow: Flow | None) -> dict[str, object]:
    """The columns of one flow, or their names alone."""
    row: dict[str, object] = {name: getattr(flow, name, None) for name in _PLAIN}
    if isinstance(row["bid"], list):
        row["bid"] = "+".join(map(str, row["bid"]))
    for name in _QUANTILES:
        values: Quantiles | None = getattr(flow, name, None)
        row |= {f"{name}_{part}": getattr(values, part, None) for part in ("p50", "p95", "max")}
    octets = {path.interface: path.octets for path in flow.paths} if flow else {}
    return row | {f"octets_{interface}": octets.get(interface, 0) for interface in result.interfaces}
