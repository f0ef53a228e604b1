"""topologies.hierarchical: domains, configurations of the agents, errors; the advertiser's arguments."""

from ipaddress import IPv6Address

import pytest

from testbed.agent.advertiser import anchor_point
from testbed.agent.configuration import AnchorPointFile, ConfigurationError, check, load
from testbed.emulation.agent import to_toml
from testbed.wire.router_advertisement import MobilityAnchorPoint
from topologies.hierarchical import HierarchicalTopology


def test_domains_are_advertised_by_their_access_routers():
    topology = HierarchicalTopology()
    advertised = {f"ar{n}": topology.nodeInfo(f"ar{n}")["anchor_points"] for n in range(1, 6)}
    assert advertised == {
        "ar1": ["2001:db8:500::1,2"], "ar2": ["2001:db8:500::1,2"], "ar3": ["2001:db8:500::1,2"],
        "ar4": ["2001:db8:600::1,2"], "ar5": []}
    assert ("2001:db8:500::/64", "2001:db8:ff65::2") in topology.nodeInfo("core")["routes"]
    assert "map1 2001:db8:500::1 (ar1, ar2, ar3)" in topology.draw()


def test_all_agents_take_their_configurations(tmp_path):
    topology = HierarchicalTopology()
    for configuration in (topology.anchor_point_configuration("map2"), topology.home_agent_configuration(),
                          topology.mobile_node_configuration()):
        path = tmp_path / "agent.toml"
        path.write_text(to_toml(configuration))
        file = load(str(path))
    assert file.hierarchical


def test_two_access_networks():
    with pytest.raises(ValueError, match="^access_networks: 3 given, expected 2"):
        HierarchicalTopology("a:1:1+b:1:1+c:1:1")


ANCHOR_POINT = {"role": "anchor-point", "name": "map", "address": "2001:db8:500::1",
                "regional_interface": "region0", "regional_prefixes": ["2001:db8:500::/64"]}
KEY = {"spi": 1000, "key": "00" * 16}


def test_an_anchor_points_file():
    file = check({**ANCHOR_POINT, "security_association": [KEY]})
    assert isinstance(file, AnchorPointFile) and file.home_interface == "region0"
    for tables, sentence in (({}, "security_association: is missing"),
                             ({"security_association": [KEY, KEY]}, r"security_association\[1\].spi: 1000")):
        with pytest.raises(ConfigurationError, match=f"^{sentence}"):
            check({**ANCHOR_POINT, **tables})


def test_arguments_of_the_advertiser():
    assert anchor_point("2001:db8:500::1") == MobilityAnchorPoint(IPv6Address("2001:db8:500::1"))
    assert anchor_point("2001:db8:500::1,3,9,0").valid_lifetime_s == 0
    for wrong in ("x", "2001:db8::1,0", "2001:db8::1,16"):
        with pytest.raises(ValueError):
            anchor_point(wrong)
