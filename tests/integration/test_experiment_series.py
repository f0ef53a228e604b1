"""Experiments that are series of cases, as their users start them: real runs, kept short."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from testbed.emulation.process import wait_until
from testbed.experiment.verdict import lost_in_stalls
from testbed.report.result import read_result

ROOT = Path(__file__).parents[2]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}
SWEEP = """
name = "short"
repeat = 1
[grid]
strategy = ["single", "static", "ncast-always", "per-packet", "none", "mptcp", "route-optimised", "anchored"]
scenario = ["announced-loss"]
links = [["wlan", "4g"]]
pace = [0.4]
"""


#: What is an experiment, and no benchmark of the testbed.
EXPERIMENTS = sorted(file.stem for file in (ROOT / "experiments").glob("[a-z]*.py")
                     if not file.stem.startswith(("bench_", "simulate_")))  # fmt: skip
SAID_ALIKE = ("--quick", "--repeat", "--seed", "--out", "--json")


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_has_the_same_options(experiment):
    done = subprocess.run([sys.executable, f"experiments/{experiment}.py", "--help"], capture_output=True,
                          text=True, cwd=ROOT, env=ENVIRONMENT, timeout=60)  # fmt: skip
    assert done.returncode == 0 and not [option for option in SAID_ALIKE if option not in done.stdout]
    assert "examples:" in done.stdout


def sweep(*arguments, **options):
    command = [sys.executable, "-m", "testbed.experiment.sweep", *arguments, "--attempts", "1"]
    command.append("--share-machine")
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
                            env=ENVIRONMENT, **options)  # fmt: skip


def results(folder):
    found = {}
    for file in folder.glob("cases/*/result.json"):
        result = read_result(file)
        found[result.metadata["case"]["parameters"]["strategy"]] = result
    return found


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    """A sweep that is interrupted after its first case, and then said again."""
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "sweep.toml").write_text(SWEEP)
    first = sweep(str(folder / "sweep.toml"), "--out", str(folder / "out"))

    def has_a_case() -> list:
        assert first.poll() is None, first.communicate()
        return list(folder.glob("out/cases/*/result.json"))

    wait_until(has_a_case, 600, "the end of the first case")
    first.send_signal(signal.SIGINT)
    _, errors = first.communicate(timeout=60)
    assert first.returncode == 130, errors
    kept = {file: file.stat().st_mtime_ns for file in folder.glob("out/cases/*/result.json")}
    second = sweep(str(folder / "sweep.toml"), "--out", str(folder / "out"))
    output, errors = second.communicate(timeout=600)
    return folder / "out", second.returncode, output, errors, kept


def test_an_interrupted_sweep_goes_on_where_it_was(series):
    folder, status, output, errors, kept = series
    assert status == 0, errors
    assert kept and all(file.stat().st_mtime_ns == before for file, before in kept.items())
    assert "finished already" in errors and "min to go" in errors
    assert len(json.loads((folder / "series.json").read_text())["outcomes"]) >= 5
    assert (folder / "report.html").stat().st_size > 100_000 and "static" in output


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_whatever_ends_a_sweep_ends_its_case(number, tmp_path):
    (tmp_path / "sweep.toml").write_text(SWEEP)
    running = sweep(str(tmp_path / "sweep.toml"), "--out", str(tmp_path / "out"))

    def cases():
        found = []
        for file in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                found += [file.parent.name] if f"{tmp_path}/out/cases".encode() in file.read_bytes() else []
        return found

    def is_there() -> bool:
        assert running.poll() is None, running.communicate()
        return len(cases()) >= 3  # its own process, the init of its namespaces, the program

    wait_until(is_there, 60, "a case")
    running.send_signal(number)
    running.communicate()
    wait_until(lambda: not cases(), 10, "the end of the case")


def test_every_strategy_carried_its_flows_as_it_says(series):
    found = results(series[0])
    mixed = {"ssh", "voip", "video", "download"}
    for name, result in found.items():
        expected = {"ssh", "download"} if name == "mptcp" else mixed
        assert {flow.name for flow in result.flows} == expected, name
        assert {"baseline", "events"} == set(result.windows), name
        assert all(flow.received > 0 for flow in result.flows), name

    def networks(strategy, flow):
        return {path.interface for path in found[strategy].flow(flow).paths}

    assert networks("static", "video") == {"mn-lte"} and "mn-wlan" in networks("static", "voip")
    assert found["ncast-always"].flow("video").duplicates > 0.3 * found["ncast-always"].flow("video").sent
    assert found["static"].flow("video").duplicates == 0
    assert found["per-packet"].flow("video").reordered > 0.1 * found["per-packet"].flow("video").sent
    single = found["single"]
    assert {flow.fid for flow in single.flows} == {None}
    assert networks("single", "voip") == {"mn-wlan", "mn-lte"}
    sent = [event for event in single.events if event["event"] == "binding-update-sent"]
    assert sent and all(list(event["bids"]) == ["0"] for event in sent)  # no BID
    voip = single.windows["events"]["voip"]
    # it had left before the link went
    assert voip.lost <= lost_in_stalls(single, "voip", voip.start_s, voip.end_s)
    assert networks("none", "voip") == {"mn-wlan"} and found["none"].signalling.packets == 0
    assert found["none"].windows["events"]["voip"].interruption_ms > 500
    static = found["static"]
    stalls_ms = [1000 * (span.end_s - span.start_s) for span in static.standstills if span.end_s > 0]
    assert static.windows["events"]["voip"].interruption_ms < 500 + max(stalls_ms, default=0)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["experiments/strategies.py", "--strategy", "statik"], "did you mean 'static'"),
        (["experiments/strategies.py", "--links", "wlan+6g"], "there is no link profile '6g'"),
        (["experiments/strategies.py", "--links", "wlan"], "two link profiles or more"),
        (["experiments/handover.py", "--scenario", "nowhere.toml"], "nowhere.toml"),
        (["experiments/ncast.py", "--repeat", "0"], "'0' is not a whole number above 0"),
        (["experiments/sdn.py", "--access", "wlan:50:10"], "--access: 1 given"),
        (["experiments/ncast.py", "--seed", "-1"], "'-1' is not a whole number from 0"),
        (["experiments/load.py", "--mobile-nodes", "1000"], "1 to 250 mobile nodes"),
        (["experiments/load.py", "--links", "wlan+6g"], "there is no link profile '6g'"),
        (["experiments/hierarchy.py", "--distance", "nan"], "ha_distance_ms: expected"),
        (["-m", "testbed.experiment.sweep", "/nowhere.toml"], "/nowhere.toml: cannot be read"),
    ],
)
def test_bad_input_gets_one_sentence(arguments, words, tmp_path):
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, cwd=ROOT, timeout=60,
                          env=ENVIRONMENT)  # fmt: skip
    assert done.returncode == 2 and words in done.stderr and done.stderr.count("\n") == 1, done.stderr


def test_two_series_do_not_measure_on_one_machine_at_a_time(tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", "import sys; from testbed.experiment.series import exclusive\n"
         "with exclusive(): print('held', flush=True); sys.stdin.read()"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
        env=ENVIRONMENT | {"TMPDIR": str(tmp_path)})  # fmt: skip
    assert holder.stdout.readline() == "held\n"
    done = subprocess.run([sys.executable, "experiments/ncast.py", "--quick", "--out", str(tmp_path / "out")],
                          capture_output=True, text=True, cwd=ROOT, timeout=60,
                          env=ENVIRONMENT | {"TMPDIR": str(tmp_path)})  # fmt: skip
    holder.communicate()
    assert done.returncode == 2 and "another series is measuring on this machine" in done.stderr
