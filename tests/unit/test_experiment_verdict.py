"""What a result must show, on results made up."""

import pytest
from test_report_sample import sample

from testbed.experiment.verdict import find_handover, loss_check, path_checks
from testbed.report.result import Standstill

STALL = Standstill(start_s=14.2, end_s=15.3)
LOST = {"name": "wlan lost", "start_s": 14.0, "end_s": 20.0, "paths": {"https": ["mn-cellular"]}}


def check(astray=(), stalls=(), silent=(), spacing_ms=None):
    """The check of that phase, where https is on wlan in these tenths of a second, and sends nothing in
    those; as bulk data does, unless there is a spacing."""
    result = sample()
    result.metadata["phases"] = [LOST]
    result.standstills = list(stalls)
    result.flow("https").nominal_spacing_ms = spacing_ms
    series = result.time_series.flows["https"]
    octets = series.carried_octets
    for number in astray:
        octets["mn-wlan"][number] = octets["mn-cellular"][number]
    for number in silent:
        series.sent[number] = octets["mn-wlan"][number] = octets["mn-cellular"][number] = 0
    (found,) = path_checks(result)
    return found


def test_a_handover_has_its_time():
    assert check(range(140, 146)).passed
    assert not check(range(140, 155)).passed


def test_the_time_in_which_the_machine_stood_still_does_not_count():
    assert check(range(140, 158), [STALL]).passed
    assert not check(range(140, 165), [STALL]).passed


def test_nothing_is_shown_by_a_machine_that_stood_still_all_the_time():
    found = check((), [Standstill(start_s=14.0, end_s=20.0)])
    assert not found.passed and "nothing" in found.detail


@pytest.mark.parametrize("spacing_ms", [None, 50])
def test_who_sends_nothing_shows_nothing(spacing_ms):
    assert not check(silent=range(140, 200), spacing_ms=spacing_ms).passed
    assert check(silent=range(140, 200), spacing_ms=10_000).passed


def test_who_was_silenced_when_the_machine_stood_still_may_be_silent():
    """What was sent last was lost then, and TCP waits."""
    assert check(silent=[*range(142, 153), *range(156, 200)], stalls=[STALL]).passed
    before = Standstill(start_s=13.8, end_s=15.3)
    assert check(silent=[*range(138, 152), *range(154, 198)], stalls=[before]).passed
    later = check(silent=[*range(142, 153), *range(162, 200)], stalls=[STALL])
    assert later.passed  # it has sent in time, and on its path
    fell_silent = check(silent=range(130, 200), stalls=[STALL])
    assert not fell_silent.passed and fell_silent.detail == "https on nothing"


def test_what_was_sent_and_carried_nowhere_is_not_silence():
    result = sample()
    result.metadata["phases"] = [LOST]
    result.standstills = [STALL]
    series = result.time_series.flows["https"]
    for number in range(142, 200):
        series.carried_octets["mn-cellular"][number] = 0
    (found,) = path_checks(result)
    assert not found.passed and "https on nothing" in found.detail


@pytest.mark.parametrize("lost_at_s, passed", [(15.5, True), (16.5, False)])
def test_what_a_machine_that_stood_still_has_lost_is_not_the_handovers(lost_at_s, passed):
    result = sample()
    handover = find_handover(result, "link-down")
    handover.flows["video"].lost = 5
    result.time_series.flows["video"].lost[round(lost_at_s * 10)] = 5
    assert not loss_check(result, "nothing is lost", handover, ["video"]).passed
    result.standstills = [STALL]
    assert loss_check(result, "nothing is lost", handover, ["video"]).passed is passed
