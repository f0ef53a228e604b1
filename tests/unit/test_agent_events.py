"""The event log: file, memory, listeners."""

import json
import logging
import os

import pytest

from testbed.agent.events import CAPACITY, EventLog


def test_events_are_lines_of_json(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_text('{"t": 0.5, "node": "before", "event": "kept"}\n')
    log = EventLog("mn", str(path))
    log.record("link-lost", 1.25, interface="mn-wlan")
    log.record("binding-changed", 2.5, bindings={1: "2001:db8::1"})
    log.close()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines[1:] == [
        {"t": 1.25, "node": "mn", "event": "link-lost", "interface": "mn-wlan"},
        {"t": 2.5, "node": "mn", "event": "binding-changed", "bindings": {"1": "2001:db8::1"}},
    ]
    assert lines[0]["node"] == "before"


def test_the_latest_are_remembered():
    log = EventLog("mn")
    for number in range(CAPACITY + 5):
        log.record("tick", float(number))
    log.flush()
    remembered = [json.loads(bytes(raw)) for raw in log.recent()]
    assert [event["t"] for event in remembered] == [float(n) for n in range(5, CAPACITY + 5)]
    assert [json.loads(bytes(raw))["t"] for raw in log.recent(2)] == [CAPACITY + 3.0, CAPACITY + 4.0]
    assert log.recent(0) == []


def test_listeners_are_told_at_once():
    log = EventLog("mn")
    heard = []
    log.listeners.add(lambda event, line: heard.append((event["event"], json.loads(line)["t"])))
    log.record("link-lost", 1.0)
    assert heard == [("link-lost", 1.0)]


def test_a_full_disk_is_reported_once_and_stops_nothing(caplog):
    log = EventLog("mn", "/dev/full")
    with caplog.at_level(logging.ERROR):
        for number in range(3):
            log.record("tick", float(number))
            log.flush()
    assert [record.message for record in caplog.records] == [
        "events cannot be written to /dev/full: No space left on device; going on"
    ]
    assert len(log.recent()) == 3
    log.close()


def test_a_file_that_cannot_be_opened_is_an_error(tmp_path):
    with pytest.raises(OSError):
        EventLog("mn", str(tmp_path / "missing" / "events.jsonl"))
    assert os.listdir(tmp_path) == []
