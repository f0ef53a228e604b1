"""A mobile router behind an anchor point (RFC 3963, RFC 5380): real agents, kernels and packets."""

import pytest
from backend import backends
from datapath_network import needed
from hierarchical_bed import settled
from node_capture import NodeCapture
from observations import answered
from test_mobile_router import node_address

from testbed.emulation.network import Network
from testbed.emulation.process import wait_until
from topologies.hierarchical import REGIONS, HierarchicalTopology
from topologies.nemo import NemoTopology

requirement = pytest.mark.requirement
HOME_AGENT, CORRESPONDENT = "2001:db8:100::1", "2001:db8:300::2"


class RouterTopology(NemoTopology, HierarchicalTopology):
    """The mobile router of the one in the domains of the other."""


@pytest.fixture(scope="module", params=backends("tunnel"))
def network(request, tmp_path_factory):
    topology = RouterTopology("wlan:100:1+cellular:100:1", tunnel_backend=needed(request.param))
    with Network(topology, tmp_path_factory.mktemp("logs")) as network:
        network["mr"].await_care_of_addresses()
        network["ha"].start_agent(topology.home_agent_configuration())
        for name in REGIONS:
            network[name].start_agent(topology.anchor_point_configuration(name))
        network["mr"].start_agent(topology.mobile_node_configuration())
        wait_until(lambda: served(network), 30, "the registration")
        yield network


def served(network):
    """The mobile router is registered with an anchor point, and its network with the home agent."""
    return settled(network, node="mr") and network["mr"].agent.ask("status")["mobile_network"]["served"]


@requirement("RFC 3963 §6.5: packets to the mobile network are tunnelled to the mobile router")
@requirement("RFC 5380 §6.1: the outer header has the LCoA and the MAP, the inner one the RCoA")
def test_both_directions_go_through_both_tunnels(network):
    address = node_address(network)
    regional = network["mr"].agent.ask("status")["regional_address"]
    care_of_address = str(network["mr"].care_of_address("mr-cellular"))
    anchor = str(REGIONS["map1"][1])
    with NodeCapture(network["mr"], "mr-cellular") as capture:
        assert answered(network["cn"], address)
        assert answered(network["mnn"], CORRESPONDENT)
        seen = {packet[:4] for packet in capture.tunnelled}
    assert (anchor, care_of_address, HOME_AGENT, regional) in seen
    assert (care_of_address, anchor, regional, HOME_AGENT) in seen
