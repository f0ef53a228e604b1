"""Hierarchical Mobile IPv6 (RFC 5380, draft §9): real agents, kernels and packets in an emulated network."""

import struct
import time
from ipaddress import IPv6Address

import pytest
from backend import backends
from datapath_bed import udp
from datapath_network import ipv6, needed
from hierarchical_bed import CORRESPONDENT, HOME_ADDRESS, carried, counted, settled
from node_capture import NodeCapture
from observations import answered, bound, events, registered

from testbed.emulation.network import Network
from testbed.emulation.node import AccessRouter
from testbed.emulation.process import wait_until
from topologies.hierarchical import REGIONS, HierarchicalTopology

requirement = pytest.mark.requirement
HOME_AGENT = "2001:db8:100::1"
FLOWS = [{"fid": 1, "bids": ["wlan"], "next_header": "icmpv6", "source_address": CORRESPONDENT}]


@pytest.fixture(scope="module", params=backends("tunnel"))
def network(request, tmp_path_factory):
    topology = HierarchicalTopology("wlan:100:1+cellular:100:1", tunnel_backend=needed(request.param))
    with Network(topology, tmp_path_factory.mktemp("logs")) as network:
        network["mn"].await_care_of_addresses()
        yield network


@pytest.fixture
def dialect():
    return "draft"


@pytest.fixture
def home_agent():
    """What else its configuration says."""
    return {}


@pytest.fixture
def agents(network, dialect, home_agent):
    network.test_began = time.monotonic()
    topology = network.topo
    ha = network["ha"].start_agent(topology.home_agent_configuration(dialect=dialect, **home_agent))
    anchors = [
        network[name].start_agent(topology.anchor_point_configuration(name, dialect=dialect))
        for name in REGIONS
    ]
    mn = network["mn"].start_agent(topology.mobile_node_configuration(flows=FLOWS, dialect=dialect))
    wait_until(lambda: settled(network), 30, "the registration")
    yield ha, mn, *anchors
    network["mn"].stop_agent()
    for name in ("ha", *REGIONS):
        network[name].stop_agent()


def sent(network, peer):
    """The sequence numbers of the Binding Updates to a node with this address."""
    return {e["sequence"] for e in events(network, "mn", "binding-update-sent") if e["peer"] == peer}


def received(network, node):
    return {e["sequence"] for e in events(network, node, "binding-update-received")}


@requirement("RFC 5380 §6.1, §6.2: regional address at the home agent, on-link addresses at the MAP")
@requirement("draft §9: flow bindings at the MAP are for the regional address, by what is inside the tunnel")
def test_registration_and_both_directions(network, agents):
    ha, mn, first, second = agents
    addresses = {1: str(network["mn"].care_of_address("mn-wlan")),
                 2: str(network["mn"].care_of_address("mn-cellular"))}
    assert settled(network) == bound(first) == addresses
    for receiver, address in ("map1", str(REGIONS["map1"][1])), ("ha", HOME_AGENT):
        # none to the home agent went before there was a tunnel
        wait_until(lambda node=receiver, peer=address: received(network, node) == sent(network, peer), 30,
                   f"the arrival of all Binding Updates to {receiver}")
    regional = mn.ask("status")["regional_address"]
    assert [flow["home_address"] for flow in first.ask("flows")] == [regional] and ha.ask("flows") == []
    assert second.ask("bindings") == []
    before = counted(first, regional), counted(mn, HOME_ADDRESS)
    assert answered(network["cn"], HOME_ADDRESS)
    after = counted(first, regional), counted(mn, HOME_ADDRESS)
    assert after[0][1] == before[0][1] + 3  # the flow of the correspondent node, inside the tunnel
    assert after[1][1] == before[1][1] + 3
    assert answered(network["hn"], HOME_ADDRESS)
    other = counted(first, regional)
    assert other[1] == after[0][1] and other[None] >= after[0][None] + 3
    assert answered(network["mn"], "cn")
    assert answered(network["cn"], HOME_ADDRESS, "-s1300")


@pytest.mark.long
@requirement("RFC 5380 §6.1: the outer header has the LCoA and the MAP, the inner one the RCoA")
def test_there_are_two_headers_on_the_access_link(network, agents):
    _, mn, _, _ = agents
    regional, wlan = mn.ask("status")["regional_address"], settled(network)[1]
    anchor = str(REGIONS["map1"][1])
    with NodeCapture(network["mn"], "mn-wlan") as capture:
        assert answered(network["cn"], HOME_ADDRESS)
        seen = {packet[:4] for packet in capture.tunnelled}
    assert (anchor, wlan, HOME_AGENT, regional) in seen
    assert (wlan, anchor, regional, HOME_AGENT) in seen


@requirement("RFC 5380 §11: what goes through the tunnel to the MAP leaves room for its header")
@pytest.mark.parametrize("sender, receiver", [("cn", "mn"), ("mn", "cn")])
def test_bulk_data_fits_the_two_tunnels(network, agents, sender, receiver):
    assert carried(network, sender, receiver) == "4000000\n"


@pytest.mark.long
@requirement("RFC 5380 §6.1: movement inside a domain is told to the MAP alone")
def test_movement_inside_a_domain(network, agents):
    ha, mn, first, _ = agents
    told = sent(network, HOME_AGENT)
    link = network["mn"].link("mn-wlan")
    before = settled(network)
    link.move(network["ar3"], AccessRouter.bridge)
    try:
        wait_until(lambda: bound(first).get(1, "").startswith("2001:db8:203:"), 30, "the new care-of address")
        wait_until(lambda: settled(network), 30, "the registration")
        assert bound(first)[2] == before[2]
        assert sent(network, HOME_AGENT) == told
        assert answered(network["cn"], HOME_ADDRESS)
    finally:
        link.move(network["ar1"], AccessRouter.bridge)
    wait_until(lambda: settled(network) == before, 30, "the old care-of address")


@requirement("RFC 5380 §6.1, §8: movement to another domain; the previous MAP forwards meanwhile")
def test_movement_between_domains(network, agents):
    ha, mn, first, second = agents
    network["mn"].link("mn-cellular").set_carrier(False)
    wait_until(lambda: len(set(bound(first).values())) == 1, 30, "all flows at wlan")
    # RFC 6275 §11.8: three Binding Updates a second; those until now are not to count any more
    wait_until(lambda: events(network, "mn", "binding-update-sent")[-1]["t"] < time.monotonic() - 1, 30,
               "a second without Binding Updates")
    link = network["mn"].link("mn-wlan")
    link.move(network["ar4"], AccessRouter.bridge)
    try:
        wait_until(lambda: settled(network, "map2"), 30, "the registration in the other domain")
        assert set(bound(second).values()) == {str(network["mn"].care_of_address("mn-wlan"))}
        assert [flow["fid"] for flow in second.ask("flows")] == [1]
        assert answered(network["cn"], HOME_ADDRESS) and answered(network["mn"], "cn")
        wait_until(lambda: first.ask("bindings") == [], 30, "the end at the previous anchor point")
        updates = [e for e in events(network, "mn", "binding-update-sent")
                   if e["peer"] == str(REGIONS["map1"][1]) and e["lifetime_s"]]
        assert updates[-1]["care_of_address"].startswith("2001:db8:204:"), updates[-1]
    finally:
        network["mn"].link("mn-cellular").set_carrier(True)
        link.move(network["ar1"], AccessRouter.bridge)
    wait_until(lambda: answered(network["cn"], HOME_ADDRESS, patience_s=1), 30, "an answer")


@requirement("RFC 5380 §7.1: where no MAP is advertised, ordinary Mobile IPv6")
def test_a_network_without_anchor_point(network, agents):
    ha, mn, first, _ = agents
    network["mn"].link("mn-cellular").set_carrier(False)
    link = network["mn"].link("mn-wlan")
    link.move(network["ar5"], AccessRouter.bridge)
    try:
        wait_until(lambda: set(bound(ha).values()) == {str(network["mn"].care_of_address("mn-wlan"))}, 30,
                   "the registration with the home agent")
        wait_until(lambda: [flow["fid"] for flow in ha.ask("flows")] == [1], 30, "the flow binding there")
        wait_until(lambda: registered(mn), 30, "the answer")
        assert "anchor_point" not in mn.ask("status")
        assert answered(network["cn"], HOME_ADDRESS)
    finally:
        network["mn"].link("mn-cellular").set_carrier(True)
        link.move(network["ar1"], AccessRouter.bridge)
    wait_until(lambda: settled(network), 30, "the return to the anchor point")
    assert answered(network["cn"], HOME_ADDRESS) and ha.ask("flows") == []


@requirement("RFC 5380 §6.1: what is inside the tunnel must come from the home agent")
def test_a_forged_tunnel_within_the_tunnel_is_dropped(network, agents):
    _, mn, _, _ = agents
    regional = mn.ask("status")["regional_address"]
    rejected = mn.ask("counters")["packets"]["rejected_tunnel_packets"]
    forge = f"""
import socket, struct
from ipaddress import IPv6Address as A
inner = struct.pack("!IHBB", 6 << 28, 8, 17, 64) + A("{CORRESPONDENT}").packed + A("{HOME_ADDRESS}").packed
inner += struct.pack("!HHHH", 7, 5004, 8, 0)
socket.socket(socket.AF_INET6, socket.SOCK_RAW, 41).sendto(inner, ("{regional}", 0))
"""
    network["cn"].execute("python", "-c", forge)
    wait_until(lambda: mn.ask("counters")["packets"]["rejected_tunnel_packets"] == rejected + 1, 30, "it")


@pytest.mark.long
@requirement("RFC 5380 §6.5: the RCoA as an address of the mobile node, without a home agent")
def test_the_regional_address_by_itself(network, agents):
    ha, mn, first, _ = agents
    regional = mn.ask("status")["regional_address"]
    before = counted(first, regional)
    assert answered(network["cn"], regional)
    assert answered(network["mn"], "cn", f"-I {regional}")
    after = counted(first, regional)  # both answers and questions are of the flow
    assert after[1] == before[1] + 6


RECEIVE = """
import socket, sys
with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as receiver:
    receiver.bind((sys.argv[1], 7001))
    print("ready", flush=True)
    data, peer = receiver.recvfrom(100)
    print(data.decode(), peer[0])
"""


@pytest.mark.long
@requirement("RFC 5380 §6.1: the MAP tunnels what comes to the RCoA, with a type 2 routing header as well")
def test_type_2_routing_header_to_the_regional_address(network, agents):
    _, mn, first, _ = agents
    regional = mn.ask("status")["regional_address"]
    before = counted(first, regional)
    receiver = network["mn"].popen(["python", "-c", RECEIVE, HOME_ADDRESS], text=True)
    assert receiver.stdout.readline() == "ready\n"
    home, correspondent = IPv6Address(HOME_ADDRESS), IPv6Address(CORRESPONDENT)
    body = struct.pack("!BBBBI", 17, 2, 2, 1, 0) + home.packed + udp(correspondent, home, 7, 7001, b"routed")
    packet = ipv6(correspondent, regional, 43, body).hex()
    send = "import socket, sys; s = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW); "
    send += "s.sendto(bytes.fromhex(sys.argv[1]), (sys.argv[2], 0))"
    network["cn"].execute("python", "-c", send, packet, regional)
    assert receiver.communicate(timeout=10)[0] == f"routed {CORRESPONDENT}\n"
    after = counted(first, regional)
    assert sum(after.values()) == sum(before.values()) + 1


@requirement("RFC 6275 §11.4.2: prefixes of the home link are asked for behind an anchor point, too")
@pytest.mark.parametrize("home_agent", [{"prefix_interval_s": [0, 1]}])
def test_prefixes_of_the_home_link(network, agents):
    """The home agent's news come through the tunnel of the anchor point, are not believed, and asked for."""
    _, mn, _, _ = agents
    network["ha"].execute("flowbind", "home-prefix", "2001:db8:100::/64", "--valid", "3600",
                          "--preferred", "600")
    wait_until(lambda: mn.ask("status")["home_prefixes"], 30, "the advertisement")
    (prefix,) = mn.ask("status")["home_prefixes"]
    assert 3500 < prefix["valid_s"] <= 3600 and 500 < prefix["preferred_s"] <= 600


@pytest.mark.long
@requirement("RFC 6089 §5.3: a mobility anchor point adds, changes, keeps and removes as home agents do")
@pytest.mark.parametrize("dialect", ["rfc6089"])
def test_flow_bindings_of_rfc_6089_at_the_anchor_point(network, agents):
    ha, mn, first, _ = agents
    regional = mn.ask("status")["regional_address"]
    before = counted(first, regional)
    assert answered(network["cn"], HOME_ADDRESS)
    assert counted(first, regional)[1] == before[1] + 3

    def essence(agent):
        return {f["fid"]: (f["action"], f["bids"], f["description"]) for f in agent.ask("flows")}

    mn.ask("flow-add", fid=2, bids=["cellular"])
    mn.ask("flow-add", fid=3, bids=["wlan", "cellular"], action="n-cast", next_header="udp")
    mn.ask("flow-replace", fid=1, bids=["cellular"])
    assert set(essence(first)) == {1, 2, 3} and essence(first) == essence(mn)
    assert essence(first)[2] == ("forward", [2], "everything") and essence(first)[3][1] == [1, 2]
    mn.ask("flow-remove", fid=2)
    wait_until(lambda: set(essence(first)) == {1, 3}, 30, "the removal")
    link = network["mn"].link("mn-wlan")
    link.set_carrier(False)
    try:
        wait_until(lambda: len(set(bound(first).values())) == 1, 30, "all flows at cellular")
        assert essence(first) == essence(mn) and ha.ask("flows") == []
        assert answered(network["cn"], HOME_ADDRESS)
    finally:
        link.set_carrier(True)
    wait_until(lambda: settled(network) and len(set(bound(first).values())) == 2, 30, "the return")
    assert essence(first) == essence(mn) and set(essence(mn)) == {1, 3}


@pytest.mark.long
def test_the_end(network, agents):
    ha, _, first, _ = agents
    assert network["mn"].stop_agent() == 0
    wait_until(lambda: ha.ask("bindings") == [] == first.ask("bindings"), 30, "the end of the bindings")
    assert "flowbind" not in network["mn"].execute("nft", "list", "ruleset")
    network["mn"].start_agent(network.topo.mobile_node_configuration(flows=FLOWS))
    wait_until(lambda: settled(network), 30, "the registration")
