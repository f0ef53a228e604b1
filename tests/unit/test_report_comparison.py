"""Many results together: statistics, metrics, collections, comparison, the page."""

import csv
import json
import os
import random
import re
import signal
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from test_report_sample import sample

from testbed.experiment.matrix import summary
from testbed.report.collection import read_collection
from testbed.report.command import main
from testbed.report.compare import compare
from testbed.report.comparison_plot import draw_case_stages
from testbed.report.html import write_report
from testbed.report.metric import METRICS, by_name, meets_goal
from testbed.report.result import ResultError, WindowFigures, read_result, write_result
from testbed.report.statistics import cliffs_delta, holm, interval, mann_whitney_p, permutation_p
from testbed.report.table import comparison_table


def run(folder, strategy, repetition, gap_ms, scenario="link-loss", lost=2, busy=False):
    """A result of a case, as a series leaves it."""
    result = sample()
    result.metadata |= {
        "case": {"kind": "steering", "seed": 1, "repetition": repetition,
                 "parameters": {"strategy": strategy, "scenario": scenario, "links": ["wlan", "4g"]}},
        "goal": {"interruption_ms": 200.0, "lost_percent": 5.0},
    }  # fmt: skip
    if not busy:
        result.busy.clear()
    result.windows = {
        name: {
            flow.name: WindowFigures(
                start_s=0, end_s=5, sent=100, lost=lost if name == "events" else 0, duplicates=0, reordered=0,
                reordering_extent=0, late=1, interruption_ms=gap_ms if name == "events" else 20.0,
                one_way_delay_ms=flow.one_way_delay_ms, delay_variation_ms=flow.delay_variation_ms,
                goodput_bps=1e6)
            for flow in result.flows
        }
        for name in ("baseline", "events")
    }  # fmt: skip
    place = folder / "cases" / f"{strategy}-{scenario}-{repetition}"
    place.mkdir(parents=True)
    write_result(result, place / "result.json")


@pytest.fixture
def series(tmp_path):
    for number in range(1, 6):
        run(tmp_path, "static", number, 100.0 + number)
        run(tmp_path, "none", number, 2000.0 + number, lost=40)
    document = {"skipped": {"mirrored": "no <switches> here"}, "cases": [],
                "outcomes": [{"key": "balanced-1", "state": "failed", "reason": "it has died"}]}  # fmt: skip
    (tmp_path / "series.json").write_text(json.dumps(document))
    return tmp_path


def test_the_summary_counts_busy_runs_beside_those_that_its_figures_rest_on(tmp_path):
    run(tmp_path, "static", 1, 100.0)
    run(tmp_path, "static", 2, 900.0, busy=True)
    run(tmp_path, "none", 1, 2000.0, busy=True)
    cases = {case["parameters"]["strategy"]: case for case in summary(read_collection([tmp_path]))["cases"]}
    assert {name: (case["runs"], case["busy"]) for name, case in cases.items()} == {
        "static": (1, 1), "none": (1, 1)}  # fmt: skip
    assert cases["static"]["metrics"]["interruption_ms"]["values"] == [100.0]


def test_exact_tests_give_what_the_tables_say():
    assert mann_whitney_p([1, 2, 3], [4, 5, 6]) == pytest.approx(0.1)
    assert mann_whitney_p([1, 2, 3, 4, 5], [6, 7, 8, 9, 10]) == pytest.approx(2 / 252)
    assert permutation_p([1, 2, 3], [1, 2, 3]) == 1.0
    assert mann_whitney_p([1], [2, 3]) is None


def test_many_values_are_tested_by_the_normal_approximation():
    generator = random.Random(1)
    a = [generator.gauss(0, 1) for _ in range(40)]
    b = [value + 1 for value in a]
    assert mann_whitney_p(a, b) < 0.001 and mann_whitney_p(a, list(reversed(a))) > 0.9
    assert mann_whitney_p([1.0] * 30, [1.0] * 30) == 1.0


def test_tests_rarely_cry_wolf():
    generator = random.Random(2)
    draws = [[[generator.gauss(0, 1) for _ in range(6)] for _ in range(2)] for _ in range(200)]
    assert sum(mann_whitney_p(*pair) < 0.05 for pair in draws) <= 18


def test_confidence_intervals_hold_the_median_about_as_often_as_they_say():
    generator = random.Random(3)
    inside = 0
    for _ in range(200):
        low, high = interval([generator.gauss(10, 2) for _ in range(10)])
        inside += low <= 10 <= high
    assert inside >= 175 and interval([1, 2]) is None


def test_effect_sizes_and_correction():
    assert cliffs_delta([1, 2], [3, 4]) == 1 and cliffs_delta([3, 4], [1, 2]) == -1
    assert cliffs_delta([1, 2], [1, 2]) == 0
    assert holm([0.01, None, 0.04, 0.03]) == [0.03, None, 0.06, 0.06]


def test_a_collection_knows_repetitions_and_what_is_missing(series):
    collection = read_collection([series])
    assert {entries[0].parameters["strategy"]: len(entries) for entries in collection.groups().values()} == {
        "none": 5, "static": 5}  # fmt: skip
    assert collection.skipped == {"mirrored": "no <switches> here"} and "balanced-1" in collection.failed


def test_what_was_skipped_is_known_wherever_the_series_lies(series):
    assert read_collection([series.parent]).skipped == {"mirrored": "no <switches> here"}
    run(series / "elsewhere", "mirrored", 1, 100.0)
    assert read_collection([series.parent]).skipped == {}


@pytest.mark.parametrize("option", ["--dpi=0", "--dpi=x", "--figures=gif", "--markdown=x"])
def test_an_option_that_cannot_be_meant_gets_one_sentence(series, option, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["report", str(series), option])
    assert capsys.readouterr().err.count("\n") == 1


def test_an_interrupted_report_says_so(tmp_path):
    os.mkfifo(tmp_path / "result.json")
    command = [sys.executable, "-m", "testbed.report.command", "report", str(tmp_path)]
    reader = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2],
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's job may ignore it
    )  # fmt: skip
    with open(tmp_path / "result.json", "w"):  # it has begun to read
        reader.send_signal(signal.SIGINT)
        _, error = reader.communicate(timeout=60)
    assert reader.returncode == 130 and error == "\nreport: stopped\n"


def test_where_the_page_cannot_be_written_it_says_so(series, capsys):
    assert main(["report", str(series), "--out", "/proc/nowhere/page.html"]) == 2
    error = capsys.readouterr().err
    assert "(/proc/nowhere); --out chooses another place" in error and error.count("\n") == 1


def test_metrics_of_a_window(series):
    static, none = (read_collection([series / "cases" / f"{name}-link-loss-1"]).entries[0].result
                    for name in ("static", "none"))  # fmt: skip
    assert by_name("interruption_ms").of(static) == 101
    assert by_name("baseline_interruption_ms").of(static) == 20
    assert by_name("lost_percent").of(static) == 2 and by_name("late_percent").of(none) == 1
    assert by_name("goodput_mbit").of(static) == 6
    assert meets_goal(static) is True and meets_goal(none) is False
    for metric in METRICS:
        value = metric.of(static)
        assert value is None or value >= 0, metric.name


def test_metrics_of_the_main_experiment_come_from_the_whole_run():
    assert by_name("interruption_ms").of(sample()) == 48.25 and meets_goal(sample()) is None


def test_the_terminal_table_names_what_differs_and_what_all_share(series):
    text = comparison_table(read_collection([series]), [by_name("interruption_ms")], 100, unicode=False)
    assert re.search(r"static +5 +103\.0", text) and "all: link-loss, wlan + 4g" in text


@pytest.mark.parametrize(
    ("prepare", "words"),
    [
        (lambda folder: None, "no result.json in it"),
        (lambda folder: (folder / "result.json").write_text("{"), "not valid JSON"),
        (lambda folder: (folder / "result.json").write_text('{"schema_version": 99}'), "schema version 99"),
    ],
)
def test_what_cannot_be_read_gets_one_sentence(tmp_path, prepare, words, capsys):
    prepare(tmp_path)
    with pytest.raises(ResultError, match=words):
        read_collection([tmp_path])
    assert main(["report", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_compare_finds_what_changed_and_nothing_else(tmp_path):
    for side, gap in (("a", 100.0), ("b", 60.0)):
        for number in range(1, 9):
            run(tmp_path / side, "static", number, gap + number)
            run(tmp_path / side, "none", number, 2000.0 + number % 3)
    changes = compare(*(read_collection([tmp_path / side]) for side in "ab"))
    (change,) = [change for change in changes if change.significant]
    assert change.case.startswith("static") and change.metric.name == "interruption_ms"
    assert change.verdict == "better, large effect" and change.delta == -1


def test_compare_says_when_there_are_too_few_runs(tmp_path, capsys):
    for side, gap in (("a", 100.0), ("b", 60.0)):
        for number in (1, 2):
            run(tmp_path / side, "static", number, gap + number)
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    assert "With 2 and 2 runs a case, no difference could be: run more" in capsys.readouterr().out
    for number in range(1, 9):
        run(tmp_path / "a", "none", number, 100.0 + number)
        run(tmp_path / "b", "none", number, 100.0 + number)
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    assert "With 2 and 2 runs a case, no difference of 7 of them could be" in capsys.readouterr().out


def test_compare_of_single_runs_says_that_nothing_was_tested(tmp_path, capsys):
    for side in "ab":
        run(tmp_path / side, "static", 1, 100.0)
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    output = capsys.readouterr().out
    assert "0 of 0 comparisons" in output and "A test needs two runs of a case or more in both sets" in output


def test_compare_of_different_cases(tmp_path, capsys):
    run(tmp_path / "a", "static", 1, 100.0)
    run(tmp_path / "b", "none", 1, 100.0)
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 1
    output = capsys.readouterr().out
    assert "Only in" in output and "no case in common" in output


class Page(HTMLParser):
    """Collects what the page refers to, and whether its elements are closed in order."""

    VOID = {"meta", "img", "br"}

    def __init__(self, text):
        super().__init__()
        self.open, self.links, self.identifiers, self.sources, self.words = [], [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.links += [attributes["href"]] if "href" in attributes else []
        self.identifiers += [attributes["id"]] if "id" in attributes else []
        self.sources += [attributes["src"]] if "src" in attributes else []
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def test_the_page_needs_no_network_and_its_links_lead_somewhere(series):
    files = write_report([series], series / "report.html", "Test", ("png", "pdf"))
    assert all(file.stat().st_size > 100 for file in files)
    names = {file.name for file in files}
    assert {"runs.csv", "cases.csv", "interruption-cdf.png", "interruption-cdf.pdf"} <= names
    text = (series / "report.html").read_text()
    page = Page(text)
    assert page.open == [] and len(set(page.identifiers)) == len(page.identifiers)
    assert page.links and all(link.startswith("#") and link[1:] in page.identifiers for link in page.links)
    assert page.sources and all(source.startswith("data:image/") for source in page.sources)
    assert "://" not in text
    words = " ".join(page.words)
    assert "✓" in words and "✕" in words and "mirrored: no <switches> here" in words


def test_the_csv_files_have_all_runs_and_medians(series):
    write_report([series], series / "report.html")
    with open(series / "runs.csv", newline="") as file:
        runs = list(csv.DictReader(file))
    assert len(runs) == 10 and {row["goal_met"] for row in runs} == {"True", "False"}
    with open(series / "cases.csv", newline="") as file:
        rows = {(row["strategy"], row["metric"]): row for row in csv.DictReader(file)}
    assert rows["static", "interruption_ms"]["median"] == "103.0"
    assert float(rows["static", "interruption_ms"]["low_95"]) >= 101


def test_the_bar_of_a_flow_that_avoids_the_home_agent_ends_with_its_first_packet(tmp_path):
    for number, late_ms in enumerate((145.0, 94.0, 146.0), 1):
        run(tmp_path, "route-optimised", number, 100.0)
        place = tmp_path / "cases" / f"route-optimised-link-loss-{number}" / "result.json"
        result = read_result(place)
        loss = next(one for one in result.handovers if one.cause == "link-down" and one.at_s >= 0)
        loss.stages_ms |= {"detected": 1.0, "care_of_address": None, "binding_update_sent": 2.0,
                           "binding_update_received": late_ms, "datapath_ready": late_ms + 1,
                           "first_packet": 95.0}  # fmt: skip
        write_result(result, place)
    figure = draw_case_stages(read_collection([tmp_path]))
    assert [text.get_text() for text in figure.axes[0].texts] == ["95 ms, n = 3"]


def test_a_single_run_of_the_main_experiment_makes_a_page(tmp_path):
    write_result(sample(), tmp_path / "result.json")
    write_report([tmp_path], tmp_path / "report.html")
    assert "multihome" in (tmp_path / "report.html").read_text()


def test_a_table_for_a_book(series, capsys):
    assert main(["report", str(series), "--markdown", "interruption_ms,goodput_mbit"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert (
        lines[0] == "| case | runs | longest interruption of any flow (ms) | goodput of all flows (Mbit/s) |"
    )
    assert any(
        line.startswith("| static, link-loss, wlan + 4g | 5 | 103.0 [101.0; 105.0] | 6.00 |")
        for line in lines
    )
