#!/usr/bin/env python3
"""How long the main topology takes to start and to stop, and one with 50 mobile nodes."""

import os
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from testbed.environment import reexec_in_project_environment  # noqa: E402

reexec_in_project_environment()

from mininet.log import setLogLevel  # noqa: E402

from testbed.emulation.network import Network  # noqa: E402
from testbed.emulation.process import wait_until  # noqa: E402
from testbed.experiment import bench  # noqa: E402
from testbed.experiment.bench import Figure  # noqa: E402
from testbed.experiment.run import guarded  # noqa: E402
from testbed.isolation import isolate  # noqa: E402
from topologies.multihome import MultihomeTopology  # noqa: E402

DESCRIPTION = """\
A network is made, used and taken down again, and the steps are timed:

  network    all namespaces, links, addresses, routes and routing daemons are there
  start      and all agents are running
  bound      and all mobile nodes have registered all their care-of addresses, which they get by SLAAC
  stop       mobile nodes de-register, agents end, everything is removed

`start` includes `network`, `bound` includes `start`. Beside the time, the processor time of this program and
of all that it has started, agents included; and the memory of a mobile node's agent.
"""
EPILOG = """\
Goals: one mobile node starts in 3 s and stops in 1 s, 50 mobile nodes start in 30 s on two processors, an
agent has at most 40 MiB; exit status 1 if one is missed. Examples:
  sudo ./run bench start
  sudo ./run bench start --nodes 200 --repeat 1
  sudo ./run bench start --quick --json
"""
BOUND_S = READY_S = 120.0
#: Agents that are started at a time.
AT_ONCE = 2 * (os.cpu_count() or 1)


def processor_s() -> float:
    """Of this program and of its children that have ended."""
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


def measure(nodes: int) -> dict[str, float]:
    """Seconds of each step, once."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        used, begin = processor_s(), time.perf_counter()
        topology = MultihomeTopology(mobile_nodes=nodes)
        network = Network(topology, log_directory=folder)
        try:
            network.start()
            found["network"] = time.perf_counter() - begin
            network["ha"].start_agent(topology.home_agent_configuration())
            mobile_nodes = [network[name] for name in topology.home_addresses]
            with ThreadPoolExecutor(AT_ONCE) as pool:
                list(
                    pool.map(
                        lambda node: node.start_agent(topology.mobile_node_configuration(node.name), READY_S),
                        mobile_nodes,
                    )
                )
            found["start"] = time.perf_counter() - begin
            home_agent, paths = network["ha"].agent, len(topology.access_networks)
            wait_until(
                lambda: len(home_agent.ask("bindings")) == nodes * paths, BOUND_S, "all care-of addresses"
            )
            found["bound"] = time.perf_counter() - begin
            sizes = [bench.memory_octets(node.agent.process.pid) for node in mobile_nodes]
            found["memory"] = median(sizes) / 2**20
        finally:
            begin = time.perf_counter()
            network.stop()
        found["stop"] = time.perf_counter() - begin
        found["processor"] = processor_s() - used
    return found


def figures(nodes: int, runs: list[dict[str, float]], goals: dict[str, float]) -> list[Figure]:
    name = "1 mobile node" if nodes == 1 else f"{nodes} mobile nodes"
    unit = {"processor": "s of CPU", "memory": "MiB"}
    return [
        Figure(f"{name}: {step}", unit.get(step, "s"), [run[step] for run in runs], goals.get(step), True)
        for step in runs[0]
    ]


def main() -> int:
    made = bench.parser("start", DESCRIPTION, EPILOG, 5, "5 mobile nodes instead of 50, one repetition")
    made.add_argument("--nodes", type=int, metavar="N", help="mobile nodes of the large network (50)")
    options = bench.parse(made)
    many = options.nodes or (5 if options.quick else 50)
    if not 2 <= many <= 999:
        made.error("--nodes must be from 2 to 999")
    isolate()
    setLogLevel("error")
    shown = []
    of_one = {"start": 3.0, "stop": 1.0, "memory": 40.0}
    for nodes, goals in ((1, of_one), (many, {"start": 30.0, "memory": 40.0})):
        runs = []
        for number in range(options.repetitions):
            bench.say(f"{nodes} mobile nodes: repetition {number + 1} of {options.repetitions}")
            runs.append(measure(nodes))
        shown += figures(nodes, runs, goals)
    return bench.finish("start", options, shown, nodes=many)


if __name__ == "__main__":
    sys.exit(guarded("bench start", main))
