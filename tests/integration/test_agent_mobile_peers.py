"""Agents of two mobile nodes optimise the routes between each other, over real links."""

import subprocess
import sys

import pytest
from datapath_network import Capture, both_headers, wait_for
from mobile_peers import PeerNetwork

requirement = pytest.mark.requirement
UDP_ECHO = """
import socket, sys
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.bind((sys.argv[1], int(sys.argv[2]))); print("ready", flush=True)
while True:
    data, peer = s.recvfrom(65535); s.sendto(data, peer)
"""
TCP_SERVER = """
import socket, sys
s = socket.socket(socket.AF_INET6); s.bind((sys.argv[1], int(sys.argv[2]))); s.listen()
print("ready", flush=True)
while True:
    c, _ = s.accept(); c.sendall(bytes(1000000)); c.close()
"""
TCP_CLIENT = (
    "import socket, sys; s = socket.create_connection((sys.argv[1], int(sys.argv[2])), 20); "
    "print(sum(iter(lambda: len(s.recv(65536)), 0)))"
)


@pytest.fixture(params=[1, 2], ids=["one home agent", "two home agents"])
def network(request, tmp_path):
    network = PeerNetwork(tmp_path, request.param)
    yield network
    network.close()


def optimise_both(network, mn, peer):
    """Until each is registered with the other, with both of its care-of addresses."""
    ours, theirs = network.addresses()
    for agent, address in ((mn, theirs), (peer, ours)):
        result = agent.flowbind("--timeout", "20", "optimise", address)
        assert result.returncode == 0, result.stderr
    for agent, flows in ((mn, {1: [], 2: [1]}), (peer, {1: [1], 2: []})):
        wait_for(
            lambda agent=agent, flows=flows: {b["bid"]: b["flows"] for b in agent.ask("cache")} == flows
        )


def serve(node, program, *arguments):
    server = node.start(sys.executable, "-c", program, *arguments, stdout=subprocess.PIPE, text=True)
    assert server.stdout.readline() == "ready\n"


def exchange(network, port):
    """A datagram from the mobile node to `port` of its peer, and its echo."""
    ours, theirs = network.addresses()
    with network.mn.socket() as client:
        client.bind((ours, 0))
        client.sendto(b"question", (theirs, port))
        data, source = client.recvfrom(100)
        assert (data, source[0]) == (b"question", theirs)


def routed(captures):
    """Source and destination of the packets with both headers that have come in, by name of the capture."""
    found = {}
    for name, capture in captures.items():
        for packet in capture.packets():
            if packet[6] == 43 and packet[40] == 60:
                source, destination, *_ = map(str, both_headers(packet))
                found.setdefault(name, []).append((source, destination))
    return found


def knows_its_routes(agent):
    """Whether its peers have acknowledged all that they have been told."""
    return all(binding["registered"] for route in agent.ask("routes") for binding in route["bindings"])


def tunnelled(network, kind="rx"):
    """Packets that have come in at the home agents."""
    homes = [network.ha] if network.home_agents == 1 else [network.ha, network.ha2]
    return sum(node.received("core") for node in homes)


@requirement("RFC 6275 §8.1, §9, §11: a mobile node is a correspondent node of another one at the same time")
@requirement("draft §6.1.2, §7: between two mobile nodes, each flow by the care-of addresses of both")
def test_each_flow_goes_straight_by_its_care_of_addresses(network):
    ours, theirs = network.addresses()
    at = {name: network.address(f"mn-{name}") for name in ("wlan", "cellular")}
    peer_at = {name: network.peer_address(name) for name in ("wlan", "other")}
    with network.agents() as (mn, peer):
        optimise_both(network, mn, peer)
        assert peer_at["other"] in mn.flowbind("cache").stdout
        assert mn.ask("status")["mobile_nodes"] == 1
        for port in (5000, 5001):
            serve(network.peer, UDP_ECHO, theirs, str(port))
        serve(network.peer, TCP_SERVER, theirs, "22")
        captures = {
            name: Capture(network.mn if name.startswith("mn") else network.peer, name)
            for name in ("mn-wlan", "mn-cellular", "peer-wlan", "peer-other")
        }
        exchange(network, 5001)
        routed(captures)
        before = tunnelled(network)
        exchange(network, 5000)  # the peer's flow binding 1
        assert routed(captures) == {
            "peer-other": [(at["cellular"], peer_at["other"])],
            "mn-cellular": [(peer_at["other"], at["cellular"])],
        }
        exchange(network, 5001)
        assert routed(captures) == {
            "peer-wlan": [(at["cellular"], peer_at["wlan"])],
            "mn-cellular": [(peer_at["wlan"], at["cellular"])],
        }
        # the mobile node's flow binding 1
        octets = network.mn.shell(f"{sys.executable} -c '{TCP_CLIENT}' {theirs} 22")
        assert octets.strip() == "1000000"
        found = routed(captures)
        assert set(found) == {"mn-wlan", "peer-wlan"}
        assert set(found["peer-wlan"]) == {(at["wlan"], peer_at["wlan"])}
        assert set(found["mn-wlan"]) == {(peer_at["wlan"], at["wlan"])}
        assert tunnelled(network) - before < 20
        for capture in captures.values():
            capture.close()
        assert mn.stop() == 0
        wait_for(lambda: peer.ask("cache") == [])
        assert peer.stop() == 0
    for node in (network.mn, network.peer):
        assert node.shell("nft list tables") == ""


@requirement("RFC 6275 §11.7.2: a mobile node tells its peer, by way of that one's home agent, where it is")
def test_handover_of_one(network):
    ours, theirs = network.addresses()
    with network.agents() as (mn, peer):
        optimise_both(network, mn, peer)
        serve(network.peer, UDP_ECHO, theirs, "5001")
        network.set_link("cellular", False)
        wlan = network.address("mn-wlan")
        wait_for(lambda: {b["care_of_address"] for b in peer.ask("cache")} == {wlan})
        wait_for(lambda: knows_its_routes(mn))  # some time after its peer has them
        captures = {
            "mn-wlan": Capture(network.mn, "mn-wlan"), "peer-wlan": Capture(network.peer, "peer-wlan")
        }  # fmt: skip
        exchange(network, 5001)
        pair = wlan, network.peer_address("wlan")
        assert routed(captures) == {"peer-wlan": [pair], "mn-wlan": [pair[::-1]]}
        for capture in captures.values():
            capture.close()


@requirement("RFC 6275 §11.6, §9.4: both ends of an optimised route may move at once")
def test_both_move_at_once(network):
    ours, theirs = network.addresses()
    with network.agents() as (mn, peer):
        optimise_both(network, mn, peer)
        serve(network.peer, UDP_ECHO, theirs, "5001")
        exchange(network, 5001)
        network.ar.shell("ip link set cellular-mn down; ip link set wlan-peer down")
        wlan, other = network.address("mn-wlan"), network.peer_address("other")
        wait_for(lambda: {b["care_of_address"] for b in peer.ask("cache")} == {wlan})
        wait_for(lambda: {b["care_of_address"] for b in mn.ask("cache")} == {other})
        for agent in (mn, peer):
            wait_for(lambda agent=agent: knows_its_routes(agent))
        captures = {
            "mn-wlan": Capture(network.mn, "mn-wlan"), "peer-other": Capture(network.peer, "peer-other")
        }  # fmt: skip
        exchange(network, 5001)
        assert routed(captures) == {"peer-other": [(wlan, other)], "mn-wlan": [(other, wlan)]}
        for capture in captures.values():
            capture.close()


def test_correspondent_node_switched_off(network):
    ours, theirs = network.addresses()
    with network.agents(of_peer="correspondent_node = false\n") as (mn, peer):
        result = mn.flowbind("--timeout", "0.5", "optimise", theirs)
        assert result.returncode == 1 and "has not agreed" in result.stderr
        assert "no correspondent node" in peer.flowbind("cache").stderr
        network.mn.shell(f"ping -c 1 -W 5 -I {ours} {theirs}")
