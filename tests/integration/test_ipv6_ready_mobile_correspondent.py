"""The IPv6 Ready cases for mobile nodes that are correspondent nodes of mobile nodes: a tester in the place
of another mobile node, away on the home link of the first one's home agent.

A case is named by its number; docs/ipv6-ready.md has all of them.
"""

from ipaddress import IPv6Address

import pytest
from agent_network import CORRESPONDENT, HOME_ADDRESS, HOME_AGENT, Agent
from datapath_network import Capture, both_headers, ipv6, wait_for
from ipv6_ready import Tester, case
from ipv6_ready_mobile_node import Correspondent
from signalling import BA, BE, BRR, BU, COT, COTI, HOT, HOTI, Signaller

from testbed.wire.codec import Codec
from testbed.wire.error import ParseError
from testbed.wire.packet import parse_packet

AWAY = "2001:db8:100::2"
BY_TRAFFIC = 'optimise = "traffic"\n'


class Peer(Tester):
    """A mobile node whose home is where the correspondent node is, and that is away at AWAY."""

    def __init__(self, network) -> None:
        self.correspondent, self.home_address, self.care_of_address = HOME_ADDRESS, CORRESPONDENT, AWAY
        self.home = Signaller(network.cn, "eth0", CORRESPONDENT)
        self.away = Signaller(network.hn, "eth0", AWAY)
        self.sequence = 0
        self.home_index = self.care_of_index = 0
        self.home_token = self.care_of_token = b""
        self._tunnel = Capture(network.ha, "core")
        self._node = network.hn
        self._node.shell(
            "nft add table ip6 tester; nft add chain ip6 tester in "
            "{ type filter hook prerouting priority -300 \\; }; "
            # or this kernel says that it does not know these headers
            "nft add rule ip6 tester in meta l4proto 135 drop; "
            "nft add rule ip6 tester in exthdr rt exists drop"
        )

    def close(self) -> None:
        self._node.shell("nft delete table ip6 tester")
        self._tunnel.close()
        self.home.close()
        self.away.close()

    def reverse_tunnelled(self, kind: int, care_of_address: str) -> list:
        """The messages of that type which the mobile node has sent through its tunnel since the last call."""
        found = []
        for data in self._tunnel.packets():
            if data[6] != 41:
                continue
            try:
                packet = parse_packet(data[40:], Codec())
            except ParseError:
                continue
            if getattr(packet.message, "mh_type", None) == kind:
                outer = [str(IPv6Address(data[at : at + 16])) for at in (8, 24)]
                assert outer == [care_of_address, HOME_AGENT]
                found.append(packet)
        return found

    def echoes(self, kind: int = 129) -> list[bytes]:
        """The Echo Replies with both headers that have come to where it is away."""
        packets = (data for data in self.away.heard() if data[6] == 43 and data[40] == 60)
        return [data for data in packets if data[64] == 58 and data[88] == kind]

    def routed_echo(self, care_of_address: str) -> bytes:
        """An Echo Request with type 2 routing header and Home Address option."""
        plain = self.echo(AWAY, CORRESPONDENT)
        routing = bytes((60, 2, 2, 1, 0, 0, 0, 0)) + IPv6Address(HOME_ADDRESS).packed
        return ipv6(AWAY, care_of_address, 43, routing + plain[40:])


@pytest.fixture
def peer(network):
    peer = Peer(network)
    yield peer
    peer.close()


@pytest.fixture
def home(peer, network):
    """The peer's home, where its own tests and Binding Updates come."""
    cn = Correspondent(network)
    yield cn
    cn.close()


@pytest.fixture
def ha(network, tmp_path):
    with Agent(network.ha, tmp_path, first="prefix_interval_s = [0, 1]\n") as ha:
        yield ha


@pytest.fixture
def mn(network, tmp_path, ha, peer):
    with Agent(network.mn, tmp_path, first=BY_TRAFFIC + "lifetime_s = 20\n") as mn:
        wait_for(lambda: len([b for b in mn.ask("bindings") if b["registered"]]) == 2)
        yield mn


@pytest.fixture
def care_of_address(network):
    return network.address("mn-cellular")


def optimised(mn):
    routes = [route for route in mn.ask("routes") if route["correspondent"] == CORRESPONDENT]
    return routes and sum(b["registered"] is not None for b in routes[0]["bindings"]) == 2


@case("MN-2-1-1-3-001", what="a Home Test by reverse tunnelling")
@case("MN-2-1-2-3-001", what="a Care-of Test by reverse tunnelling")
@case("MN-3-1-1-3-001", what="a Binding Acknowledgement by reverse tunnelling")
@case("MN-2-1-1-2-003", what="tunnelled test messages do not begin a return routability procedure")
def test_answers_by_reverse_tunnelling(network, peer, home, mn, care_of_address):
    answer = peer.home_test()
    (sent,) = peer.reverse_tunnelled(HOT, care_of_address)
    assert str(sent.source) == str(answer.source) == HOME_ADDRESS and str(sent.destination) == CORRESPONDENT
    answer = peer.care_of_test()
    (sent,) = peer.reverse_tunnelled(COT, care_of_address)
    assert str(sent.source) == str(answer.source) == HOME_ADDRESS and str(sent.destination) == AWAY
    answer = peer.register()
    (sent,) = peer.reverse_tunnelled(BA, care_of_address)
    assert (str(sent.source), str(sent.destination)) == (HOME_ADDRESS, AWAY)
    assert str(sent.routing_address) == CORRESPONDENT and peer.is_authentic(answer, AWAY)
    assert [b["care_of_address"] for b in mn.ask("cache")] == [AWAY]
    assert "elements" not in network.mn.shell("nft list set ip6 flowbind_ro talkers")
    assert mn.ask("routes") == []
    for signaller in (peer.home, peer.away):
        assert peer.of_type(signaller, HOTI) == peer.of_type(signaller, COTI) == []


@pytest.mark.requirement("RFC 6275 §11.3.1: a Binding Refresh Request of a mobile node by reverse tunnelling")
def test_refresh_request_by_reverse_tunnelling(peer, mn, care_of_address):
    peer.register(lifetime=2)  # eight seconds, nine tenths of which have to pass
    (request,) = wait_for(lambda: peer.of_type(peer.away, BRR))
    assert str(request.source) == HOME_ADDRESS and str(request.destination) == AWAY
    assert str(request.routing_address) == CORRESPONDENT
    (sent,) = peer.reverse_tunnelled(BRR, care_of_address)
    assert (sent.source, sent.destination) == (request.source, request.destination)


@case("MN-2-1-1-2-002", what="a tunnelled packet with a Home Address option: a Home Test Init to it")
def test_home_address_option_in_the_tunnel(peer, mn, care_of_address):
    peer.register()
    peer.away.send(peer.echo(AWAY, CORRESPONDENT))
    (init, *_) = wait_for(lambda: peer.of_type(peer.home, HOTI))
    assert (str(init.source), str(init.destination)) == (HOME_ADDRESS, CORRESPONDENT)
    assert peer.reverse_tunnelled(HOTI, care_of_address)
    assert not [p for p in peer.of_type(peer.away, HOTI) + peer.of_type(peer.away, COTI)]


@case("MN-0-0-0-3-001", what="both register with one another, and all messages arrive")
@case("MN-4-1-1-3-001", what="an Echo Request with both headers is answered with both headers")
@case("MN-4-1-2-3-001", what="without a binding: a Binding Error by reverse tunnelling")
def test_packets_with_both_headers(peer, home, mn, care_of_address):
    peer.register()
    peer.away.send(peer.echo(AWAY, CORRESPONDENT))
    home.until(lambda: optimised(mn))
    peer.away.forget()
    peer.away.send(peer.routed_echo(care_of_address))
    (reply,) = wait_for(peer.echoes)
    assert [str(a) for a in both_headers(reply)] == [care_of_address, AWAY, HOME_ADDRESS, CORRESPONDENT]
    peer.authorise()
    peer.away.send(peer.update(lifetime=0, deletes=True))
    (answer,) = peer.acknowledgements()
    assert answer.message.status == 0 and mn.ask("cache") == []
    peer.reverse_tunnelled(BE, care_of_address)
    peer.away.send(peer.routed_echo(care_of_address))
    (error,) = wait_for(lambda: peer.of_type(peer.away, BE))
    assert (error.message.status, str(error.message.home_address)) == (1, CORRESPONDENT)
    (sent,) = peer.reverse_tunnelled(BE, care_of_address)
    assert (str(sent.source), str(sent.destination)) == (HOME_ADDRESS, AWAY)
    assert peer.echoes() == []


@case("MN-3-1-2-3-001", what="the peer is told again before the home registration is over")
def test_updates_before_the_home_registration_is_over(peer, home, mn, care_of_address):
    peer.register()
    assert peer.reverse_tunnelled(BA, care_of_address)
    peer.away.send(peer.echo(AWAY, CORRESPONDENT))
    home.until(lambda: optimised(mn))
    before = len(home.messages(BU))
    update = home.next(BU, before)
    assert 0 < update.message.lifetime_s <= 20 and str(update.home_address) == HOME_ADDRESS
    assert mn.events("binding-expired") == [] and mn.ask("status")["registered"]


@case("MN-3-1-3-3-001", what="the peer is told when the home prefix ends earlier")
def test_updates_when_the_home_prefix_ends_earlier(peer, home, ha, mn, care_of_address):
    peer.register()
    assert peer.reverse_tunnelled(BA, care_of_address)
    peer.away.send(peer.echo(AWAY, CORRESPONDENT))
    home.until(lambda: optimised(mn))
    before = len(home.messages(BU))
    assert ha.flowbind("home-prefix", "2001:db8:100::/64", "--valid", "12").returncode == 0
    update = home.next(BU, before)
    assert 0 < update.message.lifetime_s <= 12
