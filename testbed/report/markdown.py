"""A table of many results as Markdown, for books and papers. Function: `markdown_table`."""

import statistics
from collections.abc import Sequence

from testbed.report.collection import Collection, values_of
from testbed.report.metric import Metric
from testbed.report.statistics import interval


def markdown_table(collection: Collection, metrics: Sequence[Metric]) -> str:
    """One line a case: medians, with 95 % confidence intervals of the median from three runs on."""
    groups = list(collection.groups().values())
    shown = [metric for metric in metrics if any(
        metric.of(entry.result) is not None for entries in groups for entry in entries)]  # fmt: skip
    units = [f" ({metric.unit})" if metric.unit else "" for metric in shown]
    rows = [["case", "runs", *(metric.title + unit for metric, unit in zip(shown, units, strict=True))],
            ["---", "--:", *("--:" for _ in shown)]]  # fmt: skip
    for entries in groups:
        star = "*" * any(not entry.trusted for entry in entries)
        cells = []
        for metric in shown:
            values = values_of(entries, metric)
            cells.append(_estimate(values, metric))
        rows.append([entries[0].label + star, str(len(entries)), *cells])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n"


def _estimate(values: Sequence[float], metric: Metric) -> str:
    if not values:
        return "–"
    text, ends = metric.text(statistics.median(values)), interval(values)
    if ends is None or metric.text(ends[0]) == metric.text(ends[1]):
        return text
    return f"{text} [{metric.text(ends[0])}; {metric.text(ends[1])}]"
