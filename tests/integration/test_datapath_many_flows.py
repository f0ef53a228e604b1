"""Many flow bindings of one mobile node: each connection goes through them once, and is followed at once when
they change."""

from collections.abc import Iterator

import pytest
from backend import backends
from datapath_bed import DCCP, SCTP, TCP, UDP, Bed, mirrored, packet
from datapath_network import HOME_ADDRESS, binding, needed, send_raw

from testbed.datapath.recent_flows import MANY_RULES, RECENT_FLOWS
from testbed.mobility.forwarding import Action, FlowRule
from testbed.wire.selector import IPv6TrafficSelector

FIRST_PORT, COUNT = 5000, 300


@pytest.fixture(scope="module", params=backends("tunnel"))
def bed(request: pytest.FixtureRequest) -> Iterator[Bed]:
    bed = Bed(needed(request.param))
    yield bed
    bed.close()


def rules(turned: int = 0, count: int = COUNT) -> tuple[FlowRule, ...]:
    """Source port FIRST_PORT + N goes to BID 1 where N + `turned` is even, else to 2."""
    return tuple(
        FlowRule(
            number,
            number,
            IPv6TrafficSelector(source_port=(FIRST_PORT + number,) * 2),
            Action.FORWARD,
            (1 + (number + turned) % 2,),
        )
        for number in range(count)
    )


def known(bed: Bed) -> int:
    """How many connections the home agent knows."""
    return bed.ha.shell(f"nft list map ip6 flowbind {RECENT_FLOWS}").count("expires")


def test_packets_of_a_connection_take_the_same_path_and_are_counted(bed: Bed):
    bed.bind(rules=rules())
    before = known(bed)
    for number, protocol in ((0, TCP), (1, UDP), (150, SCTP), (299, DCCP), (298, UDP)):
        sent = packet(protocol, FIRST_PORT + number, 9)
        for _ in range(3):
            assert bed.downlink(sent) == [1 + number % 2]
            assert bed.uplink(mirrored(sent)) == [1 + number % 2]
    for _ in range(2):
        assert bed.downlink(packet(UDP, 4999, 9)) == [2], "default"
    assert known(bed) == before + 6
    for end, datapath in ((bed.ha, bed.anchor), (bed.mn, bed.mobile)):
        counters = end.run(datapath.counters)
        assert [counters[HOME_ADDRESS, number][0] for number in (0, 1, 150, 299, 298)] == [3] * 5
    assert bed.ha.run(bed.anchor.counters)[HOME_ADDRESS, None][0] >= 2


def test_known_connections_follow_a_change_at_once(bed: Bed):
    bed.bind(rules=rules())
    sent = packet(UDP, FIRST_PORT + 100, 7)
    assert bed.downlink(sent) == bed.downlink(sent) == [1]
    bed.bind(rules=rules(turned=1))
    assert bed.downlink(sent) == bed.downlink(sent) == [2]
    bed.bind(rules=rules())
    assert bed.downlink(sent) == [1]
    bed.bind()
    assert bed.downlink(sent) == [2], "no flow bindings, default"


def test_whatever_a_selector_looks_at_makes_another_connection(bed: Bed):
    marked = IPv6TrafficSelector(traffic_class=(0xB8, 0xB8))
    labelled = IPv6TrafficSelector(flow_label=(5, 5))
    first = (
        FlowRule(1001, 0, marked, Action.FORWARD, (1,)),
        FlowRule(1002, 0, labelled, Action.FORWARD, (1,)),
    )
    bed.bind(rules=(*first, *rules()))
    for _ in range(2):
        assert bed.downlink(packet(UDP, 4000, 9)) == [2]
        assert bed.downlink(packet(UDP, 4000, 9, traffic_class=0xB9)) == [1], "ECN does not matter"
        assert bed.downlink(packet(UDP, 4000, 9, flow_label=5)) == [1]
        assert bed.downlink(packet(UDP, 4000, 9, flow_label=6)) == [2]


def test_copies_and_discarded_packets(bed: Bed):
    first = (
        FlowRule(2001, 0, IPv6TrafficSelector(source_port=(4001, 4001)), Action.N_CAST, (1, 2)),
        FlowRule(2002, 0, IPv6TrafficSelector(source_port=(4002, 4002)), Action.DISCARD),
    )
    bed.bind(rules=(*first, *rules()))
    for number in range(1, 4):
        assert bed.downlink(packet(UDP, 4001, 9), copies=2) == [1, 2]
        send_raw(bed.cn, packet(UDP, 4002, 9))
        assert bed.downlink(packet(UDP, 4000, 9)) == [2]  # comes after the one that is discarded
        assert bed.ha.run(bed.anchor.counters)[HOME_ADDRESS, 2002][0] == number


def test_the_kernel_has_what_is_wanted_before_and_after(bed: Bed):
    for wanted in (rules(), rules(count=MANY_RULES), rules(count=MANY_RULES - 1), rules(turned=1), ()):
        bed.bind(rules=wanted)
        assert bed.downlink(packet(UDP, FIRST_PORT + 1, 3)) == [wanted[1].bids[0] if wanted else 2]
        for end, datapath, anchor in ((bed.ha, bed.anchor, True), (bed.mn, bed.mobile, False)):
            complete = {HOME_ADDRESS: binding(anchor, rules=wanted)}
            assert end.run(lambda d=datapath, c=complete: d.reconcile(c)) == 0
    listed = bed.ha.shell("nft list table ip6 flowbind")
    assert ".flows" not in listed and ".fid" not in listed
