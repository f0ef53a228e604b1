"""Narrated experiments several times over: order, seeds, folders, what a busy machine spoils, the summary."""

import io
from argparse import Namespace

import pytest
from test_report_sample import sample

from testbed.experiment.narrator import Narrator
from testbed.experiment.planes import comparison, medians
from testbed.experiment.repetition import mark, run_repeatedly, summarise
from testbed.report.result import Check, write_result

PLANES = [{"steering": "home agent"}, {"steering": "switches"}]


@pytest.fixture
def runs(tmp_path):
    """Calls an experiment whose runs are copies of the sample; `busy` of them, one after the other, are
    spoilt."""
    calls = []

    def run(variants, busy=0, **options):
        arguments = Namespace(**{"repeat": 1, "attempts": None, "seed": 5} | options)

        def once(case, seed, folder):
            calls.append((case.parameters, case.repetition, seed, folder.relative_to(tmp_path).as_posix()))
            result = sample()
            result.busy = sample().busy[:1] if len(calls) <= busy else []
            result.checks = [Check(text="shown", passed=case.repetition != 2, detail="")]
            mark(result, case)
            folder.mkdir(parents=True, exist_ok=True)
            write_result(result, folder / "result.json")
            return result

        found = run_repeatedly("some", arguments, variants, tmp_path, Narrator(io.StringIO()), once)
        return arguments, found, calls

    return run


def test_one_run_has_the_folder_and_the_seed_that_were_asked_for(runs):
    assert runs([{}])[2] == [({}, 1, 5, ".")]


def test_variants_have_folders_of_their_own_and_the_same_seed(runs):
    assert runs(PLANES)[2] == [(PLANES[0], 1, 5, "home-agent"), (PLANES[1], 1, 5, "switches")]


def test_repetitions_are_in_random_order_and_come_back_sorted(runs):
    _, found, calls = runs(PLANES, repeat=4)
    order = [(call[0]["steering"], call[1]) for call in calls]
    assert order != sorted(order) and len(set(order)) == 8
    assert [(case.parameters["steering"], case.repetition) for case, _ in found] == sorted(order)
    assert {call[2] for call in calls if call[1] == 3} == {2005}, "the same seed under each plane"
    assert {call[3] for call in calls} >= {"home-agent-1", "switches-4"}


def test_a_single_run_is_not_repeated_as_people_watch_it(runs):
    assert len(runs([{}], busy=1)[2]) == 1


def test_what_a_busy_machine_spoils_is_run_again(runs):
    _, found, calls = runs([{}], busy=2, repeat=2)
    places = [call[3] for call in calls]
    assert places in (["run-1"] * 3 + ["run-2"], ["run-2"] * 3 + ["run-1"])
    assert len(found) == 2 and not any(result.busy for _, result in found)


def test_the_summary_counts_what_was_shown(runs, tmp_path):
    arguments, found, _ = runs([{}], repeat=3)
    screen = io.StringIO()
    document = summarise(arguments, found, tmp_path, Narrator(screen))
    assert document["checks"] == [{"text": "shown", "passed": 2, "runs": 3}]
    assert document["cases"][0]["runs"] == 3 and document["cases"][0]["metrics"]["delay_p95_ms"]
    assert "2 of 3  shown" in screen.getvalue() and (tmp_path / "report.html").stat().st_size > 10_000


def test_medians_go_figure_by_figure():
    runs = [
        {"flows": {"ssh": {"lost": lost, "delay": None}}, "home_agent": {"packets": 10 * lost}}
        for lost in (3, 1, 2)
    ]
    runs[0]["flows"]["ssh"]["delay"] = 7.0
    assert medians(runs) == {"flows": {"ssh": {"lost": 2, "delay": 7.0}}, "home_agent": {"packets": 20}}


def test_planes_are_side_by_side():
    flow = {"goodput_bps": 5e6, "one_way_delay_ms": None, "interruption_in_handover_ms": 80.0, "lost": 2.5}
    plane = {"flows": {"ssh": flow}, "home_agent": {"packets": 1234.0, "octets": 5}, "signalling": {
        "packets": 4}, "openflow": {"messages": 0, "octets": 0}}  # fmt: skip
    lines = comparison({"home agent": plane, "switches": plane}, ["ssh"]).splitlines()
    assert lines[0].split() == ["home", "agent", "switches"] and lines[2].split() == ["ssh", "5.0", "5.0"]
    assert any(line.split()[-2:] == ["1,234", "1,234"] for line in lines)
