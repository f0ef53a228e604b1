"""Figures of the testbed's own measurements in pages of text: Markdown with marks, filled again and again.

Functions: `fill`, `fill_files`, `names`. A mark is a pair of comments, which no reader sees, around what is
written anew; NAME is that of a measurement (`bench NAME`)::

    <!-- bench NAME -->...<!-- end -->                      a line a figure
    <!-- bench NAME: WHAT | WHAT -->...<!-- end -->         a line a SUBJECT, of figures named SUBJECT: WHAT
    <!-- figure NAME: SUBJECT: WHAT -->1.2 s<!-- end -->    the median of one
    <!-- circumstances NAME -->...<!-- end -->              how often, when, on what, how busy that was
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from testbed.experiment.bench import Figure, digits
from testbed.measure.checkout import named

_MARK = re.compile(r"<!-- (bench|figure|circumstances) (\w+)(?:: ([^<>]*?))? -->(.*?)<!-- end -->", re.DOTALL)
_NOT_MEASURED = "(not measured)"


def fill(text: str, documents: Iterable[dict]) -> str:
    """The page with the figures of these documents (`bench.finish`); marks of other measurements stay as they
    are."""
    by_name = {document["bench"]: document for document in documents}

    def filled(match: re.Match) -> str:
        kind, name, what, before = match.groups()
        content = _content(kind, by_name[name], what or "") if name in by_name else before
        return f"{match.group(0).partition('-->')[0]}-->{content}<!-- end -->"

    return _MARK.sub(filled, text)


def names(text: str) -> list[str]:
    """The measurements that the marks of a page are about, a name a mark."""
    return [match.group(2) for match in _MARK.finditer(text)]


def fill_files(folder: Path, documents: Sequence[dict]) -> list[Path]:
    """Fill all pages in `folder` that have marks; those that have changed."""
    written = []
    for file in sorted(folder.glob("*.md")):
        text = file.read_text(encoding="utf-8")
        filled = fill(text, documents)
        if filled != text:
            file.write_text(filled, encoding="utf-8")
            written.append(file)
    return written


def _content(kind: str, document: dict, what: str) -> str:
    figures = {figure["name"]: Figure.from_json(figure) for figure in document["figures"]}
    if kind == "circumstances":
        return _circumstances(document)
    if kind == "figure":
        figure = figures.get(what)
        return f"{digits(figure.median)} {figure.unit}".rstrip() if figure else _NOT_MEASURED
    columns = [column.strip() for column in what.split("|")] if what else []
    table = _by_subject(figures, columns) if columns else _all(figures.values())
    return f"\n{table}\n" if table else _NOT_MEASURED


def _circumstances(document: dict) -> str:
    return (
        f"Median (lowest – highest) of {document['repetitions']}; {document['time'][:10]}, "
        f"commit {named(document)}, Linux {document['kernel']}, {document['processors']} × "
        f"{document['processor']}, Python {document['python']}; others used "
        f"{document['others_percent']:.0f} % of the processors."
    )


def _all(figures: Iterable[Figure]) -> str:
    lines = ["| figure | measured | unit | goal |", "| --- | --- | --- | --- |"]
    for figure in figures:
        lines.append(f"| {figure.name} | {_cell(figure)} | {figure.unit} | {_goal(figure)} |")
    return "\n".join(lines)


def _by_subject(figures: dict[str, Figure], columns: list[str]) -> str:
    """Empty where there is no such figure."""
    names = [name.removesuffix(f": {columns[0]}") for name in figures if name.endswith(f": {columns[0]}")]
    rows = {name: [figures.get(f"{name}: {column}") for column in columns] for name in names}
    if not rows:
        return ""
    heads = []
    alike = []
    for index, column in enumerate(columns):
        there = [row[index] for row in rows.values() if row[index] is not None]
        goals = {_goal(figure) for figure in there}
        alike.append(len(goals) == 1)
        unit = there[0].unit if there else ""
        head = f"{column}, {unit}" if unit else column
        heads.append(f"{head} ({goals.pop()})" if len(goals) == 1 and goals != {""} else head)
    lines = [f"| | {' | '.join(heads)} |", f"| --- |{' --- |' * len(columns)}"]
    for name, row in rows.items():
        cells = []
        for figure, same in zip(row, alike, strict=True):
            goal = "" if figure is None or same or not _goal(figure) else f"; {_goal(figure)}"
            cells.append("–" if figure is None else _cell(figure) + goal)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(figure: Figure) -> str:
    shown = digits(figure.median)
    if len(figure.values) > 1:
        shown += f" ({digits(min(figure.values))} – {digits(max(figure.values))})"
    return f"{shown} **missed**" if figure.reached is False else shown


def _goal(figure: Figure) -> str:
    if figure.goal is None:
        return ""
    if figure.tolerance is not None:
        return f"{figure.goal:,g} ± {figure.tolerance:g}"
    return f"{'≤' if figure.at_most else '≥'} {figure.goal:,g}"
