"""Every benchmark's short form gives the JSON document that it promises. Figures are not tested."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 300

DOCUMENT = {"bench", "kernel", "python", "processors", "load", "busy", "quick", "repetitions", "figures"}
FIGURE = {"name", "unit", "median", "low", "high", "values", "goal", "goal_is", "tolerance", "reached"}


def run(program: str, *arguments: str) -> tuple[int, dict]:
    """Exit status and document of an experiment."""
    command = [sys.executable, str(ROOT / "experiments" / f"{program}.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, cwd=ROOT)
    assert done.returncode in (0, 1), done.stderr
    return done.returncode, json.loads(done.stdout)


def need_root() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, for network namespaces")


@pytest.mark.quick
@pytest.mark.parametrize(
    "name, figures",
    [
        ("control", ("core: Binding Updates, one binding", "agent: processor while idle")),
        ("scale", ("100 flow bindings: TCP, ratio", "100 mobile nodes: packets by CPU, ratio")),
        ("start", ("1 mobile node: start", "5 mobile nodes: stop")),
        ("optimisation", ("tun: TCP, down, ratio", "tun: packets, up, ratio")),
    ],
)
def test_short_form_gives_the_document(name: str, figures: tuple[str, ...]):
    need_root()
    status, document = run(f"bench_{name}", "--quick", "--json")
    assert DOCUMENT <= document.keys()
    assert (document["bench"], document["quick"], document["repetitions"]) == (name, True, 1)
    assert status == (0 if document["reached"] else 1)
    for figure in document["figures"]:
        assert FIGURE == figure.keys()
        assert figure["low"] <= figure["median"] <= figure["high"]
    assert set(figures) <= {figure["name"] for figure in document["figures"]}


@pytest.mark.quick
def test_core_needs_no_root():
    _, document = run("bench_control", "--quick", "--json", "--core-only")
    assert all(figure["name"].startswith("core: ") for figure in document["figures"])


@pytest.mark.quick
def test_several_give_one_document():
    need_root()
    status, document = run("bench_all", "security", "tunnel", "--quick", "--json")
    assert [one["bench"] for one in document["benches"]] == ["security", "tunnel"]
    assert document["failed"] == [] and status == (0 if document["reached"] else 1)
    for one in document["benches"]:
        assert DOCUMENT <= one.keys() and one["quick"]


def test_the_figures_of_a_document_go_into_pages(tmp_path):
    _, document = run("bench_security", "--quick", "--json")
    for whole in ({"bench": "all", "benches": [document], "failed": []}, document):
        (tmp_path / "run.json").write_text(json.dumps(whole))
        (tmp_path / "page.md").write_text("<!-- figure security: parse it --><!-- end -->")
        command = ["bench_all.py", "--from", str(tmp_path / "run.json"), "--pages", str(tmp_path)]
        subprocess.run([sys.executable, *command], check=True, capture_output=True, cwd=ROOT / "experiments")
        assert " us<!-- end -->" in (tmp_path / "page.md").read_text()


@pytest.mark.parametrize("text", ["{", "[1]", '{"a": 1}', '{"benches": 5}', '{"benches": [{}]}'])
def test_what_is_no_document_is_refused_in_a_sentence(tmp_path, text):
    file = tmp_path / "run.json"
    file.write_text(text)
    command = [sys.executable, str(ROOT / "experiments" / "bench_all.py"), "--from", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2 and f"--from {file}: is no" in done.stderr
    assert "Traceback" not in done.stderr


def test_all_are_run_by_name():
    command = [sys.executable, str(ROOT / "experiments" / "bench_all.py"), "nothing"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2 and "there is no measurement named nothing: there are control" in done.stderr


@pytest.mark.quick
def test_simulation_gives_the_same_signalling_again():
    arguments = ("--quick", "--json", "--nodes", "200", "--lifetime", "120", "--handovers-per-hour", "60")
    documents = [run("simulate_scale", *arguments)[1] for _ in range(2)]
    first = documents[0]
    assert first["bound_nodes"] == first["nodes"] == 200
    assert first["bindings"] > 200 and first["flow_bindings"] == 8 * 200
    for what in ("binding_updates", "octets_received", "octets_sent", "forwarding_changes"):
        assert first[f"{what}_per_s"] == documents[1][f"{what}_per_s"] > 0
    assert first["decision_us"] > 0 and first["state_octets_per_node"] > 0


def test_the_simulation_writes_its_document(tmp_path):
    file = tmp_path / "new" / "scale.json"
    short = ("--quick", "--nodes", "20", "--seconds", "5")
    _, document = run("simulate_scale", *short, "--json", "--out", str(file))
    assert json.loads(file.read_text()) == document and document["nodes"] == 20


def test_where_the_document_cannot_be_written_it_says_so():
    program = str(ROOT / "experiments" / "bench_security.py")
    command = [sys.executable, program, "--quick", "--out", "/proc/no/x"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "(/proc/no)" in done.stderr


@pytest.mark.parametrize(
    "name",
    [f"bench_{name}" for name in ("control", "scale", "start", "tunnel", "links", "optimisation")]
    + ["simulate_scale"],
)
def test_help_says_what_is_measured(name: str):
    command = [sys.executable, str(ROOT / "experiments" / f"{name}.py"), "--help"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "--quick" in text and "--json" in text and "Examples:" in text and len(text.splitlines()) > 20
