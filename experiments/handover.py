#!/usr/bin/env python3
"""How long flows are without a way in each kind of handover, and in which stage the time goes."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from testbed.environment import reexec_in_project_environment  # noqa: E402

reexec_in_project_environment()

from testbed.experiment import matrix  # noqa: E402
from testbed.experiment import options as command_line  # noqa: E402
from testbed.experiment.run import guarded  # noqa: E402

DESCRIPTION = """\
Flows bound by application, or all to one care-of address, in four kinds of handover: the first network
is lost without a word (hard), its loss is announced (soft), its interface moves within its network, and
to the other network and back. Each run has a time without events first, as its own yardstick;
repetitions are in random order.
"""
EPILOG = """\
examples:
  sudo ./run handover --quick
  sudo ./run handover --repeat 10 --links wlan+5g --links wlan+satellite --out results/handover
  sudo ./run handover --scenario profiles/scenarios/link-loss.toml

The output folder gets report.html, series.json, and result.json of each run. Exit status: 0 if every
case has a result, 1 if not, 2 if it could not run.
"""
SCENARIOS = ("link-loss", "announced-loss", "move-within", "move-between")
STRATEGIES = ("single", "static")
METRICS = (
    "interruption_ms", "first_packet_ms", "acknowledged_ms", "lost_percent", "disturbance_ms", "recovery_ms",
    "baseline_interruption_ms", "signalling_packets",
)  # fmt: skip


def main() -> int:
    parser = command_line.series_parser("handover", DESCRIPTION, EPILOG, repeat=5, quick_repeat=1)
    matrix.add_scenario_option(parser, SCENARIOS)
    matrix.add_link_option(parser, [matrix.DEFAULT_LINKS])
    arguments = parser.parse_args()
    cases, skipped = matrix.cases(arguments, STRATEGIES, arguments.scenario or SCENARIOS)
    return matrix.run_series("handover", arguments, cases, METRICS, skipped)


if __name__ == "__main__":
    sys.exit(guarded("handover", main))
