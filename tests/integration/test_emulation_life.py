"""The life of a network: what it needs to start, its agents, and that a stop removes it all."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from testbed.emulation.network import Network
from testbed.emulation.node import Host
from testbed.emulation.process import EmulationError
from topologies.multihome import AccessNetwork, MultihomeTopology

PROJECT = Path(__file__).resolve().parents[2]


def test_many_access_networks_and_mobile_nodes(tmp_path):
    networks = [AccessNetwork(name, None, 0) for name in ("wlan", "cellular", "satellit", "dsl")]
    with Network(MultihomeTopology(networks, mobile_nodes=2), tmp_path) as network:
        for name in ("mn", "mn2"):
            addresses = network[name].await_care_of_addresses()
            prefixes = [str(address).split(":")[2] for address in addresses.values()]
            assert prefixes == ["201", "202", "203", "204"]
            for address in addresses.values():
                network["hn"].execute("ping", "-c1", "-W5", str(address))


def start_and_stop(folder):
    """How long each takes, in seconds."""
    begin = time.monotonic()
    network = Network(MultihomeTopology(), folder)
    network.start()
    network["mn"].await_care_of_addresses()
    started = time.monotonic()
    network["cn"].cmd("sleep 1000 &")
    network["hn"].spawn("sh", "-c", "trap '' TERM; sleep 1000 & sleep 1001", log="stubborn.log")
    stopping = time.monotonic()
    network.stop()
    return started - begin, time.monotonic() - stopping


def test_start_and_stop_are_quick_and_leave_nothing(tmp_path, untouched):
    starts, stops = zip(*(start_and_stop(tmp_path) for _ in range(3)), strict=True)
    assert min(starts) < 3  # the machine may stand still meanwhile, but not each time
    assert min(stops) < 3  # of which 1 s is for the process that does not listen


def test_failure_at_the_start_leaves_nothing(tmp_path, untouched):
    topology = MultihomeTopology(agents=True)
    topology.nodeInfo("ha")["agent_configuration"]["nonsense"] = 1
    with pytest.raises(EmulationError, match="^the agent of ha ended at its start: .*nonsense"):
        Network(topology, tmp_path).start()


def test_node_that_cannot_start_leaves_nothing(untouched):
    class Broken(Host):
        sysctls = {"net/ipv6/no_such_setting": 1}

    with pytest.raises(EmulationError, match="^broken: sh -e failed: .*no_such_setting"):
        Broken("broken")


def test_agents_start_stop_and_start_again_after_a_crash(tmp_path):
    topology = MultihomeTopology()
    with Network(topology, tmp_path) as network:
        home_agent = network["ha"]
        agent = home_agent.start_agent(topology.home_agent_configuration())
        assert agent.answers()
        with pytest.raises(EmulationError, match="^ha: its agent runs already"):
            home_agent.start_agent(topology.home_agent_configuration())
        assert home_agent.cmd("flowbind bindings --json; echo $?").splitlines()[-1] == "0"
        assert home_agent.kill_agent() == -9
        assert not agent.answers()
        home_agent.start_agent(topology.home_agent_configuration())
        assert home_agent.stop_agent() == 0
        assert home_agent.stop_agent() is None
    assert (tmp_path / "ha.toml").exists() and (tmp_path / "ha-agent.log").exists()


@pytest.mark.parametrize("command", [
    ["-m", "testbed.emulation.mn", "--topo", "multihome"],
    [str(Path(sys.prefix, "bin", "mn")), "--custom", "topologies/multihome.py",
     "--topo", "multihome,mobile_nodes=2", "--controller", "none"],
], ids=["run mn", "mn --custom"])
def test_mininets_own_command(command, untouched):
    done = subprocess.run(
        [sys.executable, *command], cwd=PROJECT, env=os.environ | {"PYTHONPATH": str(PROJECT)}, timeout=60,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        input="cn ping -c1 hn\nmn ip -color=never -6 route\n")
    assert done.returncode == 0
    assert " 0% packet loss" in done.stdout
    assert "dev mn-wlan" in done.stdout
