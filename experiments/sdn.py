#!/usr/bin/env python3
"""The same flows under two planes of steering: in the home agent's tunnels, and in the network's switches.

Two runs, one after the other, over the same switches, links, flows and seed.
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
from testbed.experiment.narrator import Narrator  # noqa: E402
from testbed.experiment.run import guarded  # noqa: E402
from testbed.experiment.switched_run import SwitchedRun  # noqa: E402
from testbed.measure.traffic import BulkTransfer, TcpProbe, Traffic, UdpProbe  # noqa: E402
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
  sudo python experiments/sdn.py --quick
  sudo python experiments/sdn.py --access wlan:50:10 --access sat:20:250 --out comparison/

The output folder gets comparison.json, and a folder for each run with its result.json, plots and logs. Exit
status: 0 if everything that the runs are to show was shown, 1 if not, 2 if they could not run.
"""
SSH, HTTPS, WEB, VOIP, VIDEO, REST = 1, 2, 3, 4, 5, 6
PORTS = {"ssh": 22, "https": 443, "web": 80, "voip": 5004, "video": 5006, "background": 8080}
#: Loads that fit the smallest default network together: what gets lost is lost to mobility, not to queues.
HTTPS_BPS, BACKGROUND_BPS = 5_000_000, 2_000_000
VIDEO_BPS, VIDEO_OCTETS = 5_000_000, 1200
#: The steps' shares of the time.
UNITS = {"baseline": 2, "replace": 2, "loss": 2, "return": 2}
PLANES = {"home agent": False, "switches": True}


def flows(run: SwitchedRun, seed: int) -> list[Traffic]:
    """Six kinds of traffic, all from the correspondent node to the mobile node's home address."""
    ends = run.correspondent, run.mobile, run.logs
    per_second = VIDEO_BPS / 8 / VIDEO_OCTETS
    return [
        TcpProbe("ssh", 1, *ends, port=PORTS["ssh"], kind="interactive", per_second=20, size=64, seed=seed),
        BulkTransfer("https", *ends, port=PORTS["https"], bitrate=HTTPS_BPS),
        TcpProbe(
            "web", 2, *ends, port=PORTS["web"], kind="web", per_second=1, page_size=60_000, seed=seed + 2
        ),
        UdpProbe("voip", 3, *ends, port=PORTS["voip"], per_second=50, size=172, seed=seed + 3),
        UdpProbe(
            "video", 4, *ends, port=PORTS["video"], per_second=per_second, size=VIDEO_OCTETS, seed=seed + 4
        ),
        BulkTransfer("background", *ends, port=PORTS["background"], bitrate=BACKGROUND_BPS),
    ]


def scenario(run: SwitchedRun, narrator: Narrator, arguments) -> None:
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
    run.start_traffic(flows(run, arguments.seed), bindings)
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


def figures(run: SwitchedRun, result: Result) -> dict:
    """What is compared."""
    home_agent, openflow = run.loads
    lost = verdict.find_handover(result, "link-down")
    return {
        "flows": {
            flow.name: {
                "goodput_bps": flow.goodput_bps,
                "one_way_delay_ms": flow.one_way_delay_ms and flow.one_way_delay_ms.p50,
                "one_way_delay_p95_ms": flow.one_way_delay_ms and flow.one_way_delay_ms.p95,
                "lost": flow.lost,
                "interruption_in_handover_ms": lost.flows[flow.name].interruption_ms
                if lost and flow.name in lost.flows
                else None,
            }
            for flow in result.flows
        },
        "home_agent": {"packets": home_agent.packets, "octets": home_agent.octets},
        "signalling": {"packets": result.signalling.packets, "octets": result.signalling.octets},
        "openflow": {"messages": openflow.packets, "octets": openflow.octets},
        "handover_stages_ms": lost.stages_ms if lost else None,
    }


def comparison(planes: dict[str, dict], names: list[str]) -> str:
    """One line a figure, one column a plane."""

    def number(value: float | None, scale: float = 1.0) -> str:
        return "-" if value is None else f"{value * scale:,.1f}"

    rows = []
    for title, key, scale in (
        ("goodput, Mbit/s", "goodput_bps", 1e-6),
        ("one-way delay, ms (median)", "one_way_delay_ms", 1),
        ("interruption when the network is lost, ms", "interruption_in_handover_ms", 1),
        ("lost packets", "lost", 1),
    ):
        rows.append([title, *("" for _ in planes)])
        rows += [[f"  {n}", *(number(p["flows"][n][key], scale) for p in planes.values())] for n in names]
    for title, part, key in (
        ("home agent: packets from the core", "home_agent", "packets"),
        ("home agent: octets from the core", "home_agent", "octets"),
        ("mobility messages on the access links", "signalling", "packets"),
        ("OpenFlow messages to the switches", "openflow", "messages"),
        ("OpenFlow octets to the switches", "openflow", "octets"),
    ):
        rows.append([title, *(f"{plane[part][key]:,}" for plane in planes.values())])
    rows.insert(0, ["", *planes])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    )


def judge(planes: dict[str, dict], results: dict[str, Result]) -> list[Check]:
    """What the runs were to show."""
    checks = []
    for plane, result in results.items():
        for check in verdict.path_checks(result):
            checks.append(Check(text=f"{plane}: {check.text}", passed=check.passed, detail=check.detail))
        lost = verdict.find_handover(result, "link-down")
        text = f"{plane}: flows that do not concern a lost network lose nothing"
        checks.append(verdict.loss_check(text, lost, ("web", "video", "background")))
    through = {plane: figure["home_agent"]["packets"] for plane, figure in planes.items()}
    checks.append(
        Check(
            text="Mirrored flows pass the home agent by: less than a twentieth of the packets goes there",
            passed=through["switches"] < through["home agent"] / 20,
            detail=", ".join(f"{plane}: {packets:,} packets" for plane, packets in through.items()),
        )
    )
    return checks


def main() -> int:
    parser = command_line.parser("sdn", DESCRIPTION, EPILOG, duration_s=30, quick_s=12)
    arguments = parser.parse_args()
    folder = command_line.begin(arguments, "sdn")
    narrator = Narrator(sys.stderr if arguments.json else sys.stdout)
    planes, results = {}, {}
    for plane, mirrored in PLANES.items():
        topology = SdnTopology(
            access_networks=command_line.access_networks(arguments),
            link_backend=arguments.link_backend,
            tunnel_backend=arguments.tunnel_backend,
            seed=arguments.seed,
        )
        if not mirrored:
            narrator.say(topology.draw())
        narrator.say(f"\n=== Steering by the {plane} ===")
        part = Path(folder, plane.replace(" ", "-"))
        with SwitchedRun(topology, part, narrator, mirrored=mirrored, whole_packets=arguments.pcap) as run:
            scenario(run, narrator, arguments)
            if arguments.cli:
                run.command_line()
            facts = {"steering": plane, "seed": arguments.seed, "backends": run.backends()}
            facts["switch_datapath"] = run.network.daemon.datapath
            result = run.finish("sdn", facts)
        planes[plane], results[plane] = figures(run, result), result
        write_files(result, part, ("png",))
    checks = judge(planes, results)
    document = {
        "schema_version": 1,
        "experiment": "sdn",
        "metadata": results["switches"].metadata,
        "planes": planes,
        "checks": [{"text": c.text, "passed": c.passed, "detail": c.detail} for c in checks],
        "warnings": {plane: result.warnings for plane, result in results.items()},
    }
    (folder / "comparison.json").write_text(json.dumps(document, indent=1))
    narrator.say("\n" + comparison(planes, list(PORTS)))
    for plane, result in results.items():
        narrator.say(f"\n--- {plane} ---\n" + table.report(result))
    narrator.say("What these runs were to show:\n" + verdict.summary(checks))
    narrator.say(f"\nFiles in {folder}: comparison.json, home-agent/, switches/")
    if arguments.json:
        print(json.dumps(document))
    return 0 if all(check.passed for check in checks) else 1


if __name__ == "__main__":
    sys.exit(guarded("sdn", main))
