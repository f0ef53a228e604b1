"""The book of results: what is run for it, and how its figures get into the pages."""

import re
import time
from collections import Counter
from pathlib import Path

import pytest
from test_report_comparison import run

from testbed.experiment.book import Page, load_book, planned, write_pages
from testbed.experiment.narrator import Narrator
from testbed.experiment.profile import ProfileError
from testbed.experiment.series import Outcome, Series
from testbed.experiment.sweep import check
from testbed.report.book import fill, marks
from testbed.report.collection import Collection, Entry, read_collection
from testbed.report.result import ResultError

RESULTS = Path(__file__).parents[2] / "docs" / "results"
BOOK = """
[[page]]
name = "one"
figures = ["interruption-cdf"]
[[page.grid]]
repeat = 2
strategy = ["static", "none"]
scenario = ["link-loss"]
links = [["wlan", "4g"]]
[[page]]
name = "two"
[[page.grid]]
strategy = ["static", "single"]
scenario = ["link-loss"]
links = [["wlan", "4g"]]
"""


@pytest.fixture
def collection(tmp_path):
    for number in (1, 2, 3):
        run(tmp_path / "runs", "static", number, 100.0 + number)
        run(tmp_path / "runs", "none", number, 2000.0)
        run(tmp_path / "runs", "static", number, 50.0, scenario="announced-loss")
    return read_collection([tmp_path / "runs"])


@pytest.fixture
def pages(tmp_path):
    (tmp_path / "book.toml").write_text(BOOK)
    return tmp_path


def test_a_value_is_the_median_of_its_case_however_often_it_is_written(collection):
    page = "it took <!-- value static link-loss interruption_ms -->7 ms<!-- end --> then."
    filled = fill(page, collection)
    assert re.sub("<!--.*?-->", "", filled) == "it took 102.0 ms then."
    assert fill(filled, collection) == filled


def test_a_table_has_the_cases_that_fit_and_leaves_out_what_they_share(collection):
    filled = fill("<!-- table link-loss interruption_ms,lost_percent -->old<!-- end -->", collection)
    lines = filled.splitlines()
    assert [line.split("|")[1].strip() for line in lines[3:5]] == ["none", "static"]
    assert "[101.0; 103.0]" in lines[4] and "old" not in filled and lines[-1] == "<!-- end -->"


def test_what_has_not_been_measured_is_said():
    empty = Collection()
    for mark in ("value static interruption_ms", "table interruption_ms", "runs"):
        assert "(not measured)" in fill(f"<!-- {mark} -->5<!-- end -->", empty)


def test_runs_tell_what_they_ran_on(collection):
    assert "9 runs of 3 cases" in fill("<!-- runs --><!-- end -->", collection)
    assert "3 runs of 1 cases" in fill("<!-- runs none --><!-- end -->", collection)


@pytest.mark.parametrize(
    ("mark", "words"),
    [
        ("value static interruption_ms", "fits several cases: announced-loss; link-loss"),
        ("value static intteruption_ms", "'intteruption_ms' is no metric"),
        ("table", "is no metric"),
    ],
)
def test_a_mark_that_cannot_be_meant_is_quoted(collection, mark, words):
    with pytest.raises(ResultError) as error:
        fill(f"<!-- {mark} --><!-- end -->", collection)
    assert words in str(error.value) and mark in str(error.value)


def test_each_page_has_figures_of_its_own_cases(pages, collection):
    for name in ("one", "two", "README"):
        (pages / f"{name}.md").write_text("<!-- table interruption_ms --><!-- end -->")
    written = write_pages(load_book(pages / "book.toml"), collection, pages)
    assert [file.name for file in written] == ["one.md", "one-interruption-cdf.png", "two.md", "README.md"]
    assert "| none |" in (pages / "one.md").read_text()
    two = (pages / "two.md").read_text()
    assert "none" not in two and "announced" not in two and "102.0" in two


def test_every_case_is_run_once_before_any_is_repeated(pages):
    cases = planned(load_book(pages / "book.toml").page, seed=1)
    assert [case.repetition for case in cases] == [1, 1, 1, 2, 2]
    assert Counter(case.parameters["strategy"] for case in cases) == {"static": 2, "none": 2, "single": 1}
    assert [c.repetition for c in planned(load_book(pages / "book.toml").page, 1, repeat=1)] == [1, 1, 1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("page = []", "page: expected at least one"),
        ('[[page]]\nname = "x"\ngird = []', "gird"),
        ('[[page]]\nname = "x"\n[[page.grid]]\nrepeat = 0', "page x, grid[0].repeat: 0 is none."),
        ('[[page]]\nname = "x"\n[[page.grid]]\nstrategy = "static"', "grid[0].strategy: expected a list"),
    ],
)
def test_a_wrong_book_gets_one_sentence(tmp_path, text, words):
    (tmp_path / "book.toml").write_text(text)
    with pytest.raises(ProfileError) as error:
        load_book(tmp_path / "book.toml")
    assert words in str(error.value) and str(tmp_path) in str(error.value)


def test_a_series_begins_nothing_that_would_not_be_over_in_time(pages, capsys):
    cases = planned(load_book(pages / "book.toml").page, seed=1)
    series = Series("book", cases, pages / "out", Narrator())
    series.outcomes = {"before": Outcome(key="before", state="done", attempts=1, seconds=600.0)}
    assert not series.run(until=time.monotonic() + 60)
    assert "5 cases are left for another time" in capsys.readouterr().out
    assert not (pages / "out" / "cases").exists()


def test_every_mark_of_the_book_is_about_cases_that_it_runs():
    book = load_book(RESULTS / "book.toml")
    cases = planned(book.page, book.seed)
    assert check(cases)[1].keys() <= {"mirrored", "mptcp"}  # what a machine may lack
    for page in book.page:
        text = (RESULTS / f"{page.name}.md").read_text()
        assert marks(text)
        for mark in marks(text):
            fitting = [case for case, _ in page.cases() if fits(case, mark.words)]
            assert len(fitting) == 1 if mark.kind == "value" else fitting, (page.name, mark.words)
        drawn = {f"{page.name}-{name}.png" for name in page.figures}
        assert set(re.findall(r"\((\S+\.png)\)", text)) == drawn


def fits(case, words):
    return all(map(Entry(Path(), None, case.kind, case.parameters, 1).fits, words))


def test_every_page_of_results_is_in_the_book():
    assert {file.stem for file in RESULTS.glob("*.md")} == {
        page.name for page in load_book(RESULTS / "book.toml").page} | {"README"}  # fmt: skip


def test_a_page_without_cases_asks_for_nothing():
    assert Page(name="empty").cases() == []
