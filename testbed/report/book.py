"""Figures in pages of text: Markdown with marks that are filled from results, again and again.

Functions: `fill`, `marks`. Class: `Mark`. A mark is a pair of comments, which no reader sees, around what is
written anew; SELECTION chooses cases by the values of their parameters (`Collection.select`)::

    <!-- value static link-loss first_packet_ms -->91.2 ms<!-- end -->    the median of one case
    <!-- table link-loss interruption_ms,lost_percent -->...<!-- end -->  a line a case
    <!-- runs SELECTION -->...<!-- end -->                               how many, on what
"""

import re
import statistics
from collections.abc import Callable
from dataclasses import dataclass

from testbed.measure.checkout import named
from testbed.report.collection import Collection, values_of
from testbed.report.markdown import markdown_table
from testbed.report.metric import METRICS, Metric, by_name
from testbed.report.result import ResultError

_MARK = re.compile(r"<!-- (value|table|runs)((?: [^\s<>]+)*?) -->(.*?)<!-- end -->", re.DOTALL)
_NOT_MEASURED = "(not measured)"


@dataclass(frozen=True, slots=True)
class Mark:
    """What is asked for: `kind` is "value", "table" or "runs"; `words` select cases."""

    kind: str
    words: tuple[str, ...]
    metrics: tuple[Metric, ...]


def marks(text: str) -> list[Mark]:
    """The marks of a page, in order. Raises ResultError for a metric that there is not."""
    return [_mark(match) for match in _MARK.finditer(text)]


def fill(text: str, collection: Collection) -> str:
    """The page with the figures of these results. Raises ResultError, one sentence that quotes the mark."""

    def filled(match: re.Match) -> str:
        mark = _mark(match)
        found = collection.select(mark.words)
        if mark.kind == "value":
            content = _value(mark, found)
        elif mark.kind == "runs":
            content = _runs(found)
        else:
            content = "\n" + (markdown_table(found, mark.metrics) if found.entries else _NOT_MEASURED + "\n")
        begin = match.group(0).partition("-->")[0] + "-->"
        return f"{begin}{content}<!-- end -->"

    return _MARK.sub(filled, text)


def _mark(match: re.Match) -> Mark:
    kind, words = match.group(1), match.group(2).split()
    if kind == "runs":
        return Mark(kind, tuple(words), ())
    known = {metric.name for metric in METRICS}
    names = words[-1].split(",") if words else []
    for name in names or [""]:
        if name not in known:
            raise ResultError(f"<!-- {kind}{match.group(2)} -->: the last word {name!r} is no metric.")
    return Mark(kind, tuple(words[:-1]), tuple(map(by_name, names)))


def _value(mark: Mark, found: Collection) -> str:
    groups, (metric,) = list(found.groups().values()), mark.metrics
    if len(groups) > 1:
        titles = "; ".join(entries[0].title for entries in groups)
        words = " ".join((*mark.words, metric.name))
        raise ResultError(f"<!-- value {words} --> fits several cases: {titles}.")
    values = values_of((groups or [[]])[0], metric)
    if not values:
        return _NOT_MEASURED
    star = "*" * any(not entry.trusted for entry in groups[0])
    unit = "" if not metric.unit else f" {metric.unit}"
    return f"{metric.text(statistics.median(values))}{unit}{star}"


def _runs(found: Collection) -> str:
    """Number of runs and cases, machine, commit and day, in a sentence or two."""
    if not found.entries:
        return _NOT_MEASURED

    def facts(of: Callable[[dict], object]) -> str:
        return ", ".join(dict.fromkeys(str(of(entry.result.metadata)) for entry in found.entries))

    def fact(name: str) -> str:
        return facts(lambda data: data.get(name))

    busy = sum(not entry.trusted for entry in found.entries)
    backends = {tuple((entry.result.metadata.get("backends") or {}).items()) for entry in found.entries}
    used = sorted({f"{part} by {name}" for pairs in backends for part, name in pairs if name != "none"})
    return (
        f"{len(found.entries)} runs of {len(found.groups())} cases on "
        f"{facts(lambda data: str(data.get('time'))[:10])}, "
        f"commit {facts(named)}; kernel {fact('kernel')}, {fact('system')}, "
        f"{fact('processors')} × {fact('processor')}; {', '.join(used)}. "
        f"In {busy} of them the machine was too busy."
    )
