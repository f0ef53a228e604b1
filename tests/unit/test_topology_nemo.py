"""topologies.nemo: addresses, parameters and their errors, configurations of the agents."""

import pytest

from testbed.agent.configuration import load
from testbed.emulation.agent import to_toml
from topologies.nemo import NemoTopology


def test_the_mobile_network_is_behind_the_mobile_router():
    topology = NemoTopology(nodes=2)
    assert set(topology.nodes()) == {"cn", "core", "ha", "hn", "ar1", "ar2", "mr", "mnn", "mnn2"}
    assert ("2001:db8:1000::/64", "2001:db8:ff00::2") in topology.nodeInfo("core")["routes"]
    assert topology.nodeInfo("mr")["addresses"] == {"lan0": ["2001:db8:1000::1/64"]}
    assert topology.nodeInfo("mr")["access_interfaces"] == ["mr-wlan", "mr-cellular"]
    links = {info["intfName1"]: info for _, _, info in topology.links(withInfo=True)}
    assert links["mnn2-mr"]["intfName2"] == "mr-mnn2"
    assert "behind mr: lan0 2001:db8:1000::/64 ---- mnn, mnn2" in topology.draw()


@pytest.mark.parametrize("mode", ["explicit", "implicit"])
def test_both_agents_take_their_configurations(tmp_path, mode):
    topology = NemoTopology(mode=mode)
    for configuration in (topology.home_agent_configuration(), topology.mobile_node_configuration()):
        path = tmp_path / "agent.toml"
        path.write_text(to_toml(configuration))
        file = load(str(path))
        assert file.name in ("ha", "mr")
    assert file.mobile_network.mode == mode


@pytest.mark.parametrize("parameters, sentence", [
    ({"nodes": 0}, "nodes: 0 is not a whole number from 1 to 99"),
    ({"mode": "other"}, "mode: 'other' is neither explicit nor implicit"),
    ({"mobile_nodes": 2}, "mobile_nodes: there is one mobile router"),
])
def test_wrong_parameters(parameters, sentence):
    with pytest.raises(ValueError, match=f"^{sentence}"):
        NemoTopology(**parameters)
