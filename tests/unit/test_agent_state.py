"""The state file: whole or not at all, and never in the way."""

import json
import logging
import os
import shutil
import time

import pytest

from testbed.agent.state import MIN_CHANGES_OCTETS, StateFile


def test_what_is_saved_is_loaded_with_its_age(tmp_path):
    path = tmp_path / "folder" / "state.json"
    StateFile(str(path)).save({"entries": [1, 2]})
    saved = json.loads(path.read_text())
    path.write_text(json.dumps({**saved, "saved_at": time.time() - 30}))
    ((snapshot, saved_at),) = StateFile(str(path)).load(now=1000.0)
    assert snapshot == {"entries": [1, 2]}
    assert saved_at == pytest.approx(970.0, abs=1)
    assert os.listdir(path.parent) == ["state.json"]


def test_without_a_path_nothing_is_kept():
    state = StateFile("")
    state.save({"entries": []})
    assert not state.append({"entries": []}) and state.load(0.0) == []


def test_no_file_yet_is_no_state(tmp_path):
    assert StateFile(str(tmp_path / "state.json")).load(0.0) == []


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{", b"[]", b"null", b"{}", b"\xff", b'{"format": 9}'),
        b'{"format": 1, "saved_at": "x", "snapshot": {}}',
    ],
)
def test_what_is_no_state_is_put_aside(tmp_path, caplog, content):
    path = tmp_path / "state.json"
    path.write_bytes(content)
    with caplog.at_level(logging.ERROR):
        assert StateFile(str(path)).load(0.0) == []
    assert (tmp_path / "state.json.rejected").read_bytes() == content
    assert not path.exists()
    assert len(caplog.records) == 1


def test_a_state_that_cannot_be_saved_is_reported_once(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    state = StateFile(str(tmp_path / "file" / "state.json"))
    with caplog.at_level(logging.ERROR):
        state.save({})
        state.save({})
    assert len(caplog.records) == 1
    assert "state cannot be saved" in caplog.text


def test_a_failed_save_leaves_the_old_state(tmp_path, caplog):
    path = tmp_path / "state.json"
    state = StateFile(str(path))
    state.save({"entries": [1]})
    os.mkdir(f"{path}.{os.getpid()}")  # where the new state would be written
    state.save({"entries": [2]})
    assert loaded(path) == [{"entries": [1]}]


def loaded(path):
    """What a new life finds there."""
    return [snapshot for snapshot, _ in StateFile(str(path)).load(0.0)]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state.json"


def test_changes_follow_their_snapshot(path):
    state = StateFile(str(path))
    assert not state.append({"n": 0})  # to what?
    state.save({"n": 1})
    assert state.append({"n": 2}) and loaded(path) == [{"n": 1}, {"n": 2}]
    assert state.append({"n": 3}) and loaded(path) == [{"n": 1}, {"n": 2}, {"n": 3}]
    state.save({"n": 4})
    assert loaded(path) == [{"n": 4}]
    assert state.append({"n": 5}) and loaded(path) == [{"n": 4}, {"n": 5}]


def test_changes_of_another_snapshot_are_not_read(path):
    """The agent was killed between replacing the snapshot and removing what it had replaced."""
    state = StateFile(str(path))
    state.save({"n": 1})
    state.append({"n": 2})
    changes = path.with_name("state.json.changes")
    before = changes.read_bytes()
    state.save({"n": 3})
    changes.write_bytes(before)
    assert loaded(path) == [{"n": 3}]


def test_changes_that_cannot_be_removed_are_reported_once_and_not_read(path, caplog):
    state, changes = StateFile(str(path)), path.with_name("state.json.changes")
    changes.mkdir()
    with caplog.at_level(logging.ERROR):
        for number in range(3):
            state.save({"n": number})
        assert [r.getMessage() for r in caplog.records] == [
            f"{changes} cannot be removed: Is a directory; going on"
        ]
        assert loaded(path) == [{"n": 2}]
        changes.rmdir()
        state.save({"n": 3})
        assert state.append({"n": 4}) and loaded(path) == [{"n": 3}, {"n": 4}]
        state.close()
        changes.unlink()
        changes.mkdir()
        state.save({"n": 5})
    assert sum("removed" in record.getMessage() for record in caplog.records) == 2
    assert loaded(path) == [{"n": 5}]


def test_changes_that_cannot_be_read_are_reported(path, caplog):
    StateFile(str(path)).save({"n": 1})
    changes = path.with_name("state.json.changes")
    changes.mkdir()
    with caplog.at_level(logging.ERROR):
        assert loaded(path) == [{"n": 1}]
    (record,) = caplog.records
    assert record.getMessage() == (
        f"changes of the state cannot be read from {changes}: Is a directory; going on without them"
    )


def test_another_failure_is_reported_too(path, caplog):
    state, changes = StateFile(str(path)), path.with_name("state.json.changes")
    changes.mkdir()
    with caplog.at_level(logging.ERROR):
        state.save({"n": 1})
        assert not state.append({"n": 2})
    assert ["removed" in record.getMessage() for record in caplog.records] == [True, False]


def test_a_folder_that_has_vanished_is_made_again(path):
    state = StateFile(str(path.parent / "folder" / path.name))
    state.save({"n": 1})
    assert state.append({"n": 2})
    shutil.rmtree(path.parent / "folder")
    state.save({"n": 3})
    assert loaded(state.path) == [{"n": 3}]
    shutil.rmtree(path.parent / "folder")
    assert not state.append({"n": 4})
    state.save({"n": 5})
    assert state.append({"n": 6}) and loaded(state.path) == [{"n": 5}, {"n": 6}]


def test_a_change_that_is_cut_off_is_not_read(path):
    state = StateFile(str(path))
    state.save({"n": 1})
    state.append({"n": 2})
    changes = path.with_name("state.json.changes")
    whole = changes.read_bytes()
    for length in range(len(whole)):
        changes.write_bytes(whole[:length])
        assert loaded(path) == [{"n": 1}]


def test_many_changes_are_to_become_a_snapshot(path):
    state = StateFile(str(path))
    state.save({})
    while not state.is_long:
        assert state.append({"text": "x" * 10000})
    assert path.with_name("state.json.changes").stat().st_size > MIN_CHANGES_OCTETS
    state.save({})
    assert not state.is_long
