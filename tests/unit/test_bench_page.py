"""Figures of measurements in pages: what a mark gives, what stays, and that the marks of docs are right."""

import re
from pathlib import Path

import pytest

from testbed.experiment.bench import Figure
from testbed.experiment.bench_page import fill, fill_files, names

DOCS = Path(__file__).parents[2] / "docs"
EXPERIMENTS = Path(__file__).parents[2] / "experiments"
FIGURES = (
    Figure("1 mobile node: start", "s", [0.6, 0.5, 0.9], 3.0, at_most=True),
    Figure("1 mobile node: stop", "s", [1.5], 1.0, at_most=True),
    Figure("50 mobile nodes: start", "s", [12.0, 13.0, 14.0], 30.0, at_most=True),
    Figure("idle", "%", [0.0], 0.5, at_most=True),
    Figure("rate", "/s", [12345.0], 10_000),
    Figure("delay", "ms", [10.2], 10.0, tolerance=1),
)
DOCUMENT = {
    "bench": "start",
    "repetitions": 3,
    "time": "2026-01-02T03:04:05Z",
    "commit": "0123456789abcdef",
    "kernel": "6.18.5",
    "processors": 2,
    "processor": "a processor",
    "python": "3.11.2",
    "others_percent": 1.4,
    "figures": [figure.to_json() for figure in FIGURES],
}


def filled(mark: str) -> str:
    """What stands between the two comments."""
    text = fill(f"before <!-- {mark} -->old<!-- end --> after", [DOCUMENT])
    assert fill(text, [DOCUMENT]) == text
    match = re.fullmatch(r"before <!-- (.*?) -->(.*)<!-- end --> after", text, re.DOTALL)
    assert match.group(1) == mark
    return match.group(2)


def test_a_subject_is_a_line_and_what_of_it_a_column():
    assert filled("bench start: start | stop").strip().splitlines() == [
        "| | start, s | stop, s (≤ 1) |",
        "| --- | --- | --- |",
        "| 1 mobile node | 0.600 (0.500 – 0.900); ≤ 3 | 1.500 **missed** |",
        "| 50 mobile nodes | 13.0 (12.0 – 14.0); ≤ 30 | – |",
    ]


def test_all_figures_have_a_line_each_with_goal_and_whether_it_is_missed():
    lines = filled("bench start").strip().splitlines()
    assert len(lines) == 2 + len(FIGURES)
    assert "| 1 mobile node: stop | 1.500 **missed** | s | ≤ 1 |" in lines
    assert "| rate | 12,345 | /s | ≥ 10,000 |" in lines
    assert "| delay | 10.2 | ms | 10 ± 1 |" in lines


def test_a_figure_is_its_median_with_its_unit():
    assert filled("figure start: 1 mobile node: start") == "0.600 s"
    assert filled("figure start: rate") == "12,345 /s"


def test_circumstances_tell_when_and_on_what_and_what_others_did():
    told = filled("circumstances start")
    for fact in ("of 3", "2026-01-02", "0123456789,", "Linux 6.18.5", "2 × a processor", "others used 1 %"):
        assert fact in told


@pytest.mark.parametrize("mark", ["figure start: nothing", "bench start: nothing | start"])
def test_what_has_not_been_measured_is_said(mark):
    assert filled(mark) == "(not measured)"


def test_other_measurements_stay_as_they_are(tmp_path):
    text = "<!-- bench tunnel -->\n| old |\n<!-- end --> <!-- figure tunnel: x -->1<!-- end --> <!-- end -->"
    assert fill(text, [DOCUMENT]) == text
    (tmp_path / "other.md").write_text(text)
    (tmp_path / "page.md").write_text("<!-- figure start: idle --><!-- end -->")
    assert fill_files(tmp_path, [DOCUMENT]) == [tmp_path / "page.md"]


def test_marks_of_the_pages_name_measurements_that_there_are():
    for page in DOCS.glob("*.md"):
        text = page.read_text()
        found = names(text)
        assert all((EXPERIMENTS / f"bench_{name}.py").exists() for name in found), page
        assert len(found) == text.count("<!-- end -->"), f"{page}: a mark that is none"
