"""topologies.multihome: address plan, parameters and their errors, drawing, configurations of the agents."""

from ipaddress import IPv6Address

import pytest

from testbed.agent.configuration import HomeAgentFile, MobileNodeFile, load
from testbed.emulation.agent import to_toml
from topologies.multihome import AccessNetwork, MultihomeTopology


def test_the_networks_and_addresses_of_the_address_plan():
    topology = MultihomeTopology()
    assert set(topology.nodes()) == {"cn", "core", "ha", "hn", "ar1", "ar2", "mn"}
    assert topology.nodeInfo("core")["addresses"] == {
        "core-cn": ["2001:db8:300::1/64"], "core-ha": ["2001:db8:ff00::1/64"],
        "core-ar1": ["2001:db8:ff01::1/64"], "core-ar2": ["2001:db8:ff02::1/64"]}
    assert topology.nodeInfo("core")["routes"] == [
        ("2001:db8:100::/64", "2001:db8:ff00::2"), ("2001:db8:201::/64", "2001:db8:ff01::2"),
        ("2001:db8:202::/64", "2001:db8:ff02::2")]
    assert topology.nodeInfo("ha")["addresses"] == {
        "ha-core": ["2001:db8:ff00::2/64"], "home0": ["2001:db8:100::1/64"]}
    assert topology.nodeInfo("ar2")["addresses"] == {
        "ar2-core": ["2001:db8:ff02::2/64"], "lan0": ["2001:db8:202::1/64"]}
    assert topology.nodeInfo("mn")["home_address"] == "2001:db8:100::100"
    assert topology.nodeInfo("mn")["access_interfaces"] == ["mn-wlan", "mn-cellular"]


def test_access_links_have_the_parameters_of_their_network():
    topology = MultihomeTopology([AccessNetwork("a", 5, 1), AccessNetwork("b", 6, 2, 1, 0.5, 7)], seed=10)
    links = {info["intfName1"]: info for _, _, info in topology.links(withInfo=True)}
    assert links["mn-b"]["parameters"].bandwidth_mbit == 6
    assert links["mn-b"]["parameters"].queue_packets == 7
    assert links["mn-b"]["intfName2"] == "b-mn"
    assert links["mn-b"]["parameters"].seed != links["mn-a"]["parameters"].seed


def test_many_access_networks_and_mobile_nodes():
    networks = [AccessNetwork(f"net{number}", 10, 1) for number in range(20)]
    topology = MultihomeTopology(networks, mobile_nodes=3)
    assert list(topology.home_addresses) == ["mn", "mn2", "mn3"]
    assert topology.home_addresses["mn3"] == IPv6Address("2001:db8:100::102")
    assert topology.nodeInfo("ar20")["prefix"] == "2001:db8:214::/64"
    assert topology.nodeInfo("ar20")["addresses"]["ar20-core"] == ["2001:db8:ff14::2/64"]
    assert len(topology.links()) == 3 + 20 + 3 * 20
    links = [info for _, _, info in topology.links(withInfo=True)]
    names = [info[end] for info in links for end in ("intfName1", "intfName2")]
    assert len(set(names)) == len(names)
    assert max(map(len, names)) <= 15  # IFNAMSIZ


def test_access_network_from_text():
    assert AccessNetwork.parse("wlan:50:10") == AccessNetwork("wlan", 50, 10)
    assert AccessNetwork.parse("sat:2:270:5:0.5:30") == AccessNetwork("sat", 2, 270, 5, 0.5, 30)
    assert MultihomeTopology("wlan:50:10+sat:2:270").access_networks[1].delay_ms == 270


@pytest.mark.parametrize("make, sentence", [
    (lambda: AccessNetwork("Wlan", 1, 1), "name: 'Wlan'"),
    (lambda: AccessNetwork("muchtoolong", 1, 1), "name: 'muchtoolong'"),
    (lambda: AccessNetwork("wlan", 0, 1), "access network wlan: bandwidth_mbit"),
    (lambda: AccessNetwork("wlan", float("nan"), 1), "access network wlan: bandwidth_mbit"),
    (lambda: AccessNetwork("wlan", 1, -1), "access network wlan: delay_ms"),
    (lambda: AccessNetwork("wlan", 1, 1, 2), "access network wlan: jitter_ms"),
    (lambda: AccessNetwork("wlan", 1, 1, 0, 101), "access network wlan: loss_percent"),
    (lambda: AccessNetwork("wlan", 1, 1, 0, 0, 0), "access network wlan: queue_packets"),
    (lambda: AccessNetwork.parse("wlan"), "access network 'wlan': expected NAME:MBIT"),
    (lambda: AccessNetwork.parse("wlan:fast:10"), "access network 'wlan:fast:10': expected numbers behind"),
    (lambda: MultihomeTopology("wlan:50:10"), "access_networks: 1 given, expected 2 to 254"),
    (lambda: MultihomeTopology("a:1:1+a:1:1"), "access_networks: a name stands twice in a, a"),
    (lambda: MultihomeTopology(mobile_nodes=0), "mobile_nodes: 0 is not a whole number"),
    (lambda: MultihomeTopology(mobile_nodes=1.5), "mobile_nodes: 1.5 is not a whole number"),
    (lambda: MultihomeTopology().mobile_node_configuration(preferred="dsl"), "preferred: there is no access"),
])
def test_errors_name_the_parameter(make, sentence):
    with pytest.raises(ValueError) as error:
        make()
    assert str(error.value).startswith(sentence)


def test_drawing_shows_addresses_and_link_parameters():
    drawing = MultihomeTopology("wlan:50:10:2+cellular:20:40:0:1.5").draw()
    assert drawing.isascii()
    for text in ("2001:db8:100::1", "2001:db8:100::100", "2001:db8:201::/64", "2001:db8:202::/64", "mn-wlan",
                 "50 Mbit/s, 10 ms +-2", "20 Mbit/s, 40 ms, 1.5 % loss"):
        assert text in drawing
    ends = {line.rstrip().rfind("+") for line in drawing.splitlines() if " mn-" in line}
    assert len(ends) == 1, "the links to the mobile node meet in one column"


def test_drawing_of_several_mobile_nodes():
    drawing = MultihomeTopology(mobile_nodes=4).draw()
    assert "mn ... mn4  home addresses 2001:db8:100::100 to 2001:db8:100::103" in drawing


def test_configurations_are_what_agents_read(tmp_path):
    topology = MultihomeTopology(tunnel_backend="ip6tnl")
    flows = [{"fid": 1, "priority": 5, "action": "forward", "bids": [1], "source_port": "22"}]
    file = tmp_path / "agent.toml"

    file.write_text(to_toml(topology.mobile_node_configuration(preferred="wlan", flows=flows, lifetime_s=8)))
    mobile_node = load(str(file))
    assert isinstance(mobile_node, MobileNodeFile)
    assert (mobile_node.name, mobile_node.lifetime_s) == ("mn", 8)
    assert mobile_node.home_address == IPv6Address("2001:db8:100::100")
    assert [(i.name, i.bid) for i in mobile_node.interface] == [("mn-wlan", 1), ("mn-cellular", 2)]
    assert mobile_node.interface[0].priority < mobile_node.interface[1].priority
    assert (mobile_node.flow[0].fid, mobile_node.flow[0].bids) == (1, [1])
    assert mobile_node.datapath.tunnel_backend == "ip6tnl"

    file.write_text(to_toml(topology.home_agent_configuration()))
    home_agent = load(str(file))
    assert isinstance(home_agent, HomeAgentFile)
    assert (str(home_agent.address), home_agent.home_interface) == ("2001:db8:100::1", "home0")
    assert [str(prefix) for prefix in home_agent.home_prefixes] == ["2001:db8:100::/64"]


def test_agents_share_the_associations_of_ipsec(tmp_path):
    topology = MultihomeTopology(mobile_nodes=2, security="ipsec")
    file = tmp_path / "agent.toml"
    file.write_text(to_toml(topology.home_agent_configuration()))
    home_agent = load(str(file))
    assert home_agent.security_association == []
    for name, table in zip(topology.home_addresses, home_agent.ipsec, strict=True):
        file.write_text(to_toml(topology.mobile_node_configuration(name)))
        mobile_node = load(str(file))
        assert mobile_node.home_address == table.home_address and mobile_node.security is None
        assert mobile_node.ipsec.associations == table.associations and len(table.associations) == 4
    assert home_agent.ipsec[0].to_home_agent.key != home_agent.ipsec[1].to_home_agent.key
    assert MultihomeTopology().mobile_node_configuration()["security"]["spi"] == 1000
