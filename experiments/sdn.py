#!/usr/bin/env python3
"""The same flows under two planes of steering: in the home agent's tunnels, and in the network's switches.

Runs one after the other, over the same switches, links, flows and seeds.
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from testbed.environment import reexec_in_project_environment  # noqa: E402

reexec_in_project_environment()

import json  # noqa: E402
from pathlib import Path  # noqa: E402

from testbed.experiment import options as command_line  # noqa: E402
from testbed.experiment import verdict  # noqa: E402
from testbed.experiment.applications import PORTS, six_applications  # noqa: E402
from testbed.experiment.case import Case  # noqa: E402
from testbed.experiment.narrator import Narrator  # noqa: E402
from testbed.experiment.planes import comparison, medians, plane_figures  # noqa: E402
from testbed.experiment.repetition import mark, run_repeatedly, summarise  # noqa: E402
from testbed.experiment.run import guarded  # noqa: E402
from testbed.experiment.switched_run import SwitchedRun  # noqa: E402
from testbed.report import table  # noqa: E402
from testbed.report.files import write_files  # noqa: E402
from testbed.report.flow_figures import FlowBinding  # noqa: E402
from testbed.report.result import Check, Result  # noqa: E402
from topologies.sdn import SdnTopology  # noqa: E402

DESCRIPTION = """\
The flows of the main experiment, twice: steered by the home agent, through whose tunnels all packets go, and
steered by OpenFlow switches in the core and in the access networks, into which a controller mirrors the flow
bindings. Compared are throughput, one-way delay, what the home agent has to carry, what steering costs in
messages, and what a handover does to the flows.
"""
EPILOG = """\
examples:
  sudo ./run sdn --quick
  sudo ./run sdn --repeat 5 --out comparison/
  sudo ./run sdn --access wlan:50:10 --access sat:20:250 --out comparison/

The output folder gets comparison.json (medians of the runs), and a folder for each run with its result.json,
plots and logs. Exit status: 0 if everything that the runs are to show was shown, 1 if not, 2 if they could
not run.
"""
#: Its flow binding is replaced: the second one.
HTTPS = list(PORTS).index("https") + 1
#: The steps' shares of the time.
UNITS = {"baseline": 2, "replace": 2, "loss": 2, "return": 2}
PLANES = {"home agent": False, "switches": True}


def scenario(run: SwitchedRun, narrator: Narrator, arguments, seed: int) -> None:
    """Register, bind, let the traffic run, move a flow, lose a network and get it back."""
    first, second = (network.name for network in command_line.access_networks(arguments)[:2])
    unit = command_line.traffic_seconds(arguments) / sum(UNITS.values())
    where = dict.fromkeys(PORTS, second) | {"ssh": first, "https": first, "voip": first}
    names = list(PORTS)

    narrator.step(
        "Register both care-of addresses and bind six flows",
        f"ssh, https and VoIP to {first}, the others to {second}: each a flow binding of its own.",
    )
    run.start_agents(
        run.topology.mobile_node_configuration(preferred=second), run.topology.home_agent_configuration()
    )
    run.await_bindings()
    bindings = {}
    for fid, (name, port) in enumerate(PORTS.items(), start=1):
        protocol = "udp" if name in ("voip", "video") else "tcp"
        bids = [f"mn-{where[name]}"]
        run.flow("add", fid, f"{name} bound", bids=bids, next_header=protocol, source_port=str(port))
        bindings[name] = FlowBinding(fid, f"{protocol}, source port {port}", 1 if where[name] == first else 2)
    run.await_mirrored(*range(1, len(PORTS) + 1))

    narrator.step("Start six kinds of traffic", "All from the correspondent node.")
    run.start_traffic(six_applications(run, seed), bindings)
    run.loads = [run.home_agent_load(), run.openflow_load()]
    bound = {name: [where[name]] for name in names}
    run.phase("baseline", unit * UNITS["baseline"], bound)

    narrator.step("Move one flow while it runs", f"https to {second}, and back; the others stay.")
    for network in (second, first):
        run.flow("replace", HTTPS, f"https moved to {network}", bids=[f"mn-{network}"])
        run.phase(f"https on {network}", unit * UNITS["replace"] / 2, bound | {"https": [network]})

    narrator.step(f"Take {first} away", "Its flows follow the Binding Update.")
    run.link_down(first)
    run.phase(f"{first} lost", unit * UNITS["loss"], dict.fromkeys(names, [second]))
    narrator.step(f"Bring {first} back", "Its flows return.")
    run.link_up(first)
    run.phase(f"{first} back", unit * UNITS["return"], bound)
    before, run.loads = run.loads, [run.home_agent_load(), run.openflow_load()]
    run.loads = [after - earlier for earlier, after in zip(before, run.loads, strict=True)]
    run.stop_traffic()


def judge(result: Result, plane: str) -> list[Check]:
    """What one run was to show."""
    checks = [
        Check(text=f"{plane}: {check.text}", passed=check.passed, detail=check.detail)
        for check in verdict.path_checks(result)
    ]
    lost = verdict.find_handover(result, "link-down")
    text = f"{plane}: flows that do not concern a lost network lose nothing"
    return [*checks, verdict.loss_check(result, text, lost, ("web", "video", "background"))]


def passed_by(planes: dict[str, dict]) -> Check:
    """What both kinds of runs together were to show."""
    through = {plane: figure["home_agent"]["packets"] for plane, figure in planes.items()}
    return Check(
        text="Mirrored flows pass the home agent by: less than a twentieth of the packets goes there",
        passed=through["switches"] < through["home agent"] / 20,
        detail=", ".join(f"{plane}: {packets:,.0f} packets" for plane, packets in through.items()),
    )


def once(case: Case, seed: int, folder: Path, arguments, narrator: Narrator) -> Result:
    """One run under one plane, its files in `folder`."""
    plane = case.parameters["steering"]
    topology = command_line.network(SdnTopology, arguments, seed)
    narrator.say(topology.draw())
    narrator.say(f"\n=== Steering by the {plane} ===")
    mirrored, whole = PLANES[plane], arguments.pcap
    with SwitchedRun(topology, folder, narrator, mirrored=mirrored, whole_packets=whole) as run:
        scenario(run, narrator, arguments, seed)
        if arguments.cli:
            run.command_line()
        facts = {"steering": plane, "seed": seed, "backends": run.backends()}
        facts["switch_datapath"] = run.network.daemon.datapath
        result = run.finish("sdn", facts)
    result.checks = judge(result, plane)
    result.metadata["figures"] = plane_figures(result, *run.loads)
    mark(result, case)
    write_files(result, folder, ("png",))
    return result


def main() -> int:
    parser = command_line.parser("sdn", DESCRIPTION, EPILOG, duration_s=30, quick_s=12)
    command_line.add_repeat_options(parser)
    arguments = command_line.parse(parser, SdnTopology)
    folder = command_line.begin(arguments, "sdn")
    narrator = Narrator(sys.stderr if arguments.json else sys.stdout)
    runs = run_repeatedly(
        "sdn", arguments, [{"steering": plane} for plane in PLANES], folder, narrator,
        lambda case, seed, place: once(case, seed, place, arguments, narrator),
    )  # fmt: skip
    each: dict[str, list[Result]] = {plane: [] for plane in PLANES}
    for case, result in runs:
        each[case.parameters["steering"]].append(result)
    planes = {plane: medians([one.metadata["figures"] for one in found]) for plane, found in each.items()}
    checks = [check for _, result in runs for check in result.checks] + [passed_by(planes)]
    narrator.say("\n" + comparison(planes, list(PORTS)))
    if arguments.repeat > 1:
        narrator.say(f"\n(medians of {arguments.repeat} runs of each plane)")
        summarise(arguments, runs, folder, narrator)
    else:
        for plane, found in each.items():
            narrator.say(f"\n--- {plane} ---\n" + table.report(found[0]))
    narrator.say("What these runs were to show:\n" + verdict.summary(checks))
    document = {
        "schema_version": 1,
        "experiment": "sdn",
        "runs": arguments.repeat,
        "metadata": runs[-1][1].metadata,
        "planes": planes,
        "checks": [{"text": c.text, "passed": c.passed, "detail": c.detail} for c in checks],
        "warnings": {
            plane: [text for one in found for text in one.warnings] for plane, found in each.items()
        },
    }
    (folder / "comparison.json").write_text(json.dumps(document, indent=1))
    narrator.say(f"\nFiles in {folder}: comparison.json, and a folder for each run")
    if arguments.json:
        print(json.dumps(document))
    return 0 if all(check.passed for check in checks) else 1


if __name__ == "__main__":
    sys.exit(guarded("sdn", main))
