"""Any set of results as one HTML page that needs no network, as CSV, and as figures for papers.

Function: `write_report`.
"""

import base64
import io
import statistics
import time
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from testbed.measure.checkout import named
from testbed.report.collection import Collection, Entry, read_collection, text_of, values_of
from testbed.report.comparison_plot import comparison_figures
from testbed.report.html_style import SCRIPT, STYLESHEET
from testbed.report.metric import METRICS, Metric, meets_goal
from testbed.report.plot import STYLE, draw_delay, draw_stages, draw_throughput
from testbed.report.runs import write_runs_csv
from testbed.report.statistics import interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: What the tables show of each case without opening it.
_MAIN = (
    "interruption_ms", "first_packet_ms", "lost_percent", "delay_p95_ms", "goodput_mbit",
    "duplicates_percent", "reordered_percent", "disturbance_ms", "overhead_percent",
    "signalling_packets",
)  # fmt: skip
_NOT_SHOWN = "–"


def write_report(
    paths: Iterable[str | Path],
    file: str | Path,
    title: str = "Flow bindings",
    formats: Sequence[str] = (),
    dpi: int = 200,
) -> list[Path]:
    """Write the page `file`, and beside it `runs.csv`, `cases.csv`, and the figures in these formats
    ("png", "pdf"); the files. Raises ResultError or OSError."""
    import matplotlib.pyplot as pyplot

    collection, file = read_collection(paths), Path(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    figures = comparison_figures(collection)
    written = [file, *write_runs_csv(collection, file.parent)]
    images = []
    for name, (caption, figure) in figures.items():
        images.append((name, caption, _svg(figure)))
        for suffix in formats:
            written.append(file.with_name(f"{name}.{suffix}"))
            figure.savefig(written[-1], dpi=dpi)
        pyplot.close(figure)
    file.write_text(_page(collection, title, images), encoding="utf-8")
    return written


def _page(collection: Collection, title: str, images: Sequence[tuple[str, str, str]]) -> str:
    groups = list(collection.groups().values())
    matrix = _matrix(collection)
    plots = [
        _image(f"Figure {number}. {caption}", data) for number, (_, caption, data) in enumerate(images, 1)
    ]
    buttons = (
        "<p class='screen'><button type='button' onclick='openAll(true)'>open all</button> "
        "<button type='button' onclick='openAll(false)'>close all</button></p>"
    )
    cases = "".join(_details(entries) for entries in collection.all_groups().values())
    sections = {
        "Strategies and scenarios": matrix,
        "Comparison": f"<div class='figures'>{''.join(plots)}</div>" if plots else "",
        "Figures of all cases": _case_table(groups),
        "Each case": buttons + cases,
        "What the figures mean": _metrics_explained(),
    }
    sections = {name: content for name, content in sections.items() if content}
    parts = [
        f"<h1>{escape(title)}</h1>",
        _provenance(collection),
        "<nav>" + " ".join(f"<a href='#{_slug(name)}'>{name}</a>" for name in sections) + "</nav>",
        *(f"<section><h2 id='{_slug(name)}'>{name}</h2>{content}</section>"
          for name, content in sections.items()),
    ]  # fmt: skip
    return (
        f"<!DOCTYPE html>\n<html lang='en'><head><meta charset='utf-8'><title>{escape(title)}</title>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<style>{STYLESHEET}</style></head>\n<body>\n"
        + "\n".join(parts)
        + f"\n<script>{SCRIPT}</script></body></html>\n"
    )


def _slug(name: str) -> str:
    return name.lower().replace(" ", "-")


def _provenance(collection: Collection) -> str:
    facts: dict[str, list[str]] = {}
    for entry in collection.entries:
        data = entry.result.metadata
        backends = data.get("backends") or {}
        for name, value in (
            ("commit", named(data)),
            ("kernel", data.get("kernel")),
            ("system", data.get("system")),
            ("processor", f"{data.get('processors')} × {data.get('processor')}"),
            ("links by", backends.get("link")),
            ("tunnels by", backends.get("tunnel")),
            ("seed", data.get("case", data).get("seed")),
            ("day", str(data.get("time"))[:10]),
        ):
            if value is not None and str(value) not in facts.setdefault(name, []):
                facts[name].append(str(value))
    if common := ", ".join(text_of(value, name) for name, value in collection.common().items()):
        facts["all runs"] = [common]
    busy = sum(not entry.trusted for entry in collection.entries)
    cells = "".join(
        f"<div><dt>{name}</dt><dd>{escape(', '.join(values))}</dd></div>" for name, values in facts.items()
    )
    warning = (
        f"<p class='warning'>⚠ In {busy} of {len(collection.entries)} runs the machine was too busy: their "
        "figures count only where a case has no other run, and are marked *.</p>"
        if busy
        else ""
    )
    lost = "".join(
        f"<li>{escape(what)}: {escape(reason)}</li>"
        for what, reason in {**collection.skipped, **collection.failed}.items()
    )
    return (
        f"<p>{len(collection.entries)} runs of {len(collection.groups())} cases. Written "
        f"{time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime())} from the result files alone.</p>"
        f"<dl class='facts'>{cells}</dl>{warning}"
        + (f"<p>There is no result of:</p><ul>{lost}</ul>" if lost else "")
    )


def _identifier(entry: Entry) -> str:
    return "case-" + base64.urlsafe_b64encode(entry.group.encode()).decode().rstrip("=")[-40:]


def _matrix(collection: Collection) -> str:
    """Strategy × scenario and links: ✓ if every run got what the scenario asks for."""
    strategies = collection.values("strategy")
    if not strategies:
        return ""
    columns: dict[tuple[str, ...], dict[str, list[Entry]]] = {}
    common = collection.common()
    for entries in collection.groups().values():
        first = entries[0]
        if "strategy" in first.parameters:
            words = tuple(
                text_of(value, name)
                for name, value in first.parameters.items()
                if name == "scenario" or name != "strategy" and name not in common
            )
            columns.setdefault(words, {}).setdefault(first.parameters["strategy"], entries)
    head = "".join(
        f"<th scope='col'>{escape(words[0])}<br><small>"
        + "<br>".join(map(escape, (*words[1:], *_goal(cells))))
        + "</small></th>"
        for words, cells in columns.items()
    )
    rows = []
    for strategy in strategies:
        cells = "".join(_cell(column.get(strategy)) for column in columns.values())
        rows.append(f"<tr><th scope='row'>{escape(strategy)}</th>{cells}</tr>")
    for strategy, reason in collection.skipped.items():
        if strategy not in strategies:
            empty = f"<td class='none' title='{escape(reason, quote=True)}'>{_NOT_SHOWN}</td>" * len(columns)
            rows.append(f"<tr><th scope='row'>{escape(strategy)}</th>{empty}</tr>")
    return (
        "<p>✓: in every run, every flow got what the scenario asks for "
        "(below its name). ✕: not so in at least one run. –: no result; point at it for why. The figure "
        "is the median of the longest interruption of any flow. Follow a cell for its details.</p>"
        f"<div class='wide'><table class='matrix'><thead><tr><td></td>{head}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _goal(cells: dict[str, list[Entry]]) -> list[str]:
    goal = next(iter(cells.values()))[0].result.metadata.get("goal")
    if not goal:
        return []
    loss = [f"loss ≤ {goal['lost_percent']:g} %"] if goal["lost_percent"] < 100 else []
    return [f"gap ≤ {goal['interruption_ms']:g} ms", *loss]


def _cell(entries: list[Entry] | None) -> str:
    if not entries:
        return f"<td class='none' title='not run'>{_NOT_SHOWN}</td>"
    met = [meets_goal(entry.result) for entry in entries]
    passed = all(met)
    value = _median(entries, METRICS[0])
    gap = f"{value:.0f} ms" if value is not None else ""
    star = "*" * any(not entry.trusted for entry in entries)
    short = entries[0].result.metadata.get("not_carried")
    note = f", without {', '.join(short)}" if short else ""
    label = f"{'met' if passed else 'not met'} in {sum(map(bool, met))} of {len(met)} runs{note}"
    return (
        f"<td class='{'pass' if passed else 'fail'}'>"
        f"<a href='#{_identifier(entries[0])}' title='{escape(label)}'>"
        f"<span class='mark'>{'✓' if passed else '✕'}</span> {gap}{star}"
        f" <br><small>{sum(map(bool, met))}/{len(met)}{escape(note)}</small></a></td>"
    )


def _median(entries: Iterable[Entry], metric: Metric) -> float | None:
    values = values_of(entries, metric)
    return statistics.median(values) if values else None


def _estimate(entries: Sequence[Entry], metric: Metric) -> str:
    """Median with its confidence interval, as HTML."""
    values = values_of(entries, metric)
    if not values:
        return _NOT_SHOWN
    text, ends = metric.text(statistics.median(values)), interval(values)
    if ends is None or ends[0] == ends[1]:
        return text
    return f"{text} <small class='interval'>[{metric.text(ends[0])}; {metric.text(ends[1])}]</small>"


def _case_table(groups: Sequence[list[Entry]]) -> str:
    shown = [metric for metric in METRICS if metric.name in _MAIN
             and any(values_of(entries, metric) for entries in groups)]  # fmt: skip
    head = "".join(
        f"<th scope='col'>{escape(m.title)}<br><small>{escape(m.unit)}</small></th>" for m in shown
    )
    rows = []
    for entries in groups:
        star = "*" * any(not entry.trusted for entry in entries)
        cells = "".join(f"<td>{_estimate(entries, metric)}</td>" for metric in shown)
        rows.append(
            f"<tr><th scope='row'><a href='#{_identifier(entries[0])}'>{escape(entries[0].label)}{star}</a>"
            f"</th>"
            f"<td>{len(entries)}</td>{cells}</tr>"
        )
    return (
        "<p>Medians over the repetitions, with 95 % confidence intervals (bootstrap) from three on."
        "<span class='screen'> A click on a heading sorts.</span></p>"
        "<div class='wide'><table class='sortable'><thead><tr><th scope='col'>case</th>"
        f"<th scope='col'>runs</th>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _details(entries: list[Entry]) -> str:
    """A case, closed: figures of each repetition, its flows, time series with events, stages."""
    first = entries[0]
    middle = _typical(entries)
    head = "".join(
        f"<th scope='col'>{entry.repetition}{'' if entry.trusted else '*'}</th>" for entry in entries
    )
    rows = []
    for metric in METRICS:
        if values_of(entries, metric):
            cells = "".join(f"<td>{metric.text(metric.of(entry.result))}</td>" for entry in entries)
            unit = f" ({metric.unit})" if metric.unit else ""
            rows.append(f"<tr><th scope='row'>{escape(metric.title + unit)}</th>{cells}"
                        f"<td>{_estimate(entries, metric)}</td></tr>")  # fmt: skip
    warnings = "".join(f"<li>run {entry.repetition}: {escape(warning)}</li>"
                       for entry in entries for warning in entry.result.warnings)  # fmt: skip
    checks = "".join(f"<li>{'✓' if check.passed else '✕'} {escape(check.text)}: {escape(check.detail)}</li>"
                     for check in middle.result.checks)  # fmt: skip
    return (
        f"<details id='{_identifier(first)}'><summary>{escape(first.label)}</summary>"
        f"<div class='wide'><table><thead><tr><th scope='col'>run</th>{head}<th scope='col'>median</th></tr>"
        f"</thead><tbody>{''.join(rows)}</tbody></table></div>"
        f"<h4>Flows of run {middle.repetition}</h4>{_flow_table(middle)}{_drawn(middle)}"
        + (f"<h4>What the run was to show</h4><ul>{checks}</ul>" if checks else "")
        + (f"<h4>Warnings</h4><ul>{warnings}</ul>" if warnings else "")
        + f"<p class='files'>{'<br>'.join(escape(str(entry.path)) for entry in entries)}</p></details>"
    )


def _typical(entries: Sequence[Entry]) -> Entry:
    """The repetition whose longest interruption is the median one, of those that can be trusted if there
    are any."""
    trusted = [entry for entry in entries if entry.trusted] or list(entries)
    ranked = sorted(trusted, key=lambda entry: METRICS[0].of(entry.result) or 0)
    return ranked[(len(ranked) - 1) // 2]


def _flow_table(entry: Entry) -> str:
    headings = ("flow", "FID", "Mbit/s", "sent", "lost", "at sender / on links / at receiver", "twice",
                "out of order", "by at most", "late", "longest gap ms", "delay ms median", "95 %", "max",
                "variation ms 95 %", "TCP sent again", "TCP round trip ms")  # fmt: skip
    rows = []
    for flow in entry.result.flows:
        delay, at = flow.one_way_delay_ms, flow.lost_at
        cells = [
            flow.fid, _number(flow.goodput_bps and flow.goodput_bps / 1e6, 2), flow.sent, flow.lost,
            at and f"{at.sender} / {at.link} / {at.receiver}", flow.duplicates, flow.reordered,
            flow.reordering_extent, flow.late, _number(flow.interruption_ms),
            *(_number(getattr(delay, name, None)) for name in ("p50", "p95", "max")),
            _number(getattr(flow.delay_variation_ms, "p95", None)), flow.retransmits,
            _number(getattr(flow.round_trip_ms, "p50", None)),
        ]  # fmt: skip
        texts = "".join(f"<td>{_NOT_SHOWN if cell is None else cell}</td>" for cell in cells)
        rows.append(f"<tr><th scope='row'>{escape(flow.name)}</th>{texts}</tr>")
    head = "".join(f"<th scope='col'>{heading}</th>" for heading in headings)
    return (
        f"<div class='wide'><table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _number(value: float | None, digits: int = 1) -> str | None:
    return None if value is None else f"{value:.{digits}f}"


def _drawn(entry: Entry) -> str:
    import matplotlib
    import matplotlib.pyplot as pyplot

    result = entry.result
    if not result.time_series.flows:
        return ""
    with matplotlib.rc_context(STYLE):
        figures = [
            ("Throughput of each flow by access link; dashed: what happened.", draw_throughput(result)),
            ("One-way delay of each flow; crosses: where some was lost.", draw_delay(result)),
        ]
        if any(moment for one in result.handovers if one.at_s >= 0 for moment in one.stages_ms.values()):
            figures.append(("Each handover by stages.", draw_stages(result)))
        parts = [_image(caption, _png(figure), "png") for caption, figure in figures]
        for _, figure in figures:
            pyplot.close(figure)
    return f"<div class='figures'>{''.join(parts)}</div>"


def _metrics_explained() -> str:
    rows = "".join(f"<dt>{escape(metric.title)}</dt><dd>{escape((metric.of.__doc__ or '').strip())}</dd>"
                   for metric in METRICS if metric.of.__doc__)  # fmt: skip
    source = "<p>Definitions with their sources: docs/metrics.md.</p>"
    return f"<dl>{rows}</dl>{source}"


def _image(caption: str, data: str, kind: str = "svg+xml") -> str:
    return (
        f"<figure><img alt='{escape(caption, quote=True)}' src='data:image/{kind};base64,{data}'>"
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _svg(figure: "Figure") -> str:
    """The figure as SVG in base64, with its text as outlines: no fonts are needed to show it."""
    import matplotlib

    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return base64.b64encode(buffer.getvalue()).decode()


def _png(figure: "Figure") -> str:
    """The figure as PNG in base64: of the many of single runs, which would make the page heavy as SVG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return base64.b64encode(buffer.getvalue()).decode()
