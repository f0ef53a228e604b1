"""Optimised routes on real packets: what is on the wire, which care-of address, what is refused."""

import socket
import struct
from ipaddress import IPv6Address

import pytest
from datapath_bed import udp
from datapath_network import (
    CELLULAR,
    CORRESPONDENT,
    HOME_ADDRESS,
    PATIENCE_S,
    WLAN,
    Capture,
    Network,
    binding,
    exchange,
    ipv6,
    send_raw,
    wait_for,
)

from testbed.datapath.datapath import Datapath, DatapathConfiguration
from testbed.datapath.error import DatapathError
from testbed.datapath.optimisation import OptimisedRoutes
from testbed.datapath.rejected import Rejected
from testbed.mobility.forwarding import Action, FlowRule, Path, RouteOptimisation, Side
from testbed.wire.selector import IPv6TrafficSelector

ANY = IPv6Address("::")
CARE_OF = {1: WLAN, 2: CELLULAR}
INTERFACES = {1: "wlan", 2: "cellular"}
UDP = 17

requirement = pytest.mark.requirement


def udp_rule(fid, port, bids=(1,), action=Action.FORWARD):
    selector = IPv6TrafficSelector(source_port=(port, port), next_header=(UDP, UDP))
    return FlowRule(fid, 10, selector, action, bids)


def home_address_header(next_header, home_address):
    return bytes((next_header, 2, 1, 2, 0, 0, 0xC9, 16)) + IPv6Address(home_address).packed


class Bed:
    """Tunnels between mobile node and home agent, optimised routes between mobile and correspondent node."""

    def __init__(self, carrier: str) -> None:
        self.carrier = carrier
        self.network = Network()
        self.mn, self.cn, self.ha = self.network.mn, self.network.cn, self.network.ha
        self.anchor = self.ha.run(
            lambda: Datapath(Side.ANCHOR, DatapathConfiguration(home_interface="home0"))
        )
        configuration = DatapathConfiguration(kernel_mobility=carrier == "xfrm")
        self.tunnels = self.mn.run(lambda: Datapath(Side.MOBILE, configuration))
        self.ha.run(lambda: self.anchor.apply({HOME_ADDRESS: binding(True)}))
        self.mn.run(lambda: self.tunnels.apply({HOME_ADDRESS: binding(False)}))
        self.ours = self.mn.run(lambda: OptimisedRoutes(Side.MOBILE, carrier=carrier, homes=[HOME_ADDRESS]))
        self.theirs = self.cn.run(lambda: OptimisedRoutes(Side.CORRESPONDENT, carrier=carrier))
        self.mn.shell("ping -c 1 2001:db8:201::1; ping -c 1 2001:db8:202::1", check=False)
        # the access network's routers see what is on the wire
        self.wire = {1: Capture(self.ha, "ar1"), 2: Capture(self.ha, "ar2")}

    def optimise(self, rules=(), default=2, bids=(1, 2)):
        ours = tuple(
            Path(bid, CARE_OF[bid], CORRESPONDENT, INTERFACES[bid], IPv6Address(f"2001:db8:20{bid}::1"))
            for bid in bids
        )
        theirs = tuple(Path(bid, CORRESPONDENT, CARE_OF[bid]) for bid in bids)
        here = RouteOptimisation(HOME_ADDRESS, CORRESPONDENT, Side.MOBILE, ours, default, rules)
        there = RouteOptimisation(HOME_ADDRESS, ANY, Side.CORRESPONDENT, theirs, default, rules)
        self.mn.run(lambda: self.ours.apply({(HOME_ADDRESS, CORRESPONDENT): here}))
        self.cn.run(lambda: self.theirs.apply({(HOME_ADDRESS, ANY): there}))

    def exchange(self, port, payload=b"question", answer=b"answer"):
        """A datagram from the mobile node to `port` of the correspondent node, and one back."""
        self.on_wire()
        exchange(self.mn, HOME_ADDRESS, self.cn, CORRESPONDENT, port, payload, answer)

    def on_wire(self):
        """What came from the mobile node since the last call: BID -> packets with an outer header."""
        found = {}
        for bid, capture in self.wire.items():
            packets = [packet for packet in capture.packets() if packet[6] in (41, 60)]
            if packets:
                found[bid] = packets
        return found

    def close(self):
        self.mn.run(self.ours.close)
        self.cn.run(self.theirs.close)
        for capture in self.wire.values():
            capture.close()
        self.network.close()


@pytest.fixture
def bed(carrier):
    bed = Bed(carrier)
    yield bed
    bed.close()


@requirement("RFC 6275 §6.3: route-optimised packets carry a Home Address option")
@requirement("RFC 6275 §6.4: route-optimised packets to the mobile node carry a type 2 routing header")
def test_headers_on_the_wire(bed):
    bed.optimise()
    arriving = Capture(bed.network.nodes["ar2"], "core")
    bed.exchange(4000)
    (up,) = bed.on_wire()[2]
    assert IPv6Address(up[8:24]) == CELLULAR and IPv6Address(up[24:40]) == CORRESPONDENT
    assert up[6] == 60 and up[40:64] == home_address_header(UDP, HOME_ADDRESS)
    assert struct.unpack("!H", up[4:6])[0] == len(up) - 40
    down = next(packet for packet in arriving.packets() if packet[6] == 43)
    assert IPv6Address(down[8:24]) == CORRESPONDENT and IPv6Address(down[24:40]) == CELLULAR
    assert down[40:64] == bytes((UDP, 2, 2, 1, 0, 0, 0, 0)) + HOME_ADDRESS.packed
    assert struct.unpack("!H", down[4:6])[0] == len(down) - 40
    arriving.close()


@requirement("draft §7: flows go to the care-of address that their flow binding indicates, both directions")
def test_each_flow_takes_its_care_of_address(bed):
    bed.optimise(rules=(udp_rule(1, 4001, (1,)), udp_rule(2, 4002, (2,))))
    down = {bid: Capture(bed.mn, INTERFACES[bid]) for bid in (1, 2)}
    for port, bid in ((4001, 1), (4002, 2), (4003, 2)):
        before = {bid: bed.mn.received(INTERFACES[bid]) for bid in (1, 2)}
        bed.exchange(port)
        assert [(bid, p[6]) for bid, packets in bed.on_wire().items() for p in packets] == [(bid, 60)]
        assert bed.mn.received(INTERFACES[bid]) > before[bid]
    counters = bed.cn.run(bed.theirs.counters)
    assert {fid: packets for (_, _, fid), (packets, _) in counters.items()} == {1: 1, 2: 1, None: 1}
    counters = bed.mn.run(bed.ours.counters)
    assert {fid: packets for (_, _, fid), (packets, _) in counters.items()} == {1: 1, 2: 1, None: 1}
    for capture in down.values():
        capture.close()


@requirement("RFC 6275 §11.3.3: a type 2 routing header is taken at each of our care-of addresses")
def test_packets_are_taken_at_a_care_of_address_before_its_route_is_optimised(bed):
    """A correspondent node's packets overtake, or follow closely, the acknowledgement that tells of it."""
    bed.mn.run(lambda: bed.ours.listen(CARE_OF.values()))
    with bed.mn.socket() as receiver:
        receiver.bind((str(HOME_ADDRESS), 4000))
        header = bytes((UDP, 2, 2, 1, 0, 0, 0, 0)) + HOME_ADDRESS.packed
        for care_of_address in CARE_OF.values():
            datagram = udp(CORRESPONDENT, HOME_ADDRESS, 4000, 4000, care_of_address.packed)
            send_raw(bed.cn, ipv6(CORRESPONDENT, care_of_address, 43, header + datagram))
            assert receiver.recv(100) == care_of_address.packed
    bed.optimise(bids=(1,), default=1)
    bed.exchange(4001)
    bed.mn.run(bed.ours.close)
    tables = bed.mn.shell("nft list tables; tc filter show dev wlan ingress")
    assert "flowbind_ro" not in tables


def test_change_of_care_of_address(bed):
    bed.optimise(default=1)
    bed.exchange(4000)
    assert set(bed.on_wire()) == {1}
    bed.optimise(default=2, bids=(2,))
    bed.exchange(4000)
    assert set(bed.on_wire()) == {2}
    (wanted,) = bed.theirs._wanted.values()
    assert {way.care_of_address for way in wanted.ways} == {CELLULAR.packed}


def test_large_packets(bed):
    bed.optimise()
    bed.exchange(4000, b"q" * 1400, b"a" * 1400)
    bed.exchange(4000, b"q" * 5000, b"a" * 60000)


def test_bulk_tcp(bed):
    bed.optimise(rules=(FlowRule(1, 1, IPv6TrafficSelector(next_header=(6, 6)), Action.FORWARD, (1,)),))
    payload = bytes(range(256)) * 8192
    with bed.cn.socket(socket.SOCK_STREAM) as server, bed.mn.socket(socket.SOCK_STREAM) as client:
        server.bind((str(CORRESPONDENT), 5000))
        server.listen()
        client.bind((str(HOME_ADDRESS), 0))
        client.connect((str(CORRESPONDENT), 5000))
        connection, _ = server.accept()
        with connection:
            connection.settimeout(PATIENCE_S)
            for sender, receiver in ((client, connection), (connection, client)):
                received = bytearray()
                sender.settimeout(PATIENCE_S)
                sent = 0
                while len(received) < len(payload):
                    if sent < len(payload):
                        sent += sender.send(payload[sent : sent + 65536])
                    received += receiver.recv(1 << 20)
                assert received == payload


def test_discard_and_n_cast(bed):
    n_cast = udp_rule(2, 4002, (), Action.N_CAST)
    bed.optimise(rules=(n_cast,))
    bed.on_wire()
    with bed.mn.socket() as client:
        client.bind((str(HOME_ADDRESS), 0))
        client.sendto(b"x", (str(CORRESPONDENT), 4002))
        # left to the tunnel
        wait_for(lambda: any(p[6] == 41 for packets in bed.on_wire().values() for p in packets))
    bed.optimise(rules=(udp_rule(3, 4003, (), Action.DISCARD),))
    with bed.cn.socket() as server:
        server.bind((str(CORRESPONDENT), 4003))
        with pytest.raises(PermissionError):
            server.sendto(b"x", (str(HOME_ADDRESS), 9))


@requirement("RFC 6275 §9.3.1: a Home Address option without a binding: packet dropped, sender told")
def test_unverified_home_address(bed):
    answers = Capture(bed.mn, "cellular")
    with bed.cn.socket() as server:
        server.bind((str(CORRESPONDENT), 4000))
        server.setblocking(False)

        def send(home_address, care_of_address=CELLULAR):
            datagram = struct.pack("!HHHH", 1000, 4000, 9, 0) + b"x"
            packet = ipv6(
                care_of_address, CORRESPONDENT, 60, home_address_header(UDP, home_address) + datagram
            )
            send_raw(bed.mn, packet)

        def rejected():
            return list(reports.read())

        bed.cn.run(lambda: bed.theirs.reconcile({}))
        reports = bed.theirs.reports()
        send(HOME_ADDRESS)
        assert wait_for(rejected) == [Rejected(CELLULAR, CORRESPONDENT, HOME_ADDRESS)]
        bed.optimise(bids=(2,))
        send(HOME_ADDRESS + 1)
        assert wait_for(rejected) == [Rejected(CELLULAR, CORRESPONDENT, HOME_ADDRESS + 1)]
        send(HOME_ADDRESS, WLAN)
        assert wait_for(rejected) == [Rejected(WLAN, CORRESPONDENT, HOME_ADDRESS)]
        bed.exchange(4009)  # came later, arrived
        with pytest.raises(BlockingIOError):
            server.recvfrom(100)
        assert rejected() == []
    problems = [p for p in answers.packets() if p[6] == 58 and p[40] == 4]
    assert problems == []  # no ICMPv6 Parameter Problem
    answers.close()


@requirement("RFC 6275 §6.4: a type 2 routing header must hold a home address of this node")
def test_routing_header_of_others(bed):
    bed.optimise()
    target = IPv6Address("2001:db8:202::1")
    header = bytes((UDP, 2, 2, 1, 0, 0, 0, 0)) + target.packed
    datagram = struct.pack("!HHHH", 1000, 4000, 9, 0) + b"x"
    before = Capture(bed.network.nodes["ar2"], "access")
    send_raw(bed.cn, ipv6(CORRESPONDENT, CELLULAR, 43, header + datagram))
    bed.exchange(4000)  # came later, arrived
    assert not [p for p in before.packets() if IPv6Address(p[24:40]) == target and p[6] == UDP]
    before.close()


def test_signalling_is_left_alone(bed):
    bed.optimise()
    bed.on_wire()
    send_raw(bed.mn, ipv6(HOME_ADDRESS, CORRESPONDENT, 135, bytes(16)))
    found = wait_for(bed.on_wire)
    assert [packet[6] for packets in found.values() for packet in packets] == [41]  # in the tunnel


def test_repair_and_removal(bed):
    clean = bed.cn.shell("ip -6 rule; nft list ruleset; tc qdisc; ip -6 route show table all | grep -v cache")
    bed.optimise(rules=(udp_rule(1, 4001),))
    wanted = {(HOME_ADDRESS, ANY): bed.theirs._optimisations[HOME_ADDRESS, ANY]}
    # an agent that was killed has left all this; another takes over
    before = bed.theirs
    bed.theirs = bed.cn.run(lambda: OptimisedRoutes(Side.CORRESPONDENT, carrier=bed.carrier))
    if bed.carrier == "tun":
        before._carrier._process.kill()
        before._carrier._process.wait()
    bed.cn.shell("nft flush chain ip6 flowbind_ro output")
    bed.cn.shell("ip -6 route add 2001:db8::77 dev eth0 table 29000 proto 177")
    bed.cn.run(lambda: bed.theirs.reconcile(wanted))
    bed.exchange(4001)
    assert "db8::77" not in bed.cn.shell("ip -6 route show table 29000")
    bed.cn.run(bed.theirs.close)
    bed.mn.run(bed.ours.close)
    state = bed.cn.shell("ip -6 rule; nft list ruleset; tc qdisc; ip -6 route show table all | grep -v cache")
    assert state == clean
    assert "flowbind_ro" not in bed.mn.shell("nft list ruleset; tc filter show dev wlan ingress")
    bed.mn.shell(f"ping -c 1 -I {HOME_ADDRESS} {CORRESPONDENT}")  # through the tunnel again


def test_what_cannot_be_had(bed):
    with pytest.raises(DatapathError, match="no interface"):
        paths = (Path(1, WLAN, CORRESPONDENT),)
        wanted = RouteOptimisation(HOME_ADDRESS, CORRESPONDENT, Side.MOBILE, paths, 1)
        bed.mn.run(lambda: bed.ours.apply({(HOME_ADDRESS, CORRESPONDENT): wanted}))
    bed.cn.shell("ip -6 route delete default")
    with pytest.raises(DatapathError, match="no route to 2001:db8:201::100"):
        paths = (Path(1, CORRESPONDENT, WLAN),)
        wanted = RouteOptimisation(HOME_ADDRESS, ANY, Side.CORRESPONDENT, paths, 1)
        bed.cn.run(lambda: bed.theirs.apply({(HOME_ADDRESS, ANY): wanted}))
