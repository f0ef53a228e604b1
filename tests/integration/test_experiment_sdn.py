"""The comparison of steering planes: real runs, and what their figures must say."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from controller_network import needs_controller, needs_switches

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [needs_switches, needs_controller]


@pytest.fixture(scope="module")
def document(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sdn")
    command = [sys.executable, ROOT / "experiments" / "sdn.py", "--quick", "--json", "--out", folder]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode in (0, 1), done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert found == json.loads((folder / "comparison.json").read_text())
    assert (folder / "home-agent" / "result.json").exists() and (folder / "switches" / "result.json").exists()
    return found


def test_flows_take_the_paths_that_they_are_bound_to_under_both_planes(document):
    paths = [check for check in document["checks"] if "every flow on the access network" in check["text"]]
    assert len(paths) == 10
    assert [f"{check['text']}: {check['detail']}" for check in paths if not check["passed"]] == []


def test_mirrored_flows_pass_the_home_agent_by(document):
    planes = document["planes"]
    assert planes["switches"]["home_agent"]["packets"] < planes["home agent"]["home_agent"]["packets"] / 20
    assert planes["switches"]["openflow"]["messages"] > 0 == planes["home agent"]["openflow"]["messages"]


def test_every_figure_is_there_for_every_flow(document):
    for plane in document["planes"].values():
        assert set(plane["flows"]) == {"ssh", "https", "web", "voip", "video", "background"}
        for flow in plane["flows"].values():
            assert flow["goodput_bps"] > 0 and flow["one_way_delay_ms"] > 0
            assert flow["interruption_in_handover_ms"] is not None
