"""The IPv6 Ready cases about the home link: returning to it, and finding its home agents.

A case is named by its number; docs/ipv6-ready.md has all of them.
"""

import contextlib
import json
import socket
import struct
from ipaddress import IPv6Address

import pytest
from agent_network import HOME_ADDRESS, HOME_AGENT, MOBILE_NODE, Agent, AgentNetwork
from datapath_network import Capture, wait_for
from ipv6_ready import case
from ipv6_ready_mobile_node import HomeAgent

from testbed.wire.address import link_local_of

ANYCAST = "2001:db8:100:0:fdff:ffff:ffff:fffe"
DISCOVERING = MOBILE_NODE.replace(f'home_agent = "{HOME_AGENT}"', 'home_prefix = "2001:db8:100::/64"')
REQUEST = 144
SOLICITATION, ADVERTISEMENT = 135, 136
RTM_NEWADDR, RTMGRP_IPV6_IFADDR = 20, 0x100  # linux/rtnetlink.h
HOME, ALL_NODES = IPv6Address(HOME_ADDRESS), IPv6Address("ff02::1").packed


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    folder = tmp_path_factory.mktemp("network")
    network = AgentNetwork(folder)
    network.advertise_home(folder, "AdvSourceLLAddress off;")
    yield network
    network.close()


@pytest.fixture
def away(network):
    away = HomeAgent(network)
    yield away
    away.close()


@pytest.fixture
def home(network):
    home = HomeAgent(network, "home0")
    yield home
    home.close()


@pytest.fixture
def link(network):
    """Neighbour Discovery on the home link about an address: what has been heard of one type, and when."""
    capture = Capture(network.ha, "home0")
    heard = []

    def seen(kind, target=HOME):
        heard.extend(capture.stamped())
        return [(t, p) for t, p in heard if p[6] == 58 and p[40] == kind and p[48:64] == target.packed]

    yield seen
    capture.close()


@pytest.fixture
def returning(network, away):
    """The home agent defends the home address while the mobile node is away, and comes back."""
    settings = "/proc/sys/net/ipv6"
    network.ha.shell(
        f"echo 1 >{settings}/conf/home0/proxy_ndp; echo 0 >{settings}/neigh/home0/proxy_delay; "
        f"ip -6 neigh add proxy {HOME_ADDRESS} dev home0"
    )
    yield lambda: network.bring_home("wlan")  # which is undone here
    network.ha.shell(f"ip -6 neigh del proxy {HOME_ADDRESS} dev home0", check=False)
    network.take_away("wlan")
    wait_for(lambda: network.address("mn-wlan", "2001:db8:201:"))


@case("MN-2-1-3-1-007", what="a solicitation for the home address, without source; then the Binding Update")
@case("MN-2-2-2-1-027", what="a Neighbour Solicitation for the home address is answered")
@case("MN-3-4-1-1-001", what="a Neighbour Advertisement for the home address to all nodes after it")
def test_returning_home(network, tmp_path, away, home, link, returning):
    (described,) = json.loads(network.mn.shell("ip -j link show dev mn-wlan"))
    mac = bytes.fromhex(described["address"].replace(":", ""))
    with Agent(network.mn, tmp_path) as mn:
        away.accept_all(mn)
        returning()
        update = home.next_update()
        assert str(update.source) == HOME_ADDRESS and update.home_address is None
        assert update.message.lifetime_s == 0 and update.message.home_registration
        _, solicitation = link(SOLICITATION)[0]
        assert solicitation[8:24] == bytes(16) and solicitation[24:29] == b"\xff\x02\0\0\0"
        assert len(solicitation) == 64  # no option
        # the home agent's kernel looks for the home address to send the acknowledgement
        network.ha.shell(f"ip -6 neigh del proxy {HOME_ADDRESS} dev home0; ip -6 neigh flush dev home0")
        home.until(
            lambda: mn.events("deregistered"),
            lambda update: home.acknowledgement(update, lifetime=0, options=[]),
        )
        solicited = [p for _, p in link(ADVERTISEMENT) if p[24:40] != ALL_NODES]
        assert solicited and all(p[44] & 0x40 and p[64:72] == b"\2\1" + mac for p in solicited)
        claims = wait_for(lambda: [p for _, p in link(ADVERTISEMENT) if p[24:40] == ALL_NODES])
        assert all(p[44] & 0xE0 == 0x20 and p[64:72] == b"\2\1" + mac for p in claims)


@pytest.fixture
def own(network):
    """A link-local address of the mobile node's with the interface identifier of its home address."""
    own = link_local_of(IPv6Address(HOME_ADDRESS))
    network.mn.shell(f"ip -6 addr add {own}/64 dev mn-wlan nodad")
    yield own
    network.mn.shell(f"ip -6 addr del {own}/64 dev mn-wlan")


@pytest.fixture
def put(network):
    """What has become of the home address on mn-wlan: true where it was put there, false where it was taken
    away, in order. The kernel keeps it for us."""
    index = network.mn.run(lambda: socket.if_nametoindex("mn-wlan"))
    reports = network.mn.socket(socket.SOCK_RAW, socket.NETLINK_ROUTE, socket.AF_NETLINK)
    reports.bind((0, RTMGRP_IPV6_IFADDR))
    reports.setblocking(False)
    found = []

    def changes():
        with contextlib.suppress(BlockingIOError):
            while True:
                report = reports.recv(65536)
                kind, interface = struct.unpack_from("=4xH14xI", report)
                if HOME.packed in report and interface == index:
                    found.append(kind == RTM_NEWADDR)
        return found

    yield changes
    reports.close()


@case("MN-2-2-2-1-008", what="status 133: the node looks for others that use its addresses before it does")
def test_deregistration_rejected(network, tmp_path, away, home, link, returning, own, put):
    def claims():
        return [when for when, p in link(ADVERTISEMENT) if p[24:40] == ALL_NODES]

    def taken():
        return f"{HOME_ADDRESS}/128" in network.mn.shell("ip -6 addr show dev mn-wlan")

    with Agent(network.mn, tmp_path) as mn:
        assert away.next_update().message.link_local_compatibility
        away.accept_all(mn)
        returning()
        home.next_update()
        assert taken()  # the answer comes to it
        network.ha.shell(f"ip -6 neigh del proxy {HOME_ADDRESS} dev home0; ip -6 neigh flush dev home0")
        before = {target: len(link(SOLICITATION, target)) for target in (HOME, own)}
        assert claims() == []
        put().clear()

        def asked(target):
            return [(t, p) for t, p in link(SOLICITATION, target)[before[target] :] if p[8:24] == bytes(16)]

        claimed = home.until(
            claims, lambda update: home.acknowledgement(update, status=133, lifetime=0, options=[])
        )
        for target in (HOME, own):
            when, solicitation = asked(target)[0]
            assert len(solicitation) == 64
            assert claimed[0] - when > 0.9  # RetransTimer is 1 s
        assert taken() and put() == [False, True]


@case("MN-3-1-1-1-001", what="a home address that is formed on the home link, after looking for other users")
def test_home_address_that_is_formed(network, tmp_path, away, home, link, returning):
    network.ha.shell(f"ip -6 neigh del proxy {HOME_ADDRESS} dev home0")
    network.set_link("cellular", False)
    returning()
    settings = "/proc/sys/net/ipv6/conf/mn-wlan"
    try:
        network.mn.shell(
            f"ip link set mn-wlan down; echo 1 >{settings}/accept_dad; ip link set mn-wlan up"
        )
        formed = IPv6Address(wait_for(lambda: network.address("mn-wlan", "2001:db8:100:")))
        for target in (link_local_of(formed), formed):
            wait_for(lambda t=target: [p for _, p in link(SOLICITATION, t) if p[8:24] == bytes(16)])
        text = MOBILE_NODE.replace(HOME_ADDRESS, str(formed))
        with Agent(network.mn, tmp_path, text=text) as mn:
            wait_for(lambda: mn.ask("status")["at_home"] == "mn-wlan")
            network.take_away("wlan")
            update = away.next_update()
            assert update.home_address == formed and update.message.link_local_compatibility
    finally:
        network.mn.shell(f"echo 0 >{settings}/accept_dad")
        network.set_link("cellular", True)


@case("MN-5-1-1-1-001", what="a Home Agent Address Discovery Request from the home link")
@case("MN-5-1-2-1-002", what="the reply there: the Binding Update from the next link goes to that home agent")
def test_discovery_at_home(network, tmp_path, away, home, returning):
    network.ha.shell(f"ip -6 neigh del proxy {HOME_ADDRESS} dev home0")
    network.ha.shell(f"ip -6 addr add {ANYCAST}/128 dev home0")
    network.set_link("cellular", False)
    returning()
    # what the kernel has of other networks, no agent has told it to forget
    network.mn.shell("ip -6 route flush default dev mn-wlan; ip -6 addr flush dev mn-wlan scope global")
    try:
        wait_for(lambda: network.address("mn-wlan", "2001:db8:100:"))
        with Agent(network.mn, tmp_path, text=DISCOVERING) as mn:
            request = home.next_icmp(REQUEST)
            assert (str(request.source), str(request.destination)) == (HOME_ADDRESS, ANYCAST)
            assert mn.events("message-not-sent") == []
            home.send(home.discovery_reply(request))
            wait_for(lambda: mn.events("home-agents-discovered"))
            assert home.updates() == [] and mn.ask("status")["home_agent"] == HOME_AGENT
            network.take_away("wlan")
            update = away.next_update()
            assert str(update.destination) == HOME_AGENT and str(update.home_address) == HOME_ADDRESS
            assert away.icmp(REQUEST) == []
    finally:
        network.set_link("cellular", True)
        network.ha.shell(f"ip -6 addr del {ANYCAST}/128 dev home0")


@case("MN-5-1-2-1-021", what="the reserved field of a Home Agent Address Discovery Reply is ignored")
def test_reserved_field_of_a_reply(network, tmp_path, away):
    with Agent(network.mn, tmp_path, text=DISCOVERING):
        request = away.next_icmp(REQUEST)
        assert str(request.destination) == ANYCAST
        away.send(away.discovery_reply(request, reserved=0xFFFF))
        assert str(away.next_update().destination) == HOME_AGENT
