"""What goes through the tunnels between mobile node and home agent, and what does not."""

import contextlib
import socket
import struct
from collections.abc import Iterator
from ipaddress import IPv6Address

import pytest
from datapath_bed import MOBILITY_HEADER, UDP, Bed, mirrored, mobile_network, packet, payload, udp
from datapath_network import (
    CELLULAR,
    CORRESPONDENT,
    HOME_ADDRESS,
    HOME_ADDRESS_2,
    HOME_AGENT,
    PATIENCE_S,
    PREFIX,
    WLAN,
    WLAN_2,
    ipv6,
    send_raw,
    wait_for,
)

from testbed.datapath.datapath import Datapath, DatapathConfiguration
from testbed.mobility.forwarding import Action, FlowRule, HomeBinding, Path, Side
from testbed.wire.selector import IPv6TrafficSelector


def test_outer_source_is_the_care_of_address_among_several(bed: Bed):
    bed.mn.shell(
        "ip address add 2001:db8:201::abc/64 dev wlan nodad;"
        "ip address add 2001:db8:201::1:0:0:1/64 dev wlan nodad"
    )
    try:
        bed.bind(default=1)
        assert bed.uplink(mirrored(packet())) == [1]
        assert " 0% packet loss" in bed.mn.shell(f"ping -c 1 -I {HOME_ADDRESS} {CORRESPONDENT}")
    finally:
        bed.mn.shell(
            "ip address del 2001:db8:201::abc/64 dev wlan;ip address del 2001:db8:201::1:0:0:1/64 dev wlan"
        )


def test_care_of_address_leaves_by_its_interface(bed: Bed):
    bed.bind(default=2)
    assert bed.mn.shell(f"ip -6 route get {CORRESPONDENT} from {CELLULAR}").count("dev cellular")
    assert bed.mn.shell(f"ip -6 route get {CORRESPONDENT} from {WLAN}").count("dev wlan")
    assert " 0% packet loss" in bed.mn.shell(f"ping -c 1 -I {CELLULAR} {CORRESPONDENT}")


@pytest.mark.requirement(
    "RFC 6275 §10.4.5: a home agent checks the outer source of reverse tunnelled packets"
)
@pytest.mark.requirement("RFC 6275 §11.3.3: a mobile node takes tunnelled packets of its home agent only")
def test_spoofed_tunnel_packets_are_rejected(bed: Bed):
    bed.bind(default=1)
    with bed.cn.socket() as receiver:
        receiver.bind(("::", 2000))
        inner = packet(UDP, 1000, 2000, source=HOME_ADDRESS, destination=CORRESPONDENT)
        before = bed.anchor.totals()["rejected_tunnel_packets"]
        # a source that is no care-of address; a care-of address with a foreign inner source
        send_raw(bed.network.hn, ipv6("2001:db8:100::2", HOME_AGENT, 41, inner))
        foreign = packet(UDP, 1000, 2000, source=HOME_ADDRESS_2, destination=CORRESPONDENT)
        send_raw(bed.mn, ipv6(WLAN, HOME_AGENT, 41, foreign))
        wait_for(lambda: bed.anchor.totals()["rejected_tunnel_packets"] == before + 2)
        before = bed.mobile.totals()["rejected_tunnel_packets"]
        send_raw(bed.cn, ipv6(CORRESPONDENT, WLAN, 41, packet(destination=HOME_ADDRESS)))
        wait_for(lambda: bed.mobile.totals()["rejected_tunnel_packets"] == before + 1)
        receiver.setblocking(False)
        with pytest.raises(BlockingIOError):
            receiver.recv(100)


@pytest.mark.requirement(
    "RFC 2473 §3: a tunnel packet may carry destination options, such as the encapsulation limit"
)
def test_tunnel_packet_with_encapsulation_limit_is_accepted(bed: Bed):
    bed.bind(default=1)
    limit = bytes([41, 0, 4, 1, 4, 1, 1, 0])
    with bed.cn.socket() as receiver:
        receiver.bind(("::", 2000))
        inner = ipv6(HOME_ADDRESS, CORRESPONDENT, UDP, udp(HOME_ADDRESS, CORRESPONDENT, 1000, 2000, b"hello"))
        send_raw(bed.mn, ipv6(WLAN, HOME_AGENT, 60, limit + inner))
        assert receiver.recvfrom(100)[0] == b"hello"
    with bed.mn.socket() as receiver:
        receiver.bind((str(HOME_ADDRESS), 2000))
        inner = ipv6(CORRESPONDENT, HOME_ADDRESS, UDP, udp(CORRESPONDENT, HOME_ADDRESS, 1000, 2000, b"hello"))
        send_raw(bed.ha, ipv6(HOME_AGENT, WLAN, 60, limit + inner))
        assert receiver.recvfrom(100)[0] == b"hello"


@pytest.mark.requirement("draft §4: flow bindings do not apply to mobility signalling")
def test_mobility_header_for_the_home_address_takes_the_default(bed: Bed):
    bed.bind(default=2, rules=(FlowRule(1, 1, None, Action.DISCARD),))
    assert bed.downlink(packet(MOBILITY_HEADER, body=bytes([59, 1, 3, 0, 0, 0, 0, 0]) + payload())) == [2]


@contextlib.contextmanager
def parameter_problems(node):
    """Counts the ICMPv6 Parameter Problems that the node sends meanwhile."""

    def sent() -> int:
        text = node.shell("grep OutParmProblems /proc/net/snmp6")
        return int(text.split()[1])

    count: list[int] = []
    before = sent()
    yield count
    count.append(sent() - before)


@pytest.mark.requirement(
    "RFC 6275 §6.3, §6.4: signalling reaches the agent, and the kernel does not answer it"
)
def test_signalling_to_this_node_is_not_answered_by_the_kernel(bed: Bed):
    bed.bind(default=1)
    header = bytes([59, 1, 5, 0, 0, 0, 0, 0]) + payload()
    option = bytes([MOBILITY_HEADER, 2, 1, 2, 0, 0, 0xC9, 16]) + HOME_ADDRESS.packed
    routing = bytes([MOBILITY_HEADER, 2, 2, 1, 0, 0, 0, 0]) + HOME_ADDRESS.packed
    with parameter_problems(bed.ha) as at_anchor, parameter_problems(bed.mn) as at_mobile:
        before = bed.anchor.totals()["signalling_packets"], bed.mobile.totals()["signalling_packets"]
        send_raw(bed.mn, ipv6(WLAN, HOME_AGENT, 60, option + header))
        send_raw(bed.mn, ipv6(WLAN, HOME_AGENT, MOBILITY_HEADER, header))
        send_raw(bed.ha, ipv6(HOME_AGENT, WLAN, 43, routing + header))
        send_raw(bed.ha, ipv6(HOME_AGENT, WLAN, MOBILITY_HEADER, header))
        wait_for(lambda: bed.anchor.totals()["signalling_packets"] == before[0] + 2)
        wait_for(lambda: bed.mobile.totals()["signalling_packets"] == before[1] + 2)
    assert (at_anchor, at_mobile) == ([0], [0])


@pytest.mark.requirement(
    "RFC 6275 §10.4.1: the home agent answers Neighbour Solicitations for the home address"
)
def test_host_on_the_home_link(bed: Bed):
    bed.bind(default=1)
    assert " 0% packet loss" in bed.network.hn.shell(f"ping -c 2 -i 0.1 {HOME_ADDRESS}")
    mac = bed.ha.shell("cat /sys/class/net/home0/address", check=False)
    neighbour = bed.network.hn.shell(f"ip -6 neigh show {HOME_ADDRESS}")
    mac = bed.ha.shell("ip -o link show home0").split("link/ether ")[1].split()[0]
    assert mac in neighbour
    # and goes on answering unicast solicitations
    bed.network.hn.shell(f"ip -6 neigh change {HOME_ADDRESS} dev eth0 lladdr {mac} nud stale")
    assert " 0% packet loss" in bed.network.hn.shell(f"ping -c 2 -i 0.1 {HOME_ADDRESS}")


def test_mobile_node_and_home_agent_talk(bed: Bed):
    bed.bind(default=1)
    assert " 0% packet loss" in bed.mn.shell(f"ping -c 1 {HOME_AGENT}")
    assert " 0% packet loss" in bed.ha.shell(f"ping -c 1 {HOME_ADDRESS}")


@pytest.fixture
def second(bed: Bed) -> Iterator[Datapath]:
    """A second mobile node, registered."""
    configuration = DatapathConfiguration(bed.mobile.backend)
    mobile = bed.network.mn2.run(lambda: Datapath(Side.MOBILE, configuration))
    path = Path(1, WLAN_2, HOME_AGENT, "wlan", IPv6Address("2001:db8:203::1"))
    bed.network.mn2.run(lambda: mobile.apply({HOME_ADDRESS_2: HomeBinding(HOME_ADDRESS_2, (path,), 1)}))
    path = Path(1, HOME_AGENT, WLAN_2)
    bed.ha.run(lambda: bed.anchor.apply({HOME_ADDRESS_2: HomeBinding(HOME_ADDRESS_2, (path,), 1)}))
    yield mobile
    bed.ha.run(lambda: bed.anchor.apply({HOME_ADDRESS_2: None}))
    bed.network.mn2.run(mobile.close)


@pytest.mark.requirement("RFC 6275 §10.4.3: packets between two mobile nodes go through both tunnels")
def test_mobile_nodes_talk_to_each_other(bed: Bed, second: Datapath):
    rule = FlowRule(1, 1, IPv6TrafficSelector(destination_port=(2000, 2000)), Action.FORWARD, (1,))
    bed.bind(default=2, rules=(rule,))
    assert " 0% packet loss" in bed.network.mn2.shell(f"ping -c 2 -i 0.1 {HOME_ADDRESS}")
    bed.clear()
    with bed.mn.socket() as receiver, bed.network.mn2.socket() as sender:
        receiver.bind(("::", 2000))
        sender.sendto(b"hello", (str(HOME_ADDRESS), 2000))
        assert receiver.recvfrom(100)[0] == b"hello"
        # and is classified like any other packet for the mobile node
        assert [found[6] for found in bed.down[1].packets() if found[6] == 41] == [41]
        sender.sendto(b"hello", (str(HOME_ADDRESS), 2001))
        wait_for(lambda: [found for found in bed.down[2].packets() if found.endswith(b"hello")])


@pytest.mark.parametrize("port, bid", [(5001, 1), (5002, 2)])
def test_fragments_follow_their_first_one(bed: Bed, port: int, bid: int):
    rule = FlowRule(1, 1, IPv6TrafficSelector(destination_port=(5001, 5001)), Action.FORWARD, (1,))
    rule_up = FlowRule(2, 2, IPv6TrafficSelector(source_port=(5001, 5001)), Action.FORWARD, (1,))
    bed.bind(default=2, rules=(rule, rule_up))
    data = bytes(range(250)) * 16
    with bed.cn.socket() as far, bed.mn.socket() as near:
        far.bind(("::", port))
        near.bind((str(HOME_ADDRESS), port))
        far.setsockopt(socket.IPPROTO_IPV6, 24, 1400)  # IPV6_MTU: small enough for the tunnel
        bed.clear()
        far.sendto(data, (str(HOME_ADDRESS), port))
        assert near.recvfrom(10000)[0] == data
        other = 3 - bid
        assert not [found for found in bed.down[other].packets() if found[6] in (41, 44)]
        near.sendto(data, (str(CORRESPONDENT), port))
        assert far.recvfrom(10000)[0] == data
        assert not [found for found in bed.up[other].packets() if found[6] in (41, 44)]


@pytest.mark.requirement("RFC 2473 §7.1: a packet too big for the tunnel is answered with Packet Too Big")
def test_packet_too_big(bed: Bed):
    bed.bind(default=1)
    bed.cn.shell("ip -6 route flush cache")
    text = bed.cn.shell(f"ping -c 2 -i 0.2 -M do -s 1440 {HOME_ADDRESS}", check=False)
    assert "too big" in text.lower() or "mtu" in text.lower(), text
    assert "1460" in bed.cn.shell(f"ip -6 route get {HOME_ADDRESS}")
    assert " 0% packet loss" in bed.cn.shell(f"ping -c 2 -i 0.1 -s 1412 {HOME_ADDRESS}")  # exactly 1460
    assert " 0% packet loss" in bed.cn.shell(f"ping -c 2 -i 0.1 -s 3000 {HOME_ADDRESS}")
    assert " 0% packet loss" in bed.mn.shell(f"ping -c 2 -i 0.1 -s 3000 {CORRESPONDENT}")
    bed.cn.shell("ip -6 route flush cache")


@pytest.mark.parametrize("reverse", [False, True], ids=["up", "down"])
def test_tcp_through_the_tunnel(bed: Bed, reverse: bool):
    bed.bind(
        default=2,
        rules=(FlowRule(1, 1, IPv6TrafficSelector(source_port=(5300, 5300)), Action.FORWARD, (1,)),),
    )
    data = bytes(1 << 20)
    with bed.cn.socket(socket.SOCK_STREAM) as server, bed.mn.socket(socket.SOCK_STREAM) as client:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("::", 5300))
        server.listen()
        client.connect((str(CORRESPONDENT), 5300))
        accepted, _ = server.accept()
        accepted.settimeout(PATIENCE_S)
        with accepted:
            sender, receiver = (accepted, client) if reverse else (client, accepted)
            assert receiver.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG) <= 1400
            sent = received = 0
            sender.setblocking(False)
            while received < len(data):
                with contextlib.suppress(BlockingIOError):
                    sent += sender.send(data[sent : sent + 65536])
                received += len(receiver.recv(1 << 20))


@pytest.mark.requirement("RFC 3963 §6.4: a mobile network prefix is routed like the home address")
def test_mobile_network(bed: Bed):
    rule = FlowRule(1, 1, IPv6TrafficSelector(destination_port=(2000, 2000)), Action.FORWARD, (1,))
    back = FlowRule(2, 2, IPv6TrafficSelector(source_port=(2000, 2000)), Action.FORWARD, (1,))
    host = PREFIX[2]
    with mobile_network(bed) as inside:
        bed.bind(default=2, rules=(rule, back), prefixes=(PREFIX,))
        with bed.cn.socket() as far, inside.socket() as near:
            far.bind(("::", 2000))
            near.bind(("::", 2000))
            bed.clear()
            far.sendto(b"hello", (str(host), 2000))
            assert near.recvfrom(100)[0] == b"hello"
            assert [found for found in bed.down[1].packets() if found.endswith(b"hello")]
            near.sendto(b"answer", (str(CORRESPONDENT), 2000))
            assert far.recvfrom(100)[0] == b"answer"
            assert [found for found in bed.up[1].packets() if found.endswith(b"answer")]
            with inside.socket() as another:
                another.sendto(b"others", (str(CORRESPONDENT), 2001))
            wait_for(lambda: [found for found in bed.up[2].packets() if found.endswith(b"others")])
        text = inside.shell(f"ping -c 2 -i 0.2 -M do -s 1440 {CORRESPONDENT}", check=False)
        assert "too big" in text.lower() or "mtu" in text.lower(), text
        # the first answer may be what the correspondent node learns the size by
        inside.shell(f"ping -c 2 -i 0.1 -s 3000 {CORRESPONDENT}")
        assert " 0% packet loss" in inside.shell(f"ping -c 2 -i 0.1 -s 3000 {CORRESPONDENT}")
        # an inner source that is not of the prefix is not let through by the home agent
        before = bed.anchor.totals()["rejected_tunnel_packets"]
        foreign = packet(source=PREFIX[1] + (1 << 64), destination=CORRESPONDENT)
        send_raw(bed.mn, ipv6(WLAN, HOME_AGENT, 41, foreign))
        wait_for(lambda: bed.anchor.totals()["rejected_tunnel_packets"] == before + 1)
        bed.bind(default=2)


def inner_hop_limits(bed: Bed, sent: bytes, copies: int) -> list[int]:
    """The hop limits with which copies of a packet for the home address come to the mobile node."""
    found: list[int] = []

    def arrived() -> bool:
        for capture in bed.down.values():
            found.extend(p[47] for p in capture.packets() if p[6] == 41 and p.endswith(sent[-8:]))
        return len(found) >= copies

    bed.clear()
    send_raw(bed.cn, sent)
    wait_for(arrived)
    return sorted(found)


def test_hops_of_a_tunnel(bed: Bed):
    """docs/kernels.md: with seg6 the entry of a tunnel is a silent hop; the further copies pass one more."""
    if bed.anchor.backend != "seg6":
        pytest.skip("the kernel's tunnel device is a hop")
    bed.bind(default=1)
    kinds: list[int] = []
    with bed.cn.socket(socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as errors:
        send_raw(bed.cn, packet(hop_limit=1))
        assert inner_hop_limits(bed, packet(hop_limit=9), 1) == [9]
        errors.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                kinds.append(errors.recv(2048)[0])
    time_exceeded = 3
    assert time_exceeded not in kinds
    bed.bind(rules=(FlowRule(1, 1, None, Action.N_CAST, (1, 2)),))
    assert inner_hop_limits(bed, packet(hop_limit=9), 2) == [8, 9]


def test_congestion_marks(bed: Bed):
    """docs/kernels.md: seg6 does not copy them to what comes out of the tunnel (RFC 6040 §4.2)."""
    if bed.anchor.backend != "seg6":
        pytest.skip("the kernel's tunnel device copies them")
    bed.bind(default=1)
    capable, experienced = 2, 3
    datagram = udp(CORRESPONDENT, HOME_ADDRESS, 1000, 2000, b"hello")
    inner = ipv6(CORRESPONDENT, HOME_ADDRESS, UDP, datagram, traffic_class=capable)
    with bed.mn.socket() as receiver:
        receiver.bind((str(HOME_ADDRESS), 2000))
        receiver.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVTCLASS, 1)
        send_raw(bed.ha, ipv6(HOME_AGENT, WLAN, 41, inner, traffic_class=experienced))
        _, ancillary, _, _ = receiver.recvmsg(100, 100)
    assert ancillary == [(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, struct.pack("i", capable))]
