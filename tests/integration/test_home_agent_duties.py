"""What a home agent owes its home link and its mobile nodes (RFC 6275 §10), with real agents and packets."""

import signal
import time

import pytest
from observations import answered, events, registered

from testbed.emulation.network import Network
from testbed.emulation.process import EmulationError, wait_until
from topologies.multihome import MultihomeTopology

requirement = pytest.mark.requirement
HOME_ADDRESS = "2001:db8:100::100"
MOBILE_NODES = 3


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    topology = MultihomeTopology("wlan:100:1+cellular:100:1", mobile_nodes=MOBILE_NODES)
    with Network(topology, tmp_path_factory.mktemp("logs")) as network:
        for name in topology.home_addresses:
            network[name].await_care_of_addresses()
        yield network


@pytest.fixture
def agents(network):
    """Starts agents: `agents("ha", key=value)`; ends them after the test."""
    started = []
    network.test_began = time.monotonic()

    def start(name, **more):
        topology = network.topo
        configuration = (topology.home_agent_configuration(**more) if name == "ha"
                         else topology.mobile_node_configuration(name, **more))
        started.append(network[name])
        return network[name].start_agent(configuration)

    yield start
    for node in reversed(started):
        node.stop_agent()


@requirement("RFC 6275 §10.3.1: duplicate address detection before the first Binding Acknowledgement")
@requirement("RFC 6275 §10.3.1: status 134, the complete Binding Update is refused")
def test_an_address_in_use_on_the_home_link_is_refused(network, agents):
    ha, hn = agents("ha", duplicate_address_detection=True), network["hn"]
    hn.execute("ip", "address", "add", f"{HOME_ADDRESS}/64", "dev", "hn-ha", "nodad")
    agents("mn")
    refused = wait_until(lambda: events(network, "mn", "registration-refused"), 30, "the refusal")
    assert refused[0]["status"] == 134
    assert ha.ask("bindings") == []
    assert events(network, "ha", "duplicate-address")[0]["home_address"] == HOME_ADDRESS
    network["mn"].stop_agent()
    hn.execute("ip", "address", "del", f"{HOME_ADDRESS}/64", "dev", "hn-ha")
    network["mn"].start_agent(network.topo.mobile_node_configuration())
    wait_until(lambda: registered(network["mn"].agent), 30, "the registration")
    assert len(ha.ask("bindings")) == 2
    # now it is the home agent's: nobody else gets it
    hn.execute("sh", "-e", input="echo 1 >/proc/sys/net/ipv6/conf/hn-ha/accept_dad\n"
                                 "echo 1 >/proc/sys/net/ipv6/conf/hn-ha/dad_transmits\n")
    try:
        hn.execute("ip", "address", "add", f"{HOME_ADDRESS}/64", "dev", "hn-ha")
        wait_until(lambda: "dadfailed" in hn.execute("ip", "-6", "address", "show", "dev", "hn-ha"), 30,
                   "the failure of duplicate address detection")
    finally:
        hn.execute("sh", "-e", input=f"ip address del {HOME_ADDRESS}/64 dev hn-ha\n"
                                     "echo 0 >/proc/sys/net/ipv6/conf/hn-ha/accept_dad\n"
                                     "echo 0 >/proc/sys/net/ipv6/conf/hn-ha/dad_transmits\n")
    assert answered(hn, HOME_ADDRESS)


@requirement("RFC 6275 §10.3.1: duplicate address detection before the first Binding Acknowledgement")
def test_the_first_registration_takes_the_time_of_the_detection(network, agents):
    agents("ha", duplicate_address_detection=True)
    mn = agents("mn2")
    wait_until(lambda: registered(network["mn2"].agent), 30, "the registration")
    started = events(network, "mn2", "binding-update-sent")[0]["t"]
    accepted = events(network, "mn2", "binding-acknowledgement-received")[0]
    assert accepted["status"] == 0 and accepted["t"] - started > 0.9
    later = []
    for fid in range(1, 6):
        began = time.monotonic()
        mn.ask("flow-add", fid=fid, bids=["wlan"], source_port=fid, next_header="tcp")
        later.append(time.monotonic() - began)
    assert min(later) < 0.9  # with the detection all of them would take a second


@requirement("draft §3.3: the same FID of several home addresses")
def test_many_mobile_nodes(network, agents):
    ha = agents("ha")
    nodes = {name: agents(name) for name in network.topo.home_addresses}
    for number, (name, mn) in enumerate(nodes.items()):
        wait_until(lambda name=name: registered(network[name].agent), 30, "the registration")
        mn.ask("flow-add", fid=1, bids=[1 + number % 2], next_header="icmpv6")
    assert len(ha.ask("bindings")) == 2 * MOBILE_NODES
    assert {(f["home_address"], f["bids"][0]) for f in ha.ask("flows")} == {
        (str(address), 1 + number % 2) for number, address in enumerate(network.topo.home_addresses.values())}
    for address in network.topo.home_addresses.values():
        assert answered(network["cn"], address, count=2)
    counted = {(c["home_address"], c["fid"]): c["packets"] for c in ha.ask("counters")["flows"]}
    assert all(counted[str(address), 1] == 2 for address in network.topo.home_addresses.values())
    assert answered(network["mn"], network.topo.home_addresses["mn3"])


@requirement("RFC 6275 §6.1.2, draft §8.3: a Binding Refresh Request before a binding expires")
def test_a_mobile_node_that_is_late_is_asked_to_refresh(network, agents):
    ha = agents("ha")
    mn = agents("mn", lifetime_s=8, flows=[{"fid": 1, "bids": ["wlan"], "source_port": 22}])
    wait_until(lambda: registered(network["mn"].agent), 30, "the registration")
    assert events(network, "ha", "binding-refresh-request-sent") == []
    mn.process.send_signal(signal.SIGSTOP)
    try:
        requests = wait_until(lambda: events(network, "ha", "binding-refresh-request-sent"), 30, "a request")
    finally:
        mn.process.send_signal(signal.SIGCONT)
    assert requests[0]["bids"] == [1, 2]
    asked = requests[0]["t"]
    assert wait_until(lambda: events(network, "mn", "binding-refresh-request-received", asked), 30, "it")
    wait_until(lambda: all(b["remaining_s"] > 4 for b in ha.ask("bindings")), 30, "the refresh")
    assert [flow["fid"] for flow in ha.ask("flows")] == [1]


@requirement("RFC 6275 §10.3.1: a binding is deleted when its lifetime is over")
def test_a_mobile_node_that_vanishes_is_forgotten(network, agents):
    ha = agents("ha")
    agents("mn", lifetime_s=4, flows=[{"fid": 1, "bids": ["wlan"], "source_port": 22}])
    wait_until(lambda: registered(network["mn"].agent), 30, "the registration")
    network["mn"].kill_agent()
    wait_until(lambda: ha.ask("bindings") == [], 30, "the end of the bindings")
    assert ha.ask("flows") == []
    assert events(network, "ha", "binding-removed")[-1]["cause"] == "lifetime"
    assert HOME_ADDRESS not in network["ha"].execute("ip", "-6", "neigh", "show", "proxy")
    assert HOME_ADDRESS.replace(":", "_") not in network["ha"].execute("nft", "list", "ruleset")
    assert not answered(network["hn"], HOME_ADDRESS, patience_s=2)


@requirement("RFC 6275 §11.4.1, §10.5: dynamic home agent address discovery")
def test_the_home_agent_is_discovered(network, agents):
    agents("ha", preference=7)
    mn = agents("mn", home_agent=None, home_prefix="2001:db8:100::/64")
    wait_until(lambda: registered(network["mn"].agent), 30, "the registration")
    assert mn.ask("status")["home_agent"] == "2001:db8:100::1"
    assert events(network, "mn", "home-agents-discovered")[0]["addresses"] == ["2001:db8:100::1"]
    assert answered(network["cn"], HOME_ADDRESS)


@requirement("RFC 6275 §10.5.1: home agents list, from Router Advertisements with the H bit")
def test_home_agents_hear_each_other(network, agents):
    """radvd on another host of the home link says that it is a home agent."""
    ha, hn = agents("ha"), network["hn"]
    hn.execute("sh", "-e", input="echo 1 >/proc/sys/net/ipv6/conf/all/forwarding\n")
    file = hn.run_directory / "radvd.conf"
    file.write_text("interface hn-ha { AdvSendAdvert on; MinRtrAdvInterval 3; MaxRtrAdvInterval 4; "
                    "AdvDefaultLifetime 0; AdvHomeAgentFlag on; AdvHomeAgentInfo on; HomeAgentPreference 9; "
                    "HomeAgentLifetime 60; "
                    "prefix 2001:db8:100::2/64 { AdvRouterAddr on; AdvAutonomous off; };"
                    " };\n")
    process = hn.spawn("radvd", "--nodaemon", "--config", str(file), "--pidfile",
                       str(hn.run_directory / "radvd.pid"), "--logmethod", "stderr", log="hn-radvd.log")
    try:
        wait_until(lambda: ha.ask("status")["home_agents"] == ["2001:db8:100::2", "2001:db8:100::1"], 30,
                   "the other home agent in the list")
        mn = agents("mn", home_agent=None, home_prefix="2001:db8:100::/64")
        # the first of the list does not answer: it is no home agent after all
        wait_until(lambda: registered(network["mn"].agent), 30, "the registration with the second")
        assert mn.ask("status")["home_agent"] == "2001:db8:100::1"
        tried = [event["peer"] for event in events(network, "mn", "binding-update-sent")]
        assert tried[0] == "2001:db8:100::2"
    finally:
        process.terminate()
        process.wait()
        hn.execute("sh", "-e", input="echo 0 >/proc/sys/net/ipv6/conf/all/forwarding\n")


@requirement("RFC 6275 §10.6, §11.4.2, §11.4.3: mobile prefix discovery")
@requirement("RFC 6275 §10.3.1: status 1 where the home prefix is deprecated within the lifetime")
def test_mobile_nodes_are_told_that_the_home_prefix_ends(network, agents):
    ha = agents("ha", prefix_interval_s=[0, 1])
    mn = agents("mn")
    wait_until(lambda: registered(network["mn"].agent), 30, "the registration")
    assert mn.ask("status")["home_prefixes"] == []
    told = network["ha"].execute("flowbind", "home-prefix", "2001:db8:100::/64", "--valid", "3600",
                                 "--preferred", "30")
    assert "2001:db8:100::/64" in told
    wait_until(lambda: mn.ask("status")["home_prefixes"], 30, "the advertisement")
    (prefix,) = mn.ask("status")["home_prefixes"]
    assert 3500 < prefix["valid_s"] <= 3600 and prefix["preferred_s"] <= 30
    mn.ask("flow-add", fid=1, bids=["wlan"], source_port=22)
    assert {e["status"] for e in events(network, "mn", "binding-acknowledgement-received")} == {0, 1}
    assert len(ha.ask("bindings")) == 2


FORBIDDEN = {"prefix_selectors": False, "port_selectors": False, "flow_label_selectors": False,
             "spi_selectors": False, "discard": False, "n_cast": False}


@requirement("draft §3.1: statuses 130 to 134, 138 and 139 by the home agent's policy, 128 by its limits")
@pytest.mark.parametrize("policy, refusals", [
    ({"max_flows": 0}, [({"source_port": 22}, 128)]),
    ({"flow_bindings": False}, [({"source_port": 22}, 130)]),
    (FORBIDDEN, [({"source_address": "2001:db8::/32"}, 131), ({"source_port": 22}, 132),
                 ({"flow_label": 7}, 133), ({"spi": 300, "next_header": 50}, 134),
                 ({"action": "discard", "next_header": "udp"}, 138),
                 ({"action": "n-cast", "bids": [1, 2], "next_header": "udp"}, 139)]),
])
def test_policy_refuses_flow_bindings(network, agents, policy, refusals):
    ha = agents("ha", policy=policy)
    mn = agents("mn")
    wait_until(lambda: registered(network["mn"].agent), 30, "the registration")
    for fid, (flow, status) in enumerate(refusals, start=1):
        with pytest.raises(EmulationError, match=rf"refused flow binding {fid}: .*\(status {status}\)"):
            mn.ask("flow-add", **{"fid": fid, "bids": [1], **flow})
    assert ha.ask("flows") == mn.ask("flows") == []
    assert len(ha.ask("bindings")) == 2
