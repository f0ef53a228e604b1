"""A mobile node optimises routes because of their traffic, over real links."""

import pytest
from agent_network import CORRESPONDENT, HOME_ADDRESS, Agent, AgentNetwork
from datapath_network import wait_for

requirement = pytest.mark.requirement
BY_TRAFFIC = 'optimise = "traffic"\nmax_optimised = 1\n'


@pytest.fixture
def network(tmp_path):
    network = AgentNetwork(tmp_path)
    network.add_correspondent()
    yield network
    network.close()


@pytest.fixture
def mn(network, tmp_path):
    with Agent(network.ha, tmp_path), Agent(network.mn, tmp_path, first=BY_TRAFFIC) as mn:
        wait_for(lambda: len([b for b in mn.ask("bindings") if b["registered"]]) == 2)
        yield mn


def ping_from(node):
    node.shell(f"ping -c 1 -W 5 {HOME_ADDRESS}")


@requirement("RFC 6275 §11.7.2: a packet through the tunnel may begin a correspondent registration")
def test_the_route_to_who_talks_is_optimised(network, mn, tmp_path):
    with Agent(network.cn, tmp_path) as cn:
        assert mn.ask("routes") == []
        ping_from(network.cn)
        wait_for(lambda: len(cn.ask("bindings")) == 2)
        wait_for(lambda: all(b["registered"] for b in mn.ask("routes")[0]["bindings"]))
        before = network.ha.received("core")
        network.cn.shell(f"ping -c 10 -i 0.1 -W 5 {HOME_ADDRESS}")
        assert network.ha.received("core") - before < 10
        # there is room for one only
        ping_from(network.hn)
        ping_from(network.hn)
        wait_for(lambda: "2001:db8:100::2" in network.mn.shell("nft list set ip6 flowbind_ro talkers"))
        wait_for(lambda: "2001:db8:100::2" not in network.mn.shell("nft list set ip6 flowbind_ro talkers"))
        assert [route["correspondent"] for route in mn.ask("routes")] == [CORRESPONDENT]


@requirement("RFC 6275 §11.3.5: a node that answers Parameter Problem is not asked again for a while")
def test_a_host_that_knows_no_mobility_is_left_alone(network, mn):
    ping_from(network.cn)
    wait_for(lambda: mn.events("mobility-header-unsupported"))
    wait_for(lambda: mn.ask("routes") == [])
    tests = len(mn.events("home-test-init-sent"))
    talkers = "nft list set ip6 flowbind_ro talkers"
    wait_for(lambda: CORRESPONDENT not in network.mn.shell(talkers))
    ping_from(network.cn)
    assert CORRESPONDENT in network.mn.shell(talkers)
    wait_for(lambda: CORRESPONDENT not in network.mn.shell(talkers))
    assert len(mn.events("home-test-init-sent")) == tests and mn.ask("routes") == []


def test_a_silent_host_is_left_alone(network, mn):
    network.cn.shell(
        "nft add table ip6 t; nft add chain ip6 t in { type filter hook input priority 0 \\; }; "
        "nft add rule ip6 t in meta l4proto 135 drop"
    )
    ping_from(network.cn)
    wait_for(lambda: mn.ask("routes"))
    wait_for(lambda: mn.ask("routes") == [])
    ping_from(network.cn)  # through the tunnel, as ever
