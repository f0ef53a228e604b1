"""Optimised routes of hierarchical mobile nodes (RFC 5380 §6.1, §6.1.1; draft §9), with real agents."""

import time
from ipaddress import IPv6Address

import pytest
from backend import backends
from datapath_network import needed
from hierarchical_bed import CORRESPONDENT, HOME_ADDRESS, carried, counted, settled
from node_capture import NodeCapture
from observations import answered, bound, events

from testbed.emulation.network import Network
from testbed.emulation.node import AccessRouter
from testbed.emulation.process import EmulationError, wait_until
from topologies.hierarchical import REGIONS, HierarchicalTopology

requirement = pytest.mark.requirement
FLOWS = [{"fid": 1, "bids": ["wlan"], "next_header": "icmpv6", "source_address": CORRESPONDENT}]
MAP = str(REGIONS["map1"][1])
IPV6, ICMPV6, DESTINATION_OPTIONS, ROUTING, MOBILITY = 41, 58, 60, 43, 135
#: Extension headers (RFC 6275 §6.3, §6.4) between the next header and the home address.
ROUTING_HEADER, HOME_ADDRESS_OPTION = bytes([2, 2, 1, 0, 0, 0, 0]), bytes([2, 1, 2, 0, 0, 0xC9, 16])
#: Nothing has to be refreshed while a test runs.
LIFETIME_S = 400


@pytest.fixture(scope="module", params=backends("tunnel"))
def network(request, tmp_path_factory):
    topology = HierarchicalTopology("wlan:100:1+cellular:100:1", tunnel_backend=needed(request.param))
    with Network(topology, tmp_path_factory.mktemp("logs")) as network:
        network["mn"].await_care_of_addresses()
        yield network


@pytest.fixture
def more():
    return {}


@pytest.fixture
def agents(network, more):
    """Of home agent, mobile node, anchor points and correspondent node, the route being optimised."""
    network.test_began = time.monotonic()
    topology = network.topo
    ha = network["ha"].start_agent(topology.home_agent_configuration())
    anchors = [network[name].start_agent(topology.anchor_point_configuration(name)) for name in REGIONS]
    configuration = topology.mobile_node_configuration(flows=FLOWS, lifetime_s=LIFETIME_S, **more)
    mn = network["mn"].start_agent(configuration)
    cn = network["cn"].start_agent({"role": "correspondent-node", "name": "cn"})
    wait_until(lambda: settled(network), 30, "the registration")
    assert mn.ask("optimise", address=CORRESPONDENT)["optimised"]
    wait_until(lambda: optimised(mn), 30, "the optimised route")
    yield ha, mn, *anchors, cn
    for name in ("mn", "cn", "ha", *REGIONS):
        network[name].stop_agent()


def optimised(mn):
    """Whether the correspondent node has acknowledged the care-of addresses that it is to get."""
    (known,) = mn.ask("routes")
    found = [b["registered"] for b in known["bindings"]]
    return found and found == [b["care_of_address"] for b in known["bindings"]]


def wlan(network):
    return settled(network)[1]


def packed(*addresses):
    return b"".join(IPv6Address(address).packed for address in addresses)


def essence(packet):
    """Of a tunnel packet: the addresses of both IPv6 headers, and the extension header inside."""
    return packet[8:40] + packet[48:80] + packet[80:104]


@requirement("RFC 5380 §6.1: the binding of home address and RCoA is sent to correspondent nodes")
@requirement("RFC 5380 §6.1.1: what is sent to a CN has the RCoA as source, and the Home Address option")
@requirement("draft §9: flow bindings at the MAP also choose for packets of optimised routes")
def test_a_regional_address_at_the_correspondent_node(network, agents):
    ha, mn, first, _, cn = agents
    regional = mn.ask("status")["regional_address"]
    assert mn.ask("status")["correspondents_get"] == "regional"
    assert list(bound(cn).values()) == [regional] and cn.ask("flows") == []
    at_home, at_map = counted(ha, HOME_ADDRESS), counted(first, regional)
    with NodeCapture(network["mn"], "mn-wlan") as capture:
        assert answered(network["cn"], HOME_ADDRESS)
        seen = [packet for packet in capture.packets if packet[6] == IPV6]
    there = packed(MAP, wlan(network), CORRESPONDENT, regional) + bytes([ICMPV6]) + ROUTING_HEADER
    assert len([packet for packet in seen if essence(packet) == there + packed(HOME_ADDRESS)]) == 3
    back = packed(wlan(network), MAP, regional, CORRESPONDENT) + bytes([ICMPV6]) + HOME_ADDRESS_OPTION
    assert len([packet for packet in seen if essence(packet) == back + packed(HOME_ADDRESS)]) == 3
    assert counted(ha, HOME_ADDRESS) == at_home
    assert counted(first, regional)[1] == at_map[1] + 3  # the anchor point's flow binding
    assert answered(network["mn"], "cn")
    assert answered(network["cn"], HOME_ADDRESS, "-s1300")


@requirement("RFC 5380 §6.1.1: the headers of an optimised route fit the tunnel to the MAP")
@pytest.mark.parametrize("sender, receiver", [("cn", "mn"), ("mn", "cn")])
def test_bulk_data_by_the_regional_address(network, agents, sender, receiver):
    ha = agents[0]
    before = counted(ha, HOME_ADDRESS)
    assert carried(network, sender, receiver) == "4000000\n"
    assert counted(ha, HOME_ADDRESS) == before


@pytest.mark.long
@requirement("RFC 5380 §6.1: movement inside a domain is told to the MAP, not to correspondent nodes")
def test_movement_inside_a_domain_costs_no_signalling_with_others(network, agents):
    ha, mn, first, _, cn = agents
    regional, before = mn.ask("status")["regional_address"], settled(network)
    at_home = counted(ha, HOME_ADDRESS)
    link, began = network["mn"].link("mn-wlan"), time.monotonic()
    ping = network["cn"].popen(["ping", "-6", "-D", "-i0.05", "-w60", HOME_ADDRESS], text=True)
    try:
        with NodeCapture(network["cn"], "cn-core") as capture:
            assert next(line for line in ping.stdout if "bytes from" in line)
            link.move(network["ar3"], AccessRouter.bridge)
            wait_until(lambda: bound(first).get(1, "").startswith("2001:db8:203:"), 30, "the new address")
            wait_until(lambda: settled(network), 30, "the registration")
            now = time.time()  # replies go on, by the new care-of address
            assert next(line for line in ping.stdout if "bytes from" in line and float(line[1:18]) > now)
            kinds = {packet[6] for packet in capture.packets}
            inside = {packet[40] for packet in capture.packets if packet[6] in (ROUTING, DESTINATION_OPTIONS)}
        assert {ROUTING, DESTINATION_OPTIONS} <= kinds and inside == {ICMPV6}
        assert MOBILITY not in kinds  # data alone
        told = events(network, "mn", "binding-update-sent", since=began)
        assert {e["peer"] for e in told} == {MAP}
        for name in "home-test-init-sent", "care-of-test-init-sent":
            assert not events(network, "mn", name, since=began)
        assert list(bound(cn).values()) == [regional]
        assert counted(ha, HOME_ADDRESS) == at_home
    finally:
        ping.terminate()
        ping.wait()
        link.move(network["ar1"], AccessRouter.bridge)
    wait_until(lambda: settled(network) == before, 30, "the old care-of address")


@pytest.mark.long
@requirement("RFC 5380 §3: a change of the MAP is told to correspondent nodes")
def test_movement_to_another_domain(network, agents):
    ha, mn, first, second, cn = agents
    before = settled(network)
    network["mn"].link("mn-cellular").set_carrier(False)
    link = network["mn"].link("mn-wlan")
    link.move(network["ar4"], AccessRouter.bridge)
    try:
        wait_until(lambda: settled(network, "map2"), 30, "the registration in the other domain")
        regional = mn.ask("status")["regional_address"]
        assert regional.startswith("2001:db8:600:")
        wait_until(lambda: list(bound(cn).values()) == [regional], 30, "the new regional address")
        wait_until(lambda: optimised(mn), 30, "its acknowledgement")
        at_home = counted(ha, HOME_ADDRESS)
        assert answered(network["cn"], HOME_ADDRESS) and answered(network["mn"], "cn")
        assert counted(ha, HOME_ADDRESS) == at_home
        wait_until(lambda: first.ask("bindings") == [], 30, "the end at the previous anchor point")
    finally:
        network["mn"].link("mn-cellular").set_carrier(True)
        link.move(network["ar1"], AccessRouter.bridge)
    wait_until(lambda: settled(network) == before, 30, "the old care-of addresses")


@pytest.mark.long
@requirement("RFC 5380 §7.1: where no MAP is advertised, correspondent nodes get on-link addresses")
def test_out_of_the_domain_and_back(network, agents):
    _, mn, first, _, cn = agents
    regional = mn.ask("status")["regional_address"]
    network["mn"].link("mn-cellular").set_carrier(False)
    link = network["mn"].link("mn-wlan")
    link.move(network["ar5"], AccessRouter.bridge)
    try:
        wait_until(lambda: "anchor_point" not in mn.ask("status"), 30, "a network without one")
        on_link = str(network["mn"].care_of_address("mn-wlan"))
        wait_until(lambda: set(bound(cn).values()) == {on_link}, 30, "the on-link address")
        wait_until(lambda: [flow["fid"] for flow in cn.ask("flows")] == [1], 30, "its flow binding")
        assert answered(network["cn"], HOME_ADDRESS) and answered(network["mn"], "cn")
    finally:
        network["mn"].link("mn-cellular").set_carrier(True)
        link.move(network["ar1"], AccessRouter.bridge)
    wait_until(lambda: list(bound(cn).values()) == [regional], 30, "the regional address")
    wait_until(lambda: settled(network), 30, "the return to the anchor point")
    wait_until(lambda: optimised(mn), 30, "its acknowledgement")
    assert answered(network["cn"], HOME_ADDRESS) and cn.ask("flows") == []


@pytest.mark.long
@requirement("RFC 5380 §12.2: Home Test Init goes through both tunnels")
@requirement("RFC 5380 §6.1: correspondent nodes may be told on-link care-of addresses")
@pytest.mark.parametrize("more", [{"optimise_by": "on-link"}, {"datapath": {"route_carrier": "tun"}}])
def test_on_link_addresses_at_the_correspondent_node(network, agents):
    _, mn, first, _, cn = agents
    regional = mn.ask("status")["regional_address"]
    assert mn.ask("status")["correspondents_get"] == "on-link"
    wait_until(lambda: bound(cn) == bound(first), 30, "both care-of addresses at the correspondent node")
    tested = counted(first, regional)
    assert tested[None] > 0  # the Home Test
    assert answered(network["cn"], HOME_ADDRESS) and answered(network["mn"], "cn")
    assert counted(first, regional)[1] == tested[1]  # it has not seen these


@requirement("RFC 5380 §6.1: de-registration with the correspondent node, from the RCoA")
def test_the_end_of_an_optimised_route(network, agents):
    ha, mn, first, _, cn = agents
    mn.ask("optimise", address=CORRESPONDENT, stop=True)
    wait_until(lambda: cn.ask("bindings") == [], 30, "the end of the binding")
    at_home = counted(ha, HOME_ADDRESS)
    assert answered(network["cn"], HOME_ADDRESS)
    assert counted(ha, HOME_ADDRESS) != at_home
    mn.ask("optimise", address=CORRESPONDENT)
    wait_until(lambda: optimised(mn), 30, "the optimised route")
    assert network["mn"].stop_agent() == 0
    assert cn.ask("bindings") == [] and first.ask("bindings") == [] and ha.ask("bindings") == []
    assert "flowbind" not in network["mn"].execute("nft", "list", "ruleset")


def test_a_carrier_that_puts_nothing_into_tunnels(network):
    configuration = network.topo.mobile_node_configuration(
        optimise_by="regional", datapath={"route_carrier": "tun"})
    with pytest.raises(EmulationError, match='optimise_by: "regional" needs route_carrier "bpf"'):
        network["mn"].start_agent(configuration)
