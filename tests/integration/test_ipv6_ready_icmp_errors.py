"""The IPv6 Ready cases about ICMPv6 errors, to mobile nodes and to correspondent nodes.

A case is named by its number; docs/ipv6-ready.md has all of them.
"""

import time

import pytest
from agent_network import CORRESPONDENT, HOME_AGENT, Agent
from datapath_network import wait_for
from ipv6_ready import Tester, case
from ipv6_ready_mobile_node import HomeAgent, icmp_error
from signalling import BRR, BU, COTI, HOTI

UNREACHABLE, PROBLEM = 1, 4
UNKNOWN_HEADER, UNKNOWN_OPTION = 1, 2


def optimised(mn):
    (route,) = mn.ask("routes")
    return route["optimised"]


def other_traffic(network, seconds):
    """Time for what should not come, longer than the first retransmissions take."""
    network.ar.shell(f"ping -c {seconds + 1} -i 1 {HOME_AGENT}")


def changed(packet):
    """A copy of a message with another octet at its end: who has not seen the message could not do better."""
    return packet[:-1] + bytes((packet[-1] ^ 1,))


@case("MN-6-2-2-1-001", what="a home agent that does not know the Mobility Header: no retransmission")
def test_home_agent(network, tmp_path):
    ha = HomeAgent(network)
    try:
        with Agent(network.mn, tmp_path) as mn:
            first = ha.octets(ha.next_update())
            ha.send(icmp_error(PROBLEM, UNKNOWN_HEADER, changed(first), 64, HOME_AGENT))
            ha.send(icmp_error(PROBLEM, UNKNOWN_HEADER, first, 64, CORRESPONDENT))
            ha.next_update(1)
            assert not mn.events("mobility-header-unsupported")
            ha.send(icmp_error(PROBLEM, UNKNOWN_HEADER, first, 64, HOME_AGENT))
            wait_for(lambda: mn.events("mobility-header-unsupported"))
            count = len(ha.updates())
            other_traffic(network, 7)
            assert len(ha.updates()) == count and not mn.ask("status")["registered"]
    finally:
        ha.close()


@case("MN-4-2-2-2-002", what="a Home Test Init that is not known there: the tunnel")
@case("MN-4-2-2-2-005", what="a Care-of Test Init that is not known there: the tunnel")
@case("MN-4-2-2-2-007", what="a Binding Update that is not known there: the tunnel")
@pytest.mark.parametrize("kind", [HOTI, COTI, BU])
def test_unknown_header(network, cn, mn, kind):
    forged = []

    def answer(packet):
        octets = cn.octets(packet)
        forged.append(octets)
        return icmp_error(PROBLEM, UNKNOWN_HEADER, changed(octets) if len(forged) == 1 else octets, 40)

    cn.replies[kind] = answer
    cn.until(lambda: mn.events("mobility-header-unsupported"))
    assert len(forged) >= 2  # the forged answer to the first one changed nothing
    counts = [len(cn.messages(each)) for each in (HOTI, COTI, BU)]
    other_traffic(network, 3)
    assert cn.way() == "tunnel" and not optimised(mn)
    assert [len(cn.messages(each)) for each in (HOTI, COTI, BU)] == counts


@case("MN-4-2-2-2-012", what="Destination Unreachable for a Home Test Init: tests go on, in the next network")
def test_unreachable(network, cn, mn):
    cn.replies[HOTI] = lambda init: icmp_error(UNREACHABLE, 3, cn.octets(init))
    cn.until(lambda: mn.events("icmp-error-received"))
    before = len(cn.messages(HOTI))
    cn.next(HOTI, before)
    network.set_link("cellular", False)
    try:
        wait_for(lambda: mn.events("care-of-address-lost"))
        cn.replies[HOTI] = cn.home_test
        cn.until(lambda: optimised(mn))
        wlan = network.address("mn-wlan")
        assert wlan in {str(init.source) for init in cn.messages(COTI)}
        assert cn.way() == "straight"
    finally:
        network.set_link("cellular", True)
        wait_for(lambda: network.address("mn-cellular"))


@case("MN-4-2-2-2-010", what="errors about data: no tests")
def test_errors_about_data(network, home, cn, tmp_path):
    with Agent(network.mn, tmp_path) as mn:
        wait_for(lambda: mn.ask("status")["registered"])
        assert cn.way() == "tunnel"
        ((_, _, reply),) = cn.echo_replies().values()
        cn.send(*(icmp_error(*error, reply) for error in ((PROBLEM, 1), (PROBLEM, 2), (UNREACHABLE, 3))))
        other_traffic(network, 1)
        assert cn.way() == "tunnel"
        assert cn.messages(HOTI) == cn.messages(COTI) == cn.messages(BU) == []
        assert not mn.events("icmp-error-received")


@case("MN-4-2-2-2-011", what="a Home Address option that is not known to a registered node: noted, no more")
def test_unknown_option(cn, mn):
    cn.until(lambda: optimised(mn))
    update = cn.octets(cn.messages(BU)[0])
    cn.send(icmp_error(PROBLEM, UNKNOWN_OPTION, update, 46))
    (event,) = cn.until(lambda: mn.events("icmp-error-received"))
    assert (event["peer"], event["type"], event["code"]) == (CORRESPONDENT, PROBLEM, UNKNOWN_OPTION)
    assert cn.way() == "straight" and optimised(mn)


@pytest.fixture
def tester(network, tmp_path):
    with Agent(network.cn, tmp_path) as agent:
        tester = Tester(network)
        tester.register()
        yield tester, agent
        tester.close()


class Router:
    """Has an error to send about each packet that the correspondent node sends to the care-of address."""

    def __init__(self, tester):
        self.tester = tester
        self.seen = 0

    def refuse(self, code=3):
        """See to it that there are packets, and refuse those that have come since the last call."""
        tester = self.tester
        tester.away.send(tester.echo(tester.care_of_address, tester.home_address))
        heard = tester.away.heard()
        for data in heard[self.seen :]:
            if data[6] == 43 and data[40] == 58:
                tester.elsewhere.send(icmp_error(UNREACHABLE, code, data, source=tester.other_address))
        self.seen = len(heard)


@case("CN-6-1", what="persistent Destination Unreachable: the binding is deleted")
def test_persistent_errors(tester):
    tester, cn = tester
    router = Router(tester)
    assert cn.ask("bindings")
    wait_for(lambda: router.refuse() or cn.ask("bindings") == [])
    assert tester.bound() is None
    (event,) = cn.events("binding-removed")
    assert event["cause"] == "unreachable"
    assert event["t"] - cn.events("care-of-address-unreachable")[0]["t"] >= 4


@pytest.mark.requirement("RFC 6275 §9.3.4: only persistent ICMP messages lead to the deletion of the binding")
def test_errors_that_are_not_true(tester):
    """The mobile node is asked to show up, and does."""
    tester, cn = tester
    router = Router(tester)
    (request,) = wait_for(lambda: router.refuse() or tester.of_type(tester.away, BRR))
    assert str(request.routing_address) == tester.home_address
    tester.away.send(tester.update())
    wait_for(lambda: len(cn.events("binding-changed")) == 2)
    end = time.monotonic() + 5
    wait_for(lambda: router.refuse() or time.monotonic() > end)
    assert not cn.events("binding-removed")
    assert len(cn.events("binding-refresh-request-sent")) == 1
    assert tester.bound() == tester.care_of_address


@pytest.mark.requirement("RFC 6275 §9.3.4: errors of the mobile node itself show that it has been reached")
def test_port_unreachable(tester):
    tester, cn = tester
    router = Router(tester)
    wait_for(lambda: router.refuse(code=4) or router.seen > 5)
    assert tester.bound() == tester.care_of_address
    assert not cn.events("care-of-address-unreachable")
