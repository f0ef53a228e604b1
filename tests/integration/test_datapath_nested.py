"""A mobile node with a regional care-of address (RFC 5380): the tunnel to the home agent within the tunnel to
the anchor point, and what comes to the regional address by itself."""

import socket
import struct
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv6Address

import pytest
from datapath_bed import UDP, Bed, mobile_network, udp
from datapath_network import (
    CELLULAR,
    CORRESPONDENT,
    HOME_ADDRESS,
    PREFIX,
    WLAN,
    binding,
    ipv6,
    path,
    send_raw,
    wait_for,
)
from datapath_network import HOME_AGENT as ANCHOR_POINT

from testbed.datapath.optimisation import OptimisedRoutes
from testbed.mobility.forwarding import Action, FlowRule, HomeBinding, Side
from testbed.wire.selector import IPv6TrafficSelector

requirement = pytest.mark.requirement
#: The bed's home agent is the anchor point here; the home agent is somewhere behind it.
REGIONAL = HOME_ADDRESS
HOME, HOME_AGENT = IPv6Address("2001:db8:900::1"), IPv6Address("2001:db8:900::ff")
PORT = 2000
TYPE_2 = 43
RULES = (FlowRule(7, 1, IPv6TrafficSelector(source_port=(PORT, PORT)), Action.FORWARD, (1,)),)


def home(**more) -> HomeBinding:
    outer = path(1, False), path(2, False)
    inner = tuple(replace(each, local=REGIONAL, remote=HOME_AGENT, via=each) for each in outer)
    return HomeBinding(HOME, inner, 2, RULES, **more)


@pytest.fixture(scope="module")
def nested(bed: Bed) -> Iterator[Bed]:
    regional = binding(False, regional=True)
    bed.mn.run(lambda: bed.mobile.apply({REGIONAL: regional, HOME: home()}))
    bed.ha.run(lambda: bed.anchor.apply({REGIONAL: binding(True, regional=True)}))
    yield bed
    bed.mn.run(lambda: bed.mobile.apply({REGIONAL: None, HOME: None}))


@pytest.fixture
def receiver(nested: Bed) -> Iterator[socket.socket]:
    with nested.mn.socket() as receiver:
        receiver.bind((str(HOME), PORT))
        yield receiver


@pytest.fixture
def routes(nested: Bed) -> Iterator[OptimisedRoutes]:
    routes = nested.mn.run(lambda: OptimisedRoutes(Side.MOBILE, homes=[HOME], regional=True))
    nested.mn.run(lambda: routes.listen([WLAN, CELLULAR], [(ANCHOR_POINT, REGIONAL)]))
    yield routes
    nested.mn.run(routes.close)


def datagram(data: bytes, destination=HOME) -> bytes:
    return udp(CORRESPONDENT, destination, 1000, PORT, data)


def routed(data: bytes, home=HOME) -> bytes:
    """With a type 2 routing header, to the regional address."""
    header = struct.pack("!BBBBI", UDP, 2, 2, 1, 0) + home.packed
    return ipv6(CORRESPONDENT, REGIONAL, TYPE_2, header + datagram(data, home))


def tunnelled(data: bytes, home_agent=HOME_AGENT) -> bytes:
    """In the tunnel of a home agent, to the regional address."""
    return ipv6(home_agent, REGIONAL, 41, ipv6(CORRESPONDENT, HOME, UDP, datagram(data)))


@requirement("RFC 5380 §6.1: outer header LCoA and MAP, inner header RCoA and the peer's address")
@pytest.mark.parametrize("port, bid, care_of_address", [(PORT, 1, WLAN), (PORT + 1, 2, CELLULAR)])
def test_what_leaves_has_two_headers(nested: Bed, port, bid, care_of_address):
    nested.clear()
    with nested.mn.socket() as sender:
        sender.bind((str(HOME), 0))
        sender.sendto(b"a question", (str(CORRESPONDENT), port))
        ends = [sender.getsockname()[0], str(CORRESPONDENT)]
    found: list[bytes] = []

    def arrived() -> list[bytes]:
        found.extend(p for p in nested.up[bid].packets() if p.endswith(b"a question"))
        return found

    wait_for(arrived)
    places = [start + at for start in (0, 40, 80) for at in (8, 24)]
    addresses = [IPv6Address(found[0][at : at + 16]) for at in places]
    assert addresses == [care_of_address, ANCHOR_POINT, REGIONAL, HOME_AGENT, *map(IPv6Address, ends)]
    assert [found[0][at] for at in (6, 46, 86)] == [41, 41, UDP]


@requirement("RFC 5380 §6.1: packets are de-capsulated and processed in the normal manner")
def test_what_comes_in_the_tunnel_within_the_tunnel(nested: Bed, receiver):
    send_raw(nested.cn, tunnelled(b"hello"))
    assert receiver.recvfrom(100)[:1] == (b"hello",)


@requirement("RFC 5380 §6.1: what is inside the tunnel must come from the home agent")
def test_a_forged_tunnel_within_the_tunnel(nested: Bed, receiver):
    before = nested.mobile.totals()["rejected_tunnel_packets"]
    send_raw(nested.cn, tunnelled(b"forged", CORRESPONDENT))
    wait_for(lambda: nested.mobile.totals()["rejected_tunnel_packets"] == before + 1)
    send_raw(nested.cn, tunnelled(b"hello"))
    assert receiver.recvfrom(100)[0] == b"hello"


@requirement("RFC 5380 §6.1: what comes to the RCoA with a type 2 routing header is processed as ever")
def test_type_2_routing_header_to_the_regional_address(nested: Bed, receiver, routes):
    for data in (b"one", bytes(1200)):
        send_raw(nested.cn, routed(data))
        assert receiver.recvfrom(2000) == (data, (str(CORRESPONDENT), 1000, 0, 0))
    send_raw(nested.cn, tunnelled(b"hello"))  # the other way is still there
    assert receiver.recvfrom(100)[0] == b"hello"


def test_type_2_routing_headers_that_are_not_for_us(nested: Bed, receiver, routes):
    """Another home address; a tunnel that is not the anchor point's; who comes without the tunnel."""
    before = nested.mobile.totals()
    send_raw(nested.cn, routed(b"other", HOME_AGENT))
    send_raw(nested.cn, ipv6(CORRESPONDENT, WLAN, 41, routed(b"forged")))
    more = {name: packets + (name != "dropped_outer_packets") for name, packets in before.items()}
    wait_for(lambda: nested.mobile.totals() == more)
    send_raw(nested.cn, routed(b"right"))
    assert receiver.recvfrom(100)[0] == b"right"


@requirement("RFC 3963 §6.4: a mobile network prefix is routed like the home address")
def test_mobile_network_behind_an_anchor_point(nested: Bed):
    """In the tunnel within the tunnel from the home agent alone."""
    host = PREFIX[2]
    with mobile_network(nested) as inside, inside.socket() as near:
        near.bind((str(host), PORT))
        nested.mn.run(lambda: nested.mobile.apply({HOME: home(prefixes=(PREFIX,))}))
        before = nested.mobile.totals()["rejected_tunnel_packets"]
        for end, data in ((CORRESPONDENT, b"forged"), (HOME_AGENT, b"in")):
            inner = ipv6(CORRESPONDENT, host, UDP, datagram(data, host))
            send_raw(nested.cn, ipv6(end, REGIONAL, 41, inner))
        assert near.recvfrom(100)[0] == b"in"
        assert nested.mobile.totals()["rejected_tunnel_packets"] == before + 1
        nested.clear()
        near.sendto(b"out", (str(CORRESPONDENT), PORT + 1))
        wait_for(lambda: [p for p in nested.up[2].packets() if p.endswith(b"out") and p[6] == p[46] == 41])
    nested.mn.run(lambda: nested.mobile.apply({HOME: home()}))


def test_who_does_not_optimise_takes_none(nested: Bed, receiver):
    dropped = nested.mobile.totals()["signalling_packets"]
    send_raw(nested.cn, routed(b"early"))
    wait_for(lambda: nested.mobile.totals()["signalling_packets"] == dropped + 1)
    send_raw(nested.cn, tunnelled(b"hello"))
    assert receiver.recvfrom(100)[0] == b"hello"
