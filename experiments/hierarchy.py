#!/usr/bin/env python3
"""Bindings at the home agent against bindings at a mobility anchor point, over the distance to the home
agent."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from testbed.environment import reexec_in_project_environment  # noqa: E402

reexec_in_project_environment()

from testbed.experiment import matrix  # noqa: E402
from testbed.experiment import options as command_line  # noqa: E402
from testbed.experiment.run import guarded  # noqa: E402

DESCRIPTION = """\
Flows bound at the home agent, and flows bound at a mobility anchor point near the access networks, while the
home agent is ever farther away; a network is lost and comes back.
"""
EPILOG = """\
examples:
  sudo ./run hierarchy --quick
  sudo ./run hierarchy --distance 0 --distance 50 --distance 200 --repeat 10 --out results/hierarchy

The output folder gets report.html, series.json, and result.json of each run. Exit status: 0 if every case has
a result, 1 if not, 2 if it could not run.
"""
STRATEGIES = ("static", "anchored")
#: One-way delay between core and home agent, ms.
DISTANCES_MS, QUICK_DISTANCES_MS = (0, 25, 50, 100), (0, 50, 100)
METRICS = (
    "delay_p95_ms",
    "first_packet_ms",
    "interruption_ms",
    "lost_percent",
    "signalling_octets",
    "goodput_mbit",
)


def main() -> int:
    parser = command_line.series_parser("hierarchy", DESCRIPTION, EPILOG, repeat=5, quick_repeat=1)
    parser.add_argument(
        "--distance", action="append", type=float, metavar="MS", help="core to home agent, one way"
    )
    matrix.add_link_option(parser, [matrix.DEFAULT_LINKS])
    arguments = parser.parse_args()
    distances = arguments.distance or (QUICK_DISTANCES_MS if arguments.quick else DISTANCES_MS)
    if min(distances) < 0 or max(distances) > 1000:
        parser.error("--distance: expected 0 to 1000 ms")
    cases, skipped = matrix.cases(arguments, STRATEGIES, ["link-loss"])
    cases = [
        matrix.with_parameters(case, ha_distance_ms=distance) for case in cases for distance in distances
    ]
    return matrix.run_series("hierarchy", arguments, cases, METRICS, skipped)


if __name__ == "__main__":
    sys.exit(guarded("hierarchy", main))
