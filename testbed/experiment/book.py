"""Which cases a book of results rests on: a file in TOML. Classes: `Book`, `Page`. Functions: `load_book`,
`planned`, `write_pages`::

    seed = 1
    [[page]]
    name = "ncast"                       # the page ncast.md, beside this file
    figures = ["loss-overhead"]          # drawn into ncast-loss-overhead.png
    [[page.grid]]                        # every combination of these
    repeat = 2
    strategy = ["static", "ncast-always"]
    scenario = ["link-loss"]
    links = [["wlan-lossy", "4g"]]

A case that several pages need is run once. The page itself has marks for its figures (`testbed.report.book`).
"""

import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from testbed.experiment.case import Case
from testbed.experiment.options import MAXIMUM_SEED
from testbed.experiment.profile import ProfileError, read_tables
from testbed.experiment.sweep import combinations
from testbed.report.book import fill
from testbed.report.collection import Collection
from testbed.report.comparison_plot import comparison_figures

Repeat = Annotated[int, Meta(ge=1)]
_FIGURE_DPI = 130


class Page(Struct, forbid_unknown_fields=True, kw_only=True):
    """One page: its cases, with how often each is to be run, and the figures drawn from them."""

    name: Annotated[str, Meta(pattern="^[a-z][a-z-]{0,30}$")]
    figures: list[str] = []
    grid: list[dict[str, Any]] = []

    def cases(self) -> list[tuple[Case, int]]:
        """Each case with its number of repetitions."""
        found = []
        for table in self.grid:
            lists = {key: value for key, value in table.items() if key != "repeat"}
            found += [(case, table.get("repeat", 1)) for case in combinations(lists)]
        return found

    def results(self, collection: Collection) -> Collection:
        """Those of this page's cases."""
        wanted = {json.dumps([case.kind, case.parameters], sort_keys=True) for case, _ in self.cases()}
        chosen = [entry for entry in collection.entries if entry.group in wanted]
        return Collection(chosen, collection.skipped).select(())


class Book(Struct, forbid_unknown_fields=True, kw_only=True):
    """The file: pages, and what the random numbers of all their cases begin from."""

    seed: Annotated[int, Meta(ge=0, le=MAXIMUM_SEED)] = 1
    page: Annotated[list[Page], Meta(min_length=1)]


def load_book(path: str | Path) -> Book:
    """Read and check a book. Raises ProfileError, one sentence that names file and key."""
    book = read_tables(path, Book)
    for page in book.page:
        for index, table in enumerate(page.grid):
            repeat = table.get("repeat", 1)
            if not isinstance(repeat, int) or repeat < 1:
                raise ProfileError(f"{path}: page {page.name}, grid[{index}].repeat: {repeat!r} is none.")
            for key, value in table.items():
                if key != "repeat" and not isinstance(value, list):
                    raise ProfileError(f"{path}: page {page.name}, grid[{index}].{key}: expected a list.")
    return book


def planned(pages: Iterable[Page], seed: int, repeat: int | None = None) -> list[Case]:
    """Every case once, in random order, then again those that are to be repeated, and so on: whenever time is
    over, what there is is balanced. `repeat`: instead of what the pages say."""
    times: dict[str, int] = {}
    cases: dict[str, Case] = {}
    for page in pages:
        for case, wanted in page.cases():
            cases[case.group] = case
            times[case.group] = max(times.get(case.group, 0), repeat or wanted)
    order = []
    for number in range(1, max(times.values(), default=0) + 1):
        turn = [msgspec.structs.replace(case, seed=seed, repetition=number)
                for group, case in cases.items() if times[group] >= number]  # fmt: skip
        random.Random(f"{seed} {number}").shuffle(turn)
        order += turn
    return order


def write_pages(book: Book, collection: Collection, folder: Path) -> list[Path]:
    """Fill the marks of all pages in `folder`, and of its README.md, and draw their figures; the files that
    were written. Raises ResultError, OSError."""
    import matplotlib.pyplot as pyplot

    written = []
    for page in book.page:
        found = page.results(collection)
        written.append(_fill(folder / f"{page.name}.md", found))
        figures = comparison_figures(found) if page.figures and found.entries else {}
        for name, (_, figure) in figures.items():
            if name in page.figures:
                written.append(folder / f"{page.name}-{name}.png")
                figure.savefig(written[-1], dpi=_FIGURE_DPI)
            pyplot.close(figure)
    return [*written, _fill(folder / "README.md", collection)]


def _fill(file: Path, collection: Collection) -> Path:
    file.write_text(fill(file.read_text(encoding="utf-8"), collection), encoding="utf-8")
    return file
