"""Optimised routes between two mobile nodes, on real packets: both headers in one, in tunnels, at home."""

import socket
import struct
from ipaddress import IPv6Address

import pytest
from datapath_network import (
    CELLULAR,
    HOME_ADDRESS,
    HOME_ADDRESS_2,
    HOME_AGENT,
    PATIENCE_S,
    WLAN,
    WLAN_2,
    Capture,
    Network,
    binding,
    both_headers,
    exchange,
    ipv6,
    send_raw,
    wait_for,
)

from testbed.datapath.datapath import Datapath, DatapathConfiguration
from testbed.datapath.optimisation import OptimisedRoutes
from testbed.datapath.rejected import Rejected
from testbed.mobility.forwarding import Action, FlowRule, HomeBinding, Path, RouteOptimisation, Side
from testbed.wire.selector import IPv6TrafficSelector

ANY = IPv6Address("::")
CARE_OF = {1: WLAN, 2: CELLULAR}
INTERFACES = {1: "wlan", 2: "cellular"}
TCP, UDP = 6, 17

requirement = pytest.mark.requirement


def rule(fid, bid, protocol=UDP, **selector):
    return FlowRule(
        fid, 10, IPv6TrafficSelector(next_header=(protocol,) * 2, **selector), Action.FORWARD, (bid,)
    )


class Bed:
    """The mobile node `mn` with two interfaces and `mn2` with one, behind one home agent. Their routes to
    one another are optimised as the tests say."""

    def __init__(self, carrier: str) -> None:
        self.carrier = carrier
        self.network = Network()
        self.mn, self.mn2, self.ha = self.network.mn, self.network.mn2, self.network.ha
        self.anchor = self.ha.run(
            lambda: Datapath(Side.ANCHOR, DatapathConfiguration(home_interface="home0"))
        )
        second = HomeBinding(HOME_ADDRESS_2, (Path(1, HOME_AGENT, WLAN_2),), 1)
        self.ha.run(lambda: self.anchor.apply({HOME_ADDRESS: binding(True), HOME_ADDRESS_2: second}))
        configuration = DatapathConfiguration(mtu=1436)
        self.tunnels = {
            node: node.run(lambda: Datapath(Side.MOBILE, configuration)) for node in (self.mn, self.mn2)
        }
        router = IPv6Address("2001:db8:203::1")
        tunnel = HomeBinding(HOME_ADDRESS_2, (Path(1, WLAN_2, HOME_AGENT, "wlan", router),), 1)
        self.mn.run(lambda: self.tunnels[self.mn].apply({HOME_ADDRESS: binding(False)}))
        self.mn2.run(lambda: self.tunnels[self.mn2].apply({HOME_ADDRESS_2: tunnel}))
        self.routes = {
            node: node.run(
                lambda home=home: OptimisedRoutes(
                    Side.MOBILE, carrier=carrier, correspondent=True, homes=[home]
                )
            )
            for node, home in ((self.mn, HOME_ADDRESS), (self.mn2, HOME_ADDRESS_2))
        }
        for node, addresses in ((self.mn, CARE_OF.values()), (self.mn2, [WLAN_2])):
            node.run(lambda node=node, addresses=addresses: self.routes[node].listen(addresses))
        self.mn.shell("ping -c 1 2001:db8:201::1; ping -c 1 2001:db8:202::1", check=False)
        self.wire = {1: Capture(self.ha, "ar1"), 2: Capture(self.ha, "ar2")}
        self.arriving = Capture(self.mn2, "wlan")

    def apply(self, node, wanted, correspondent):
        pair = wanted.home_address, correspondent
        node.run(lambda: self.routes[node].apply({pair: wanted}))

    def register_first(self, rules=(), bids=(1, 2), default=2):
        """`mn` is registered with `mn2`."""
        ours = tuple(
            Path(bid, CARE_OF[bid], HOME_ADDRESS_2, INTERFACES[bid], IPv6Address(f"2001:db8:20{bid}::1"))
            for bid in bids
        )
        theirs = tuple(Path(bid, HOME_ADDRESS_2, CARE_OF[bid]) for bid in bids)
        there = RouteOptimisation(HOME_ADDRESS, ANY, Side.CORRESPONDENT, theirs, default, rules)
        here = RouteOptimisation(HOME_ADDRESS, HOME_ADDRESS_2, Side.MOBILE, ours, default, rules)
        self.apply(self.mn2, there, ANY)
        self.apply(self.mn, here, HOME_ADDRESS_2)

    def register_second(self):
        """`mn2` is registered with `mn`."""
        ours = (Path(1, WLAN_2, HOME_ADDRESS, "wlan", IPv6Address("2001:db8:203::1")),)
        there = RouteOptimisation(
            HOME_ADDRESS_2, ANY, Side.CORRESPONDENT, (Path(1, HOME_ADDRESS, WLAN_2),), 1
        )
        here = RouteOptimisation(HOME_ADDRESS_2, HOME_ADDRESS, Side.MOBILE, ours, 1)
        self.apply(self.mn, there, ANY)
        self.apply(self.mn2, here, HOME_ADDRESS)

    def exchange(self, port, payload=b"question", answer=b"answer"):
        """A datagram from `mn` to `port` of `mn2` and one back, by their home addresses."""
        exchange(self.mn, HOME_ADDRESS, self.mn2, HOME_ADDRESS_2, port, payload, answer)

    def sent(self):
        """What `mn` has sent with a routing header since the last call: BID -> packets."""
        return {bid: [p for p in wire.packets() if p[6] == 43] for bid, wire in self.wire.items()}

    def close(self):
        for routes in (self.routes, self.tunnels):
            for node, part in routes.items():
                node.run(part.close)
        for capture in (*self.wire.values(), self.arriving):
            capture.close()
        self.network.close()


@pytest.fixture
def bed(carrier):
    bed = Bed(carrier)
    yield bed
    bed.close()


@requirement("RFC 6275 §11.3.1, §9.3.2: between two mobile nodes, packets carry both headers")
@requirement("RFC 6275 §11.3.2: the Home Address option comes behind the routing header")
def test_both_headers(bed):
    bed.register_first()
    bed.register_second()
    bed.sent()
    bed.exchange(4000)
    # ar1's link to the home agent carries the answer, which mn2 sends to mn's other network
    (up,) = bed.sent()[2]
    assert both_headers(up) == [CELLULAR, WLAN_2, HOME_ADDRESS, HOME_ADDRESS_2]
    (arrived,) = [p for p in bed.arriving.packets() if p[6] == 43]
    assert both_headers(arrived) == [CELLULAR, WLAN_2, HOME_ADDRESS, HOME_ADDRESS_2]


@requirement("draft §7, §6.3: each flow by its care-of address, at either end")
def test_flows_of_both(bed):
    answers = {bid: Capture(bed.mn, INTERFACES[bid]) for bid in (1, 2)}
    bed.register_first(rules=(rule(1, 1, source_port=(4001, 4001)),))
    bed.register_second()
    for port, bid in ((4001, 1), (4002, 2)):
        for capture in answers.values():
            capture.packets()
        bed.arriving.packets()
        bed.exchange(port)
        (up,) = [p for p in bed.arriving.packets() if p[6] == 43]
        assert both_headers(up)[:2] == [CARE_OF[bid], WLAN_2]
        (down,) = [p for p in answers[bid].packets() if p[6] == 43]
        assert both_headers(down)[:2] == [WLAN_2, CARE_OF[bid]]
    for capture in answers.values():
        capture.close()


def test_large_packets(bed):
    bed.register_first()
    bed.register_second()
    bed.exchange(4000, b"q" * 1380, b"a" * 1388)
    bed.exchange(4000, b"q" * 5000, b"a" * 60000)


def test_bulk_tcp(bed):
    bed.register_first(rules=(rule(1, 1, protocol=TCP),))
    bed.register_second()
    payload = bytes(range(256)) * 8192
    with bed.mn2.socket(socket.SOCK_STREAM) as server, bed.mn.socket(socket.SOCK_STREAM) as client:
        server.bind((str(HOME_ADDRESS_2), 5000))
        server.listen()
        client.connect((str(HOME_ADDRESS_2), 5000))  # from the home address, of its own accord
        connection, peer = server.accept()
        assert peer[0] == str(HOME_ADDRESS)
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
    assert not [p for p in bed.arriving.packets() if p[6] == 41]


@requirement("RFC 6275 §9.3.1: a Home Address option in a packet through the home agent's tunnel is taken")
def test_one_direction(bed):
    """`mn` is registered with `mn2`, not the other way round: what it sends goes through `mn2`'s tunnel."""
    bed.register_first()
    bed.exchange(4000)
    (up,) = [p for p in bed.arriving.packets() if p[6] in (41, 43)]
    assert up[6] == 41 and up[46] == 60
    assert IPv6Address(up[8:24]) == HOME_AGENT and IPv6Address(up[48:64]) == CELLULAR
    if bed.carrier != "xfrm":  # see there
        bed.exchange(4000, b"q" * 5000, b"a" * 5000)


@requirement("RFC 6275 §9.3.1: a Home Address option without a binding: dropped, and known, in a tunnel too")
def test_unverified_home_address(bed):
    reports = bed.routes[bed.mn2].reports()
    header = bytes((UDP, 2, 1, 2, 0, 0, 0xC9, 16)) + HOME_ADDRESS.packed
    datagram = struct.pack("!HHHH", 1000, 4000, 9, 0) + b"x"
    with bed.mn2.socket() as server:
        server.bind((str(HOME_ADDRESS_2), 4000))
        for destination in (HOME_ADDRESS_2, WLAN_2):
            send_raw(bed.mn, ipv6(CELLULAR, destination, 60, header + datagram))
            found = wait_for(lambda: list(reports.read()))
            assert found == [Rejected(CELLULAR, destination, HOME_ADDRESS)]
        routing = bytes((60, 2, 2, 1, 0, 0, 0, 0)) + HOME_ADDRESS_2.packed
        send_raw(bed.mn, ipv6(CELLULAR, WLAN_2, 43, routing + header + datagram))
        assert wait_for(lambda: list(reports.read())) == [Rejected(CELLULAR, HOME_ADDRESS_2, HOME_ADDRESS)]
        # from another than the home agent: no tunnel of ours
        inner = ipv6(CELLULAR, HOME_ADDRESS_2, 60, header + datagram)
        send_raw(bed.network.cn, ipv6(IPv6Address("2001:db8:300::2"), WLAN_2, 41, inner))
        bed.register_first()
        bed.exchange(4001)  # came later, arrived
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.recvfrom(100)
        assert list(reports.read()) == []


def test_signalling_is_left_alone(bed):
    """Mobility messages with a Home Address option that come through the tunnel are for the agent."""
    bed.register_first()
    received = bed.mn2.socket(socket.SOCK_RAW, 135)
    received.setsockopt(socket.IPPROTO_IPV6, 7, -1)  # its checksum is not with this source
    header = bytes((135, 2, 1, 2, 0, 0, 0xC9, 16)) + HOME_ADDRESS.packed
    message = bytes((59, 1, 5, 0, 0, 0)) + bytes(10)
    send_raw(bed.mn, ipv6(CELLULAR, HOME_ADDRESS_2, 60, header + message))
    data, address = received.recvfrom(100)
    assert data == message and address[0] == str(CELLULAR)
    received.close()


@requirement("RFC 6275 §9.3.2: at home, a mobile node sends as any correspondent node does")
def test_at_home(bed):
    bed.register_second()
    # on the home link from now on, without tunnels
    bed.mn.run(lambda: bed.tunnels[bed.mn].apply({HOME_ADDRESS: None}))
    bed.mn.shell(f"ip -6 addr add {HOME_ADDRESS}/128 dev lo nodad")
    # the kernel takes packets to a new address some time after it has been told of it
    wait_for(lambda: f"local {HOME_ADDRESS} " in bed.mn.shell("ip -6 route show table local"))
    bed.mn.run(lambda: bed.routes[bed.mn].refresh())
    bed.ha.run(lambda: bed.anchor.apply({HOME_ADDRESS: None}))
    for node, via in (("ha", "2001:db8:ff01::2"), ("ar1", WLAN)):
        bed.network.nodes[node].shell(f"ip -6 route replace {HOME_ADDRESS} via {via}")
    bed.exchange(4000)
    (up,) = [p for p in bed.arriving.packets() if p[6] == 43]
    assert up[40:48] == bytes((UDP, 2, 2, 1, 0, 0, 0, 0)) and IPv6Address(up[8:24]) == HOME_ADDRESS
