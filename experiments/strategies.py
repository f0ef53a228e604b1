#!/usr/bin/env python3
"""Steering strategies compared: the same network, traffic, events and random numbers for each of them."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from testbed.environment import reexec_in_project_environment  # noqa: E402

reexec_in_project_environment()

from testbed.experiment import matrix  # noqa: E402
from testbed.experiment import options as command_line  # noqa: E402
from testbed.experiment.run import guarded  # noqa: E402
from testbed.strategy.registry import all_strategies  # noqa: E402

DESCRIPTION = """\
Every strategy under every scenario over every pair of links. Repetitions are in random order; a run on a
machine that was too busy is done again. What this machine lacks for a strategy is said, never passed over.
"""
SCENARIOS = ("link-loss", "announced-loss", "degradation")
METRICS = (
    "interruption_ms", "lost_percent", "delay_p95_ms", "goodput_mbit", "overhead_percent",
    "reordered_percent", "duplicates_percent", "disturbance_ms", "signalling_packets",
)  # fmt: skip


def epilog() -> str:
    width = max(map(len, all_strategies()))
    known = "\n".join(f"  {name:{width}}  {found.summary}" for name, found in all_strategies().items())
    return f"""\
strategies (one of your own: the path of its file, docs/strategies.md):
{known}

examples:
  sudo ./run strategies --quick
  sudo ./run strategies --strategy static --strategy mine.py --links wlan+satellite --out results/mine

The output folder gets report.html, series.json, and result.json of each run. Exit status: 0 if every
case has a result, 1 if not, 2 if it could not run.
"""


def main() -> int:
    parser = command_line.series_parser("strategies", DESCRIPTION, epilog(), repeat=5, quick_repeat=1)
    parser.add_argument(
        "--strategy",
        action="append",
        metavar="NAME",
        help="one of those below; may be given several times (default: all)",
    )
    matrix.add_scenario_option(parser, SCENARIOS, "; with --quick the first")
    matrix.add_link_option(parser, [matrix.DEFAULT_LINKS])
    arguments = parser.parse_args()
    scenarios = arguments.scenario or (SCENARIOS[:1] if arguments.quick else SCENARIOS)
    cases, skipped = matrix.cases(arguments, arguments.strategy or all_strategies(), scenarios)
    return matrix.run_series("strategies", arguments, cases, METRICS, skipped)


if __name__ == "__main__":
    sys.exit(guarded("strategies", main))
