"""Links that are cut, that move, and that die."""

import os
import signal
import socket
import struct
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from backend import backends

from testbed.emulation.link_device import Device
from testbed.emulation.link_parameters import LinkError, LinkParameters
from testbed.emulation.link_probe import ADDRESSES, PORT, connect, measure_delays, private_namespaces
from testbed.emulation.netem import has_netem

RTMGRP_LINK = 1
IFF_LOWER_UP = 0x10000
PROJECT = Path(__file__).parents[2]


@pytest.fixture(params=backends("link"))
def backend(request):
    if request.param == "netem" and not has_netem():
        pytest.skip("this kernel has no netem")
    return request.param


@pytest.fixture
def namespaces():
    with private_namespaces(3) as made:
        yield made


def shaped(backend):
    return LinkParameters() if backend == "veth" else LinkParameters(delay_ms=20, bandwidth_mbit=50)


def wait_until(condition, timeout_s=20):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "the condition has not come true"


@contextmanager
def link_news(namespace):
    """What the kernel tells of links there, as an agent hears it."""
    with namespace.entered():
        news = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
    news.bind((0, RTMGRP_LINK))
    news.settimeout(30)
    with news:
        yield news


def wait_for_carrier(news, wanted):
    while True:
        message = news.recv(65536)
        flags = struct.unpack_from("=I", message, 16 + 8)[0]
        if bool(flags & IFF_LOWER_UP) is wanted:
            return time.monotonic()


def test_cut_is_heard_at_once(namespaces, backend):
    took = []
    with connect(namespaces, backend, shaped(backend)) as cable, link_news(namespaces[0]) as news:
        for _ in range(5):
            begin = time.monotonic()
            cable.set_carrier(False)
            took.append(wait_for_carrier(news, False) - begin)
            assert not cable.ends[0].state().carrier
            cable.set_carrier(True)
            wait_for_carrier(news, True)
            assert cable.ends[0].state().carrier and cable.ends[1].state().carrier
    assert sorted(took)[2] < 0.05


@contextmanager
def sender_and_receiver(namespaces):
    """Sockets for datagrams at both ends of a link; the receiver does not wait."""
    with namespaces[0].entered():
        sender = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    with namespaces[1].entered():
        receiver = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    with sender, receiver:
        receiver.bind(("::", PORT))
        receiver.setblocking(False)
        yield sender, receiver


def test_nothing_passes_a_cut_link(namespaces, backend):
    with connect(namespaces, backend, shaped(backend)) as cable:
        assert measure_delays(cable, 10, 0.002).numbers == list(range(10))
        with sender_and_receiver(namespaces) as (sender, receiver):
            cable.set_carrier(False)
            for _ in range(10):
                sender.sendto(b"lost", (ADDRESSES[1], PORT))
            cable.set_carrier(True)
            assert first_word(sender, receiver) == b"whole again"


def test_packets_on_the_link_are_lost_when_it_is_cut(namespaces, backend):
    if backend == "veth":
        pytest.skip("nothing is ever on a plain cable")
    with connect(namespaces, backend, LinkParameters(delay_ms=500)) as cable:
        with sender_and_receiver(namespaces) as (sender, receiver):
            for _ in range(10):
                sender.sendto(b"lost", (ADDRESSES[1], PORT))
            cable.set_carrier(False)
            cable.set_carrier(True)
            assert first_word(sender, receiver) == b"whole again"
        if backend == "wire":
            assert cable.counters()[0].dropped_carrier >= 10


def first_word(sender, receiver, word=b"whole again"):
    """What arrives first when words are sent until one does."""
    received = []

    def arrives():
        sender.sendto(word, (ADDRESSES[1], PORT))
        try:
            received.append(receiver.recv(100))
        except BlockingIOError:
            threading.Event().wait(0.01)  # let the link carry it: busy waiting would keep it from doing so
        return received

    wait_until(arrives)
    return received[0]


def bridge(namespace, name="lan0"):
    with namespace.entered():
        for command in (f"link add {name} type bridge", f"link set {name} up"):
            subprocess.run(["ip", *command.split()], check=True)


def bridge_of(device):
    with device.namespace.entered():
        shown = subprocess.run(["ip", "-o", "link", "show", device.name], capture_output=True, text=True)
    return shown.stdout.split(" master ")[1].split()[0] if " master " in shown.stdout else None


def exists(device):
    try:
        device.state()
    except LinkError:
        return False
    return True


def test_move_between_bridges(namespaces, backend):
    mobile, here, there = namespaces
    for namespace, number in ((here, 1), (there, 2)):
        bridge(namespace)
        with namespace.entered():
            subprocess.run(["ip", "address", "add", f"2001:db8:0:1::{number}/64", "dev", "lan0", "nodad"],
                           check=True)
    with connect(namespaces, backend, shaped(backend)) as cable, link_news(mobile) as news:
        with mobile.entered():
            subprocess.run("ip address add 2001:db8:0:1::9/64 dev left nodad".split(), check=True)
        cable.ends[1].set_bridge("lan0")
        index = cable.ends[0].state().index
        for target, other, number in ((there, here, 2), (here, there, 1), (there, here, 2)):
            cable.move(target, "lan0")
            wait_for_carrier(news, False)
            wait_for_carrier(news, True)
            assert bridge_of(Device(target, "right")) == "lan0"
            wait_until(lambda left=other: not exists(Device(left, "right")))
            with mobile.entered():
                ping = ["ping", "-6", "-n", "-q", "-c", "1", "-w", "10", f"2001:db8:0:1::{number}"]
                assert subprocess.run(ping, stdout=subprocess.DEVNULL).returncode == 0
        assert cable.ends[0].state().index == index


def test_moved_link_keeps_its_parameters(namespaces, backend):
    if backend == "veth":
        pytest.skip("a plain cable has none")
    with connect(namespaces, backend, LinkParameters(), LinkParameters(delay_ms=40)) as cable:
        cable.move(namespaces[2], None)
        with namespaces[2].entered():
            subprocess.run("ip address add 2001:db8::2/64 dev right nodad".split(), check=True)
        with namespaces[0].entered():
            ping = subprocess.run("ping -6 -n -c 3 -i 0.1 -w 10 2001:db8::2".split(), capture_output=True,
                                  text=True)
        assert ping.returncode == 0
        assert float(ping.stdout.split("rtt")[1].split("=")[1].split("/")[0]) >= 40


def test_link_that_is_cut_stays_cut_when_it_moves(namespaces, backend):
    bridge(namespaces[2])
    with connect(namespaces, backend, shaped(backend)) as cable:
        cable.set_carrier(False)
        cable.move(namespaces[2], "lan0")
        assert not cable.ends[0].state().carrier
        cable.set_carrier(True)
        wait_until(lambda: cable.ends[0].state().carrier and cable.ends[1].state().carrier)


def test_link_moves_there_and_back_at_once(namespaces, backend):
    with connect(namespaces, backend, shaped(backend)) as cable:
        for target in (*namespaces[1:], *namespaces[1:]) * 2:
            cable.move(target, None)
            assert cable.ends[0].state().carrier and cable.ends[1].state().carrier


def test_move_to_a_bridge_that_is_not_there(namespaces, backend):
    with connect(namespaces, backend, shaped(backend)) as cable:
        with pytest.raises(LinkError, match="cannot find lan0"):
            cable.move(namespaces[2], "lan0")
        assert cable.ends[0].state().carrier
        assert measure_delays(cable, 5, 0.002).numbers == list(range(5))


def test_deleted_link_leaves_no_device(namespaces, backend):
    with connect(namespaces, backend, shaped(backend)) as cable:
        ends = list(cable.ends)
        assert all(map(exists, ends))
    assert not any(map(exists, ends))


def test_name_that_is_taken(namespaces, backend):
    with connect(namespaces, backend, shaped(backend)) as cable:
        with pytest.raises(LinkError, match="left"), connect(namespaces, backend, shaped(backend)):
            pass
        assert measure_delays(cable, 5, 0.002).numbers == list(range(5))


def test_end_that_vanishes_takes_the_carrier_of_the_other(namespaces):
    with connect(namespaces, "wire", LinkParameters(delay_ms=5)) as cable:
        cable.ends[1].delete()
        wait_until(lambda: not cable.ends[0].state().carrier)


def test_death_of_the_wire_process_is_noticed(namespaces, capfd):
    reasons, told = [], threading.Event()
    with connect(namespaces, "wire", LinkParameters(delay_ms=5)) as cable:
        cable.wire._listeners[cable._number] = lambda reason: (reasons.append(reason), told.set())
        pid = cable.wire.pid
        os.kill(pid, signal.SIGKILL)
        assert told.wait(10)
        assert reasons == [f"the wire process (pid {pid}), which carries the links, was killed by signal 9"]
        wait_until(lambda: not any(map(exists, cable.ends)))
        with pytest.raises(LinkError, match="was killed by signal 9"):
            cable.counters()
    with connect(namespaces, "wire", LinkParameters(delay_ms=5)) as cable:  # the next link has a new process
        assert measure_delays(cable, 5, 0.002).numbers == list(range(5))


def test_wire_process_ends_with_its_last_link(namespaces):
    parameters = LinkParameters(delay_ms=5)
    with connect(namespaces, "wire", parameters) as cable:
        pid = cable.wire.pid
        with private_namespaces(2) as others, connect(others, "wire", parameters) as second:
            assert second.wire.pid == pid
        assert measure_delays(cable, 5, 0.002).numbers == list(range(5))
    assert not Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize("thread", [False, True], ids=["main thread", "other thread"])
def test_wire_process_ends_when_its_parent_is_killed(thread):
    script = textwrap.dedent(f"""
        import signal, threading
        from testbed.emulation.link_parameters import LinkParameters
        from testbed.emulation.link_probe import connect, private_namespaces

        def link():
            parameters = LinkParameters(delay_ms=5)
            with private_namespaces(2) as namespaces, connect(namespaces, "wire", parameters) as cable:
                print(cable.wire.pid, flush=True)
                threading.Event().wait()

        if {thread}:
            threading.Thread(target=link).start()
        else:
            link()
    """)
    with subprocess.Popen([sys.executable, "-c", script], cwd=PROJECT, stdout=subprocess.PIPE) as parent:
        wire = Path(f"/proc/{int(parent.stdout.readline())}")
        assert b"wire.py" in (wire / "cmdline").read_bytes()
        parent.kill()
    wait_until(lambda: has_ended(wire))


def has_ended(process):
    try:
        return (process / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True
