"""A mobile router and its network (RFC 3963): real agents, kernels and packets in an emulated network."""

import json
from ipaddress import IPv6Address

import pytest
from node_capture import NodeCapture
from observations import answered, registered

from testbed.emulation.network import Network
from testbed.emulation.process import wait_until
from topologies.nemo import MOBILE_NETWORK, NemoTopology

HOME_ADDRESS = "2001:db8:100::100"
requirement = pytest.mark.requirement
#: A destination port of a flow's packets to the mobile network: wlan; all else goes by cellular.
FLOWS = [{"fid": 1, "bids": ["wlan"], "next_header": "udp", "destination_port": 5004},
         {"fid": 2, "bids": ["wlan"], "next_header": "icmpv6", "destination_address": HOME_ADDRESS}]


@pytest.fixture(scope="module", params=["explicit", "implicit"])
def network(request, tmp_path_factory):
    topology = NemoTopology("wlan:100:1+cellular:100:1", mode=request.param)
    with Network(topology, tmp_path_factory.mktemp("logs")) as network:
        network["mr"].await_care_of_addresses()
        network["ha"].start_agent(topology.home_agent_configuration())
        network["mr"].start_agent(topology.mobile_node_configuration(flows=FLOWS))
        wait_until(lambda: registered(network["mr"].agent), 30, "the registration")
        yield network


def node_address(network):
    """The address that the node of the mobile network has formed from its router's advertisements."""
    found = wait_until(lambda: network["mnn"].global_addresses("mnn-mr"), 30, "an address of mnn")
    assert found[0] in MOBILE_NETWORK
    return str(found[0])


def ports(capture, address):
    """The destination ports of what went through the tunnel to this address."""
    return [p.port for p in capture.tunnelled if p.port and p.inner_destination == address]


def counted(node):
    """Packets of each flow binding, of the default under None."""
    return {entry["fid"]: entry["packets"] for entry in node.agent.ask("counters")["flows"]}


@requirement("RFC 3963 §5.5: traffic of the mobile network goes through the bi-directional tunnel")
@requirement("RFC 3963 §6.5: packets to the mobile network are tunnelled to the mobile router")
def test_both_directions_go_through_the_tunnel(network):
    address = node_address(network)
    status = network["mr"].agent.ask("status")["mobile_network"]
    assert (status["prefixes"], status["served"]) == ([str(MOBILE_NETWORK)], True)
    assert status["mode"] == network.topo.mode
    care_of_address = str(network["mr"].care_of_address("mr-cellular"))
    with NodeCapture(network["mr"], "mr-cellular") as capture:
        assert answered(network["cn"], address, count=2)
        seen = {packet[:4] for packet in capture.tunnelled}
    assert ("2001:db8:100::1", care_of_address, "2001:db8:300::2", address) in seen
    assert (care_of_address, "2001:db8:100::1", address, "2001:db8:300::2") in seen
    assert answered(network["cn"], address)
    assert answered(network["mnn"], "cn")
    assert answered(network["mnn"], HOME_ADDRESS, count=1)


@requirement("draft §1, §3: flow bindings of a mobile router, for the nodes behind it")
def test_flow_bindings_are_for_the_nodes_behind_the_router(network):
    address = node_address(network)
    before = counted(network["ha"])
    send = "import socket; s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)\n" \
           f"for port in (5004, 5004, 6000): s.sendto(b'x', ('{address}', port))"
    mr = network["mr"]
    with NodeCapture(mr, "mr-wlan") as wlan, NodeCapture(mr, "mr-cellular") as other:
        network["cn"].execute("python", "-c", send)
        wait_until(lambda: ports(wlan, address) == [5004, 5004] and ports(other, address) == [6000], 30,
                   "each packet on its path")
    now = counted(network["ha"])
    assert now[1] == before[1] + 2 and now[None] > before[None]
    # the other direction takes the same path
    mobile = counted(network["mr"])
    answer = "import socket; s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)\n" \
             "s.bind(('', 5004)); s.sendto(b'x', ('2001:db8:300::2', 9))"
    network["mnn"].execute("python", "-c", answer)
    wait_until(lambda: counted(network["mr"])[1] == mobile[1] + 1, 30, "a packet of the flow")


def test_the_mobile_network_survives_the_loss_of_an_access_network(network):
    address = node_address(network)
    link = network["mr"].link("mr-cellular")
    link.set_carrier(False)
    try:
        wait_until(lambda: registered(network["mr"].agent), 30, "all bindings at wlan")
        assert answered(network["cn"], address)
    finally:
        link.set_carrier(True)
    wait_until(lambda: registered(network["mr"].agent) and len({b["registered"] for b in
                                                    network["mr"].agent.ask("bindings")}) == 2, 30, "both")
    assert answered(network["mnn"], "cn", count=1)


@requirement("RFC 3963 §9: ingress filtering at the mobile router")
@pytest.mark.parametrize("source", ["2001:db8:dead::1", HOME_ADDRESS])
def test_nodes_of_the_mobile_network_cannot_forge_their_source(network, source):
    before = counted(network["mr"]), counted(network["ha"])
    forge = f"""
import socket, struct
from ipaddress import IPv6Address as A
payload = struct.pack("!HHHH", 7, 5004, 8, 0)
packet = struct.pack("!IHBB", 6 << 28, 8, 17, 64) + A("{source}").packed + A("2001:db8:300::2").packed
packet += payload
raw = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW)
raw.sendto(packet, ("2001:db8:300::2", 0))
"""
    address = node_address(network)
    mr = network["mr"]
    with NodeCapture(mr, "mr-wlan") as wlan, NodeCapture(mr, "mr-cellular") as cellular:
        network["mnn"].execute("python", "-c", forge)
        assert answered(network["mnn"], "cn", count=1)
        seen = wlan.tunnelled + cellular.tunnelled
    assert seen and {packet.inner_source for packet in seen} == {address, "2001:db8:300::2"}
    assert counted(network["mr"])[1] == before[0][1] and counted(network["ha"])[1] == before[1][1]


@requirement("RFC 3963 §6.4: tunnel packets are accepted from the mobile router's care-of addresses")
def test_the_home_agent_takes_the_mobile_network_from_its_router_only(network):
    rejected = network["ha"].agent.ask("counters")["packets"]["rejected_tunnel_packets"]
    forge = f"""
import socket, struct
from ipaddress import IPv6Address as A
inner = struct.pack("!IHBB", 6 << 28, 8, 17, 64) + A("{MOBILE_NETWORK[7]}").packed
inner += A("2001:db8:300::2").packed + struct.pack("!HHHH", 7, 5004, 8, 0)
raw = socket.socket(socket.AF_INET6, socket.SOCK_RAW, 41)
raw.sendto(inner, ("2001:db8:100::1", 0))
"""
    network["ar1"].execute("python", "-c", forge)
    wait_until(lambda: network["ha"].agent.ask("counters")["packets"]["rejected_tunnel_packets"]
               == rejected + 1, 30, "the rejection")


@requirement("RFC 3963 §6.7: de-registration ends the forwarding to the mobile network")
def test_without_a_binding_there_is_no_way_and_no_loop(network):
    address = node_address(network)
    assert network["mr"].agent.ask("deregister")["registered"] is False
    unreachable = network["cn"].execute("sh", "-c", f"ping -6 -c1 -W10 {address} || true")
    assert "Destination unreachable: No route" in unreachable, unreachable
    # nor does the mobile router let the packets of its network out without a tunnel
    with NodeCapture(network["ar2"], "lan0") as capture:
        assert not answered(network["mnn"], "cn", patience_s=2)
        assert not any(IPv6Address(packet[8:24]) in MOBILE_NETWORK for packet in capture.packets)
    rules = network["mr"].execute("ip", "-6", "-json", "rule")
    assert any(rule.get("iif") == "lan0" for rule in json.loads(rules))
    network["mr"].stop_agent()
    rules = network["mr"].execute("ip", "-6", "-json", "rule")
    assert not any(rule.get("iif") == "lan0" for rule in json.loads(rules))
