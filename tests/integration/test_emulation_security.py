"""Emulated networks whose signalling IPsec protects: real agents, links with a delay, more than one node."""

import ipsec
import pytest

from testbed.emulation.network import Network
from testbed.emulation.process import wait_until
from topologies.multihome import MultihomeTopology

pytestmark = pytest.mark.backend("signalling", "ESP")


@pytest.fixture
def network(tmp_path):
    ipsec.needed()
    topology = MultihomeTopology("wlan:100:1+cellular:100:1", mobile_nodes=2, security="ipsec", agents=True)
    with Network(topology, tmp_path) as network:
        yield network


def registered(mn):
    return all(b["registered"] == b["care_of_address"] is not None for b in mn.agent.ask("bindings"))


def test_network_by_ipsec(network):
    """Both mobile nodes register, are reached, and follow the loss of a link."""
    ha, nodes = network["ha"], [network[name] for name in network.topo.home_addresses]
    wait_until(lambda: all(map(registered, nodes)), 30, "the registrations")
    assert len(ha.agent.ask("bindings")) == 4
    assert ha.execute("ip", "xfrm", "state").count("proto esp") == 8
    for home_address in network.topo.home_addresses.values():
        network["cn"].execute("ping", "-6", "-c1", "-W10", str(home_address))
    mn = nodes[0]
    mn.link("mn-wlan").set_carrier(False)
    wait_until(lambda: len({b["care_of_address"] for b in ha.agent.ask("bindings")}) == 3, 30, "the change")
    network["cn"].execute("ping", "-6", "-c1", "-W10", str(mn.home_address))
    mn.link("mn-wlan").set_carrier(True)
    wait_until(lambda: len({b["care_of_address"] for b in ha.agent.ask("bindings")}) == 4, 30, "the return")
    assert not any(agent.ask("counters")["messages"].get("dropped") for agent in (ha.agent, mn.agent))
