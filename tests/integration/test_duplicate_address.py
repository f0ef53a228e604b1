"""Duplicate address detection by an agent, on a link with a neighbour."""

import asyncio
import contextlib
import socket
import struct
from ipaddress import IPv6Address

import pytest
from datapath_network import Namespace, ipv6

from testbed.agent.duplicate_address import MAX_WAITS, DuplicateAddressDetection
from testbed.wire.checksum import checksum

ADDRESS, NEIGHBOUR = IPv6Address("2001:db8:100::100"), IPv6Address("2001:db8:100::2")
ALL_NODES = IPv6Address("ff02::1")


class StallingLoop(asyncio.SelectorEventLoop):
    """`stalled_s`: for so long nothing of it has run. `late_s`: by so much each timer is late."""

    stalled_s = late_s = 0.0

    def time(self) -> float:
        return super().time() + self.stalled_s

    def call_at(self, when: float, *arguments, **keywords) -> asyncio.TimerHandle:
        return super().call_at(when + self.late_s, *arguments, **keywords)


@pytest.fixture
def link():
    """The two nodes of a link: who asks, and a neighbour."""
    asking, neighbour = Namespace("asking"), Namespace("neighbour")
    asking.shell(f"ip link add eth0 type veth peer name eth0 netns {neighbour.pid}; ip link set eth0 up")
    neighbour.shell("ip link set eth0 up")
    yield asking, neighbour
    asking.close()
    neighbour.close()


def advertisement() -> bytes:
    """A Neighbour Advertisement for ADDRESS, as a packet."""
    message = struct.pack("!BBHI", 136, 0, 0, 0x20000000) + ADDRESS.packed
    total = checksum(message, NEIGHBOUR, ALL_NODES, 58)
    return ipv6(NEIGHBOUR, ALL_NODES, 58, message[:2] + total.to_bytes(2, "big") + message[4:], 255)


def detect(
    asking: Namespace, stalled_s: float, answer_after_s: float | None, answer, late_s: float = 0.0
) -> tuple[bool, float]:
    """Whether ADDRESS is unique, and when that was known, by the loop's clock. The machine stands still just
    after the question; each timer is late by `late_s`."""

    async def probe() -> tuple[bool, float]:
        loop = asyncio.get_running_loop()
        found = loop.create_future()
        detection = DuplicateAddressDetection("eth0")
        began = loop.time()
        detection.probe(ADDRESS, found.set_result)
        loop.stalled_s += stalled_s
        if answer_after_s is not None:
            loop.call_later(answer_after_s, answer)
        return await found, loop.time() - began

    def run() -> tuple[bool, float]:
        with contextlib.closing(StallingLoop()) as loop:
            loop.late_s = late_s
            return loop.run_until_complete(probe())

    return asking.run(run)


def test_nobody_claims_it(link):
    unique, seconds = detect(link[0], 0, None, None)
    assert unique and seconds >= 1


@pytest.mark.parametrize("stalled_s", [0, 1.5])
def test_a_claim_counts_that_comes_after_the_machine_stood_still(link, stalled_s):
    asking, neighbour = link
    with neighbour.socket(socket.SOCK_DGRAM, 0, socket.AF_PACKET) as sender:
        to = ("eth0", 0x86DD, 0, 0, b"\x33\x33\0\0\0\1")
        unique, _ = detect(asking, stalled_s, 0.1, lambda: sender.sendto(advertisement(), to))
    assert not unique


def test_a_loop_that_is_late_each_time_comes_to_an_end(link, caplog):
    unique, seconds = detect(link[0], 0, None, None, late_s=0.2)
    assert unique and seconds >= MAX_WAITS * 1.2
    (record,) = caplog.records
    assert f"eth0: {ADDRESS} is taken for unique" in record.getMessage()


def test_a_claim_counts_as_long_as_it_is_waited_for(link):
    asking, neighbour = link
    with neighbour.socket(socket.SOCK_DGRAM, 0, socket.AF_PACKET) as sender:
        to = ("eth0", 0x86DD, 0, 0, b"\x33\x33\0\0\0\1")
        after_s = MAX_WAITS * 1.2 - 0.5
        unique, _ = detect(asking, 0, after_s, lambda: sender.sendto(advertisement(), to), late_s=0.2)
    assert not unique
