"""Figures of many results together. Functions: `draw_interruptions`, `draw_trade_off`, `draw_case_stages`,
`draw_against`; `comparison_figures` draws those that there is something for.

Colours are those of Okabe and Ito, and every series has a marker and a line style of its own as well.
"""

import statistics
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from testbed.report.collection import Collection, Entry, text_of
from testbed.report.metric import METRICS, Metric, by_name, window
from testbed.report.plot import STAGES, STYLE, until_first_packet
from testbed.report.statistics import interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#000000", "#8A7B00")
MARKERS = "o^sDvP*X<>hd"
LINES = ("-", "--", "-.", ":")
#: An axis shows at least so much of a percentage or Mbit/s: less is no difference.
_LEAST_SPAN = 1.0
#: So many points within this part of a panel's width and height cannot be told apart.
_MANY, _CLOSE = 3, 0.08
#: More do not fit a page.
_MOST_PANELS = 6


def style(index: int) -> dict[str, Any]:
    """Colour, marker and line of the series of that number."""
    # where colours begin anew, lines are others than the first time
    return {
        "color": COLOURS[index % len(COLOURS)],
        "marker": MARKERS[index % len(MARKERS)],
        "linestyle": LINES[(index + index // len(COLOURS)) % len(LINES)],
    }


def comparison_figures(collection: Collection) -> "dict[str, tuple[str, Figure]]":
    """Name -> caption and figure, of everything that these results have something for."""
    import matplotlib

    matplotlib.use("Agg")
    found = {}
    columns = len(_columns(collection))
    some = f" Drawn are {_MOST_PANELS} of {columns} scenarios and links." if columns > _MOST_PANELS else ""
    with matplotlib.rc_context(STYLE):
        if len(collection.values("strategy")) > 1:
            found["interruption-cdf"] = (
                "Longest interruption of each flow while things happen: the share of flows and runs that "
                "stayed at or below it. Further left is better." + some,
                draw_interruptions(collection),
            )
            found["throughput-delay"] = (
                "Goodput of all flows against the 95th-percentile one-way delay of the worst flow: medians "
                "with 95 % confidence intervals. Up and left is better. Strategies that "
                "carry some of the flows only are left out." + some,
                draw_trade_off(collection, by_name("delay_p95_ms"), by_name("goodput_mbit")),
            )
            found["loss-overhead"] = (
                "Datagrams lost against what the access links carried beyond the payload: what robustness "
                "costs. Down and left is better." + some,
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
                f"Figures against {_axis(parameter)}: medians with 95 % confidence intervals.",
                draw_against(collection, parameter),
            )
    return {name: entry for name, entry in found.items() if entry[1] is not None}


def _columns(collection: Collection) -> list[tuple[str, list[Entry]]]:
    """The results by all but the strategy, in words; those that most strategies have come first."""
    found: dict[str, list[Entry]] = {}
    common = collection.common()
    for entry in collection.usable():
        if "strategy" in entry.parameters:
            words = [text_of(value, name) for name, value in entry.parameters.items()
                     if name == "scenario" or name != "strategy" and name not in common]  # fmt: skip
            found.setdefault(", ".join(words), []).append(entry)
    ranked = sorted(found.items(), key=lambda item: -len({e.parameters["strategy"] for e in item[1]}))
    return [item for item in ranked if len({e.parameters["strategy"] for e in item[1]}) > 1] or ranked


def _logarithmic(panel: "Axes") -> None:
    """A logarithmic axis across, labelled at 1, 2 and 5 of each decade."""
    from matplotlib.ticker import LogLocator, NullLocator

    panel.set_xscale("log")
    panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.xaxis.set_major_formatter(lambda value, _=None: f"{value:g}")


def _key(figure: "Figure", strategies: Iterable[tuple[int, str]], lines: bool) -> None:
    """The legend below all panels: these strategies with their numbers."""
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], label=strategy, linewidth=1.4, markersize=6,
               **style(index) | ({} if lines else {"linestyle": "none"}))
        for index, strategy in sorted(strategies)
    ]  # fmt: skip
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 5))


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
    shown = set()
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
                panel.step(
                    [values[0], *values], [0, *shares], where="post", linewidth=1.4, markersize=4,
                    markevery=max(len(values) // 8, 1), **style(index),
                )  # fmt: skip
                shown.add((index, strategy))
        _logarithmic(panel)
        panel.set_title(title, fontsize=9)
        panel.set_xlabel("longest interruption (ms)")
        panel.set_ylim(0, 1.02)
    for row in panels:
        row[0].set_ylabel("share of flows and runs")
    _key(figure, shown, lines=True)
    return figure


def draw_trade_off(collection: Collection, across: Metric, up: Metric) -> "Figure | None":
    """One point a case; one colour a strategy, one panel a scenario and pair of links. Strategies that cannot
    carry all flows are left out: they had less to do."""
    import matplotlib.pyplot as pyplot

    strategies = collection.values("strategy")
    columns: list[tuple[str, list[_Point]]] = []
    for title, entries in _columns(collection):
        points = []
        for index, strategy in enumerate(strategies):
            chosen = [entry for entry in entries if entry.parameters["strategy"] == strategy
                      and not entry.result.metadata.get("not_carried")]  # fmt: skip
            point = [_estimate([metric.of(entry.result) for entry in chosen]) for metric in (across, up)]
            if None not in point:
                points.append((index, *point))
        if points:
            columns.append((title, points))
    if not columns:
        return None
    columns = columns[:_MOST_PANELS]
    wide = min(len(columns), 2)
    down = -(-len(columns) // wide)
    figure, panels = pyplot.subplots(
        down, wide, figsize=(4.4 * wide + 0.4, 2.6 * down + 1.3), squeeze=False, layout="constrained"
    )
    for panel in panels.flat[len(columns) :]:
        panel.set_visible(False)
    for panel, (title, points) in zip(panels.flat, columns, strict=False):
        _draw_points(panel, points, 7, clip_on=False)
        panel.set_title(title, fontsize=9)
        panel.set_xlabel(f"{across.title} ({across.unit})", fontsize=8)
        panel.set_ylabel(f"{up.title} ({up.unit})", fontsize=8)
        places = [x for _, (x, _), _ in points]
        if across.unit == "ms" and places and min(places) > 0:
            _logarithmic(panel)
            low, high = min(places), max(places)
            panel.set_xlim(min(low, high / 2) / 1.5, max(high, low * 2) * 1.5)
        else:
            panel.set_xlim(0, panel.get_xlim()[1] * 1.08)
        panel.set_ylim(0, max(panel.get_ylim()[1], _LEAST_SPAN) * 1.08)
        _magnify(panel, points)
    shown = {(index, strategies[index]) for _, points in columns for index, *_ in points}
    _key(figure, shown, lines=False)
    return figure


#: Number of the series, and of both axes the median with its distances to the ends of the interval.
_Point = tuple[int, tuple[float, Any], tuple[float, Any]]


def _draw_points(panel: "Axes", points: Sequence[_Point], size: float, **more: Any) -> None:
    for index, (x, x_error), (y, y_error) in points:
        panel.errorbar(x, y, xerr=x_error, yerr=y_error, markersize=size, capsize=2, elinewidth=0.9,
                       **style(index) | {"linestyle": "none"} | more)  # fmt: skip


def _magnify(panel: "Axes", points: Sequence[_Point]) -> None:
    """Where most points lie on top of each other, those once more, magnified, in a free part of the panel."""
    if len(points) < _MANY:
        return
    panel.figure.canvas.draw()  # so that places in the panel are known
    places = panel.transAxes.inverted().transform(
        panel.transData.transform([(x, y) for _, (x, _), (y, _) in points])
    )
    x_middle, y_middle = (statistics.median(values) for values in zip(*places.tolist(), strict=True))
    near = [point for point, (x, y) in zip(points, places, strict=True)
            if abs(x - x_middle) < _CLOSE and abs(y - y_middle) < _CLOSE]  # fmt: skip
    if len(near) < _MANY:
        return
    width, height = 0.42, 0.42
    corners = [(x, y) for y in (0.12, 0.48) for x in (0.53, 0.1)]
    free = next((corner for corner in corners if not any(
        corner[0] - 0.06 < x < corner[0] + width + 0.06 and corner[1] - 0.06 < y < corner[1] + height + 0.06
        for x, y in places)), None)  # fmt: skip
    if free is None:
        return
    inset = panel.inset_axes([*free, width, height])
    _draw_points(inset, near, 5)
    for axis, which in ((inset.set_xlim, 1), (inset.set_ylim, 2)):
        values = [point[which][0] for point in near]
        span = (max(values) - min(values)) or abs(max(values)) * 0.1 or 1.0
        axis(max(min(values) - span * 0.18, -span * 0.08), max(values) + span * 0.18)
    inset.tick_params(labelsize=6.5, length=2)
    inset.grid(True, linewidth=0.4)
    inset.set_facecolor("white")
    panel.indicate_inset_zoom(inset, edgecolor="#666666", linewidth=0.7)


def _estimate(values: Sequence[float | None]) -> tuple[float, list[list[float]] | None] | None:
    """Median, and the distances to the ends of its confidence interval."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    median, ends = statistics.median(known), interval(known)
    return median, None if ends is None else [[max(median - ends[0], 0)], [max(ends[1] - median, 0)]]


def _handovers(entry: Entry) -> list[dict[str, float | None]]:
    """The stages of losses and movements that came to their end. A movement's is when the home agent
    forwards: flows stay on their interface, so that no packet is the first on a new path. Losses that were
    announced are left out: flows had left before."""
    announced = any(event["event"] == "link-going-down" for event in entry.result.events)
    found = []
    for one in entry.result.handovers:
        stages = dict(one.stages_ms)
        if one.cause == "move":
            stages["first_packet"] = None
        end = {"link-down": "first_packet", "move": "datapath_ready"}.get(one.cause)
        if end and one.at_s >= 0 and stages.get(end) is not None and not announced:
            found.append(stages)
    return found


def draw_case_stages(collection: Collection) -> "Figure":
    """One bar a case, in panels by all but the strategy: medians over its handovers and repetitions."""
    import matplotlib.pyplot as pyplot

    panels_of: dict[str, list[tuple[str, list[dict[str, float | None]]]]] = {}
    common = collection.common()
    for entries in collection.groups().values():
        if found := [stages for entry in entries for stages in _handovers(entry)[:1]]:
            first = entries[0]
            words = {name: text_of(value, name) for name, value in first.parameters.items()
                     if name in ("strategy", "scenario") or name not in common}  # fmt: skip
            label = words.pop("strategy", None)
            title = ", ".join(words.values())
            panels_of.setdefault(title if label else "", []).append((label or title or first.kind, found))
    counts = [len(bars) for bars in panels_of.values()]
    figure, panels = pyplot.subplots(
        len(counts), 1, figsize=(8.4, 1.3 + 0.34 * sum(counts) + 0.45 * len(counts)), squeeze=False,
        sharex=True, layout="constrained", height_ratios=[count + 0.6 for count in counts],
    )  # fmt: skip
    ends: list[float] = []
    shown: set[str] = set()
    for panel, (title, bars) in zip(panels[:, 0], panels_of.items(), strict=True):
        panel.set_title(title, fontsize=9, loc="left")
        for row, (_, found) in enumerate(bars):
            ends.append(_draw_stages(panel, row, found, shown))
        panel.set_yticks(range(len(bars)), [label for label, _ in bars], fontsize=8)
        panel.set_ylim(len(bars) - 0.4, -0.6)
        panel.grid(axis="y", visible=False)
    panels[-1, 0].set_xlim(0, max(ends) * 1.2)
    panels[-1, 0].set_xlabel("time after loss or movement (ms)")
    from matplotlib.patches import Patch

    handles = [Patch(facecolor=colour, hatch=hatch, edgecolor="white", linewidth=0.3, label=label)
               for stage, label, colour, hatch in STAGES if stage in shown]  # fmt: skip
    figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=8)
    return figure


def _draw_stages(panel: "Axes", row: int, found: Sequence[dict[str, float | None]], shown: set[str]) -> float:
    """One bar; where it ends, ms. Adds the stages that are seen to `shown`."""
    position, medians = 0.0, {}
    for stage, *_ in STAGES:
        if moments := [stages[stage] for stages in found if stages.get(stage) is not None]:
            medians[stage] = statistics.median(moments)
    moments = until_first_packet(medians)
    for stage, _, colour, hatch in STAGES:
        moment = moments.get(stage)
        if moment is None or moment < position:
            continue
        panel.barh(row, moment - position, left=position, color=colour, hatch=hatch, edgecolor="white",
                   linewidth=0.3, height=0.62)  # fmt: skip
        shown.add(stage)
        position = moment
    panel.annotate(f"{position:.0f} ms, n = {len(found)}", (position, row), xytext=(5, 0), va="center",
                   textcoords="offset points", fontsize=8)  # fmt: skip
    return position


def _numeric(collection: Collection) -> list[str]:
    """Parameters that take three or more numbers as values."""
    names = {name for entry in collection.entries for name in entry.parameters}
    return sorted(name for name in names if len(values := collection.values(name)) >= 3 and all(
        isinstance(value, (int, float)) and not isinstance(value, bool) for value in values))  # fmt: skip


def _axis(parameter: str) -> str:
    """A parameter's name in words."""
    words = {"ha_distance_ms": "the home agent's distance, one way (ms)",
             "cn_distance_ms": "the correspondent node's distance, one way (ms)"}  # fmt: skip
    return words.get(parameter, parameter.replace("_", " "))


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
    panels[-1, 0].set_xlabel(_axis(parameter))
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=2, fontsize=8)
    return figure
