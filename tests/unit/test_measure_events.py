"""Event logs to handovers: stages in order, gaps in the logs, retransmissions, several causes."""

import json

import numpy as np
import pytest

from testbed.measure.events import STAGES, first_packet_on_new_path, handovers, read_events
from testbed.measure.matching import Arrivals


def event(t, node, name, **fields):
    return {"t": t, "node": node, "event": name, **fields}


LINK_DOWN = [
    event(10.000, "experiment", "link-down", interface="mn-wlan"),
    event(10.001, "mn", "link-lost", interface="mn-wlan"),
    event(10.002, "mn", "binding-update-sent", sequence=7),
    event(10.042, "ha", "binding-update-received", sequence=7),
    event(10.043, "ha", "datapath-ready"),
    event(10.044, "ha", "binding-acknowledgement-sent", sequence=7),
    event(10.084, "mn", "binding-acknowledgement-received", sequence=7),
    event(10.085, "mn", "datapath-ready"),
]


def rounded(handover):
    return {stage: value and round(value, 3) for stage, value in handover.stages_ms.items()}


def test_every_stage_of_a_link_loss():
    (handover,) = handovers(LINK_DOWN)
    assert list(handover.stages_ms) == list(STAGES)
    assert rounded(handover) == {
        "detected": 1, "care_of_address": None, "binding_update_sent": 2, "binding_update_received": 42,
        "datapath_ready": 43, "binding_acknowledgement_sent": 44, "binding_acknowledgement_received": 84,
        "first_packet": None}
    assert (handover.at_s, handover.until_s, handover.cause) == (10.0, 10.085, "link-down")


@pytest.mark.parametrize("missing, unknown", [
    ("link-lost", {"detected"}),
    ("binding-update-received", {
        "binding_update_received", "datapath_ready", "binding_acknowledgement_sent"}),
    ("datapath-ready", {"datapath_ready"}),
    ("binding-acknowledgement-sent", {"binding_acknowledgement_sent"}),
])
def test_a_missing_event_leaves_its_stage_and_what_follows_from_it_unknown(missing, unknown):
    (handover,) = handovers([one for one in LINK_DOWN if one["event"] != missing])
    found = {stage for stage, value in handover.stages_ms.items() if value is None}
    assert found == unknown | {"care_of_address", "first_packet"}


def test_a_cause_that_nobody_noticed_has_no_stages():
    (handover,) = handovers(LINK_DOWN[:1], end_s=12.0)
    assert set(handover.stages_ms.values()) == {None} and handover.until_s == 12.0
    assert handovers(LINK_DOWN[1:]) == []


def test_an_answer_to_an_older_update_is_not_taken_for_this_one():
    events = [*LINK_DOWN[:3], event(10.010, "ha", "binding-update-received", sequence=6),
              event(10.012, "mn", "binding-acknowledgement-received", sequence=6), *LINK_DOWN[3:]]
    (handover,) = handovers(events)
    assert rounded(handover)["binding_update_received"] == 42
    assert rounded(handover)["binding_acknowledgement_received"] == 84


def test_a_lost_update_is_answered_by_its_retransmission():
    events = [*LINK_DOWN[:3], event(11.002, "mn", "binding-update-sent", sequence=8),
              event(11.042, "ha", "binding-update-received", sequence=8),
              event(11.043, "ha", "datapath-ready")]
    stages = rounded(handovers(events)[0])
    assert (stages["binding_update_sent"], stages["datapath_ready"]) == (2, 1043)


def test_a_returning_link_waits_for_its_address_and_other_interfaces_do_not_count():
    events = [
        event(20.0, "experiment", "link-up", interface="mn-wlan"),
        event(20.001, "mn", "link-gained", interface="mn-cellular"),
        event(20.002, "mn", "link-gained", interface="mn-wlan"),
        event(20.003, "mn", "binding-update-sent", sequence=1),
        event(20.5, "mn", "care-of-address-gained", interface="mn-wlan"),
        event(20.6, "mn", "binding-update-sent", sequence=2)]
    stages = rounded(handovers(events)[0])
    assert (stages["detected"], stages["care_of_address"], stages["binding_update_sent"]) == (2, 500, 600)


def test_each_cause_ends_where_the_next_begins():
    second = [event(one["t"] + 5, one["node"], one["event"], **{
        key: value for key, value in one.items() if key in ("interface", "sequence")}) for one in LINK_DOWN]
    first, last = handovers([*LINK_DOWN[:2], *second])
    assert first.until_s == last.at_s == 15.0
    assert first.stages_ms["binding_update_sent"] is None and last.stages_ms["datapath_ready"] is not None


def test_logs_are_merged_and_a_line_cut_short_is_left_out(tmp_path):
    (tmp_path / "a").write_text(json.dumps(LINK_DOWN[1]) + "\n" + '{"t": 3, "no')
    (tmp_path / "b").write_text(json.dumps(LINK_DOWN[0]) + "\n\n")
    assert read_events([tmp_path / "a", tmp_path / "b", tmp_path / "c"]) == LINK_DOWN[:2]
    (tmp_path / "b").write_text("{}\n" + json.dumps(LINK_DOWN[0]) + "\n")
    with pytest.raises(ValueError, match="b, line 1 "):
        read_events([tmp_path / "b"])


def flow(*packets):
    """`packets` are (time in ms, interface index)."""
    times, interface = np.array(packets, np.int64).T
    count = len(times)
    return Arrivals(("wlan", "cellular"), np.arange(count), times * 1_000_000, np.ones(count), interface, {})


def test_the_first_packet_on_the_new_path():
    found = flow(*((at, 0) for at in range(0, 1010, 20)), *((at, 1) for at in range(1080, 2000, 20)))
    assert first_packet_on_new_path(found, 1000 * 10**6, 2000 * 10**6) == ("wlan", "cellular", 1080 * 10**6)
    assert first_packet_on_new_path(found, 1000 * 10**6, 1050 * 10**6) is None
    assert first_packet_on_new_path(found, 1900 * 10**6, 2000 * 10**6) is None


def test_an_n_cast_flow_and_one_that_was_silent_have_no_path_to_leave():
    both = flow(*((at, at // 10 % 2) for at in range(0, 2000, 10)))
    assert first_packet_on_new_path(both, 1000 * 10**6, 2000 * 10**6) is None
    assert first_packet_on_new_path(flow((1500, 1)), 1000 * 10**6, 2000 * 10**6) is None
