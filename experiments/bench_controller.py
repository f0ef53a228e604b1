#!/usr/bin/env python3
"""How fast switch rules follow a change of bindings, and what the death of the controller does to a flow."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from testbed.environment import reexec_in_project_environment  # noqa: E402

reexec_in_project_environment()

import json  # noqa: E402
import time  # noqa: E402
from pathlib import Path  # noqa: E402

from testbed.emulation.process import wait_until  # noqa: E402
from testbed.experiment import bench  # noqa: E402
from testbed.experiment import options as command_line  # noqa: E402
from testbed.experiment.bench import Figure  # noqa: E402
from testbed.experiment.narrator import Narrator  # noqa: E402
from testbed.experiment.run import guarded  # noqa: E402
from testbed.experiment.switched_run import SwitchedRun  # noqa: E402
from testbed.measure.accounting import Received, Sent, account, longest_gap  # noqa: E402
from testbed.measure.probe_log import read_probe_log  # noqa: E402
from testbed.measure.traffic import TcpProbe, UdpProbe, start_traffic, stop_traffic  # noqa: E402
from topologies.sdn import SdnTopology  # noqa: E402

DESCRIPTION = """\
Changes a flow binding again and again, and measures from the change of the home agent's binding cache
until the switches have the rules of it, while another flow of 500 packets/s must not lose one. Then
kills the controller, waits until the home agent has taken the flow over, starts the controller again,
and measures the flow's longest gap and its losses, in each direction.
"""
EPILOG = """\
The goal is a median of at most 50 ms and no packet lost by the flow that stays; exit status 1 if it is
missed. Example:
  sudo ./run bench controller --repeat 50
"""
GOAL_MS = 50.0
STAYS, MOVES, BOTH_WAYS, PER_SECOND = 5004, 5006, 5008, 500


def figures(logs: tuple[Path, Path]) -> dict:
    """What a flow felt, by its logs of what was sent and received: sent, lost, longest gap in ms."""
    _, sent = read_probe_log(logs[0])
    _, received = read_probe_log(logs[1])
    found = account(
        Sent(sent["sequence"], sent["sent_ns"], sent["octets"]),
        Received(received["sequence"], received["received_ns"], received["octets"]),
    )
    gap, _ = longest_gap(found.received_ns, int(found.sent_ns[0]), int(found.sent_ns[-1]))
    return {"sent": found.sent, "lost": found.lost, "longest_gap_ms": gap}


def latencies_ms(events: list[dict], since: float) -> list[float]:
    """From each change of the binding cache to the switches' rules, in ms."""
    found, cause = [], None
    for event in sorted(events, key=lambda event: event["t"]):
        if event["t"] >= since and event["node"] == "ha" and event["event"] == "binding-changed":
            cause = event["t"]
        elif event["event"] == "rules-ready" and cause is not None:
            found.append((event["t"] - cause) * 1000)
            cause = None
    return found


def change_bindings(run: SwitchedRun, repeat: int) -> tuple[list[float], dict]:
    """Move one flow to and fro; returns the latencies, and what the other flow felt."""
    first, second = (f"mn-{network.name}" for network in run.topology.access_networks[:2])
    probe = UdpProbe(
        "stays", 1, run.correspondent, run.mobile, run.logs, port=STAYS, per_second=PER_SECOND, size=100
    )
    start_traffic([probe])
    since = time.monotonic()

    def read() -> list[float]:
        lines = (run.logs / "events.jsonl").read_text().splitlines()
        return latencies_ms([json.loads(line) for line in lines], since)

    for number in range(repeat):
        run.flow("replace", 2, "the flow moves", bids=[second if number % 2 == 0 else first])
        wait_until(lambda number=number: len(read()) > number, 10, "the rules' change")
    stop_traffic([probe])
    return read(), figures(probe.logs)


def lose_controller(run: SwitchedRun, number: int) -> dict[str, dict]:
    """Kill the controller and start it again, under datagrams and a TCP connection that both ends send on."""
    ends = run.correspondent, run.mobile, run.logs
    probes = [
        UdpProbe(f"udp{number}", 1, *ends, port=STAYS, per_second=PER_SECOND, size=100),
        TcpProbe(f"tcp{number}", 2, *ends, port=BOTH_WAYS, per_second=PER_SECOND / 5, size=100),
    ]
    start_traffic(probes)
    run.log("controller-killed")
    run.controller.kill()
    before = run.home_agent_load().packets
    wait_until(lambda: run.home_agent_load().packets > before + PER_SECOND / 2, 15, "the home agent's turn")
    run.controller.start()
    run.await_mirrored(1)
    after = run.home_agent_load().packets

    def quiet() -> bool:
        nonlocal after
        earlier, after = after, run.home_agent_load().packets
        time.sleep(0.2)  # traffic
        return after == earlier

    wait_until(quiet, 15, "the switches' turn")
    stop_traffic(probes)
    tcp = probes[1]
    return {
        "UDP, down": figures(probes[0].logs),
        "TCP, down": figures(tcp.logs),
        "TCP, up": figures((tcp.log("client-sent.probe"), tcp.log("server-received.probe"))),
    }


def main() -> int:
    parser = command_line.parser("bench controller", DESCRIPTION, EPILOG, duration_s=30, quick_s=10)
    parser.add_argument("--repeat", type=int, metavar="N", help="changes (default 50; 10 with --quick)")
    parser.add_argument(
        "--deaths", type=int, metavar="N", help="of the controller (default 5; 1 with --quick)"
    )
    arguments = parser.parse_args()
    repeat = arguments.repeat or (10 if arguments.quick else 50)
    deaths = arguments.deaths or (1 if arguments.quick else 5)
    topology = command_line.network(SdnTopology, arguments, arguments.seed)
    folder = command_line.begin(arguments, "bench-controller")
    with SwitchedRun(topology, folder, Narrator(sys.stderr), mirrored=True) as run:
        ports = ((1, STAYS, "udp"), (2, MOVES, "udp"), (3, BOTH_WAYS, "tcp"))
        flows = [
            {"fid": fid, "bids": [1], "source_port": str(port), "next_header": protocol}
            for fid, port, protocol in ports
        ]
        run.start_agents(topology.mobile_node_configuration(flows=flows), topology.home_agent_configuration())
        run.await_bindings()
        run.await_mirrored(1, 2, 3)
        changes, stays = change_bindings(run, repeat)
        lost = [lose_controller(run, number) for number in range(1, deaths + 1)]
        facts = {"library": run.controller.ask("status")["library"], "datapath": run.network.daemon.datapath}
    shown = [
        Figure("change of bindings to switch rules", "ms", changes, GOAL_MS, at_most=True),
        Figure("packets lost by the flow that stays", "", [stays["lost"]], 0, at_most=True),
    ]
    for direction in lost[0]:
        name = f"controller killed and started: {direction}"
        gaps = [one[direction]["longest_gap_ms"] for one in lost]
        shown.append(Figure(f"{name}, longest gap", "ms", gaps))
        shown.append(Figure(f"{name}, lost", "%", [_lost_percent(one[direction]) for one in lost]))
    arguments.repetitions = repeat
    return bench.finish("controller", arguments, shown, **facts, flow_that_stays=stays, deaths=deaths)


def _lost_percent(felt: dict) -> float:
    return 100 * felt["lost"] / felt["sent"]


if __name__ == "__main__":
    sys.exit(guarded("bench controller", main))
