#!/usr/bin/env python3
"""Steer the flows of a multihomed mobile node, flow by flow, and measure what that does to each of them.

The usage scenario of draft-soliman-monami6-flow-binding-05 §5 and what it is for: flows bound to one of two
access networks, moved, saved from losing a network, sent over both, discarded.
"""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from testbed.environment import reexec_in_project_environment  # noqa: E402

reexec_in_project_environment()

from pathlib import Path  # noqa: E402

import msgspec  # noqa: E402

from testbed.experiment import options as command_line  # noqa: E402
from testbed.experiment import verdict  # noqa: E402
from testbed.experiment.applications import PORTS, six_applications  # noqa: E402
from testbed.experiment.case import Case  # noqa: E402
from testbed.experiment.narrator import Narrator  # noqa: E402
from testbed.experiment.repetition import mark, run_repeatedly, summarise  # noqa: E402
from testbed.experiment.run import Run, guarded  # noqa: E402
from testbed.report import table  # noqa: E402
from testbed.report.files import write_files  # noqa: E402
from testbed.report.flow_figures import FlowBinding  # noqa: E402
from testbed.report.result import Check, Result, encode  # noqa: E402
from topologies.multihome import MultihomeTopology  # noqa: E402

DESCRIPTION = """\
A mobile node with two (or more) interfaces registers a care-of address in each access network with its home
agent, and binds its flows to them: ssh and https to the first network, all else by default to the second.
Six kinds of traffic run while bindings are replaced, a network goes away and comes back, a flow is sent over
both networks and another one is discarded. Real Linux stacks, real packets, in private network namespaces:
the machine's own network is not touched, and nothing stays.
"""
EPILOG = """\
examples:
  sudo ./run multihome --quick
  sudo ./run multihome --quick --repeat 5 --out five/
  sudo ./run multihome --access wlan:50:10 --access sat:20:250:5:0.5 --pcap --out sat/
  sudo ./run multihome --cli      then: mn flowbind flows, mn ping -c3 cn, exit

The output folder gets result.json (everything; docs/result-schema.md), flows.csv, plots, events.jsonl, and
the captures; with --repeat there is a folder for each run, and report.html for all. Exit status: 0 if
everything that the run is to show was shown, 1 if not, 2 if it could not run.
"""
SSH, HTTPS, VOIP, VIDEO = 1, 2, 3, 4
#: The steps' shares of the time.
UNITS = {"baseline": 2, "replace": 1.5, "loss": 2, "return": 1.5, "n-cast": 1, "second loss": 2, "discard": 1}


def scenario(run: Run, narrator: Narrator, arguments, seed: int) -> None:
    """The steps, one after the other; `run` records what happens."""
    first, second = (network.name for network in command_line.access_networks(arguments)[:2])
    unit = command_line.traffic_seconds(arguments) / sum(UNITS.values())
    everything = tuple(PORTS)
    bound = {"ssh": [first], "https": [first], **{name: [second] for name in everything[2:]}}

    narrator.step(
        f"Register both care-of addresses, {second} preferred",
        "One Binding Update carries a Binding Identifier for each care-of address; the one with the lowest "
        "priority value is the default binding (draft §4.3).",
    )
    run.start_agents(
        run.topology.mobile_node_configuration(preferred=second), run.topology.home_agent_configuration()
    )
    for binding in run.await_bindings():
        default = "   <- default" if binding["default"] else ""
        narrator.note(f"BID {binding['bid']}  {binding['interface']:12} {binding['registered']}{default}")

    narrator.step(
        f"Bind flows: ssh and https to {first}, everything else stays with {second}",
        "Flow Identification options with PRO=Add, Action=Forward and a traffic selector; the home agent "
        "classifies what it tunnels, the mobile node what it sends (draft §4.4, §5).",
    )
    for fid, name, port in ((SSH, "ssh", "22"), (HTTPS, "https", "443")):
        selector = {"source_port": port, "next_header": "tcp"}
        run.flow("add", fid, f"{name} bound to {first}", bids=[f"mn-{first}"], **selector)
        narrator.note(f"FID {fid}: tcp from port {port} -> {first}, accepted by the home agent")

    narrator.step(
        "Start six kinds of traffic",
        "Interactive TCP (ssh), bulk TCP (https, background: iperf3), web pages, VoIP (50 packets/s) and "
        "video (5 Mbit/s), all from the correspondent node.",
    )
    default = FlowBinding(None, "", 2)
    bindings = {name: default for name in everything[2:]} | {
        "ssh": FlowBinding(SSH, "tcp, source port 22", 1),
        "https": FlowBinding(HTTPS, "tcp, source port 443", 1),
        "voip": FlowBinding(VOIP, "udp, source port 5004", [1, 2]),
        "video": FlowBinding(VIDEO, "udp, source port 5006", None),
    }
    run.start_traffic(six_applications(run, seed), bindings)
    run.phase("baseline", unit * UNITS["baseline"], bound)

    narrator.step(
        f"Replace one flow's binding while it runs: https to {second}, and back",
        "PRO=Replace with the FID and another Binding Reference; no flow description, as the filter stays "
        "(draft §4.5, §6.2).",
    )
    for network in (second, first):
        run.flow("replace", HTTPS, f"https moved to {network}", bids=[f"mn-{network}"])
        narrator.note(f"FID {HTTPS} -> {network}, accepted")
        run.phase(f"https on {network}", unit * UNITS["replace"] / 2, bound | {"https": [network]})

    narrator.step(
        f"Take {first} away",
        f"The link is lost. One Binding Identifier option binds its BID to the address in {second}: all its "
        "flows follow, the others feel nothing (draft §6.2).",
    )
    run.link_down(first)
    elsewhere = {name: [second] for name in everything}
    run.phase(f"{first} lost", unit * UNITS["loss"], elsewhere)

    narrator.step(f"Bring {first} back", "Its care-of address is registered again: its flows return.")
    run.link_up(first)
    run.phase(f"{first} back", unit * UNITS["return"], bound)

    narrator.step(
        f"Send VoIP over both networks, and lose {first} again",
        "Action=n-cast with a Binding Reference to both BIDs: the home agent copies each packet in the "
        "kernel. Whatever is lost with one network arrives by the other (draft §3.1, §8.1).",
    )
    everywhere = {"bids": [f"mn-{first}", f"mn-{second}"]}
    run.flow(
        "add",
        VOIP,
        "voip sent over both",
        action="n-cast",
        source_port="5004",
        next_header="udp",
        **everywhere,
    )
    run.phase("voip over both", unit * UNITS["n-cast"], bound | {"voip": [first, second]})
    run.link_down(first)
    run.phase(f"{first} lost again", unit * UNITS["second loss"] / 2, elsewhere)
    run.link_up(first)
    run.phase(f"{first} back again", unit * UNITS["second loss"] / 2, bound | {"voip": [first, second]})

    narrator.step(
        "Discard the video", "Action=discard: the home agent drops the flow's packets (draft §3.1)."
    )
    run.flow(
        "add", VIDEO, "video discarded", action="discard", source_port="5006", next_header="udp", priority=1
    )
    run.phase("video discarded", unit * UNITS["discard"], bound | {"voip": [first, second], "video": []})
    run.stop_traffic()


def judge(result: Result, bindings_left: int) -> list[Check]:
    """What this run was to show."""
    lost, lost_again = (verdict.find_handover(result, "link-down", which) for which in (0, 1))
    stay = ("web", "voip", "video", "background")
    return [
        *verdict.path_checks(result),
        verdict.loss_check(result, "Flows that do not concern a lost network lose nothing", lost, stay),
        verdict.loss_check(
            result, "VoIP over both networks loses nothing when one goes away", lost_again, ["voip"]
        ),
        Check(
            text="After de-registration the home agent has no binding left",
            passed=bindings_left == 0,
            detail=f"{bindings_left} bindings at the home agent",
        ),
    ]


def show(result: Result, folder: Path, narrator: Narrator) -> None:
    """Tables, verdict, and where everything is."""
    narrator.say("\n" + table.report(result))
    narrator.say("What this run was to show:\n" + verdict.summary(result.checks))
    narrator.say(f"\nFiles in {folder}:")
    for path in sorted(folder.iterdir()):
        if path.is_file():
            narrator.say(f"  {path.name}")
    narrator.say("  logs/ (agents, probes, events), captures/ (pcap)")


def once(case: Case, seed: int, folder: Path, arguments, narrator: Narrator) -> Result:
    """One run: network, scenario, result, its files in `folder`."""
    topology = command_line.network(MultihomeTopology, arguments, seed)
    narrator.say(topology.draw())
    with Run(topology, folder, narrator, whole_packets=arguments.pcap) as run:
        scenario(run, narrator, arguments, seed)
        if arguments.cli:
            run.command_line()
        narrator.step("De-register", "A Binding Update with lifetime zero removes all bindings.")
        run.ask("deregister")
        left = len(run.ha.agent.ask("bindings"))
        narrator.note(f"{left} bindings left at the home agent")
        narrator.say("\nComputing the result from logs and captures ...")
        duration_s = command_line.traffic_seconds(arguments)
        facts = {"seed": seed, "duration_s": duration_s, "backends": run.backends()}
        result = run.finish("multihome", facts)
    result.checks = judge(result, left)
    mark(result, case)
    write_files(result, folder, ("png",) if arguments.quick else ("png", "pdf"))
    show(result, folder, narrator)
    return result


def main() -> int:
    parser = command_line.parser("multihome", DESCRIPTION, EPILOG, duration_s=45, quick_s=18)
    command_line.add_repeat_options(parser)
    arguments = command_line.parse(parser, MultihomeTopology)
    folder = command_line.begin(arguments, "multihome")
    narrator = Narrator(sys.stderr if arguments.json else sys.stdout)
    runs = run_repeatedly(
        "multihome", arguments, [{}], folder, narrator,
        lambda case, seed, place: once(case, seed, place, arguments, narrator),
    )  # fmt: skip
    summary = summarise(arguments, runs, folder, narrator) if arguments.repeat > 1 else None
    if arguments.json:
        document = encode(runs[0][1]) if summary is None else msgspec.json.encode(summary)
        sys.stdout.buffer.write(document + b"\n")
    return 0 if all(check.passed for _, result in runs for check in result.checks) else 1


if __name__ == "__main__":
    sys.exit(guarded("multihome", main))
