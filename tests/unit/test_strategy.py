"""Strategies: what they answer to flows, links and events; how they are found."""

from pathlib import Path

import pytest

from testbed.strategy.registry import StrategyError, all_strategies, ask, find_strategy
from testbed.strategy.strategy import Binding, Event, Flow, Link, Strategy

FLOWS = [
    Flow("ssh", "tcp", 22, 10_000, False, 1),
    Flow("voip", "udp", 5004, 70_000, True, 1),
    Flow("video", "udp", 5006, 2_000_000, True, 2),
    Flow("download", "tcp", 443, None, False, 1),
]
START, TICK = Event("start", 0.0), Event("tick", 10.0)


def links(**changes) -> list[Link]:
    """Two networks; `first` and `second` change their fields."""
    return [
        Link(1, "wlan", 50, **changes.get("first", {})),
        Link(2, "lte", 20, **changes.get("second", {})),
    ]


def decide(name: str, event: Event = START, strategy: Strategy | None = None, **changes) -> dict:
    answer = (strategy or find_strategy(name)()).decide(FLOWS, links(**changes), event)
    return {flow: binding.networks for flow, binding in answer.items()}


def test_every_strategy_has_a_name_a_summary_and_answers_with_networks_that_exist():
    known = all_strategies()
    assert {"none", "mptcp", "per-packet", "single", "static", "balanced", "adaptive", "ncast-handover",
            "ncast-always", "route-optimised", "anchored", "mirrored"} <= set(known)  # fmt: skip
    for name, strategy in known.items():
        assert strategy.summary, name
        missing = strategy().missing()
        assert missing is None or len(missing) > 20
        for changes in ({}, {"first": {"leaving": True}}, {"second": {"up": False}}):
            for flow, networks in decide(name, TICK, **changes).items():
                assert flow in {one.name for one in FLOWS} and set(networks) <= {1, 2}


def test_static_follows_the_users_choice_and_leaves_a_network_that_is_leaving():
    assert decide("static") == {"ssh": (1,), "voip": (1,), "video": (2,), "download": (1,)}
    assert set(decide("static", first={"leaving": True}).values()) == {(2,)}
    assert decide("static", first={"up": False})["ssh"] == (1,), "flows of a lost link follow by their BID"


def test_single_binds_nothing_until_it_has_to():
    assert decide("single") == {}
    assert set(decide("single", first={"leaving": True}).values()) == {(2,)}


def test_balanced_shares_by_capacity_the_largest_flows_first():
    answer = decide("balanced")
    assert answer["download"] == (1,), "5 Mbit/s are less of 50 than of 20"
    assert answer["video"] == (2,), "2 of 20 Mbit/s are less than 5 + 2 of 50"
    assert set(decide("balanced", first={"leaving": True}).values()) == {(2,)}


def test_adaptive_moves_to_the_better_path_and_not_back_at_once():
    strategy = find_strategy("adaptive")()
    good, bad = {"round_trip_ms": 20, "loss": 0.0}, {"round_trip_ms": 20, "loss": 0.2}
    other = {"round_trip_ms": 80, "loss": 0.0}
    assert decide("", START, strategy, first=good, second=other)["ssh"] == (1,)
    assert decide("", TICK, strategy, first=bad, second=other)["ssh"] == (2,)
    assert decide("", Event("tick", 10.2), strategy, first=good, second=other)["ssh"] == (2,)
    assert decide("", Event("tick", 12.0), strategy, first=good, second=other)["ssh"] == (1,)


def test_adaptive_stays_where_the_difference_is_small():
    strategy = find_strategy("adaptive")()
    near = {"round_trip_ms": 40, "loss": 0.0}, {"round_trip_ms": 36, "loss": 0.0}
    decide("", START, strategy, first=near[0], second=near[1])
    assert decide("", TICK, strategy, first=near[0], second=near[1])["ssh"] == (1,)


def test_n_cast_takes_real_time_datagrams_only():
    assert decide("ncast-always") == {"ssh": (1,), "voip": (1, 2), "video": (1, 2), "download": (1,)}


def test_n_cast_during_a_handover_ends_some_time_after_it():
    strategy = find_strategy("ncast-handover")()
    assert decide("", START, strategy)["voip"] == (1,)
    assert decide("", Event("announced", 1.0, 1), strategy, first={"leaving": True})["voip"] == (1, 2)
    assert decide("", Event("link-up", 5.0, 1), strategy)["voip"] == (1, 2)
    assert decide("", Event("tick", 5.5), strategy)["voip"] == (1, 2)
    assert decide("", Event("tick", 6.5), strategy)["voip"] == (1,)


def test_a_strategy_in_a_file_of_ones_own(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "from testbed.strategy.strategy import Binding, Strategy\n"
        "class Mine(Strategy):\n"
        "    name = 'mine'\n"
        "    summary = 'all to the second network'\n"
        "    def decide(self, flows, links, event):\n"
        "        return {flow.name: Binding((2,)) for flow in flows}\n"
    )
    assert find_strategy(str(file))().decide(FLOWS, links(), START)["ssh"] == Binding((2,))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("statik", "did you mean 'static'"),
        ("zzz", "there are none, mptcp"),
        ("/nowhere/a.py", "cannot be read: No such file"),
    ],
)
def test_unknown_strategies_get_one_sentence_with_the_remedy(name, words):
    with pytest.raises(StrategyError, match=words):
        find_strategy(name)


def test_a_file_without_a_strategy_is_refused(tmp_path):
    (tmp_path / "empty.py").write_text("x = 1\n")
    with pytest.raises(StrategyError, match="has 0 strategies"):
        find_strategy(str(tmp_path / "empty.py"))


MINE = """\
from testbed.strategy.strategy import Binding, Strategy
class Mine(Strategy):
    name = "mine"
    def decide(self, flows, links, event):
        return ANSWER
"""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = (", "cannot be loaded: SyntaxError"),
        ("import nothing_like_this", "cannot be loaded: ModuleNotFoundError"),
        ("x = undefined", "cannot be loaded: NameError: name 'undefined' is not defined"),
        (MINE.replace("decide", "decides"), "mine has no decide"),
    ],
)
def test_a_file_that_cannot_be_used_gets_one_sentence(tmp_path, text, words):
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(StrategyError, match=words) as caught:
        find_strategy(str(tmp_path / "mine.py"))
    assert "mine.py" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ('{"shell": Binding((1,))}', "a flow 'shell': there are download, ssh, video, voip"),
        ('{"ssh": Binding((3,))}', r"for ssh: expected Binding\(\(...\)\) with numbers of links, .* 1, 2"),
        ('{"ssh": 1}', "decide answers 1 for ssh"),
        ("None", "decide fails at 'tick': TypeError"),
        ("links[2]", r"decide fails at 'tick': IndexError: .*mine.py, line 5"),
    ],
)
def test_an_answer_that_cannot_be_meant_gets_one_sentence(tmp_path, answer, words):
    (tmp_path / "mine.py").write_text(MINE.replace("ANSWER", answer))
    strategy = find_strategy(str(tmp_path / "mine.py"))()
    with pytest.raises(StrategyError, match=words):
        ask(strategy, FLOWS, links(), TICK)


def test_the_example_in_the_documentation_works(tmp_path):
    text = (Path(__file__).parents[2] / "docs" / "strategies.md").read_text()
    (tmp_path / "mine.py").write_text(text.partition("```python\n")[2].partition("```")[0])
    strategy = find_strategy(str(tmp_path / "mine.py"))()
    measured = {"first": {"round_trip_ms": 90.0}, "second": {"round_trip_ms": 20.0}}
    answer = decide("", TICK, strategy, **measured)
    assert answer == {"ssh": (1,), "voip": (2,), "video": (2,), "download": (1,)}
