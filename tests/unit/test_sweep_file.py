"""Files of sweeps: the grid that they mean, and one sentence for each mistake."""

from pathlib import Path

import pytest

from testbed.experiment.profile import ProfileError
from testbed.experiment.sweep import check, grid, load_sweep
from testbed.strategy.registry import StrategyError

GRID = """\
name = "s"
[grid]
strategy = ["static", "single"]
scenario = ["link-loss"]
links = [["wlan", "4g"], ["wlan", "5g"]]
"""
CASE = 'name = "s"\n[[case]]\nstrategy = "static"\nscenario = "link-loss"\nlinks = ["wlan", "4g"]\n'
LOAD = GRID.partition("strategy")[0] + 'kind = ["load"]\nlinks = [["wlan", "4g"]]\n'


def cases(tmp_path, text):
    (tmp_path / "s.toml").write_text(text)
    return check(grid(load_sweep(tmp_path / "s.toml")))


def test_every_combination_is_a_case_and_single_ones_come_beside(tmp_path):
    kept, skipped = cases(tmp_path, GRID + CASE.partition("\n")[2])
    assert len(kept) == 5 and not skipped
    assert {(case.parameters["strategy"], case.parameters["links"][1]) for case in kept} == {
        ("static", "4g"), ("static", "5g"), ("single", "4g"), ("single", "5g")}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("= 1", "is not TOML"),
        ('name = "s"\n', "there is no case in it"),
        (GRID.replace("name", "nme"), "nme: is not a known key; did you mean name"),
        ('repeat = 0\n' + GRID, "repeat: expected at least 1, not 0"),
        (GRID.replace('["link-loss"]', '"link-loss"'), "expected a list, not text"),
        (GRID.replace("strategy", "strateg"), "steering: strateg: is not a known key; did you mean strategy"),
        (GRID.replace('strategy = ["static", "single"]\n', ""), "strategy: is missing"),
        (GRID.replace('["static", "single"]', "[1]"), "strategy: expected text, not a number"),
        (GRID.replace('["wlan", "4g"]', '"wlan+4g"'), "links: expected a list, not text"),
        (GRID.replace('["wlan", "4g"]', '["wlan"]'), "links: expected at least 2 entries"),
        (GRID.replace('"4g"', '"6g"'), "there is no link profile '6g'"),
        (GRID.replace("link-loss", "link-los"), "there is no scenario 'link-los': did you mean 'link-loss'"),
        (GRID + 'pace = ["fast"]\n', "pace: expected .*, not text"),
        (GRID + 'mobile = ["car"]\n', "mobile: 'car' is not known; expected one of node, router"),
        (GRID + "ha_distance_ms = [-1]\n", "ha_distance_ms: expected at least 0.0, not -1"),
        (GRID + 'kind = ["walk"]\n', "there is no 'walk'; there are steering, load"),
        (GRID + 'kind = [["steering"]]\n', "there is no \\['steering'\\]; there are steering, load"),
        ("seed = 9999999999\n" + GRID, "seed: expected at most 1000000000"),
        (LOAD, "a case of kind load: mobile_nodes: is missing"),
        (LOAD + "mobile_nodes = [4]\nflow_bindings = [1000]\n", "flow_bindings: expected at most 160, not 1"),
    ],
)
def test_a_mistake_gets_one_sentence_with_the_key(tmp_path, text, words):
    with pytest.raises(ProfileError, match=words) as caught:
        cases(tmp_path, text)
    assert "\n" not in str(caught.value)


def test_files_of_ones_own_are_found_from_any_folder(tmp_path, monkeypatch):
    """Cases run in processes of their own, in the project's folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(
        "from testbed.strategy.fixed import Static\nclass Mine(Static):\n    name = 'mine'\n")
    profiles = Path(__file__).parents[2] / "profiles"
    (tmp_path / "loss.toml").write_text((profiles / "scenarios" / "link-loss.toml").read_text())
    (tmp_path / "slow.toml").write_text((profiles / "links" / "wlan.toml").read_text())
    text = 'name = "s"\n[[case]]\nstrategy = "mine.py"\nscenario = "loss.toml"\nlinks = ["slow.toml", "4g"]\n'
    (case,), _ = cases(tmp_path, text)
    assert case.parameters == {"strategy": f"{tmp_path}/mine.py", "scenario": f"{tmp_path}/loss.toml",
                               "links": [f"{tmp_path}/slow.toml", "4g"]}  # fmt: skip


def test_a_scenario_for_more_networks_than_there_are_is_refused(tmp_path):
    scenario = (Path(__file__).parents[2] / "profiles" / "scenarios" / "link-loss.toml").read_text()
    step = '[[step]]\nevent = "link-down"\nnetwork = 3\nseconds = 1\n'
    (tmp_path / "three.toml").write_text(f"{scenario}\n{step}")
    text = GRID.replace('"link-loss"', f'"{tmp_path}/three.toml"')
    with pytest.raises(ProfileError, match="an access network 3: give as many link profiles, not 2"):
        cases(tmp_path, text)
    kept, _ = cases(tmp_path, text.replace('"wlan", ', '"wlan", "ethernet", '))
    assert len(kept) == 4


def test_a_strategy_that_ends_the_program_is_refused(tmp_path):
    (tmp_path / "ends.py").write_text("raise SystemExit(3)\n")
    with pytest.raises(StrategyError, match="cannot be loaded: SystemExit: 3"):
        cases(tmp_path, GRID.replace('"static", "single"', f'"{tmp_path}/ends.py"'))


def test_an_unknown_strategy_gets_the_nearest(tmp_path):
    with pytest.raises(StrategyError, match="did you mean 'static'"):
        cases(tmp_path, GRID.replace("static", "statik"))
