"""What is done to agents, and what they have promised by then: they are killed as they answer, the disk is
full, a link comes and goes, there is another agent, there is garbage on the control socket."""

import os
import signal
import socket
import subprocess
import sys
import threading

import pytest
from agent_network import HOME_ADDRESS, ROOT, Agent
from datapath_network import Capture, answers, wait_for
from observations import bound, registered
from signalling import stamped_at

from testbed.wire.codec import Codec
from testbed.wire.flow import FlowIdentification
from testbed.wire.packet import parse_packet

ROUTING, DESTINATION_OPTIONS = 43, 60


@pytest.fixture
def disk(tmp_path):
    """A small file system, for what the home agent saves."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "disk", folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.fixture
def agents(network, tmp_path):
    with Agent(network.ha, tmp_path) as ha, Agent(network.mn, tmp_path) as mn:
        wait_for(lambda: registered(mn))
        yield ha, mn


def fids(agent):
    return sorted(flow["fid"] for flow in agent.ask("flows"))


def answers_to(data, fid):
    """Whether this is a Binding Acknowledgement with an answer to this flow option."""
    if data[6] != ROUTING:
        return False
    message = parse_packet(data, Codec()).message
    return fid in [option.fid for option in message.all_options(FlowIdentification)]


@pytest.mark.requirement("RFC 6275 §10.3.1: what was acknowledged is so, whatever becomes of the agent")
def test_a_home_agent_that_is_killed_as_it_answers_keeps_its_promise(network, agents):
    ha, mn = agents
    for fid in range(10, 15):
        capture = Capture(network.ar, "core")
        asked = threading.Thread(target=mn.ask, args=("flow-add",), kwargs={"fid": fid, "bids": ["wlan"]})
        try:
            asked.start()
            waiting = True
            while not any(answers_to(data, fid) for data in capture.packets()):
                assert waiting
                waiting = asked.is_alive()  # if not, the answer has come, and is found after that
            os.kill(ha.process.pid, signal.SIGKILL)
        finally:
            capture.close()
        ha.process.wait()
        asked.join()
        ha.start()
        assert fid in fids(ha) and fids(ha) == fids(mn)


def test_a_full_disk_does_not_end_the_service(network, tmp_path, disk):
    with Agent(network.ha, tmp_path) as ha:
        ha.stop()
        ha.file.write_text(ha.file.read_text().replace(str(tmp_path / "ha.state"), str(disk / "ha.state")))
        ha.start()
        with Agent(network.mn, tmp_path) as mn:
            wait_for(lambda: registered(mn))
            mn.ask("flow-add", fid=2, bids=["wlan"])
            with open(disk / "filling", "wb", buffering=0) as filling, pytest.raises(OSError):
                while True:
                    filling.write(bytes(4096))
            before = (disk / "ha.state").read_bytes()
            for fid in range(3, 73):  # more than what is left of the last page takes
                mn.ask("flow-add", fid=fid, bids=["wlan"])
            assert fids(ha) == fids(mn) == list(range(1, 73))
            assert (disk / "ha.state").read_bytes() == before
            wait_for(lambda: answers(network.hn, HOME_ADDRESS))
            (disk / "filling").unlink()
            mn.ask("flow-remove", fid=50)
            promised = fids(ha)
            ha.process.kill()
            ha.process.wait()
            ha.start()
            assert fids(ha) == promised == fids(mn) and 50 not in promised


@pytest.mark.requirement("RFC 6275 §11.8: no more than MAX_UPDATE_RATE Binding Updates in a second")
def test_a_link_that_comes_and_goes(network, agents):
    ha, mn = agents
    before = bound(ha)
    captures = [Capture(network.ar, name) for name in ("wlan", "cellular")]
    for turn in range(20):
        network.set_link("wlan", turn % 2 == 1)
        network.mn.shell("ip link set mn-cellular " + ("down" if turn % 4 < 2 else "up"))
    network.mn.shell("ip link set mn-cellular up")
    wait_for(lambda: registered(mn) and bound(ha) == before)
    packets = [data for capture in captures for data in capture.packets()]
    sent = sorted(stamped_at(data) for data in packets if data[6] == DESTINATION_OPTIONS)
    for capture in captures:
        capture.close()
    assert len(sent) > 1
    assert all(later - first > 0.999 for first, later in zip(sent, sent[3:], strict=False))
    assert fids(ha) == fids(mn)
    # the access router may have given up on the care-of address while the link was down
    wait_for(lambda: answers(network.hn, HOME_ADDRESS))


def test_another_agent_in_the_same_place_does_not_start(network, tmp_path, agents):
    ha, _ = agents
    other = tmp_path / "other"
    other.mkdir()
    text = ha.file.read_text().replace('name = "ha"', 'name = "second"').replace(str(tmp_path), str(other))
    file = other / "second.toml"
    file.touch(0o600)
    file.write_text(text)
    listing = "nft -s list ruleset; ip -6 rule; ip -6 neigh show proxy"
    state = network.ha.shell(listing)
    command = [sys.executable, "-m", "testbed.agent", str(file)]
    done = network.ha.run(
        lambda: subprocess.run(command, cwd=ROOT, text=True, capture_output=True, timeout=30)
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("flowbind: another agent works in this network namespace")
    assert done.stderr.count("\n") == 1
    assert network.ha.shell(listing) == state
    # killed, it leaves its state to whoever comes next, by whatever name
    ha.process.kill()
    ha.process.wait()
    done = network.ha.start(*command, cwd=ROOT, text=True, stdout=subprocess.PIPE)
    assert done.stdout.readline() == "ready\n"
    done.terminate()
    assert done.wait(20) == 0
    assert "flowbind" not in network.ha.shell(listing)


def test_garbage_on_the_control_socket(agents):
    _, mn = agents
    before = mn.ask("flows")
    pieces = (os.urandom(100_000), b"{" * 100_000, b"\n" * 1000, b'{"command": "flow-add", "fid": 7', b"\0")
    held = []
    for data in pieces:
        client = socket.socket(socket.AF_UNIX)
        client.connect(mn.socket)
        client.settimeout(10)
        try:
            client.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass  # it has been shown the door
        held.append(client)
    assert mn.ask("flows") == before
    for client in held:
        client.close()
    mn.ask("flow-add", fid=9, bids=["wlan"])
    assert [flow["fid"] for flow in mn.ask("flows")] == [1, 9]
