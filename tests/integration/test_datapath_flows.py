"""Which path real packets take, field by field of a selector, action by action, in both directions."""

import contextlib
import socket
import struct
from collections.abc import Iterator
from ipaddress import IPv6Address

import pytest
from datapath_network import (
    CELLULAR,
    CORRESPONDENT,
    HOME_ADDRESS,
    HOME_ADDRESS_2,
    HOME_AGENT,
    PREFIX,
    WLAN,
    WLAN_2,
    Capture,
    Namespace,
    Network,
    binding,
    ipv6,
    needed,
    send_raw,
    wait_for,
)

from testbed.datapath.datapath import Datapath, DatapathConfiguration
from testbed.datapath.probe import BACKENDS
from testbed.mobility.forwarding import Action, FlowRule, HomeBinding, Path, Side
from testbed.wire.selector import IPv4TrafficSelector, IPv6TrafficSelector

TCP, UDP, ICMPV6, ESP, AH, SCTP, DCCP, UDP_LITE = 6, 17, 58, 50, 51, 132, 33, 136
MOBILITY_HEADER = 135
OTHER = IPv6Address("2001:db8:300::3")


class Bed:
    """The network with a datapath at each end."""

    def __init__(self, backend: str) -> None:
        self.network = Network()
        self.ha = self.network.ha
        self.mn = self.network.mn
        self.cn = self.network.cn
        self.cn.shell(f"ip address add {OTHER}/64 dev eth0 nodad")
        self.anchor = self.ha.run(
            lambda: Datapath(Side.ANCHOR, DatapathConfiguration(backend, home_interface="home0"))
        )
        self.mobile = self.mn.run(lambda: Datapath(Side.MOBILE, DatapathConfiguration(backend)))
        self.down = {1: Capture(self.mn, "wlan"), 2: Capture(self.mn, "cellular")}
        self.up = {1: Capture(self.ha, "ar1"), 2: Capture(self.ha, "ar2")}

    def bind(self, **more) -> None:
        self.ha.run(lambda: self.anchor.apply({HOME_ADDRESS: binding(True, **more)}))
        self.mn.run(lambda: self.mobile.apply({HOME_ADDRESS: binding(False, **more)}))

    def clear(self) -> None:
        for capture in (*self.down.values(), *self.up.values()):
            capture.packets()

    def close(self) -> None:
        for capture in (*self.down.values(), *self.up.values()):
            capture.close()
        self.network.close()

    def downlink(self, packet: bytes, copies: int = 1) -> list[int]:
        """BIDs by which the packet, sent by the correspondent node, reached the mobile node."""
        return self._carried(self.cn, packet, self.down, copies)

    def uplink(self, packet: bytes, copies: int = 1) -> list[int]:
        return self._carried(self.mn, packet, self.up, copies)

    def _carried(self, sender, packet: bytes, captures: dict[int, Capture], copies: int) -> list[int]:
        self.clear()
        send_raw(sender, packet)
        mark = packet[-8:]
        bids: list[int] = []
        outer: list[bytes] = []

        def arrived() -> bool:
            for bid, capture in captures.items():
                for found in capture.packets():
                    if found.endswith(mark) and found[6] == 41:
                        bids.append(bid)
                        outer.append(found)
            return len(bids) >= copies

        wait_for(arrived)
        for bid, found in zip(bids, outer, strict=True):
            care_of_address = {1: WLAN, 2: CELLULAR}[bid]
            ends = (HOME_AGENT, care_of_address) if captures is self.down else (care_of_address, HOME_AGENT)
            assert (found[8:24], found[24:40]) == (ends[0].packed, ends[1].packed)
            assert found[48:80] == packet[8:40], "inner addresses"
            assert 60 <= found[7] <= 64, "outer hop limit"
        return sorted(bids)


@pytest.fixture(scope="module", params=BACKENDS)
def bed(request: pytest.FixtureRequest) -> Iterator[Bed]:
    bed = Bed(needed(request.param))
    yield bed
    bed.close()


_serial = 0


def payload() -> bytes:
    """Eight octets by which a packet is known again."""
    global _serial
    _serial += 1
    return struct.pack("!Q", 0xF10B1D00 << 32 | _serial)


def transport(protocol: int, source: int, destination: int) -> bytes:
    """Header of a protocol with ports (its checksum is left wrong: nobody on the way looks), and payload."""
    data = payload()
    ports = struct.pack("!HH", source, destination)
    if protocol == TCP:
        return ports + struct.pack("!IIBBHHH", 0, 0, 0x50, 0x10, 0, 0, 0) + data
    if protocol in (UDP, UDP_LITE):
        return ports + struct.pack("!HH", 8 + len(data), 0xABCD) + data
    return ports + bytes(12) + data


def packet(
    protocol: int = UDP,
    source_port: int = 1000,
    destination_port: int = 2000,
    source=CORRESPONDENT,
    destination=HOME_ADDRESS,
    body: bytes | None = None,
    **fields: int,
) -> bytes:
    body = transport(protocol, source_port, destination_port) if body is None else body
    return ipv6(source, destination, protocol, body, **fields)


def security(protocol: int, spi: int) -> bytes:
    """ESP, or AH in front of no next header."""
    if protocol == ESP:
        return struct.pack("!II", spi, 1) + bytes(16) + payload()
    return struct.pack("!BBHII", 59, 4, 0, spi, 1) + bytes(12) + payload()


def mirrored(packet: bytes) -> bytes:
    """The packet in the opposite direction."""
    ports = packet[42:44] + packet[40:42] if packet[6] in (TCP, UDP, SCTP, DCCP, UDP_LITE) else packet[40:44]
    return packet[:8] + packet[24:40] + packet[8:24] + ports + packet[44:]


def addresses(first: str, last: str) -> tuple[IPv6Address, IPv6Address]:
    return IPv6Address(first), IPv6Address(last)


# name, selector, packets that match it, packets that do not
CASES = [
    (
        "source port",
        IPv6TrafficSelector(source_port=(443, 443)),
        [packet(p, 443, 9) for p in (TCP, UDP, SCTP, DCCP, UDP_LITE)],
        [packet(TCP, 444, 443), packet(ICMPV6, body=struct.pack("!HHHH", 443, 0, 0, 0) + payload())],
    ),
    (
        "source ports",
        IPv6TrafficSelector(source_port=(1000, 1999)),
        [packet(UDP, 1000, 1), packet(UDP, 1999, 1)],
        [packet(UDP, 999, 1000), packet(UDP, 2000, 1000)],
    ),
    (
        "destination ports",
        IPv6TrafficSelector(destination_port=(5000, 5010)),
        [packet(UDP, 1, 5000), packet(TCP, 1, 5010)],
        [packet(UDP, 5000, 4999), packet(UDP, 1, 5011)],
    ),
    (
        "port and protocol",
        IPv6TrafficSelector(source_port=(22, 22), next_header=(TCP, TCP)),
        [packet(TCP, 22, 1)],
        [packet(UDP, 22, 1), packet(TCP, 23, 22)],
    ),
    (
        "port and protocols",
        IPv6TrafficSelector(source_port=(22, 22), next_header=(TCP, UDP)),
        [packet(TCP, 22, 1), packet(UDP, 22, 1)],
        [packet(SCTP, 22, 1)],
    ),
    (
        "next header",
        IPv6TrafficSelector(next_header=(SCTP, SCTP)),
        [packet(SCTP)],
        [packet(UDP), packet(TCP)],
    ),
    (
        "next headers",
        IPv6TrafficSelector(next_header=(ESP, ESP + 50)),
        [packet(ESP, body=security(ESP, 7)), packet(AH, body=security(AH, 7))],
        [packet(UDP), packet(SCTP)],
    ),
    (
        "AH as next header",
        IPv6TrafficSelector(next_header=(AH, AH)),
        [packet(AH, body=security(AH, 7))],
        [packet(ESP, body=security(ESP, 7))],
    ),
    (
        "SPI",
        IPv6TrafficSelector(spi=(0x100, 0x100)),
        [packet(ESP, body=security(ESP, 0x100)), packet(AH, body=security(AH, 0x100))],
        [packet(ESP, body=security(ESP, 0x101)), packet(AH, body=security(AH, 0xFF)), packet(UDP, 0, 0x100)],
    ),
    (
        "SPIs",
        IPv6TrafficSelector(spi=(0x80000000, 0x80001000)),
        [packet(ESP, body=security(ESP, 0x80000000)), packet(AH, body=security(AH, 0x80001000))],
        [packet(ESP, body=security(ESP, 0x7FFFFFFF)), packet(ESP, body=security(ESP, 0x80001001))],
    ),
    (
        "traffic class",
        IPv6TrafficSelector(traffic_class=(0xB8, 0xB8)),
        [packet(traffic_class=0xB8), packet(traffic_class=0xBB)],
        [packet(traffic_class=0xB4), packet()],
    ),
    (
        "traffic classes",
        IPv6TrafficSelector(traffic_class=(0x21, 0x4B)),
        [packet(traffic_class=0x20), packet(traffic_class=0x4B)],
        [packet(traffic_class=0x1F), packet(traffic_class=0x4C)],
    ),
    (
        "flow label",
        IPv6TrafficSelector(flow_label=(0xABCDE, 0xABCDE)),
        [packet(flow_label=0xABCDE), packet(flow_label=0xABCDE, traffic_class=0xFF)],
        [packet(flow_label=0xABCDF), packet()],
    ),
    (
        "flow labels",
        IPv6TrafficSelector(flow_label=(0x00100, 0x0FFFF)),
        [packet(flow_label=0x100), packet(flow_label=0xFFFF)],
        [packet(flow_label=0xFF), packet(flow_label=0x10000)],
    ),
    (
        "source address",
        IPv6TrafficSelector(source_address=(CORRESPONDENT, CORRESPONDENT)),
        [packet()],
        [packet(source=OTHER)],
    ),
    (
        "source prefix",
        IPv6TrafficSelector(source_address=addresses("2001:db8:300::", "2001:db8:300::2")),
        [packet()],
        [packet(source=OTHER)],
    ),
    (
        "source addresses",
        IPv6TrafficSelector(source_address=addresses("2001:db8:300::3", "2001:db8:300::5")),
        [packet(source=OTHER)],
        [packet()],
    ),
    (
        "source /64",
        IPv6TrafficSelector(source_address=addresses("2001:db8:300::", "2001:db8:300::ffff:ffff:ffff:ffff")),
        [packet(), packet(source=OTHER)],
        [],
    ),
    (
        "destination address",
        IPv6TrafficSelector(destination_address=(HOME_ADDRESS, HOME_ADDRESS)),
        [packet()],
        [],
    ),
    (
        "other destination",
        IPv6TrafficSelector(destination_address=(HOME_ADDRESS_2, HOME_ADDRESS_2)),
        [],
        [packet()],
    ),
    (
        "any address",
        IPv6TrafficSelector(source_address=(IPv6Address(0), IPv6Address((1 << 128) - 1))),
        [packet(), packet(source=OTHER)],
        [],
    ),
    (
        "everything at once",
        IPv6TrafficSelector(
            (CORRESPONDENT, CORRESPONDENT),
            (HOME_ADDRESS, HOME_ADDRESS),
            None,
            (5, 6),
            (1000, 1001),
            (2000, 2001),
            (0x20, 0x23),
            (UDP, UDP),
        ),
        [packet(flow_label=5, traffic_class=0x22), packet(UDP, 1001, 2001, flow_label=6, traffic_class=0x20)],
        [
            packet(flow_label=7, traffic_class=0x20),
            packet(flow_label=5),
            packet(UDP, 1002, 2000, flow_label=5, traffic_class=0x20),
        ],
    ),
    ("wild card", None, [packet(), packet(TCP), packet(ESP, body=security(ESP, 1))], []),
    ("IPv4", IPv4TrafficSelector(protocol=(0, 255)), [], [packet(), packet(TCP)]),
]


@pytest.mark.requirement(
    "RFC 6088 §3.2: every field of the binary traffic selector is matched, ends included"
)
@pytest.mark.requirement("draft §4: both directions of a flow take the path that it is bound to")
@pytest.mark.parametrize(
    "selector, hits, misses", [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_selector(bed: Bed, selector, hits, misses):
    bed.bind(default=2, rules=(FlowRule(7, 1, selector, Action.FORWARD, (1,)),))
    for expected, packets in ((1, hits), (2, misses)):
        for sent in packets:
            sent = sent[:-8] + payload()
            assert bed.downlink(sent) == [expected]
            assert bed.uplink(mirrored(sent)) == [expected]
    for counters in (bed.anchor.counters(), bed.mobile.counters()):
        assert counters[HOME_ADDRESS, 7][0] >= len(hits)
        assert counters[HOME_ADDRESS, None][0] >= len(misses)


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


def test_outer_source_is_the_care_of_address_among_several(bed: Bed):
    bed.mn.shell(
        "ip address add 2001:db8:201::abc/64 dev wlan nodad;"
        "ip address add 2001:db8:201::1:0:0:1/64 dev wlan nodad"
    )
    try:
        bed.bind(default=1)
        assert bed.uplink(mirrored(packet())) == [1]
        assert "0% packet loss" in bed.mn.shell(f"ping -c 1 -I {HOME_ADDRESS} {CORRESPONDENT}")
    finally:
        bed.mn.shell(
            "ip address del 2001:db8:201::abc/64 dev wlan;ip address del 2001:db8:201::1:0:0:1/64 dev wlan"
        )


def test_care_of_address_leaves_by_its_interface(bed: Bed):
    bed.bind(default=2)
    assert bed.mn.shell(f"ip -6 route get {CORRESPONDENT} from {CELLULAR}").count("dev cellular")
    assert bed.mn.shell(f"ip -6 route get {CORRESPONDENT} from {WLAN}").count("dev wlan")
    assert "0% packet loss" in bed.mn.shell(f"ping -c 1 -I {CELLULAR} {CORRESPONDENT}")


@pytest.mark.requirement(
    "RFC 6275 §10.4.5: a home agent checks the outer source of reverse tunnelled packets"
)
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


def udp(source: IPv6Address, destination: IPv6Address, source_port: int, port: int, data: bytes) -> bytes:
    """A UDP datagram with its checksum."""
    length = 8 + len(data)
    header = struct.pack("!HHHH", source_port, port, length, 0)
    whole = (
        source.packed
        + destination.packed
        + struct.pack("!II", length, UDP)
        + header
        + data
        + bytes(len(data) % 2)
    )
    total = sum(struct.unpack(f"!{len(whole) // 2}H", whole))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return struct.pack("!HHHH", source_port, port, length, ~total & 0xFFFF or 0xFFFF) + data


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
    assert "0% packet loss" in bed.network.hn.shell(f"ping -c 2 -i 0.1 {HOME_ADDRESS}")
    mac = bed.ha.shell("cat /sys/class/net/home0/address", check=False)
    neighbour = bed.network.hn.shell(f"ip -6 neigh show {HOME_ADDRESS}")
    mac = bed.ha.shell("ip -o link show home0").split("link/ether ")[1].split()[0]
    assert mac in neighbour
    # and goes on answering unicast solicitations
    bed.network.hn.shell(f"ip -6 neigh change {HOME_ADDRESS} dev eth0 lladdr {mac} nud stale")
    assert "0% packet loss" in bed.network.hn.shell(f"ping -c 2 -i 0.1 {HOME_ADDRESS}")


def test_mobile_node_and_home_agent_talk(bed: Bed):
    bed.bind(default=1)
    assert "0% packet loss" in bed.mn.shell(f"ping -c 1 {HOME_AGENT}")
    assert "0% packet loss" in bed.ha.shell(f"ping -c 1 {HOME_ADDRESS}")


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
    assert "0% packet loss" in bed.network.mn2.shell(f"ping -c 2 -i 0.1 {HOME_ADDRESS}")
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
    assert "0% packet loss" in bed.cn.shell(f"ping -c 2 -i 0.1 -s 1412 {HOME_ADDRESS}")  # exactly 1460 octets
    assert "0% packet loss" in bed.cn.shell(f"ping -c 2 -i 0.1 -s 3000 {HOME_ADDRESS}")
    assert "0% packet loss" in bed.mn.shell(f"ping -c 2 -i 0.1 -s 3000 {CORRESPONDENT}")
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
        accepted.settimeout(5)
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
    inside = Namespace("inside")
    host = PREFIX[2]
    bed.mn.shell(
        f"ip link add lan type veth peer name eth0 netns {inside.pid};"
        f"ip address add {PREFIX[1]}/64 dev lan nodad; ip link set lan up;"
        "echo 1 >/proc/sys/net/ipv6/conf/all/forwarding"
    )
    inside.shell(
        f"ip address add {host}/64 dev eth0 nodad; ip link set eth0 up;"
        f"ip -6 route add default via {PREFIX[1]}"
    )
    wait_for(lambda: "1 received" in inside.shell(f"ping -c 1 -W 1 {PREFIX[1]}", check=False))
    try:
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
        assert "0% packet loss" in inside.shell(f"ping -c 2 -i 0.1 -s 3000 {CORRESPONDENT}")
        # an inner source that is not of the prefix is not let through by the home agent
        before = bed.anchor.totals()["rejected_tunnel_packets"]
        foreign = packet(source=PREFIX[1] + (1 << 64), destination=CORRESPONDENT)
        send_raw(bed.mn, ipv6(WLAN, HOME_AGENT, 41, foreign))
        wait_for(lambda: bed.anchor.totals()["rejected_tunnel_packets"] == before + 1)
    finally:
        bed.bind(default=2)
        bed.mn.shell("ip link del lan; echo 0 >/proc/sys/net/ipv6/conf/all/forwarding")
        inside.close()
