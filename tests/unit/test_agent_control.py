"""The control socket: what a client says, what it hears, and what bad input does to others (nothing)."""

import asyncio
import json
import os
import socket
import stat
import threading
from contextlib import contextmanager

import pytest

from testbed.agent import requests
from testbed.agent.control import Client, ControlError, Refused, find_socket
from testbed.agent.control_server import MAX_BACKLOG, MAX_LINE, ControlServer
from testbed.agent.events import EventLog
from testbed.agent.feed import Feed
from testbed.agent.requests import RequestError


async def answer(request):
    if isinstance(request, requests.Status):
        return {"name": "mn"}
    if isinstance(request, requests.FlowAdd):
        return {"fid": request.fid, "bids": request.bids, "priority": request.priority}
    if isinstance(request, requests.Bindings):
        raise ZeroDivisionError
    raise RequestError("not here")


class Running:
    """A control server in a thread of its own."""

    def __init__(self, path):
        self.path = path
        self.events = EventLog("mn")
        self.loop = asyncio.new_event_loop()
        self.server = ControlServer(path, answer, self.events, Feed())
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()

    def call(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(10)

    def record(self, name, **fields):
        async def record():
            self.events.record(name, self.loop.time(), **fields)

        self.call(record())


@contextmanager
def running(path):
    run = Running(path)
    try:
        run.call(run.server.start())
        yield run
    finally:
        run.call(run.server.close())
        run.loop.call_soon_threadsafe(run.loop.stop)
        run.thread.join()
        run.loop.close()


@pytest.fixture
def agent(tmp_path):
    with running(str(tmp_path / "mn.sock")) as run:
        yield run


def test_commands_are_answered(agent):
    with Client(agent.path) as client:
        assert client.request("status") == {"name": "mn"}
        assert client.request("flow-add", fid=3, bids=["wlan", 2], source_port=22) == {
            "fid": 3,
            "bids": ["wlan", 2],
            "priority": 10,
        }


def test_a_refusal_is_one_sentence(agent):
    with Client(agent.path) as client:
        with pytest.raises(Refused, match=r"^not here$"):
            client.request("flows")
        assert client.request("status") == {"name": "mn"}


def test_a_defect_is_told_and_survived(agent, caplog):
    with Client(agent.path) as client:
        with pytest.raises(Refused, match="its log says where"):
            client.request("bindings")
        assert client.request("status") == {"name": "mn"}


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (b"hello", "expected one JSON object a line: "),
        (b"\xff\xfe", "expected one JSON object a line: "),
        (b"[]", 'expected a JSON object with the key "command"'),
        (b"{}", 'expected a JSON object with the key "command"'),
        (b'{"command": 3}', "there is no command 3; known are status, bindings, flows"),
        (b'{"command": "dance"}', "there is no command 'dance'; known are status"),
        (b'{"command": "flow-add"}', "fid: is missing"),
        (b'{"command": "flow-add", "fid": "x"}', "fid: expected a number, not text"),
        (b'{"command": "flow-add", "fid": 0}', "fid: expected at least 1, not 0"),
        (b'{"command": "flow-add", "fid": 1, "zzz": 1}', "zzz: is not a known key; known are "),
        (b'{"command": "flow-add", "fid": 1, "spy": 1}', "spy: is not a known key; did you mean spi?"),
        (b'{"command": "flow-add", "fid": 1, "priority": 256}', "priority: expected at most 255, not 256"),
        (b'{"command": "flow-replace", "fid": 1, "action": "x"}', "action: 'x' is not known; expected"),
        (b'{"command": "events", "last": -1}', "last: expected at least 0, not -1"),
    ],
)
def test_bad_input_gets_one_sentence_and_the_connection_goes_on(agent, line, sentence):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(agent.path)
        sock.settimeout(10)
        sock.sendall(line + b'\n\n{"command": "status"}\n')
        lines = sock.makefile("rb")
        refusal = json.loads(lines.readline())
        assert refusal["ok"] is False
        assert refusal["error"].startswith(sentence)
        assert json.loads(lines.readline()) == {"ok": True, "result": {"name": "mn"}}


def test_an_endless_line_ends_the_connection(agent):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(agent.path)
        sock.settimeout(10)
        sock.sendall(b"x" * (MAX_LINE + 1000))
        answers = sock.makefile("rb").readlines()
    assert [json.loads(line) for line in answers] == [
        {"ok": False, "error": f"a command has at most {MAX_LINE} octets"}
    ]
    with Client(agent.path) as client:
        assert client.request("status") == {"name": "mn"}


def test_events_are_remembered_and_followed(agent):
    agent.record("one")
    with Client(agent.path) as client:
        assert [event["event"] for event in client.request("events")] == ["one"]
        events = client.events(last=5)
        assert next(events)["event"] == "one"
        agent.record("two", interface="mn-wlan")
        event = next(events)
        assert (event["event"], event["interface"], event["node"]) == ("two", "mn-wlan", "mn")


def test_a_listener_that_does_not_read_is_dropped(agent):
    with socket.socket(socket.AF_UNIX) as slow, Client(agent.path) as client:
        slow.connect(agent.path)
        slow.sendall(b'{"command": "events", "follow": true}\n')
        slow.settimeout(10)
        assert slow.recv(100) == b'{"ok":true,"result":[]}\n'
        words = "x" * 10000
        for _ in range(2 * MAX_BACKLOG // len(words)):
            agent.record("words", words=words)
        assert agent.events.listeners == set()
        assert client.request("status") == {"name": "mn"}


def test_a_listener_that_leaves_is_forgotten(agent):
    with Client(agent.path) as client:
        agent.record("one")
        events = client.events(last=1)
        next(events)
        assert len(agent.events.listeners) == 1
    with Client(agent.path) as client:  # answered after the server has seen the other one leave
        while agent.events.listeners:
            client.request("status")


def test_the_forwarding_state_can_be_followed(agent):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(agent.path)
        sock.settimeout(10)
        sock.sendall(b'{"command": "feed"}\n')
        assert json.loads(sock.recv(1000)) == {"feed": "snapshot", "serial": 0, "bindings": []}


def test_only_the_owner_may_use_the_socket(agent):
    assert stat.S_IMODE(os.stat(agent.path).st_mode) == 0o600


def test_two_agents_do_not_share_a_socket(agent):
    second = ControlServer(agent.path, answer, agent.events, Feed())
    with pytest.raises(ControlError, match="another agent answers"):
        agent.call(second.start())
    with Client(agent.path) as client:
        assert client.request("status") == {"name": "mn"}


def test_the_socket_of_a_killed_agent_is_replaced_and_ours_removed(tmp_path):
    path = str(tmp_path / "mn.sock")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)
    with running(path), Client(path) as client:
        assert client.request("status") == {"name": "mn"}
    assert not os.path.exists(path)


def test_no_agent_is_one_sentence(tmp_path):
    with pytest.raises(ControlError, match="no agent answers at .*No such file"):
        Client(str(tmp_path / "mn.sock"))


def test_the_end_of_the_agent_is_noticed(tmp_path):
    path = str(tmp_path / "mn.sock")
    with running(path):
        client = Client(path)
        assert client.request("status") == {"name": "mn"}
    with client, pytest.raises(ControlError, match="has ended|is gone"):
        client.request("status")


def test_the_socket_is_found_by_option_variable_or_as_the_only_one(tmp_path, monkeypatch):
    monkeypatch.setattr("testbed.agent.control.SOCKET_FOLDER", str(tmp_path))
    monkeypatch.delenv("FLOWBIND_SOCKET", raising=False)
    with pytest.raises(ControlError, match="no agent runs here"):
        find_socket()
    sockets = [socket.socket(socket.AF_UNIX) for _ in range(2)]
    paths = [str(tmp_path / name) for name in ("ha.sock", "mn.sock")]
    sockets[0].bind(paths[0])
    assert find_socket() == paths[0]
    sockets[1].bind(paths[1])
    with pytest.raises(ControlError, match="several agents run here"):
        find_socket()
    monkeypatch.setenv("FLOWBIND_SOCKET", paths[1])
    assert find_socket() == paths[1]
    assert find_socket(paths[0]) == paths[0]
    for sock in sockets:
        sock.close()
