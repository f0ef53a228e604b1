#!/usr/bin/env python3
"""How registration and handover hold as flow bindings and mobile nodes grow in number."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from testbed.environment import reexec_in_project_environment  # noqa: E402

reexec_in_project_environment()

from testbed.experiment import matrix  # noqa: E402
from testbed.experiment import options as command_line  # noqa: E402
from testbed.experiment.case import Case  # noqa: E402
from testbed.experiment.parameters import MOST_FLOW_BINDINGS, MOST_MOBILE_NODES  # noqa: E402
from testbed.experiment.run import guarded  # noqa: E402

DESCRIPTION = """\
First flow bindings of one mobile node grow in number, then mobile nodes. Measured: how long it takes until
all is registered; when all mobile nodes lose their first network at once, how long until they are
acknowledged; and the interruption of a flow of 500 packets/s of the first one.
"""
EPILOG = """\
examples:
  sudo ./run load --quick
  sudo ./run load --flow-bindings 1 --flow-bindings 80 --mobile-nodes 1 --mobile-nodes 64 --out results/load

Each mobile node is an agent process of its own on this machine: beyond some dozens, its processors are what
is measured.

The output folder gets report.html, series.json, and result.json of each run. Exit status: 0 if every
case has a result, 1 if not, 2 if it could not run.
"""
FLOW_BINDINGS, MOBILE_NODES = (1, 10, 40, 80), (1, 4, 16, 32)
QUICK_FLOW_BINDINGS, QUICK_MOBILE_NODES = (1, 40), (1, 8)
METRICS = (
    "setup_ms", "storm_p95_ms", "first_packet_ms", "interruption_ms", "lost_percent", "signalling_octets",
)  # fmt: skip


def main() -> int:
    parser = command_line.series_parser("load", DESCRIPTION, EPILOG, repeat=3, quick_repeat=1)
    for option, what, default, quick in (
        ("--flow-bindings", "of one mobile node", FLOW_BINDINGS, QUICK_FLOW_BINDINGS),
        ("--mobile-nodes", "with four flow bindings each", MOBILE_NODES, QUICK_MOBILE_NODES),
    ):
        words = f"(default: {command_line.listed(default)}; with --quick {command_line.listed(quick)})"
        parser.add_argument(option, action="append", type=int, metavar="N",
                            help=f"{what}; may be given several times {words}")  # fmt: skip
    matrix.add_link_option(parser, [matrix.DEFAULT_LINKS])
    arguments = parser.parse_args()
    flows = arguments.flow_bindings or (QUICK_FLOW_BINDINGS if arguments.quick else FLOW_BINDINGS)
    nodes = arguments.mobile_nodes or (QUICK_MOBILE_NODES if arguments.quick else MOBILE_NODES)
    most = {"flow bindings": (flows, MOST_FLOW_BINDINGS), "mobile nodes": (nodes, MOST_MOBILE_NODES)}
    for what, (numbers, limit) in most.items():
        if not all(1 <= number <= limit for number in numbers):
            parser.error(f"expected 1 to {limit} {what}")
    common = command_line.common_parameters(arguments)
    sizes = [{"mobile_nodes": 1, "flow_bindings": number} for number in flows]
    sizes += [{"mobile_nodes": number, "flow_bindings": 4} for number in nodes]
    cases = [
        Case(kind="load", parameters={"links": links, **size, **common}, seed=arguments.seed)
        for links in arguments.links or arguments.default_links
        for size in sizes
    ]
    return matrix.run_series("load", arguments, cases, METRICS)


if __name__ == "__main__":
    sys.exit(guarded("load", main))
