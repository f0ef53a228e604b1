"""The mobile node's own packets that go by the default path: routed once, and by none but that path."""

import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv6Address

import pytest
from datapath_bed import UDP, Bed, mirrored, packet
from datapath_network import (
    CELLULAR,
    CORRESPONDENT,
    HOME_ADDRESS,
    HOME_ADDRESS_2,
    WLAN,
    binding,
    path,
    wait_for,
)

from testbed.datapath import mark
from testbed.mobility.forwarding import Action, FlowRule, HomeBinding
from testbed.wire.selector import IPv6TrafficSelector

_SO_MARK = 36
CARE_OF = {1: WLAN, 2: CELLULAR}
FLOW = FlowRule(1, 1, IPv6TrafficSelector(source_port=(4001, 4001)), Action.FORWARD, (1,))


def flows(count: int) -> tuple[FlowRule, ...]:
    """So many, of which the packets of these tests match the first one at most."""
    others = range(2, count + 1)
    return FLOW, *(
        FlowRule(n, n, IPv6TrafficSelector(source_port=(6000 + n,) * 2), Action.FORWARD, (1,)) for n in others
    )


@contextmanager
def numbers(bed: Bed) -> Iterator[dict[int, int]]:
    """Number in the mark of what the mobile node sends to `CORRESPONDENT` -> packets; known at the end."""
    found = dict.fromkeys((0, *map(mark.slot_number, range(3))), 0)
    chain = "chain ip6 seen out"
    hook = "'{ type filter hook output priority -100; }'"
    bed.mn.shell(f"nft add table ip6 seen; nft add {chain} {hook}")
    sent = f"ip6 daddr {CORRESPONDENT} meta mark and {mark.NUMBER_MASK:#x}"
    for number in found:
        bed.mn.shell(f"nft add rule ip6 seen out {sent} == {mark.value(number):#x} counter")
    try:
        yield found
        counts = re.findall(r"packets (\d+)", bed.mn.shell(f"nft list {chain}"))
        found.update(zip(found, map(int, counts), strict=True))
    finally:
        bed.mn.shell("nft delete table ip6 seen")


def outer(bed: Bed, end: bytes) -> list[tuple[int, IPv6Address]]:
    """By which BID's network the home agent got tunnel packets that end so, and their outer sources."""
    return [
        (bid, IPv6Address(found[8:24]))
        for bid, capture in bed.up.items()
        for found in capture.packets()
        if found[6] == 41 and found.endswith(end)
    ]


def arrived(bed: Bed, end: bytes) -> tuple[int, IPv6Address]:
    found: list[tuple[int, IPv6Address]] = []
    wait_for(lambda: found.extend(outer(bed, end)) or found)
    (one,) = found
    return one


def sending(bed: Bed, source: IPv6Address, number: int | None = None) -> socket.socket:
    """A socket whose packets have this number in their mark."""
    found = bed.mn.socket()
    found.bind((str(source), 0))
    if number is not None:
        found.setsockopt(socket.SOL_SOCKET, _SO_MARK, mark.value(number))
    return found


@pytest.mark.parametrize("many", [1, 20], ids=["few flow bindings", "many"])
def test_they_need_no_mark(bed: Bed, many: int):
    bed.bind(default=2, rules=flows(many))
    before = bed.mobile.counters()
    with numbers(bed) as found:
        for _ in range(3):
            assert bed.uplink(mirrored(packet(UDP, 5000))) == [2]
        for _ in range(2):
            assert bed.uplink(mirrored(packet(UDP, 4001))) == [1]
    assert found[0] == 3, "by their route"
    assert found[mark.slot_number(bed.mobile.slots[HOME_ADDRESS][1])] == 2, "by their flow binding"
    after = bed.mobile.counters()
    assert [after[HOME_ADDRESS, fid][0] - before[HOME_ADDRESS, fid][0] for fid in (None, 1)] == [3, 2]


def test_default_path_changes_under_way(bed: Bed):
    """Whatever moment it is sent at, a packet leaves by the network whose care-of address it has."""
    bed.bind(default=1, rules=(FLOW,))
    bed.clear()
    stop = threading.Event()
    sent = 0

    def send() -> None:
        nonlocal sent
        while not stop.wait(0.0002):
            sender.sendto(b"%8d" % sent, (str(CORRESPONDENT), 9))
            sent += 1

    found: list[tuple[int, IPv6Address]] = []
    with sending(bed, HOME_ADDRESS) as sender:
        thread = threading.Thread(target=send)
        thread.start()
        try:
            for turn in range(100):
                wanted = {HOME_ADDRESS: binding(False, default=1 + turn % 2, rules=(FLOW,))}
                bed.mn.run(lambda wanted=wanted: bed.mobile.apply(wanted))
                before = len(found)
                wait_for(lambda before=before: found.extend(outer(bed, b"")) or len(found) > before)
        finally:
            stop.set()
            thread.join()
    wait_for(lambda: found.extend(outer(bed, b"")) or len(found) == sent)
    assert {bid for bid, _ in found} == {1, 2}
    assert [(bid, source) for bid, source in found if CARE_OF[bid] != source] == []


def test_home_addresses_with_paths_of_their_own(bed: Bed):
    bed.bind(default=1)
    second = HomeBinding(HOME_ADDRESS_2, (path(2, False),), 2)
    bed.mn.run(lambda: bed.mobile.apply({HOME_ADDRESS_2: second}))
    try:
        for home_address, bid in ((HOME_ADDRESS, 1), (HOME_ADDRESS_2, 2)) * 2:
            bed.clear()
            with sending(bed, home_address) as sender:
                sender.sendto(b"from home", (str(CORRESPONDENT), 9))
            assert arrived(bed, b"from home") == (bid, CARE_OF[bid])
    finally:
        bed.mn.run(lambda: bed.mobile.apply({HOME_ADDRESS_2: None}))


def test_the_first_home_address_goes(bed: Bed):
    """The next one is the first, then."""
    second = HomeBinding(HOME_ADDRESS_2, (path(2, False),), 2)
    bed.bind(default=1)
    bed.mn.run(lambda: bed.mobile.apply({HOME_ADDRESS_2: second}))
    try:
        bed.mn.run(lambda: bed.mobile.apply({HOME_ADDRESS: None}))
        bed.clear()
        with numbers(bed) as found, sending(bed, HOME_ADDRESS_2) as sender:
            sender.sendto(b"the other", (str(CORRESPONDENT), 9))
            assert arrived(bed, b"the other") == (2, CELLULAR)
        assert found[0] == 1
    finally:
        bed.mn.run(lambda: bed.mobile.apply({HOME_ADDRESS_2: None}))


def test_to_a_network_that_the_node_is_connected_to(bed: Bed):
    """From its home address it goes home first, as everything does."""
    bed.bind(default=2)
    bed.clear()
    with sending(bed, HOME_ADDRESS) as sender:
        sender.sendto(b"neighbour", ("2001:db8:201::1", 9))
    assert arrived(bed, b"neighbour") == (2, CELLULAR)


@pytest.mark.parametrize("number", [mark.slot_number(0), mark.slot_number(1), mark.DISCARD, 999])
def test_a_number_by_an_application_means_nothing(bed: Bed, number: int):
    for default in (1, 2):
        bed.bind(default=default)
        bed.clear()
        with sending(bed, HOME_ADDRESS, number) as sender:
            sender.sendto(b"marked by it", (str(CORRESPONDENT), 9))
        assert arrived(bed, b"marked by it") == (default, CARE_OF[default])


def test_without_a_default_path(bed: Bed):
    bed.bind(default=1)
    bed.bind(default=None)
    bed.clear()
    with sending(bed, HOME_ADDRESS) as sender:
        sender.sendto(b"nowhere", (str(CORRESPONDENT), 9))
        wait_for(lambda: bed.mobile.counters()[HOME_ADDRESS, None][0])
        bed.bind(default=2)
        sender.sendto(b"somewhere", (str(CORRESPONDENT), 9))
    assert arrived(bed, b"where") == (2, CELLULAR)
