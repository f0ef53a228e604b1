"""The IPv6 Ready cases in which packets begin a return routability procedure, or must not: a tester in the
place of a correspondent node, a real home agent.

A case is named by its number; docs/ipv6-ready.md has all of them.
"""

from ipaddress import IPv6Address

import pytest
from agent_network import CORRESPONDENT, HOME_ADDRESS, HOME_AGENT, Agent
from datapath_network import Capture, ipv6, send_raw, wait_for
from ipv6_ready import case
from signalling import BU, COTI, HOTI

BY_TRAFFIC = 'optimise = "traffic"\n'
NEIGHBOUR = "2001:db8:100::2"
ROUTING = bytes((2, 2, 1, 0, 0, 0, 0)) + IPv6Address(HOME_ADDRESS).packed


@pytest.fixture
def tunnel(network):
    """What has come through the mobile node's tunnel: outer source, inner packet."""
    capture = Capture(network.ha, "core")
    yield lambda: [(IPv6Address(p[8:24]), p[40:]) for p in capture.packets() if p[6] == 41]
    capture.close()


@pytest.fixture
def mn(network, tmp_path, cn):
    with Agent(network.ha, tmp_path), Agent(network.mn, tmp_path, first=BY_TRAFFIC) as mn:
        wait_for(lambda: len([b for b in mn.ask("bindings") if b["registered"]]) == 2)
        yield mn


def begun(mn):
    """To whom a return routability procedure has begun."""
    return {event["peer"] for event in mn.events("home-test-init-sent")}


def optimised(mn):
    """How many BIDs the correspondent node has acknowledged."""
    routes = [route for route in mn.ask("routes") if route["correspondent"] == CORRESPONDENT]
    return routes and sum(binding["registered"] is not None for binding in routes[0]["bindings"])


def talk_of_another(network, mn):
    """A packet of another node, which has begun a procedure with that one by the end: so has by then all
    that came before."""
    network.hn.shell(f"ping -c 1 -W 5 {HOME_ADDRESS}")
    wait_for(lambda: NEIGHBOUR in begun(mn))


@case("MN-2-1-1-2-001", what="a tunnelled packet of an unknown node: a Home Test Init by reverse tunnelling")
@case("MN-2-1-2-2-001", what="a tunnelled packet of an unknown node: a Care-of Test Init, straight")
def test_packet_of_an_unknown_node(network, cn, mn, tunnel):
    assert begun(mn) == set()
    cn.echo()
    init = cn.next(HOTI)
    assert (str(init.source), init.home_address) == (HOME_ADDRESS, None)
    primary = IPv6Address(network.address("mn-cellular"))
    assert init.mobility_header in [inner[40:] for outer, inner in tunnel() if outer == primary]
    init = cn.next(COTI)
    assert str(init.source) in (network.address("mn-cellular"), network.address("mn-wlan"))
    assert init.home_address is None
    assert init.mobility_header not in [inner[40:] for _, inner in tunnel()]
    assert mn.events("message-not-sent") == []


@case("MN-2-1-1-2-019", what="a tunnelled packet after the registration has run out: a Home Test Init")
@case("MN-2-1-2-2-019", what="a tunnelled packet after the registration has run out: a Care-of Test Init")
def test_packet_after_the_registration(cn, mn):
    cn.replies[BU] = lambda update: cn.acknowledgement(update, lifetime=1)
    cn.echo()
    cn.until(lambda: optimised(mn) == 2)
    del cn.replies[BU]
    cn.until(lambda: not optimised(mn))
    tests = len(cn.messages(HOTI)), len(cn.messages(COTI))
    assert cn.way() == "tunnel"
    cn.until(lambda: len(cn.messages(HOTI)) > tests[0] and len(cn.messages(COTI)) > tests[1])


@case("MN-2-1-1-2-028", what="a tunnelled packet to another address: no answer, no tests")
def test_packet_to_another_address(network, cn, mn):
    care_of_address = network.address("mn-wlan")
    others = care_of_address, network.address("mn-cellular"), str(IPv6Address(HOME_ADDRESS) + 9)
    numbers = set()
    for other in others:
        number, packet = cn.echo_request(other)
        numbers.add(number)
        send_raw(network.ha, ipv6(HOME_AGENT, care_of_address, 41, packet))
    talk_of_another(network, mn)
    assert begun(mn) == {NEIGHBOUR}
    assert cn.way() == "tunnel" and not numbers & cn.echo_replies().keys()


@case("MN-2-1-1-2-004", what="a tunnelled packet of the home agent's own: no Home Test Init to it")
@case("MN-2-1-2-2-004", what="a tunnelled packet of the home agent's own: no Care-of Test Init to it")
def test_packet_of_the_home_agent(network, mn):
    network.ha.shell(f"ping -c 1 -W 5 -I {HOME_AGENT} {HOME_ADDRESS}")
    talk_of_another(network, mn)
    assert begun(mn) == {NEIGHBOUR}
    assert HOME_AGENT not in {route["correspondent"] for route in mn.ask("routes")}
    assert HOME_AGENT not in {event["peer"] for event in mn.events("care-of-test-init-sent")}


@case("MN-2-1-1-2-006", what="a packet straight from a known node: an answer, no tests, no Binding Update")
def test_packet_of_a_known_node(network, cn, mn):
    cn.echo()
    cn.until(lambda: optimised(mn) == 2)
    before = [len(cn.messages(kind)) for kind in (HOTI, COTI, BU)]
    number = cn.echo(network.address("mn-wlan"), ROUTING)
    _, home, _ = cn.until(lambda: cn.echo_replies().get(number))
    assert home == HOME_ADDRESS
    talk_of_another(network, mn)
    cn.serve()
    assert [len(cn.messages(kind)) for kind in (HOTI, COTI, BU)] == before
