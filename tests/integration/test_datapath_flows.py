"""Which path real packets take, action by action, in both directions."""

import pytest
from datapath_bed import ICMPV6, TCP, UDP, Bed, mirrored, packet, payload
from datapath_network import CORRESPONDENT, HOME_ADDRESS, HOME_AGENT, WLAN, send_raw, wait_for

from testbed.mobility.forwarding import Action, FlowRule, HomeBinding, Path
from testbed.wire.selector import IPv6TrafficSelector


@pytest.mark.requirement("draft §3.1: Action Forward sends the flow to the binding that it refers to")
def test_rules_are_tried_in_order(bed: Bed):
    narrow = FlowRule(9, 1, IPv6TrafficSelector(source_port=(80, 80)), Action.FORWARD, (2,))
    wide = FlowRule(3, 2, IPv6TrafficSelector(next_header=(TCP, TCP)), Action.FORWARD, (1,))
    bed.bind(default=2, rules=(narrow, wide))
    assert bed.downlink(packet(TCP, 80)) == [2]
    assert bed.downlink(packet(TCP, 81)) == [1]
    bed.bind(default=2, rules=(wide, narrow))
    assert bed.downlink(packet(TCP, 80)) == [1]


@pytest.mark.requirement("draft §3.1: Action N-cast sends the flow to every binding that it refers to")
def test_n_cast(bed: Bed):
    everything = FlowRule(1, 1, None, Action.N_CAST, (2, 1))
    bed.bind(default=2, rules=(everything,))
    assert bed.downlink(packet(), copies=2) == [1, 2]
    assert bed.uplink(mirrored(packet()), copies=2) == [1, 2]
    text = bed.cn.shell(f"ping -c 3 -i 0.05 {HOME_ADDRESS}")
    # the request comes twice, each is answered, each answer goes twice
    assert "3 received, +" in text and text.count("bytes from") > 3


@pytest.mark.requirement("draft §3.1: Action N-cast sends the flow to every binding that it refers to")
def test_n_cast_to_one_tunnel_sends_once(bed: Bed):
    both = tuple(Path(bid, HOME_AGENT, WLAN) for bid in (1, 2))
    rule = FlowRule(1, 1, None, Action.N_CAST, (1, 2))
    bed.bind(default=2)
    bed.ha.run(lambda: bed.anchor.apply({HOME_ADDRESS: HomeBinding(HOME_ADDRESS, both, 1, (rule,))}))
    first = packet()
    assert bed.downlink(first) == [1]
    # whatever follows comes after a second copy would have come
    assert bed.downlink(packet()) == [1]


@pytest.mark.requirement("draft §3.1: Action Discard drops the packets of the flow")
def test_discard(bed: Bed):
    rule = FlowRule(53, 1, IPv6TrafficSelector(source_port=(53, 53)), Action.DISCARD)
    bed.bind(default=1, rules=(rule,))
    for _ in range(3):
        send_raw(bed.cn, packet(UDP, 53))
    assert bed.downlink(packet(UDP, 54)) == [1]
    wait_for(lambda: bed.anchor.counters()[HOME_ADDRESS, 53][0] == 3)
    with bed.mn.socket() as sender:
        sender.bind((str(HOME_ADDRESS), 0))
        for _ in range(3):  # the application does not notice
            sender.sendto(b"x", (str(CORRESPONDENT), 53))
    wait_for(lambda: bed.mobile.counters()[HOME_ADDRESS, 53][0] == 3)
    assert bed.uplink(mirrored(packet(UDP, 54))) == [1]
    assert not any(found[46] == UDP and found.endswith(b"x") for found in bed.up[1].packets())


def test_without_paths_packets_are_dropped(bed: Bed):
    bed.bind(default=None, bids=())
    bed.clear()
    before = bed.anchor.counters()[HOME_ADDRESS, None][0]
    with bed.mn.socket() as sender:
        sender.bind((str(HOME_ADDRESS), 0))
        for _ in range(3):
            sender.sendto(b"x", (str(CORRESPONDENT), 53))
            send_raw(bed.cn, packet())
    wait_for(lambda: bed.anchor.counters()[HOME_ADDRESS, None][0] >= before + 3)
    assert not [
        found
        for capture in (*bed.up.values(), *bed.down.values())
        for found in capture.packets()
        if found[6] in (41, UDP)
    ]


@pytest.mark.requirement("draft §4.3: packets that match no flow binding take the default binding")
def test_default_path_serves_sockets_without_an_address(bed: Bed):
    bed.bind(default=1)
    with bed.cn.socket() as receiver, bed.mn.socket() as sender:
        receiver.bind(("::", 0))
        sender.connect((str(CORRESPONDENT), receiver.getsockname()[1]))
        assert sender.getsockname()[0] == str(HOME_ADDRESS)
        sender.send(b"hello")
        assert receiver.recvfrom(100)[1][0] == str(HOME_ADDRESS)


@pytest.mark.parametrize("kind", [133, 135, 136, 137])
def test_neighbour_discovery_follows_no_flow_binding(bed: Bed, kind: int):
    """Nor does it go into a tunnel at the home agent, where it would be the home link's (RFC 4861 §3.1)."""
    everything = FlowRule(1, 1, None, Action.FORWARD, (1,))
    bed.bind(default=2, rules=(everything,))
    message = packet(ICMPV6, body=bytes([kind, 0, 0, 0]) + bytes(20) + payload())
    assert bed.uplink(mirrored(message)) == [2], "as what has no flow binding"
    assert bed.uplink(mirrored(packet())) == [1]
    bed.clear()
    send_raw(bed.cn, message)
    found: list[bytes] = []
    last = packet()
    send_raw(bed.cn, last)  # whatever was sent before it would be there by then
    wait_for(lambda: found.extend(bed.down[1].packets()) or any(one.endswith(last[-8:]) for one in found))
    found += bed.down[2].packets()
    assert not any(one.endswith(message[-8:]) for one in found)
