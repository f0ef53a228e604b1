"""What a result must show, on results made up."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_report_sample import sample

from testbed.experiment.verdict import SETTLED_S, find_handover, loss_check, path_checks
from testbed.report.result import ResultError, Standstill, encode, read_result

STALL = Standstill(start_s=14.2, end_s=15.3)
LOST = {"name": "wlan lost", "start_s": 14.0, "end_s": 20.0, "paths": {"https": ["mn-cellular"]}}
BESIDE = {"https": ["mn-cellular"], "voip": ["mn-cellular"]}


def check(astray=(), stalls=(), silent=(), spacing_ms=None, **phase):
    """The check of that phase, where https is on wlan in these tenths of a second, and sends nothing in
    those; as bulk data does, unless there is a spacing."""
    result = sample()
    result.metadata["phases"] = [LOST | phase]
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


@pytest.mark.parametrize("paths", [{"https": ["mn-cellular"]}, {"https": []}, BESIDE])
@pytest.mark.parametrize("spacing_ms", [None, 1.92, 50, 10_000])
def test_nothing_is_shown_where_there_is_nothing_to_judge(spacing_ms, paths):
    still = check((), [Standstill(start_s=14.0, end_s=20.0)], spacing_ms=spacing_ms, paths=paths)
    assert not still.passed and still.detail.startswith("nothing to judge: the machine stood still")
    short = check(end_s=14.65, spacing_ms=spacing_ms, paths=paths)
    assert not short.passed and short.detail.startswith("nothing to judge: the phase lasted 0.7 s, and")
    assert check(end_s=14.9, spacing_ms=spacing_ms, paths={"https": ["mn-cellular"]}).passed


def test_a_phase_that_promises_no_path_is_not_judged():
    result = sample()
    result.metadata["phases"] = [LOST | {"paths": {}}]
    assert path_checks(result) == []


@given(
    spacing_ms=st.none() | st.floats(1, 10_000),
    start_s=st.floats(14, 19),
    length_s=st.floats(0, 3),
    stall=st.none() | st.tuples(st.floats(12, 20), st.floats(0.1, 5)),
    silent=st.integers(140, 220),
    wanted=st.sampled_from([["mn-cellular"], ["mn-wlan", "mn-cellular"], []]),
)
@settings(max_examples=60, deadline=None)
def test_who_passes_was_seen_in_time(spacing_ms, start_s, length_s, stall, silent, wanted):
    """Some tenth of a second was there in which the handover was over and the machine ran, and in it the flow
    has sent, unless it is discarded."""
    spans = [Standstill(start_s=stall[0], end_s=sum(stall))] if stall else []
    phase = {"start_s": start_s, "end_s": start_s + length_s, "paths": {"https": wanted}}
    found = check(stalls=spans, silent=range(silent, 220), spacing_ms=spacing_ms, **phase)
    seen = [
        number
        for number in range(140, 220)
        if start_s + SETTLED_S <= number / 10
        and (number + 1) / 10 <= start_s + length_s + 0.1
        and not any(span.start_s <= number / 10 <= span.end_s for span in spans)
        and (not wanted or number < silent)
    ]
    assert seen or not found.passed
    assert found.passed or found.detail.startswith(("https ", "nothing to judge: "))


@pytest.mark.parametrize("spacing_ms", [None, 50])
def test_who_sends_nothing_shows_nothing(spacing_ms):
    found = check(silent=range(140, 200), spacing_ms=spacing_ms, paths=BESIDE)
    assert not found.passed and found.detail == "https sent nothing"


def test_who_sends_rarely_is_not_judged():
    alone = check(silent=range(140, 200), spacing_ms=10_000)
    assert not alone.passed and alone.detail == "nothing to judge: https sent nothing, and need not have"
    beside = check(silent=range(140, 200), spacing_ms=10_000, paths=BESIDE)
    assert beside.passed and beside.detail.endswith("; not judged, as silent: https")


@pytest.mark.parametrize(
    "protocol, downlink, passed", [("udp", True, False), ("udp", False, True), ("tcp", True, True)]
)
def test_a_discarded_flow_is_silent_if_its_sender_knows(protocol, downlink, passed):
    result = sample()
    result.metadata["phases"] = [LOST | {"paths": {"video": []}}]
    flow, series = result.flow("video"), result.time_series.flows["video"]
    flow.protocol, flow.downlink = protocol, downlink
    assert path_checks(result)[0].detail == "video on mn-cellular 100.0%"
    for octets in series.carried_octets.values():
        octets[:] = [0] * len(octets)
    assert path_checks(result)[0].passed
    series.sent = [0] * len(series.sent)
    (found,) = path_checks(result)
    assert found.passed is passed and ("video sent nothing" in found.detail) is not passed


def test_who_was_silenced_when_the_machine_stood_still_may_be_silent():
    """What was sent last was lost then, and TCP waits."""
    silenced = check(silent=[*range(142, 153), *range(156, 200)], stalls=[STALL], paths=BESIDE)
    assert silenced.passed and silenced.detail.endswith("; not judged, as silent: https")
    before = Standstill(start_s=13.8, end_s=15.3)
    assert check(silent=[*range(138, 152), *range(154, 198)], stalls=[before], paths=BESIDE).passed
    later = check(silent=[*range(142, 153), *range(162, 200)], stalls=[STALL])
    assert later.passed  # it has sent in time, and on its path
    fell_silent = check(silent=range(130, 200), stalls=[STALL], paths=BESIDE)
    assert not fell_silent.passed and fell_silent.detail == "https sent nothing"


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


@pytest.mark.parametrize(
    "stall, sent, words",
    [
        (Standstill(start_s=13.5, end_s=20.5), 300, "the machine stood still all the time"),
        (STALL, 0, "none of these flows sent anything"),
    ],
)
def test_no_loss_is_shown_where_there_is_nothing_to_judge(stall, sent, words):
    result = sample()
    handover = find_handover(result, "link-down")
    handover.flows["video"].sent = sent
    result.standstills = [stall]
    found = loss_check(result, "nothing is lost", handover, ["video"])
    assert not found.passed and found.detail == f"nothing to judge: {words}"


def without(document, *names):
    """The saved result as it was before flows' time series had these."""
    for series in document["time_series"]["flows"].values():
        for name in names:
            del series[name]


@pytest.mark.parametrize(
    "age, lacking",
    [
        (lambda document: without(document, "sent"), "no time_series.flows.*.sent: "),
        (lambda document: without(document, "carried_octets"), "no time_series.flows.*.carried_octets: "),
        (
            lambda document: without(document, "sent", "carried_octets"),
            "no time_series.flows.*.sent, no time_series.flows.*.carried_octets: ",
        ),
        (lambda document: document["metadata"].pop("phases"), "no metadata.phases: "),
    ],
)
def test_a_result_of_an_older_version_is_not_judged_but_told_what_it_lacks(tmp_path, age, lacking):
    result = sample()
    result.metadata["phases"] = [LOST]
    document = json.loads(encode(result))
    (tmp_path / "result.json").write_text(json.dumps(document))
    assert path_checks(read_result(tmp_path)) == path_checks(result)
    age(document)
    (tmp_path / "result.json").write_text(json.dumps(document))
    with pytest.raises(ResultError) as raised:
        path_checks(read_result(tmp_path))
    told = str(raised.value)
    assert f"This result of multihome has {lacking}it was saved before" in told
    assert told.endswith("or run the experiment again.") and "\n" not in told
