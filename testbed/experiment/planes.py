"""What a plane of steering costs and gives, side by side with another. Functions: `plane_figures`, `medians`,
`comparison`."""

import statistics
from collections.abc import Sequence
from typing import Any

from testbed.experiment import verdict
from testbed.experiment.switched_run import Load
from testbed.report.result import Result


def plane_figures(result: Result, home_agent: Load, openflow: Load) -> dict:
    """What is compared; the loads are those of the measured time."""
    lost = verdict.find_handover(result, "link-down")
    return {
        "flows": {
            flow.name: {
                "goodput_bps": flow.goodput_bps,
                "one_way_delay_ms": flow.one_way_delay_ms and flow.one_way_delay_ms.p50,
                "one_way_delay_p95_ms": flow.one_way_delay_ms and flow.one_way_delay_ms.p95,
                "lost": flow.lost,
                "interruption_in_handover_ms": lost.flows[flow.name].interruption_ms
                if lost and flow.name in lost.flows
                else None,
            }
            for flow in result.flows
        },
        "home_agent": {"packets": home_agent.packets, "octets": home_agent.octets},
        "signalling": {"packets": result.signalling.packets, "octets": result.signalling.octets},
        "openflow": {"messages": openflow.packets, "octets": openflow.octets},
        "handover_stages_ms": lost.stages_ms if lost else None,
    }


def medians(found: Sequence[dict]) -> dict:
    """The same figures over several runs: the median of each, None where no run has it."""
    return _median(list(found))


def _median(values: list[Any]) -> Any:
    known = [value for value in values if value is not None]
    if known and isinstance(known[0], dict):
        return {key: _median([value.get(key) for value in known]) for key in known[0]}
    return statistics.median(known) if known else None


def comparison(planes: dict[str, dict], names: list[str]) -> str:
    """One line a figure, one column a plane."""

    def number(value: float | None, scale: float = 1.0) -> str:
        return "-" if value is None else f"{value * scale:,.1f}"

    rows = []
    for title, key, scale in (
        ("goodput, Mbit/s", "goodput_bps", 1e-6),
        ("one-way delay, ms (median)", "one_way_delay_ms", 1),
        ("interruption when the network is lost, ms", "interruption_in_handover_ms", 1),
        ("lost packets", "lost", 1),
    ):
        rows.append([title, *("" for _ in planes)])
        rows += [[f"  {n}", *(number(p["flows"][n][key], scale) for p in planes.values())] for n in names]
    for title, part, key in (
        ("home agent: packets from the core", "home_agent", "packets"),
        ("home agent: octets from the core", "home_agent", "octets"),
        ("mobility messages on the access links", "signalling", "packets"),
        ("OpenFlow messages to the switches", "openflow", "messages"),
        ("OpenFlow octets to the switches", "openflow", "octets"),
    ):
        rows.append([title, *(f"{plane[part][key]:,.0f}" for plane in planes.values())])
    rows.insert(0, ["", *planes])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    )
