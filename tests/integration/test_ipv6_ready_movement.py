"""The IPv6 Ready cases about movement detection by Neighbour Unreachability Detection, with real routers.

A case is named by its number; docs/ipv6-ready.md has all of them.
"""

import os
import signal
import time
from ipaddress import IPv6Address

import pytest
from agent_network import Agent, AgentNetwork
from datapath_network import Capture, wait_for
from ipv6_ready import case
from observations import registered

OLD, NEW = "2001:db8:201:", "2001:db8:203:"
ROUTER = "2001:db8:201::1"


@pytest.fixture(params=[None, "fe80::1"], ids=["own", "same"])
def network(request, tmp_path):
    network = AgentNetwork(tmp_path, link_local=request.param)
    # the kernel takes a neighbour for reachable for 30 s, if it is not told otherwise
    settings = "/proc/sys/net/ipv6/neigh/mn-wlan"
    network.mn.shell(
        f"echo 1000 >{settings}/base_reachable_time_ms; echo 1 >{settings}/delay_first_probe_time; "
        "ip -6 neigh flush dev mn-wlan"
    )
    yield network
    network.close()


@pytest.fixture
def agents(network, tmp_path):
    with Agent(network.ha, tmp_path) as ha, Agent(network.mn, tmp_path) as mn:
        wait_for(lambda: registered(mn))
        yield ha, mn


@pytest.fixture
def solicited(network):
    """When Neighbour Solicitations for the router's global address have been on either link."""
    captures = [Capture(network.ar, name) for name in ("wlan", "other")]
    heard = []
    target = IPv6Address(ROUTER).packed

    def seen():
        for capture in captures:
            heard.extend(capture.stamped())
        return sorted(t for t, p in heard if p[6] == 58 and p[40] == 135 and p[48:64] == target)

    yield seen
    for capture in captures:
        capture.close()


@pytest.fixture
def advertised(network):
    """When Router Advertisements have come to the mobile node on the first link."""
    capture = Capture(network.mn, "mn-wlan")
    heard = []

    def seen():
        heard.extend(t for t, p in capture.stamped() if p[6] == 58 and p[40] == 134)
        return heard

    yield seen
    capture.close()


def bound(ha):
    return next(b["care_of_address"] for b in ha.ask("bindings") if b["bid"] == 1)


@case("MN-3-3-1-1-003", what="the router in use is solicited at its global address; then the next is used")
@case("MN-3-3-1-1-005", what="the same where the routers have the same link-local address")
def test_another_network(network, agents, solicited):
    ha, mn = agents
    network.plug("wlan", "other")
    wait_for(solicited)
    wait_for(lambda: bound(ha).startswith(NEW))
    assert wait_for(lambda: mn.events("router-lost"))  # at either of its addresses
    assert not mn.events("link-lost")
    network.mn.shell(f"ping -c 2 -W 2 -I {bound(ha)} 2001:db8:203::1")
    network.plug("wlan", "wlan")
    wait_for(lambda: bound(ha).startswith(OLD))
    wait_for(lambda: registered(mn))


@case("MN-3-3-1-1-002", what="another router on the link: the one in use is solicited, answers, and stays")
def test_another_router(network, agents, solicited):
    ha, mn = agents
    network.ar.shell(
        "ip link add join1 type veth peer name join2; ip link set join1 master wlan up; "
        "ip link set join2 master other up"
    )
    wait_for(solicited)
    wait_for(lambda: network.address("mn-wlan", NEW))
    network.ar.shell("ping -c 5 -i 1 2001:db8:ff01::1")  # longer than a router takes to be lost
    assert bound(ha).startswith(OLD) and not mn.events("router-lost")
    assert all(NEW not in str(event["bids"]) for event in mn.events("binding-update-sent"))


@pytest.mark.requirement("RFC 6275 §11.5.1: advertisements that do not come: is the router still reachable?")
def test_a_router_that_falls_silent(network, tmp_path, agents, advertised, solicited):
    """Three advertisements have to be missing, at 0.5 s."""
    ha, mn = agents
    before = bound(ha)
    wait_for(advertised)
    os.kill(int((tmp_path / "radvd.pid").read_text()), signal.SIGKILL)
    silent = time.time()
    wait_for(lambda: [t for t in solicited() if t > silent])
    for t in solicited():
        assert not [heard for heard in advertised() if t - 1.4 < heard < t]
    assert bound(ha) == before and not mn.events("router-lost")  # it answers


@pytest.mark.requirement("RFC 6275 §11.5.1: after the link was lost, the router is asked before it is used")
def test_a_link_that_is_back(network, agents, solicited):
    ha, mn = agents
    before = bound(ha)
    network.set_link("wlan", False)
    wait_for(lambda: bound(ha) != before)
    back = time.time()
    network.set_link("wlan", True)
    wait_for(lambda: bound(ha) == before)
    assert [t for t in solicited() if t > back]
    # in another network, the old care-of address is not announced
    network.set_link("wlan", False)
    wait_for(lambda: bound(ha) != before)
    network.plug("wlan", "other")
    since = mn.events("care-of-address-lost")[-1]["t"]
    network.set_link("wlan", True)
    wait_for(lambda: bound(ha).startswith(NEW))
    sent = mn.events("binding-update-sent", since=since)
    assert all(before not in event["bids"].values() for event in sent)


@pytest.mark.requirement("RFC 6275 §11.5.1: a router that does not answer is left, and taken again")
def test_router_without_another(network, agents):
    """The kernel finds out by itself, on behalf of those who send; flows take the other interface."""
    ha, mn = agents
    before = bound(ha)
    network.ar.shell("ip link set wlan-mn nomaster")
    try:
        wait_for(
            lambda: network.mn.shell("ping -c 1 -W 1 -I mn-wlan 2001:db8:ff01::1", check=False)
            and not bound(ha).startswith(OLD),
            60,
        )
        assert wait_for(lambda: mn.events("router-lost")) and bound(ha).startswith("2001:db8:202:")
    finally:
        network.ar.shell("ip link set wlan-mn master wlan")
    wait_for(lambda: bound(ha) == before)
