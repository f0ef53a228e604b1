"""Agents of a mobile node, its home agent and a correspondent node optimise a route over real links."""

import json
import subprocess
import sys

import pytest
from agent_network import CORRESPONDENT, HOME_ADDRESS, OPTIMISED, Agent, AgentNetwork
from backend import backends
from datapath_network import wait_for

from testbed.datapath.error import DatapathError
from testbed.datapath.optimisation import choose_carrier

requirement = pytest.mark.requirement


@pytest.fixture
def network(tmp_path):
    network = AgentNetwork(tmp_path)
    network.add_correspondent()
    yield network
    network.close()


@pytest.fixture
def agents(network, tmp_path):
    with (
        Agent(network.ha, tmp_path),
        Agent(network.cn, tmp_path) as cn,
        Agent(network.mn, tmp_path) as mn,
    ):
        wait_for(lambda: len([b for b in mn.ask("bindings") if b["registered"]]) == 2)
        yield mn, cn


def counters(network, node):
    """Packets by chain and FID in the table of optimised routes."""
    found = json.loads(getattr(network, node).shell("nft -j list counters table ip6 flowbind_ro"))
    values = [item["counter"] for item in found["nftables"] if "counter" in item]
    return {value["name"].rpartition(".")[2]: value["packets"] for value in values if "." in value["name"]}


def ping(network, count=3):
    network.mn.shell(f"ping -c {count} -i 0.1 -W 5 -I {HOME_ADDRESS} {CORRESPONDENT}")


def test_the_first_test_of_a_start_is_not_lost(network, tmp_path):
    """It goes through a tunnel that the same acknowledgement brings about."""
    with (
        Agent(network.ha, tmp_path),
        Agent(network.cn, tmp_path) as cn,
        Agent(network.mn, tmp_path, OPTIMISED) as mn,
    ):
        wait_for(lambda: mn.events("home-test-received"))
        assert mn.events("message-not-sent") == []
        # each has been answered: on a slow machine there may be a second one before the first one's answer
        wait_for(lambda: len(cn.events("home-test-sent")) == len(mn.events("home-test-init-sent")))


@requirement("RFC 6275 §11.6, §9.4: return routability over real links, the home test through the tunnel")
@requirement("draft §7: several care-of addresses and flows at a correspondent node, on real packets")
def test_optimise(network, agents):
    mn, cn = agents
    ping(network)
    result = mn.flowbind("--json", "optimise", CORRESPONDENT)
    assert result.returncode == 0, result.stderr
    wait_for(lambda: len(cn.ask("bindings")) == 2 and cn.ask("flows"))
    addresses = {b["bid"]: b["care_of_address"] for b in cn.ask("bindings")}
    assert addresses == {1: network.address("mn-wlan"), 2: network.address("mn-cellular")}
    (flow,) = cn.ask("flows")
    assert (flow["fid"], flow["bids"]) == (1, [1])
    wait_for(lambda: mn.ask("routes")[0]["flows"][0]["state"] == "registered")
    before = network.ha.received("core")
    ping(network, 10)
    assert network.ha.received("core") - before < 10
    assert counters(network, "cn")["default"] >= 10 and counters(network, "mn")["default"] >= 10
    # ssh of the correspondent node takes the other path
    server = network.cn.start(sys.executable, "-c", SERVER, stdout=subprocess.PIPE, text=True)
    assert server.stdout.readline() == "ready\n"
    answer = network.mn.shell(f"{sys.executable} -c '{CLIENT}'")
    assert answer.strip() == "100000"
    assert counters(network, "cn")["fid1"] > 1 and counters(network, "mn")["fid1"] > 1
    assert "mn" in {e["node"] for e in mn.events("home-test-received")}


SERVER = f"""
import socket
s = socket.socket(socket.AF_INET6)
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(("{CORRESPONDENT}", 22)); s.listen(); print("ready", flush=True)
c, _ = s.accept(); c.sendall(bytes(100000)); c.close()
"""
CLIENT = (
    f'import socket; s = socket.create_connection(("{CORRESPONDENT}", 22), 10, ("{HOME_ADDRESS}", 0)); '
    'print(sum(iter(lambda: len(s.recv(65536)), 0)))'
)


@requirement("RFC 6275 §11.7.2: movement is told to correspondent nodes, packets follow")
def test_movement(network, agents):
    mn, cn = agents
    mn.ask("optimise", address=CORRESPONDENT)
    wait_for(lambda: len(cn.ask("bindings")) == 2)
    network.set_link("cellular", False)
    wlan = network.address("mn-wlan")
    wait_for(lambda: {b["care_of_address"] for b in cn.ask("bindings")} == {wlan})
    ping(network)
    network.set_link("cellular", True)
    wait_for(lambda: len({b["care_of_address"] for b in cn.ask("bindings")}) == 2)
    ping(network)


@requirement("RFC 6275 §9.3.1, §11.3.6: a correspondent node that lost its bindings answers Binding Error")
def test_correspondent_restarts(network, agents, tmp_path):
    mn, cn = agents
    mn.ask("optimise", address=CORRESPONDENT)
    wait_for(lambda: len(cn.ask("bindings")) == 2)
    cn.process.kill()
    cn.process.wait()
    (tmp_path / "cn.state").unlink(missing_ok=True)
    cn.start()
    assert cn.ask("bindings") == []
    network.mn.shell(f"ping -c 1 -W 1 -I {HOME_ADDRESS} {CORRESPONDENT}", check=False)
    wait_for(lambda: mn.events("binding-error-received"))
    wait_for(lambda: len(cn.ask("bindings")) == 2)
    ping(network)


def test_stop_and_farewell(network, agents):
    mn, cn = agents
    mn.ask("optimise", address=CORRESPONDENT)
    wait_for(lambda: len(cn.ask("bindings")) == 2)
    assert mn.flowbind("optimise", CORRESPONDENT, "--stop").returncode == 0
    wait_for(lambda: cn.ask("bindings") == [])
    ping(network)
    assert mn.flowbind("optimise", CORRESPONDENT, "--stop").returncode == 1
    mn.ask("optimise", address=CORRESPONDENT)
    wait_for(lambda: len(cn.ask("bindings")) == 2)
    assert mn.stop() == 0
    wait_for(lambda: cn.ask("bindings") == [])
    assert cn.stop() == 0
    for node in (network.mn, network.cn):
        assert node.shell("nft list tables") == ""
        assert "178" not in node.shell("ip -6 rule")


def test_host_without_agent(network, tmp_path):
    with Agent(network.ha, tmp_path), Agent(network.mn, tmp_path) as mn:
        wait_for(lambda: mn.ask("bindings")[0]["registered"])
        result = mn.flowbind("--timeout", "0.5", "optimise", CORRESPONDENT)
        assert result.returncode == 1 and "has not agreed within 0.5 s" in result.stderr
        # what its kernel says of the Mobility Header (RFC 6275 §11.6.2)
        wait_for(lambda: mn.events("mobility-header-unsupported"))
        ping(network)


def test_configured_correspondent(network, tmp_path):
    with (
        Agent(network.ha, tmp_path),
        Agent(network.cn, tmp_path) as cn,
        Agent(network.mn, tmp_path, OPTIMISED) as mn,
    ):
        wait_for(lambda: len(cn.ask("bindings")) == 2)
        assert "goes straight" in mn.flowbind("optimise", CORRESPONDENT).stdout
        assert CORRESPONDENT in mn.flowbind("routes").stdout


@pytest.mark.parametrize("carrier", backends("route optimisation", "tun", "xfrm"))
def test_without_bpf(network, tmp_path, carrier):
    try:
        choose_carrier(carrier)
    except DatapathError as error:
        pytest.skip(str(error))
    more = f'[datapath]\nroute_carrier = "{carrier}"\n'
    with (
        Agent(network.ha, tmp_path),
        Agent(network.cn, tmp_path, more) as cn,
        Agent(network.mn, tmp_path, more) as mn,
    ):
        wait_for(lambda: len([b for b in mn.ask("bindings") if b["registered"]]) == 2)
        mn.ask("optimise", address=CORRESPONDENT)
        wait_for(lambda: len(cn.ask("bindings")) == 2)
        before = network.ha.received("core")
        ping(network, 10)
        assert network.ha.received("core") - before < 10
        assert cn.ask("status")["carrier"] == carrier
        assert mn.stop() == 0 and cn.stop() == 0
    assert "flowbind_ro" not in network.mn.shell("ip link") + network.cn.shell("ip link")
