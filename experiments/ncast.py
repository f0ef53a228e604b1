#!/usr/bin/env python3
"""What n-cast buys, and what it costs: losses and late packets against copies and load."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from testbed.environment import reexec_in_project_environment  # noqa: E402

reexec_in_project_environment()

from testbed.experiment import matrix  # noqa: E402
from testbed.experiment import options as command_line  # noqa: E402
from testbed.experiment.run import guarded  # noqa: E402

DESCRIPTION = """\
Real-time flows by one network, by all networks during a handover, and by all networks always; while a network
is lost without a word, while its loss is announced, and while nothing happens but the losses of a bad link.
"""
EPILOG = """\
examples:
  sudo ./run ncast --quick
  sudo ./run ncast --links wlan-lossy+4g --repeat 10 --out results/ncast

The output folder gets report.html, series.json, and result.json of each run. Exit status: 0 if every
case has a result, 1 if not, 2 if it could not run.
"""
STRATEGIES = ("static", "ncast-handover", "ncast-always")
SCENARIOS = ("link-loss", "announced-loss", "steady")
METRICS = (
    "lost_percent", "overhead_percent", "duplicates_percent", "late_percent", "interruption_ms",
    "delay_p95_ms", "reordered_percent",
)  # fmt: skip


def main() -> int:
    parser = command_line.series_parser("ncast", DESCRIPTION, EPILOG, repeat=5, quick_repeat=1)
    matrix.add_link_option(parser, [("wlan-lossy", "4g")])
    arguments = parser.parse_args()
    cases, skipped = matrix.cases(arguments, STRATEGIES, SCENARIOS)
    return matrix.run_series("ncast", arguments, cases, METRICS, skipped)


if __name__ == "__main__":
    sys.exit(guarded("ncast", main))
