"""Switches do what their rules say in either datapath, and leave nothing."""

import pytest
from backend import backends
from controller_network import needed_datapath, needs_switches
from mininet.topo import Topo

from testbed.emulation.openvswitch import OpenVSwitch
from testbed.emulation.process import wait_until
from testbed.emulation.switched_network import SwitchedNetwork

pytestmark = needs_switches


class OneSwitch(Topo):
    def build(self):
        self.addSwitch("s1", cls=OpenVSwitch)
        for name in ("h1", "h2"):
            self.addHost(name, ip=None)
            self.addLink(name, "s1")


@pytest.fixture(scope="module", params=backends("switch"))
def network(request, tmp_path_factory):
    folder, datapath = tmp_path_factory.mktemp("switch"), needed_datapath(request.param)
    network = SwitchedNetwork(OneSwitch(), folder, datapath)
    with network:
        for number in (1, 2):
            network[f"h{number}"].cmd(f"ip address add 2001:db8::{number}/64 dev h{number}-eth0 nodad")
        network.expected_type = {"kernel": "system", "user": "netdev"}[datapath]
        yield network


def ping(network, size=56, patience_s=2):
    return network["h1"].cmd(f"ping -6 -n -q -c 3 -i 0.1 -W {patience_s} -s {size} 2001:db8::2")


def counted(network):
    (rule,) = network["s1"].rules("icmp6")
    return int(rule.partition("n_packets=")[2].partition(",")[0])


def test_it_is_that_datapath(network):
    assert network.daemon.vsctl("get", "bridge", "s1", "datapath_type").strip() == network.expected_type


@pytest.mark.parametrize("size", [56, 1400, 5000])
def test_it_switches(network, size):
    assert " 0% packet loss" in ping(network, size, patience_s=30)


def test_rules_decide_and_count(network):
    network.daemon.ofctl("add-flow", "s1", "priority=9,icmp6,icmp_type=128,actions=drop")
    # the datapath has rules of its own, which follow a moment later
    wait_until(lambda: " 100% packet loss" in ping(network) and counted(network) >= 3, 30, "the drops' count")
    network.daemon.ofctl("del-flows", "s1", "icmp6,icmp_type=128")
    wait_until(lambda: " 0% packet loss" in ping(network), 30, "the return of answers")
