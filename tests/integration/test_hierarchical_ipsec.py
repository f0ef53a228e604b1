"""A mobile node and a mobility anchor point whose signalling IPsec protects (RFC 5380 §12.1), really."""

import ipsec
import pytest
from hierarchical_bed import CORRESPONDENT, HOME_ADDRESS
from observations import answered, bound, registered
from test_hierarchical import FLOWS

from testbed.emulation.network import Network
from testbed.emulation.process import wait_until
from topologies.hierarchical import REGIONS, HierarchicalTopology

requirement = pytest.mark.requirement
pytestmark = pytest.mark.backend("signalling", "ESP")
REGION = REGIONS["map1"]
REGIONAL = {"regional_address": str(REGION[0x100])}
ASSOCIATIONS = {
    name: {"spi": spi, "key": digits * 32, "encryption_key": digits * 16}
    for name, spi, digits in (("to_anchor_point", 0x1001, "11"), ("to_mobile_node", 0x1002, "22"))
}


@pytest.fixture
def network(tmp_path):
    ipsec.needed()
    with Network(HierarchicalTopology("wlan:100:1+cellular:100:1"), tmp_path) as network:
        network["mn"].await_care_of_addresses()
        yield network


def start(network, associations=ASSOCIATIONS):
    """Start the agents; the mobile node has these associations with the anchor point."""
    topology = network.topo
    ha = network["ha"].start_agent(topology.home_agent_configuration())
    at_anchor = {"ipsec": [REGIONAL | ASSOCIATIONS], "security_association": []}
    anchor = network["map1"].start_agent(topology.anchor_point_configuration("map1", **at_anchor))
    at_node = {"map_ipsec": [{"anchor_point": str(REGION[1]), **REGIONAL, **associations}]}
    configuration = topology.mobile_node_configuration(flows=FLOWS, **at_node)
    del configuration["map_security"]
    return ha, anchor, network["mn"].start_agent(configuration)


@requirement("RFC 5380 §12.1: a local Binding Update and its answer are under ESP; the SA is for the RCoA")
def test_registration_movement_and_end(network):
    ha, anchor, mn = start(network)
    addresses = {bid: str(network["mn"].care_of_address(f"mn-{name}"))
                 for bid, name in enumerate(("wlan", "cellular"), start=1)}
    wait_until(lambda: bound(anchor) == addresses, 30, "the local registration")
    wait_until(lambda: list(bound(ha).values()) == [REGIONAL["regional_address"]], 30, "the other")
    wait_until(lambda: registered(mn), 30, "the answers")
    assert answered(network["cn"], HOME_ADDRESS) and answered(network["mn"], CORRESPONDENT)
    for node in ("map1", "mn"):
        assert network[node].execute("ip", "xfrm", "state").count("proto esp") == 2
    link = network["mn"].link("mn-wlan")
    link.set_carrier(False)
    wait_until(lambda: set(bound(anchor).values()) == {addresses[2]}, 30, "the change")
    assert answered(network["cn"], HOME_ADDRESS)
    link.set_carrier(True)
    wait_until(lambda: bound(anchor) == addresses, 30, "the return")
    assert network["mn"].stop_agent() == 0
    wait_until(lambda: ha.ask("bindings") == [] == anchor.ask("bindings"), 30, "the end of the bindings")
    assert network["map1"].stop_agent() == 0
    for node in ("map1", "mn"):
        assert not network[node].execute("ip", "xfrm", "state")


@pytest.mark.long
@requirement("RFC 5380 §12.1: a local Binding Update that is not authentic changes nothing")
def test_another_key(network):
    other = {"to_anchor_point": ASSOCIATIONS["to_anchor_point"] | {"key": "33" * 32}}
    _, anchor, _ = start(network, ASSOCIATIONS | other)

    def refused():
        lines = network["map1"].execute("cat", "/proc/net/xfrm_stat").splitlines()
        return int(dict(map(str.split, lines))["XfrmInStateProtoError"])

    wait_until(lambda: refused() >= 2, 30, "two refusals")
    assert anchor.ask("bindings") == []
