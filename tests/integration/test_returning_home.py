"""A mobile node moves between access networks, comes home, and leaves again: real agents and packets."""

import json
import os
import time
from ipaddress import IPv6Address, IPv6Network

import pytest
from observations import answered, bound, events, registered

from testbed.emulation.network import Network
from testbed.emulation.node import AccessRouter
from testbed.emulation.process import wait_until
from topologies.multihome import HOME_INTERFACE, HOME_PREFIX, MultihomeTopology

requirement = pytest.mark.requirement
HOME_ADDRESS = "2001:db8:100::100"
FLOWS = [{"fid": 1, "bids": ["wlan"], "next_header": "icmpv6", "source_address": "2001:db8:300::2"}]


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    topology = MultihomeTopology("wlan:100:1+cellular:100:1+other:100:1", home_advertisements=True)
    with Network(topology, tmp_path_factory.mktemp("logs")) as network:
        network["mn"].await_care_of_addresses()
        yield network


@pytest.fixture
def agents(network):
    network.test_began = time.monotonic()
    ha = network["ha"].start_agent(network.topo.home_agent_configuration())
    mn = network["mn"].start_agent(network.topo.mobile_node_configuration(flows=FLOWS))
    wait_until(lambda: registered(network["mn"].agent), 30, "the registration")
    yield ha, mn
    network["mn"].stop_agent()
    network["ha"].stop_agent()


def gained(network, since):
    """The prefixes of all care-of addresses that mn-wlan has had since then."""
    found = [event for event in events(network, "mn", "care-of-address-gained", since)
             if event["interface"] == "mn-wlan"]
    return {str(IPv6Network((event["care_of_address"], 64), strict=False)) for event in found}


@requirement("RFC 6275 §11.5.1: movement detection by Router Advertisements and link events")
@requirement("draft §6.2: one Binding Identifier option moves all flows of its BID")
def test_movement_between_access_networks(network, agents):
    ha, _ = agents
    link = network["mn"].link("mn-wlan")
    before = bound(ha)
    link.move(network["ar3"], AccessRouter.bridge)
    try:
        wait_until(lambda: bound(ha)[1].startswith("2001:db8:203:"), 30, "the new care-of address")
        wait_until(lambda: registered(network["mn"].agent), 30, "its acknowledgement")
        assert {bid: address for bid, address in bound(ha).items() if bid != 1} == {
            bid: address for bid, address in before.items() if bid != 1}
        counted = {c["fid"]: c["packets"] for c in ha.ask("counters")["flows"]}
        assert answered(network["cn"], HOME_ADDRESS)
        now = {c["fid"]: c["packets"] for c in ha.ask("counters")["flows"]}
        assert now[1] == counted[1] + 3
    finally:
        link.move(network["ar1"], AccessRouter.bridge)
    wait_until(lambda: bound(ha)[1] == before[1], 30, "the old care-of address")
    wait_until(lambda: registered(network["mn"].agent), 30, "the registration")
    assert answered(network["cn"], HOME_ADDRESS)
    # one that does not know of the movement: the address from the other network is still valid
    network["mn"].stop_agent()
    restarted = time.monotonic()
    network["mn"].start_agent(network.topo.mobile_node_configuration(flows=FLOWS))
    wait_until(lambda: registered(network["mn"].agent), 30, "the registration")
    assert gained(network, restarted) == {"2001:db8:201::/64"}


@requirement("draft §6.2: one flow identification option per flow, PRO 1, no description")
def test_flows_that_are_updated_each_by_itself(network, agents):
    ha, _ = agents
    network["mn"].stop_agent()
    mn = network["mn"].start_agent(
        network.topo.mobile_node_configuration(flows=FLOWS, flow_updates="each", preferred="cellular"))
    wait_until(lambda: registered(network["mn"].agent), 30, "the registration")
    before, link = bound(ha), network["mn"].link("mn-wlan")
    link.set_carrier(False)
    try:
        wait_until(lambda: set(bound(ha)) == set(before) - {1}, 30, "the end of the BID")
        (flow,) = ha.ask("flows")
        assert flow["bids"] == [2] and flow["description"] == mn.ask("flows")[0]["description"]
        sent = [e for e in events(network, "mn", "binding-update-sent") if "1" in e["flows"]]
        assert sent[-1]["flows"]["1"] == "replace"
        assert answered(network["cn"], HOME_ADDRESS)
    finally:
        link.set_carrier(True)
    wait_until(lambda: registered(network["mn"].agent) and bound(ha) == before, 30, "the return")
    assert ha.ask("flows")[0]["bids"] == [1]
    assert answered(network["cn"], HOME_ADDRESS)


@requirement("RFC 6275 §11.5.5: returning home and leaving it")
@requirement("draft §6.4: returning home removes all bindings and flow bindings")
def test_returning_home_and_leaving(network, agents):
    ha, mn = agents
    link = network["mn"].link("mn-wlan")
    link.move(network["ha"], HOME_INTERFACE)
    try:
        wait_until(lambda: ha.ask("bindings") == [], 30, "the de-registration")
        assert ha.ask("flows") == [] and mn.ask("status")["at_home"] == "mn-wlan"
        assert HOME_ADDRESS not in network["ha"].execute("ip", "-6", "neigh", "show", "proxy")
        mac = network["mn"].execute("cat", "/sys/class/net/mn-wlan/address").strip()
        wait_until(lambda: mac in network["hn"].execute("ip", "-6", "neigh", "show", HOME_ADDRESS)
                   or not answered(network["hn"], HOME_ADDRESS, patience_s=1), 30, "the claim of the address")
        assert answered(network["hn"], HOME_ADDRESS)
        assert answered(network["cn"], HOME_ADDRESS)
        assert answered(network["mn"], "cn")
        # straight, without a tunnel
        assert "flowbind" not in network["mn"].execute("ip", "-6", "route", "get", "2001:db8:300::2")
        last = events(network, "mn", "binding-update-sent")[-1]
        assert (last["care_of_address"], last["lifetime_s"]) == (HOME_ADDRESS, 0)
        assert events(network, "ha", "binding-removed")[-1]["cause"] == "request"
    finally:
        left = time.monotonic()
        link.move(network["ar1"], AccessRouter.bridge)
    # while mn-wlan has none, its BID is bound to the address of another interface, which is at ar3
    wait_until(lambda: bound(ha).get(1, "").startswith("2001:db8:201:"), 30, "the new care-of address")
    wait_until(lambda: registered(mn) and mn.ask("status")["registered"], 30, "the registration")
    assert mn.ask("status")["at_home"] is None and gained(network, left) == {"2001:db8:201::/64"}
    assert [f["fid"] for f in ha.ask("flows")] == [1]
    assert HOME_ADDRESS not in network["mn"].execute("ip", "-6", "address", "show", "dev", "mn-wlan")
    assert answered(network["hn"], HOME_ADDRESS) and answered(network["cn"], HOME_ADDRESS)


def test_the_end_of_an_agent_at_home(network, agents):
    ha, mn = agents
    link = network["mn"].link("mn-wlan")
    link.move(network["ha"], HOME_INTERFACE)
    try:
        wait_until(lambda: ha.ask("bindings") == [], 30, "the de-registration")
        assert network["mn"].stop_agent() == 0
        assert HOME_ADDRESS not in network["mn"].execute("ip", "-6", "address", "show", "dev", "mn-wlan")
    finally:
        link.move(network["ar1"], AccessRouter.bridge)


def link_local(network):
    """The link-local address of the mobile node's interface mn-wlan."""
    (listing,) = json.loads(network["mn"].execute("ip", "-6", "-j", "address", "show", "dev", "mn-wlan"))
    return next(entry["local"] for entry in listing["addr_info"] if entry["scope"] == "link")


def start_with_same_identifier(network, **mobile_node):
    """A home address with the interface identifier of mn-wlan: link-local address, home address, agents."""
    own = link_local(network)
    home = str(IPv6Address(int(HOME_PREFIX.network_address) | int(IPv6Address(own)) & (1 << 64) - 1))
    keys = network.topo.security.of_home_agent({"mn": home})
    ha = network["ha"].start_agent(network.topo.home_agent_configuration(**keys))
    mn = network["mn"].start_agent(
        network.topo.mobile_node_configuration(home_address=home, **mobile_node))
    wait_until(lambda: registered(network["mn"].agent), 30, "the registration")
    return own, home, ha, mn


@requirement("RFC 6275 §10.4.1: the home agent does the same for the link-local address of the mobile node")
@requirement("RFC 6275 §10.4.2: packets to its link-local address are discarded, with an ICMPv6 error")
@requirement("RFC 6275 §11.5.5: a Neighbor Advertisement for the link-local address as well")
def test_the_link_local_address_of_a_node_with_the_same_identifier(network, agents):
    for name in ("mn", "ha"):
        network[name].stop_agent()
    own, home, ha, _ = start_with_same_identifier(network)
    proxies = network["ha"].execute("ip", "-6", "neigh", "show", "proxy")
    assert f"{own} dev {HOME_INTERFACE}" in proxies and f"{home} dev {HOME_INTERFACE}" in proxies
    hn = network["hn"]
    assert "Address unreachable" in hn.execute("sh", "-c", f"ping -6 -c1 -W10 {own}%hn-ha || true")
    assert answered(hn, home)
    link = network["mn"].link("mn-wlan")
    link.move(network["ha"], HOME_INTERFACE)
    try:
        wait_until(lambda: ha.ask("bindings") == [], 30, "the de-registration")
        assert own not in network["ha"].execute("ip", "-6", "neigh", "show", "proxy")
        mac = network["mn"].execute("cat", "/sys/class/net/mn-wlan/address").strip()
        for address in (own, home):
            wait_until(lambda a=address: mac in hn.execute("ip", "-6", "neigh", "show", a), 30, "the claim")
        assert answered(hn, f"{own}%hn-ha") and answered(hn, home)
    finally:
        link.move(network["ar1"], AccessRouter.bridge)


@requirement("RFC 6275 §11.5.5: duplicate address detection after the bindings have expired")
@requirement("RFC 6275 §11.5.5: this also applies to the derived link-local address")
@pytest.mark.parametrize("taken", [None, "home", "link-local"])
def test_coming_home_after_the_bindings_have_expired(network, agents, taken):
    hn, link = network["hn"], network["mn"].link("mn-wlan")
    for name in ("mn", "ha"):
        network[name].stop_agent()
    own, home, ha, mn = start_with_same_identifier(network, lifetime_s=4)
    used = {"home": f"{home}/64", "link-local": f"{own}/64"}.get(taken)
    others = [network["mn"].link(name) for name in ("mn-cellular", "mn-other")]
    try:
        for one in (link, *others):
            one.set_carrier(False)
        wait_until(lambda: ha.ask("bindings") == [] and not mn.ask("status")["registered"], 30, "the end")
        if taken:
            hn.execute("ip", "address", "add", used, "dev", "hn-ha", "nodad")
        link.move(network["ha"], HOME_INTERFACE)
        link.set_carrier(True)
        here = "ip", "-6", "address", "show", "dev", "mn-wlan"
        if taken:
            (event,) = wait_until(lambda: events(network, "mn", "duplicate-address"), 30, "its discovery")
            assert f"{event['address']}/64" == used
            assert f"{home}/128" not in network["mn"].execute(*here)
        else:
            wait_until(lambda: mn.ask("status")["at_home"], 30, "the home link")
            wait_until(lambda: answered(hn, home, patience_s=1), 30, "an answer from the home address")
            assert events(network, "mn", "duplicate-address") == []
    finally:
        if taken:
            hn.execute("ip", "address", "del", used, "dev", "hn-ha")
        link.move(network["ar1"], AccessRouter.bridge)
        for one in (link, *others):
            one.set_carrier(True)


@requirement("RFC 6275 §11.5.5: the home agent is instructed to stop, after a restart of the node, too")
def test_a_node_that_was_moved_home_while_its_agent_was_dead(network, agents):
    ha, _ = agents
    network["mn"].stop_agent()
    state = {"state": str(network.log_directory / "mn.state")}
    network["mn"].start_agent(network.topo.mobile_node_configuration(**state))
    wait_until(lambda: registered(network["mn"].agent), 30, "the registration")
    wait_until(lambda: os.path.exists(state["state"]), 30, "the state")
    network["mn"].agent.process.kill()
    network["mn"].agent.process.wait()
    link = network["mn"].link("mn-wlan")
    link.move(network["ha"], HOME_INTERFACE)
    try:
        network["mn"].start_agent(network.topo.mobile_node_configuration(**state))
        wait_until(lambda: ha.ask("bindings") == [], 30, "the de-registration")
        # once the kernel has forgotten the router of which no agent could tell it that it has departed
        for name in ("hn", "cn"):
            wait_until(lambda name=name: answered(network[name], HOME_ADDRESS, patience_s=1), 30,
                       f"an answer to {name}")
    finally:
        link.move(network["ar1"], AccessRouter.bridge)


def ended(network):
    """The sequence numbers of the mobile node's de-registrations."""
    return {e["sequence"] for e in events(network, "mn", "binding-update-sent") if e["lifetime_s"] == 0}


@requirement("RFC 6275 §11.5.5: the Binding Update goes to the link-layer address of the home agent")
def test_several_home_agents_on_the_home_link(network, agents):
    """Another one advertises its own address (R bit), and passes nothing on."""
    ha, mn = agents
    hn, link = network["hn"], network["mn"].link("mn-wlan")
    file = hn.run_directory / "radvd.conf"
    file.write_text("interface hn-ha { AdvSendAdvert on; MinRtrAdvInterval 0.03; MaxRtrAdvInterval 0.07; "
                    "AdvDefaultLifetime 0; AdvHomeAgentFlag on; "
                    "prefix 2001:db8:100::2/64 { AdvRouterAddr on; AdvAutonomous off; }; };\n")
    hn.execute("sh", "-e", input="echo 1 >/proc/sys/net/ipv6/conf/all/forwarding\n"
               "nft add table ip6 none\n"
               "nft 'add chain ip6 none forward { type filter hook forward priority 0; policy drop; }'\n")
    process = hn.spawn("radvd", "--nodaemon", "--config", str(file), "--pidfile",
                       str(hn.run_directory / "radvd.pid"), "--logmethod", "stderr", log="hn-radvd.log")
    try:
        link.move(network["ha"], HOME_INTERFACE)
        wait_until(lambda: ha.ask("bindings") == [], 30, "the de-registration")
        wait_until(lambda: ended(network), 30, "the word of the mobile node")
        wait_until(lambda: ended(network) <= {
            e["sequence"] for e in events(network, "ha", "binding-update-received")
        }, 30, "the arrival of all of them")  # and so of the first one: it was for the right one
    finally:
        process.terminate()
        process.wait()
        hn.execute("sh", "-e", input="echo 0 >/proc/sys/net/ipv6/conf/all/forwarding\n"
                                     "nft delete table ip6 none\n")
        link.move(network["ar1"], AccessRouter.bridge)
