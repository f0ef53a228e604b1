"""Figures from a result, and from nothing else. Functions: `draw_all`, `draw_throughput`, `draw_delay`,
`draw_handover`, `draw_stages`, `until_first_packet`.

Colours are those of Okabe and Ito, which the colour-blind can tell apart; paths differ in marker and
hatching as well, for print. matplotlib is imported when something is drawn: it takes half a second.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from testbed.report.result import Handover, Result
from testbed.report.table import short_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Blue, orange, green, purple, light blue, vermilion: for paths in their order.
PATH_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
_LOST_COLOUR = "#D55E00"
_EVENT_COLOUR = "#444444"
_HATCHES = ("", "////", "....", "xxxx", "\\\\\\\\", "----")
_MARKERS = ("o", "^", "s", "D", "v", "P")
STAGES = (  # stage, what the time before it was spent on, colour, hatching
    ("detected", "detection", "#999999", ""),
    ("care_of_address", "new address", "#F0E442", "...."),
    ("binding_update_sent", "Binding Update made", "#56B4E9", ""),
    ("binding_update_received", "on the way to the home agent", "#0072B2", "////"),
    ("datapath_ready", "home agent's forwarding", "#009E73", ""),
    ("first_packet", "first packet on the new path", "#E69F00", "\\\\\\\\"),
)
_ACKNOWLEDGED = "Acknowledgement back"
STYLE = {"font.size": 9, "axes.titlesize": 10, "axes.spines.top": False, "axes.spines.right": False,
          "axes.grid": True, "grid.color": "#DDDDDD", "grid.linewidth": 0.6, "axes.axisbelow": True,
          "hatch.linewidth": 0.5, "legend.frameon": False, "pdf.fonttype": 42, "svg.fonttype": "none",
          "figure.dpi": 150}


def draw_all(result: Result, directory: str | Path, formats: Iterable[str] = ("png", "pdf")) -> list[Path]:
    """Write every figure in every format ("png", "pdf", "svg"); the files, in order. Raises OSError."""
    import matplotlib

    matplotlib.use("Agg")
    formats = tuple(formats)
    files: list[Path] = []
    with matplotlib.rc_context(STYLE):
        files += _save(draw_throughput(result), Path(directory) / "throughput", formats)
        files += _save(draw_delay(result), Path(directory) / "delay", formats)
        if _measured(result):
            files += _save(draw_stages(result), Path(directory) / "handover-stages", formats)
        for number, handover in enumerate(_measured(result), 1):
            figure = draw_handover(result, handover)
            if figure is not None:
                stem = f"handover-{number:02}-{_slug(handover.text)}"
                files += _save(figure, Path(directory) / stem, formats)
    return files


def draw_throughput(result: Result) -> "Figure":
    """One panel a flow: what arrived by each access link in each 0.1 s, the causes as vertical lines."""
    series, interfaces = result.time_series, result.interfaces
    figure, panels = _panels(len(series.flows), 1.15)
    times = [index * series.interval_s for index in range(series.bins + 1)]
    for panel, (name, flow) in zip(panels, series.flows.items(), strict=True):
        base = [0.0] * series.bins
        for index, interface in enumerate(interfaces):
            values = flow.throughput_bps.get(interface)
            if not values or not any(values):
                continue
            top = [low + value / 1e6 for low, value in zip(base, values, strict=True)]
            colour = PATH_COLOURS[index % len(PATH_COLOURS)]
            panel.fill_between(times, [*base, base[-1]], [*top, top[-1]], step="post", facecolor=colour,
                               alpha=0.75, hatch=_HATCHES[index % len(_HATCHES)], edgecolor="white",
                               linewidth=0)
            base = top
        _name(panel, name)
        panel.set_ylim(bottom=0, top=max(*base, 0.01) * 1.15)
    _mark_causes(panels, result)
    panels[0].set_xlim(0, result.duration_s)
    panels[-1].set_xlabel("time (s)")
    figure.supylabel("throughput (Mbit/s, payload, mean of 0.1 s)", fontsize=9)
    figure.suptitle(f"Throughput of each flow by access link: {result.experiment}", fontsize=11)
    _path_legend(figure, interfaces)
    return figure


def draw_delay(result: Result) -> "Figure":
    """One panel a flow: the median one-way delay of what was sent in each 0.1 s, a cross where some of it was
    lost, the causes as vertical lines."""
    from matplotlib.lines import Line2D

    series = result.time_series
    figure, panels = _panels(len(series.flows), 1.15)
    colour = PATH_COLOURS[0]
    for panel, (name, flow) in zip(panels, series.flows.items(), strict=True):
        delays = [float("nan") if delay is None else delay for delay in flow.one_way_delay_ms]
        middles = [(index + 0.5) * series.interval_s for index in range(len(delays))]
        panel.plot(middles, delays, color=colour, linewidth=1.1, marker=".", markersize=2.5)
        lossy = [middle for middle, lost in zip(middles, flow.lost, strict=True) if lost]
        _name(panel, name)
        if lossy:
            panel.plot(lossy, [0.04] * len(lossy), "x", color=_LOST_COLOUR, markersize=4, markeredgewidth=1,
                       transform=panel.get_xaxis_transform(), clip_on=False)
            panel.set_title(f"{sum(flow.lost)} lost", loc="right", fontsize=8, color=_EVENT_COLOUR, pad=3)
        known = [delay for delay in flow.one_way_delay_ms if delay is not None]
        panel.set_ylim(0, max(known, default=1.0) * 1.12)
    _mark_causes(panels, result)
    panels[0].set_xlim(0, result.duration_s)
    panels[-1].set_xlabel("time of sending (s)")
    figure.supylabel("one-way delay (ms, median of 0.1 s)", fontsize=9)
    figure.suptitle(f"One-way delay of each flow, and losses: {result.experiment}", fontsize=11)
    handles = [Line2D([], [], color=colour, linewidth=1.1, label="one-way delay"),
               Line2D([], [], linestyle="none", marker="x", color=_LOST_COLOUR, label="some lost"),
               _cause_handle()]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=8)
    return figure


def draw_handover(result: Result, handover: Handover) -> "Figure | None":
    """One panel a flow: one-way delay over the time of sending, each packet in the colour of its path; lost
    ones on the lower edge. None if nothing was sent around the cause."""
    if not handover.packets:
        return None
    figure, panels = _panels(len(handover.packets), 1.2)
    lost_anywhere = False
    for panel, (name, packets) in zip(panels, handover.packets.items(), strict=True):
        for index in range(len(result.interfaces)):
            points = [(sent, delay) for sent, delay, path in zip(
                packets.sent_ms, packets.delay_ms, packets.path, strict=True)
                if delay is not None and path == index]
            if points:
                panel.plot(*zip(*points, strict=True), linestyle="none", markersize=2.6, markeredgewidth=0,
                           marker=_MARKERS[index % len(_MARKERS)],
                           color=PATH_COLOURS[index % len(PATH_COLOURS)])
        known = [delay for delay in packets.delay_ms if delay is not None]
        panel.set_ylim(0, max(known, default=1.0) * 1.12)
        lost = [sent for sent, delay in zip(packets.sent_ms, packets.delay_ms, strict=True) if delay is None]
        if lost:
            lost_anywhere = True
            panel.plot(lost, [0.04] * len(lost), "x", color=_LOST_COLOUR, markersize=4, markeredgewidth=1,
                       transform=panel.get_xaxis_transform(), clip_on=False)
        panel.axvline(0, color=_EVENT_COLOUR, linewidth=0.9, linestyle=(0, (4, 2)))
        _name(panel, name)
        _summarise(panel, result, handover, name)
    first = handover.stages_ms.get("first_packet")
    if first is not None:
        for panel in panels:
            panel.axvline(first, color=_EVENT_COLOUR, linewidth=0.7, linestyle=":")
    panels[-1].set_xlabel("time of sending after the cause (ms)")
    figure.supylabel("one-way delay (ms)", fontsize=9)
    figure.suptitle(f"Packets around the handover at {handover.at_s:.1f} s: {handover.text}", fontsize=11)
    _path_legend(figure, result.interfaces, markers=True, lost=lost_anywhere, first=first is not None)
    return figure


def draw_stages(result: Result) -> "Figure":
    """One bar a handover: what the time from the cause to the first packet on the new path was spent on."""
    import matplotlib.pyplot as pyplot

    found = _measured(result)
    figure, axes = pyplot.subplots(figsize=(7.2, 1.6 + 0.42 * len(found)), layout="constrained")
    reached = [value for one in found for value in one.stages_ms.values() if value is not None]
    longest = max(reached, default=1.0) or 1.0
    shown = set()
    for row, handover in enumerate(found):
        position, moments = 0.0, until_first_packet(handover.stages_ms)
        for stage, label, colour, hatch in STAGES:
            moment = moments.get(stage)
            if moment is None or moment < position:
                continue
            axes.barh(row, moment - position, left=position, color=colour, hatch=hatch, edgecolor="white",
                      linewidth=0.3, height=0.62, label=label if stage not in shown else None)
            shown.add(stage)
            position = moment
        text = f"{position:.1f} ms" if position else "no trace"
        if position and handover.stages_ms.get("first_packet") is None:
            text += " (no flow moved)"
        axes.text(position + longest * 0.012, row, text, va="center", fontsize=8)
        acknowledged = handover.stages_ms.get("binding_acknowledgement_received")
        if acknowledged is not None:
            axes.plot(acknowledged, row, marker="|", color="black", markersize=13, markeredgewidth=1.6,
                      linestyle="none", label=None if "ack" in shown else _ACKNOWLEDGED)
            shown.add("ack")
    axes.set_yticks(range(len(found)), [f"{one.text}\n{one.at_s:.1f} s" for one in found], fontsize=8)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set_xlim(0, longest * 1.28)
    axes.set_xlabel("time after the cause (ms)")
    figure.suptitle(f"Handover latency by stages: {result.experiment}", fontsize=11)
    if shown:
        order = [label for _, label, _, _ in STAGES] + [_ACKNOWLEDGED]
        handles, labels = axes.get_legend_handles_labels()
        legend = sorted(zip(labels, handles, strict=True), key=lambda entry: order.index(entry[0]))
        figure.legend([handle for _, handle in legend], [label for label, _ in legend],
                      loc="outside lower center", ncols=3, fontsize=8)
    return figure


def until_first_packet(stages_ms: Mapping[str, float | None]) -> dict[str, float]:
    """The stages that there is a trace of, without those after the first packet on the new path: it did not
    wait for a home agent that its flow does not go through."""
    end = stages_ms.get("first_packet")
    return {stage: moment for stage, moment in stages_ms.items()
            if moment is not None and (end is None or moment <= end)}


def _panels(count: int, height: float) -> "tuple[Figure, Sequence[Axes]]":
    import matplotlib.pyplot as pyplot

    figure, panels = pyplot.subplots(count, 1, sharex=True, squeeze=False, layout="constrained",
                                     figsize=(7.2, 1.5 + height * count))
    return figure, panels[:, 0]


def _name(panel: "Axes", name: str) -> None:
    panel.set_title(name, loc="left", fontsize=9, fontweight="bold", pad=3)


def _summarise(panel: "Axes", result: Result, handover: Handover, name: str) -> None:
    """What the handover did to this flow, in words above its panel."""
    flow = handover.flows.get(name)
    if flow is None:
        return
    words = []
    if flow.new_path is not None:
        words.append(f"to {short_name(flow.new_path, result.interfaces)} after {flow.first_packet_ms:.1f} ms")
    words.append(f"{flow.lost} of {flow.sent} lost" if flow.lost else "nothing lost")
    if flow.duplicates:
        words.append(f"{flow.duplicates} duplicates")
    if flow.interruption_ms is not None:
        words.append(f"longest gap {flow.interruption_ms:.0f} ms")
    panel.set_title(", ".join(words), loc="right", fontsize=8, color=_EVENT_COLOUR, pad=3)


def _mark_causes(panels: "Sequence[Axes]", result: Result) -> None:
    """A line at each cause, its words above the first panel, slanted so that neighbours do not overlap."""
    causes = {(one.at_s, one.text) for one in _measured(result)}
    causes |= {(event["at_s"], event.get("text") or event["event"]) for event in result.events
               if event["event"] in ("link-going-down", "link-change") and event["at_s"] >= 0}
    for at_s, text in sorted(causes):
        for panel in panels:
            panel.axvline(at_s, color=_EVENT_COLOUR, linewidth=0.9, linestyle=(0, (4, 2)))
        panels[0].annotate(text, (at_s, 1), xycoords=("data", "axes fraction"), xytext=(0, 13),
                           textcoords="offset points", rotation=35, fontsize=7.5, color=_EVENT_COLOUR,
                           ha="left", va="bottom", rotation_mode="anchor")


def _cause_handle() -> object:
    from matplotlib.lines import Line2D

    return Line2D([], [], color=_EVENT_COLOUR, linewidth=0.9, linestyle=(0, (4, 2)), label="cause")


def _measured(result: Result) -> list[Handover]:
    """The handovers while traffic was measured; what was set up before is in the tables alone."""
    return [handover for handover in result.handovers if handover.at_s >= 0]


def _path_legend(figure: "Figure", interfaces: Sequence[str], markers: bool = False, lost: bool = False,
                 first: bool = False) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[object] = []
    for index, interface in enumerate(interfaces):
        colour, label = PATH_COLOURS[index % len(PATH_COLOURS)], f"by {short_name(interface, interfaces)}"
        handles.append(Line2D([], [], linestyle="none", marker=_MARKERS[index % len(_MARKERS)], color=colour,
                              label=label) if markers else
                       Patch(facecolor=colour, alpha=0.75, hatch=_HATCHES[index % len(_HATCHES)],
                             edgecolor="white", linewidth=0, label=label))
    if lost:
        handles.append(Line2D([], [], linestyle="none", marker="x", color=_LOST_COLOUR, label="lost"))
    handles.append(_cause_handle())
    if first:
        handles.append(Line2D([], [], color=_EVENT_COLOUR, linewidth=0.7, linestyle=":",
                              label="first packet on the new path arrives"))
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 6), fontsize=8)


def _save(figure: "Figure", stem: Path, formats: Sequence[str]) -> list[Path]:
    import matplotlib.pyplot as pyplot

    files = [stem.with_name(f"{stem.name}.{suffix}") for suffix in formats]
    for file in files:
        figure.savefig(file)
        figure.set_layout_engine("none")  # it stays as laid out for the first file: half the time of the next
    pyplot.close(figure)
    return files


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:40] or "cause"
