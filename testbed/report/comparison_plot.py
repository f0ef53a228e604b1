"""Figures of many results together. Functions: `draw_interruptions`, `draw_trade_off`, `draw_case_stages`,
`draw_against`; `comparison_figures` draws those that there is something for.

Colours are those of Okabe and Ito, and every series has a marker and a line style of its own as well.
"""

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from testbed.report.collection import Collection, Entry, text_of
from testbed.report.metric import METRICS, Metric, by_name, window
from testbed.report.plot import STAGES, STYLE
from testbed.report.statistics import interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#000000", "#8A7B00")
MARKERS = "o^sDvP*X<>hd"
LINES = ("-", "--", "-.", ":")
#: An axis shows at least so much of a percentage or Mbit/s: less is no difference.
_LEAST_SPAN = 1.0
#: More do not fit a page.
_MOST_PANELS = 6


def style(index: int) -> dict[str, Any]:
    """Colour, marker and line of the series of that number."""
    return {
        "color": COLOURS[index % len(COLOURS)],
        "marker": MARKERS[index % len(MARKERS)],
        "linestyle": LINES[index % len(LINES)],
    }


def comparison_figures(collection: Collection) -> "dict[str, tuple[str, Figure]]":
    """Name -> caption and figure, of everything that these results have something for."""
    import matplotlib

    matplotlib.use("Agg")
    found = {}
    with matplotlib.rc_context(STYLE):
        if len(collection.values("strategy")) > 0:
            found["interruption-cdf"] = (
                "Longest interruption of each flow while things happen: the share of flows and runs that "
                "stayed at or below it. Further left is better.",
                draw_interruptions(collection),
            )
            found["throughput-delay"] = (
                "Goodput of all flows against the 95th-percentile one-way delay of the worst flow: medians "
                "with 95 % confidence intervals. Up and left is better. Strategies that "
                "carry some of the flows only are left out.",
                draw_trade_off(collection, by_name("delay_p95_ms"), by_name("goodput_mbit")),
            )
            found["loss-overhead"] = (
                "Datagrams lost against what the access links carried beyond the payload: what robustness "
                "costs. Down and left is better.",
                draw_trade_off(collection, by_name("overhead_percent"), by_name("lost_percent")),
            )
        if any(_handovers(entry) for entry in collection.entries):
            found["latency-stages"] = (
                "From a loss to the first packet on the new path, from a movement until the home agent "
                "forwards to the new address: what takes the time (medians).",
                draw_case_stages(collection),
            )
        for parameter in _numeric(collection):
            found[f"against-{parameter}"] = (
                f"Figures against {parameter.replace('_', ' ')}: medians with 95 % confidence intervals.",
                draw_against(collection, parameter),
            )
    return {name: entry for name, entry in found.items() if entry[1] is not None}


def _columns(collection: Collection) -> list[tuple[str, list[Entry]]]:
    """The results by all but the strategy, in words; those that most strategies have come first."""
    found: dict[str, list[Entry]] = {}
    for entry in collection.usable():
        if "strategy" in entry.parameters:
            words = [text_of(value, name) for name, value in entry.parameters.items()
                     if name != "strategy" and name not in entry.shared]  # fmt: skip
            found.setdefault(", ".join(words), []).append(entry)
    return sorted(found.items(), key=lambda item: -len({e.parameters["strategy"] for e in item[1]}))


def _plain(value: float, _: object = None) -> str:
    """Labels of a logarithmic axis: 1, 2 and 5 in each decade."""
    return f"{value:g}" if f"{value:e}"[0] in "125" else ""


def draw_interruptions(collection: Collection) -> "Figure":
    """One panel a scenario and pair of links, one curve a strategy."""
    import matplotlib.pyplot as pyplot

    columns, strategies = _columns(collection)[:_MOST_PANELS], collection.values("strategy")
    across = min(len(columns), 2)
    down = -(-len(columns) // across)
    figure, panels = pyplot.subplots(
        down, across, figsize=(4.4 * across + 0.4, 2.6 * down + 1.3), squeeze=False, sharey=True,
        layout="constrained",
    )  # fmt: skip
    for panel in panels.flat[len(columns) :]:
        panel.set_visible(False)
    handles = {}
    for panel, (title, entries) in zip(panels.flat, columns, strict=False):
        for index, strategy in enumerate(strategies):
            values = sorted(
                figures.interruption_ms
                for entry in entries
                if entry.parameters["strategy"] == strategy
                for figures in window(entry.result).values()
                if figures.interruption_ms is not None
            )
            if values:
                shares = [(number + 1) / len(values) for number in range(len(values))]
                (handles[strategy],) = panel.step(
                    [values[0], *values], [0, *shares], where="post", linewidth=1.4, markersize=4,
                    markevery=max(len(values) // 8, 1), **style(index),
                )  # fmt: skip
        panel.set_xscale("log")
        for axis_format in (panel.xaxis.set_major_formatter, panel.xaxis.set_minor_formatter):
            axis_format(_plain)
        panel.set_title(title, fontsize=9)
        panel.set_xlabel("longest interruption (ms)")
        panel.set_ylim(0, 1.02)
    for row in panels:
        row[0].set_ylabel("share of flows and runs")
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=min(len(handles), 5))
    return figure


def draw_trade_off(collection: Collection, across: Metric, up: Metric) -> "Figure | None":
    """One point a case; one colour a strategy, one panel a scenario and pair of links. Strategies that cannot
    carry all flows are left out: they had less to do."""
    import matplotlib.pyplot as pyplot

    columns, strategies = _columns(collection)[:_MOST_PANELS], collection.values("strategy")
    wide = min(len(columns), 2)
    down = -(-len(columns) // wide)
    figure, panels = pyplot.subplots(
        down, wide, figsize=(4.4 * wide + 0.4, 2.6 * down + 1.3), squeeze=False, layout="constrained"
    )
    for panel in panels.flat[len(columns) :]:
        panel.set_visible(False)
    handles = {}
    for panel, (title, entries) in zip(panels.flat, columns, strict=False):
        for index, strategy in enumerate(strategies):
            chosen = [entry for entry in entries if entry.parameters["strategy"] == strategy
                      and not entry.result.metadata.get("not_carried")]  # fmt: skip
            point = [_estimate([metric.of(entry.result) for entry in chosen]) for metric in (across, up)]
            if None in point:
                continue
            (x, x_error), (y, y_error) = point
            look = style(index) | {"linestyle": "none"}
            handles[strategy] = panel.errorbar(
                x, y, xerr=x_error, yerr=y_error, markersize=7, capsize=2, elinewidth=0.9, **look
            )
        panel.set_title(title, fontsize=9)
        panel.set_xlabel(f"{across.title} ({across.unit})", fontsize=8)
        panel.set_ylabel(f"{up.title} ({up.unit})", fontsize=8)
        low, high = panel.get_xlim()
        if across.unit == "ms":
            panel.set_xscale("log")
            panel.set_xlim(min(low, high / 2) / 1.3, max(high, low * 2) * 1.3)
            for axis_format in (panel.xaxis.set_major_formatter, panel.xaxis.set_minor_formatter):
                axis_format(_plain)
        else:
            panel.set_xlim(0, high * 1.08)
        panel.set_ylim(0, max(panel.get_ylim()[1], _LEAST_SPAN) * 1.08)
    if not handles:
        pyplot.close(figure)
        return None
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=min(len(handles), 5))
    return figure


def _estimate(values: Sequence[float | None]) -> tuple[float, list[list[float]] | None] | None:
    """Median, and the distances to the ends of its confidence interval."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    median, ends = statistics.median(known), interval(known)
    return median, None if ends is None else [[max(median - ends[0], 0)], [max(ends[1] - median, 0)]]


def _handovers(entry: Entry) -> list[dict[str, float | None]]:
    """The stages of losses and movements that came to their end. A movement's is when the home agent
    forwards: flows stay on their interface, so that no packet is the first on a new path."""
    found = []
    for one in entry.result.handovers:
        stages = dict(one.stages_ms)
        if one.cause == "move":
            stages["first_packet"] = None
        end = {"link-down": "first_packet", "move": "datapath_ready"}.get(one.cause)
        if end and one.at_s >= 0 and stages.get(end) is not None:
            found.append(stages)
    return found


def draw_case_stages(collection: Collection) -> "Figure":
    """One bar a case: medians over its handovers and repetitions."""
    import matplotlib.pyplot as pyplot

    bars = []
    for entries in collection.groups().values():
        found = [stages for entry in entries for stages in _handovers(entry)[:1]]
        if found:
            bars.append((entries[0].title, found))
    figure, axes = pyplot.subplots(figsize=(8.4, 1.5 + 0.36 * len(bars)), layout="constrained")
    shown = set()
    longest = max(stages[name] for _, found in bars for stages in found for name, *_ in STAGES
                  if stages.get(name) is not None)  # fmt: skip
    for row, (_, found) in enumerate(bars):
        position = 0.0
        for stage, label, colour, hatch in STAGES:
            moments = [stages[stage] for stages in found if stages.get(stage) is not None]
            moment = statistics.median(moments) if moments else None
            if moment is None or moment < position:
                continue
            axes.barh(row, moment - position, left=position, color=colour, hatch=hatch, edgecolor="white",
                      linewidth=0.3, height=0.62, label=label if stage not in shown else None)  # fmt: skip
            shown.add(stage)
            position = moment
        axes.text(
            position + longest * 0.012, row, f"{position:.0f} ms, n={len(found)}", va="center", fontsize=8
        )
    axes.set_yticks(range(len(bars)), [title for title, _ in bars], fontsize=8)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set_xlim(0, longest * 1.2)
    axes.set_xlabel("time after loss or movement (ms)")
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8)
    return figure


def _numeric(collection: Collection) -> list[str]:
    """Parameters that take three or more numbers as values."""
    names = {name for entry in collection.entries for name in entry.parameters}
    return sorted(name for name in names if len(values := collection.values(name)) >= 3 and all(
        isinstance(value, (int, float)) and not isinstance(value, bool) for value in values))  # fmt: skip


#: What is drawn against a parameter, if there is something of it.
_DRAWN = (
    "interruption_ms",
    "first_packet_ms",
    "delay_p95_ms",
    "goodput_mbit",
    "setup_ms",
    "signalling_octets",
)


def draw_against(collection: Collection, parameter: str) -> "Figure | None":
    """One panel a metric, one line for each combination of the other parameters."""
    import matplotlib.pyplot as pyplot

    lines: dict[str, dict[float, list[Entry]]] = {}
    for entry in collection.usable():
        if parameter in entry.parameters:
            rest = [text_of(value, name) for name, value in entry.parameters.items()
                    if name != parameter and name not in entry.shared]  # fmt: skip
            lines.setdefault(", ".join(rest) or entry.kind, {}).setdefault(
                entry.parameters[parameter], []).append(entry)  # fmt: skip
    metrics = [metric for metric in METRICS if metric.name in _DRAWN]
    metrics = [metric for metric in metrics if any(
        metric.of(entry.result) is not None for entry in collection.entries)]  # fmt: skip
    if not metrics:
        return None
    figure, panels = pyplot.subplots(
        len(metrics),
        1,
        figsize=(7.2, 1.4 + 1.9 * len(metrics)),
        sharex=True,
        squeeze=False,
        layout="constrained",
    )
    handles = {}
    for panel, metric in zip(panels[:, 0], metrics, strict=True):
        for index, (name, points) in enumerate(lines.items()):
            places, medians, below, above = [], [], [], []
            for place, entries in sorted(points.items()):
                estimate = _estimate([metric.of(entry.result) for entry in entries])
                if estimate is not None:
                    places.append(place)
                    medians.append(estimate[0])
                    below.append(estimate[1][0][0] if estimate[1] else 0)
                    above.append(estimate[1][1][0] if estimate[1] else 0)
            if places:
                handles[name] = panel.errorbar(places, medians, yerr=[below, above], capsize=2, markersize=5,
                                               linewidth=1.2, **style(index))  # fmt: skip
        panel.set_ylabel(metric.unit)
        panel.set_title(metric.title, fontsize=9, loc="left")
        panel.set_ylim(0, panel.get_ylim()[1] * 1.05)
    panels[-1, 0].set_xlabel(parameter.replace("_", " "))
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=2, fontsize=8)
    return figure
