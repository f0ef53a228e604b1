#!/usr/bin/env python3
"""How long a flow is without a way after its access network is lost, against the least that is possible.

The least is one round trip between mobile node and home agent on the network that is left: the Binding Update
has to get there and the first packet has to come back.
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from testbed.environment import reexec_in_project_environment  # noqa: E402

reexec_in_project_environment()

import re  # noqa: E402
import statistics  # noqa: E402

from testbed.emulation.process import EmulationError  # noqa: E402
from testbed.experiment import bench  # noqa: E402
from testbed.experiment import options as command_line  # noqa: E402
from testbed.experiment.bench import Figure  # noqa: E402
from testbed.experiment.narrator import Narrator  # noqa: E402
from testbed.experiment.run import Run, guarded  # noqa: E402
from testbed.measure.traffic import UdpProbe  # noqa: E402
from testbed.report.flow_figures import FlowBinding  # noqa: E402
from testbed.report.result import Result  # noqa: E402
from topologies.multihome import HOME_AGENT, MultihomeTopology  # noqa: E402

DESCRIPTION = """\
A flow of 500 packets/s is bound to the first access network, which is taken away and brought back again and
again. Measured on the access link that is left: from the loss of the link to the first packet that arrives
there, and the round trip between mobile node and home agent on that link, in the same run.
"""
EPILOG = """\
The goal is a median of at most one round trip plus 20 ms; exit status 1 if it is missed. Example:
  sudo ./run bench handover --repeat 20
"""
GOAL_MS = 20.0
PORT, PER_SECOND = 5004, 500
PAUSE_S = 1.2


def round_trip_ms(run: Run, interface: str) -> list[float]:
    """Round trips between an access interface's care-of address and the home agent."""
    output = run.mn.execute("ping", "-n", "-c", "10", "-i", "0.2", "-I", interface, str(HOME_AGENT))
    times = [float(value) for value in re.findall(r"time=([\d.]+)", output)]
    if not times:
        raise EmulationError(f"the home agent does not answer pings from {interface}")
    return times


def handovers_ms(result: Result, stage: str) -> list[float]:
    """One value a link loss."""
    found = [handover.stages_ms[stage] for handover in result.handovers if handover.cause == "link-down"]
    return [value for value in found if value is not None]


def main() -> int:
    parser = command_line.parser("bench handover", DESCRIPTION, EPILOG, duration_s=60, quick_s=15)
    parser.add_argument("--repeat", type=int, metavar="N", help="link losses (default 20; 5 with --quick)")
    arguments = parser.parse_args()
    repeat = arguments.repeat or (5 if arguments.quick else 20)
    topology = command_line.network(MultihomeTopology, arguments, arguments.seed)
    folder = command_line.begin(arguments, "bench-handover")
    narrator = Narrator(sys.stderr)
    first, second = (network.name for network in topology.access_networks[:2])
    with Run(topology, folder, narrator) as run:
        flow = {"fid": 1, "bids": [1], "source_port": str(PORT), "next_header": "udp"}
        run.start_agents(
            topology.mobile_node_configuration(preferred=second, flows=[flow]),
            topology.home_agent_configuration(),
        )
        run.await_bindings()
        round_trips = round_trip_ms(run, f"mn-{second}")
        probe = UdpProbe(
            "probe", 1, run.correspondent, run.mobile, run.logs, port=PORT, per_second=PER_SECOND, size=100
        )
        run.start_traffic([probe], {"probe": FlowBinding(1, f"udp, source port {PORT}", 1)})
        for number in range(1, repeat + 1):
            run.link_down(first)
            run.phase(f"loss {number} of {repeat}", PAUSE_S, {"probe": [second]})
            run.link_up(first)
            run.phase(f"return {number} of {repeat}", PAUSE_S, {"probe": [first]})
        run.stop_traffic()
        result = run.finish("bench-handover", {"seed": arguments.seed, "backends": run.backends()})
    losses = handovers_ms(result, "first_packet")
    round_trip = statistics.median(round_trips)
    if len(losses) < repeat:
        raise EmulationError(f"only {len(losses)} of {repeat} losses were followed by a packet")
    shown = [
        Figure(f"round trip mobile node - home agent over {second}", "ms", round_trips),
        Figure("loss to the first packet", "ms", losses),
        Figure(
            "loss to the first packet, less one round trip",
            "ms",
            [loss - round_trip for loss in losses],
            GOAL_MS,
            at_most=True,
        ),
    ]
    for stage in result.handovers[0].stages_ms:
        values = handovers_ms(result, stage)
        if values:
            shown.append(Figure(f"stage: {stage.replace('_', ' ')}", "ms", values))
    for warning in result.warnings:
        bench.say(f"Warning: {warning}")
    arguments.repetitions = repeat
    backends = result.metadata["backends"]
    return bench.finish("handover", arguments, shown, backends=backends, warnings=result.warnings)


if __name__ == "__main__":
    sys.exit(guarded("bench handover", main))
