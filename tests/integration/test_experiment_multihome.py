"""The main experiment as its users start it: a whole run, its files, its figures, its manners."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from testbed.report.result import read_result

ROOT = Path(__file__).parents[2]
EXPERIMENT = ROOT / "experiments" / "multihome.py"
FLOWS = ["ssh", "https", "web", "voip", "video", "background"]
requirement = pytest.mark.requirement


def start(*arguments, **options):
    return subprocess.Popen(
        [sys.executable, str(EXPERIMENT), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One quick run, from a folder of its own; its output and its files."""
    folder = tmp_path_factory.mktemp("multihome")
    process = start("--quick", "--pcap", "--json", "--seed", "7", "--out", "out", cwd=folder)
    output, errors = process.communicate(timeout=900)
    assert process.returncode in (0, 1), errors
    return folder / "out", output, errors


@requirement("draft §5: ssh and https to one care-of address, all else to the other, in a real network")
@requirement("draft §8.1: n-cast: nothing is lost when one of the networks is")
@requirement("draft §4.7, §6.2: flows move with their BID and return with it")
def test_everything_that_the_run_is_to_show_is_shown(run):
    result = read_result(run[0])
    failed = [f"{check.text}: {check.detail}" for check in result.checks if not check.passed]
    assert not failed, result.warnings
    assert len(result.checks) >= 12


def test_json_on_standard_output_is_the_result_file(run):
    folder, output, errors = run
    assert json.loads(output) == json.loads((folder / "result.json").read_text())
    assert output.count("\n") == 1
    assert "Register both care-of addresses" in errors and "Traceback" not in errors


def test_result_has_what_a_notebook_needs(run):
    result = read_result(run[0])
    assert [flow.name for flow in result.flows] == FLOWS
    for flow in result.flows:
        assert flow.sent > 0 and flow.received > 0 and flow.goodput_bps > 0
        assert flow.lost >= 0 and flow.duplicates >= 0 and flow.interruption_ms > 0
        assert flow.one_way_delay_ms.p50 <= flow.one_way_delay_ms.p95 <= flow.one_way_delay_ms.max
    assert {"kernel", "backends", "versions", "seed", "topology", "commit"} <= set(result.metadata)
    assert result.metadata["seed"] == 7 and set(result.metadata["backends"]) == {"link", "tunnel"}
    series = result.time_series
    assert series.interval_s == 0.1 and set(series.flows) == set(FLOWS)
    causes = [handover.cause for handover in result.handovers]
    assert causes.count("link-down") == 2 and causes.count("flow-replace") == 2


def test_handover_stages_follow_each_other(run):
    for handover in read_result(run[0]).handovers:
        stages = handover.stages_ms
        reached = [
            stages[name]
            for name in ("detected", "binding_update_sent", "binding_update_received", "datapath_ready")
        ]
        assert None not in reached and reached == sorted(reached), handover.text
        assert stages["binding_acknowledgement_received"] >= stages["datapath_ready"]


def test_one_way_delay_is_not_below_that_of_the_links(run):
    flows = {flow.name: flow for flow in read_result(run[0]).flows}
    assert flows["ssh"].one_way_delay_ms.p50 >= 10
    assert flows["video"].one_way_delay_ms.p50 >= 40


def test_files(run):
    folder = run[0]
    assert (folder / "throughput.png").read_bytes().startswith(b"\x89PNG")
    assert list(folder.glob("handover-*.png")) and (folder / "handover-stages.png").exists()
    with open(folder / "flows.csv", newline="") as file:
        assert [row["name"] for row in csv.DictReader(file)] == FLOWS
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    assert [event["t"] for event in events] == sorted(event["t"] for event in events)
    assert {"experiment", "mn", "ha"} <= {event["node"] for event in events}


@pytest.mark.skipif(not shutil.which("tshark"), reason="needs tshark")
def test_captures_open_in_wireshark(run):
    for capture in (run[0] / "captures").glob("*.pcap"):
        command = ["tshark", "-r", str(capture), "-Y", "mipv6 && _ws.malformed"]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0 and not done.stdout.strip(), capture
    command = ["tshark", "-r", str(run[0] / "captures" / "mn.mn-wlan.pcap"), "-Y", "mipv6"]
    assert "Binding Update" in subprocess.run(command, capture_output=True, text=True).stdout


def test_repetitions_have_seeds_and_folders_of_their_own_and_a_page(tmp_path):
    process = start("--duration", "10", "--repeat", "2", "--attempts", "1", "--json", "--out", str(tmp_path))
    output, errors = process.communicate(timeout=900)
    assert process.returncode in (0, 1), errors
    first, second = (read_result(tmp_path / f"run-{number}") for number in (1, 2))
    assert (first.metadata["seed"], second.metadata["seed"]) == (1, 1001)
    document = json.loads(output)
    assert [case["runs"] + case["busy"] >= 2 for case in document["cases"]] == [True]
    checks = {check["text"]: check["passed"] for check in document["checks"]}
    assert checks["After de-registration the home agent has no binding left"] == 2 and len(checks) >= 12
    assert "Run 2 of 2" in errors and (tmp_path / "report.html").stat().st_size > 50_000


def test_ctrl_c_in_the_middle(tmp_path):
    process = start("--quick", "--out", str(tmp_path))
    for line in process.stdout:
        if "Replace one flow" in line:
            break
    os.kill(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "stopped" in errors and "Traceback" not in errors


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--nonsense"], "--nonsense"),
        (["--duration", "soon"], "'soon' is not a number of seconds"),
        (["--duration", "1"], "between 10 and 3600"),
        (["--access", "wlan:50"], "wlan:50"),
        (["--access", "wlan:50:10"], "--access: 1 given"),
        (["--access", "wlan:50:10", "--access", "wlan:5:10"], "stands twice"),
        (["--link-backend", "string"], "string"),
        (["--out", "/proc/nowhere"], "/proc/nowhere"),
    ],
)
def test_bad_options_get_one_sentence(arguments, words, tmp_path):
    done = subprocess.run(
        [sys.executable, str(EXPERIMENT), *arguments],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=60,
    )
    assert done.returncode == 2
    assert words in done.stderr and "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1


def test_without_root_it_says_so(tmp_path, nobody):
    done = subprocess.run(
        [sys.executable, str(EXPERIMENT), "--quick"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        user=nobody,
        timeout=60,
    )
    assert done.returncode == 2 and re.search(r"needs root.*sudo", done.stderr)
    assert done.stderr.count("\n") == 1


def test_help_teaches():
    done = subprocess.run([sys.executable, str(EXPERIMENT), "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    for word in ("--quick", "--pcap", "--cli", "examples:", "Exit status"):
        assert word in done.stdout
