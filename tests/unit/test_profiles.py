"""Profiles of links, traffic and scenarios: those that come with the testbed, and what is wrong with
others."""

import pytest

from testbed.experiment.profile import (
    ProfileError,
    access_networks,
    link_trace,
    load_link,
    load_scenario,
    load_traffic,
    profile_names,
)
from testbed.experiment.trace import TraceError, read_trace

LINK = 'summary = "x"\ninterface = "wlan"\nbandwidth_mbit = 10\ndelay_ms = 5\n'
SCENARIO = """\
summary = "x"
traffic = "mixed"
[goal]
interruption_ms = 100
[[step]]
event = "link-down"
seconds = 1
"""


def test_all_that_come_with_the_testbed_are_valid():
    assert {"wlan", "4g", "5g", "satellite", "ethernet"} <= set(profile_names("links"))
    for name in profile_names("links"):
        profile = load_link(name)
        assert profile.summary and profile.source
    for name in profile_names("traffic"):
        assert load_traffic(name).flow
    for name in profile_names("scenarios"):
        scenario = load_scenario(name)
        assert all(step.seconds > 0 for step in scenario.step)


def test_two_links_of_a_kind_get_names_of_their_own():
    networks = access_networks([load_link("wlan"), load_link("wlan-lossy"), load_link("4g")])
    assert [network.name for network in networks] == ["wlan", "wlan2", "lte"]
    assert networks[1].loss_percent == 3


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (LINK.replace("10", '"fast"'), "bandwidth_mbit: expected"),
        (LINK.replace("10", "-1"), "bandwidth_mbit"),
        (LINK + "jitter_ms = 9\n", "jitter_ms: 9.0 is more than delay_ms"),
        (LINK + "colour = 1\n", "colour: is not a known key"),
        (LINK.replace("delay_ms = 5\n", ""), "delay_ms: is missing"),
        (LINK + 'trace = "nowhere.csv"\n', "nowhere.csv cannot be read"),
        ("= 1", "is not TOML"),
    ],
)
def test_a_bad_link_profile_gets_one_sentence_with_the_key(tmp_path, text, words):
    file = tmp_path / "bad.toml"
    file.write_text(text)
    with pytest.raises(ProfileError, match=words) as caught:
        load_link(str(file))
    assert "bad.toml" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (SCENARIO.replace("link-down", "explode"), "'explode' is not known"),
        (SCENARIO + "to = 2\n", "goes with the event move"),
        (SCENARIO + "loss_percent = 2\n", "only that one, takes"),
        (SCENARIO.replace("mixed", "mixd"), "did you mean 'mixed'"),
        (SCENARIO.replace("seconds = 1", "seconds = -1"), "seconds"),
    ],
)
def test_a_bad_scenario_gets_one_sentence_with_the_key(tmp_path, text, words):
    file = tmp_path / "bad.toml"
    file.write_text(text)
    with pytest.raises(ProfileError, match=words):
        load_scenario(str(file))


def test_an_unknown_name_gets_the_nearest():
    with pytest.raises(ProfileError, match="there is no link profile 'satelite': did you mean 'satellite'"):
        load_link("satelite")


def test_a_recording_holds_until_its_last_line():
    trace = link_trace("4g-trace")
    assert trace.duration_s == 60 and len(trace.samples) == 120
    assert trace.samples[0].time_s == 0 and min(sample.bandwidth_mbit for sample in trace.samples) > 0
    assert trace.samples[0].changes().keys() == {"bandwidth_mbit", "loss_percent"}


def test_a_recording_of_mahimahi_becomes_rates(tmp_path):
    file = tmp_path / "some.mahimahi"
    file.write_text("\n".join(str(at_ms) for at_ms in [*range(0, 100), *range(200, 300, 2)]) + "\n")
    trace = read_trace(file)
    rates = [round(sample.bandwidth_mbit, 2) for sample in trace.samples]
    assert rates == [12.0, 0.05, 6.0] and trace.duration_s == pytest.approx(0.3)


def test_a_recording_of_times_and_rates_is_read(tmp_path):
    """As Pensieve has them: the rate of a line is that since the line before."""
    (tmp_path / "bus").write_text("0.5 9.9\n1.5\t4.0\n3.5 0\n\n4.0 6.5\n")
    trace = read_trace(tmp_path / "bus")
    assert [(one.time_s, one.bandwidth_mbit) for one in trace.samples] == [(0, 4.0), (1.0, 0.05), (3.0, 6.5)]
    assert trace.duration_s == 3.5


def test_a_log_of_a_download_is_read(tmp_path):
    """As those of 3G in Oslo and 4G in Ghent: the octets of a line came in its last number of ms."""
    lines = "1289406399 549692 59.851754 10.781778 250000 1000\n1289406400 550772 59.85 10.78 125000 500\n"
    (tmp_path / "tram.log").write_text(lines)
    trace = read_trace(tmp_path / "tram.log")
    assert [(one.time_s, one.bandwidth_mbit) for one in trace.samples] == [(0.0, 2.0), (1.0, 2.0)]
    assert trace.duration_s == 1.5


def test_the_recording_that_comes_with_the_testbed_has_its_loss_of_signal():
    trace = link_trace("3g-driving")
    assert trace.duration_s == 9.0 and len(trace.samples) == 90
    rates = [sample.bandwidth_mbit for sample in trace.samples]
    assert 1 < sum(rates) / len(rates) < 1.2, "781 opportunities to send 1500 octets in 9 s"
    silent = [sample.time_s for sample in trace.samples if sample.bandwidth_mbit == 0.05]
    assert {3.7, 4.0, 4.6} <= set(silent)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.log", "1 2 3\n", "two numbers in each line, or six"),
        ("a.log", "1 2\n2 3 4\n", "two numbers in each line, or six"),
        ("a.log", "1 2\n1 3\n", "times that ascend"),
        ("a.log", "1 2\n", "times that ascend|fewer"),
        ("a.log", "", "two numbers"),
        ("a.log", "one two\n", "is no recording"),
        ("a.csv", "time_s,rate\n0,1\n", "no header line"),
        ("a.csv", "time_s,bandwidth_mbit\n1,1\n2,1\n", "ascend from 0"),
        ("a.csv", "time_s,bandwidth_mbit\n0,1\n0,1\n", "sample 2: times"),
        ("a.csv", "time_s,bandwidth_mbit\n0,x\n", "sample 1"),
        ("a.csv", "time_s,bandwidth_mbit,loss_percent\n0,1,101\n1,1,1\n", "out of its range"),
        ("a.mahimahi", "3\n1\n", "ascending"),
        ("a.mahimahi", "hello\n", "no Mahimahi"),
    ],
)
def test_a_bad_recording_gets_one_sentence(tmp_path, name, text, words):
    (tmp_path / name).write_text(text)
    with pytest.raises(TraceError, match=words):
        read_trace(tmp_path / name)
