#!/usr/bin/env python3
"""Flow bindings of a mobile router, for a node that knows nothing of mobility, against those of a mobile
node."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from testbed.environment import reexec_in_project_environment  # noqa: E402

reexec_in_project_environment()

from testbed.experiment import matrix  # noqa: E402
from testbed.experiment import options as command_line  # noqa: E402
from testbed.experiment.run import guarded  # noqa: E402

DESCRIPTION = """\
The same traffic, events and strategies twice: for a mobile node, and for a node in the network behind a
mobile router (NEMO basic support, RFC 3963), which has the flow bindings. What does the router add?
"""
EPILOG = """\
examples:
  sudo ./run nemo --quick
  sudo ./run nemo --repeat 10 --links wlan+5g --out results/nemo

The output folder gets report.html, series.json, and result.json of each run. Exit status: 0 if every case has
a result, 1 if not, 2 if it could not run.
"""
STRATEGIES = ("static", "ncast-always")
SCENARIOS = ("link-loss", "announced-loss")
METRICS = (
    "interruption_ms", "first_packet_ms", "lost_percent", "duplicates_percent", "delay_p95_ms",
    "disturbance_ms", "signalling_octets", "overhead_percent",
)  # fmt: skip


def main() -> int:
    parser = command_line.series_parser("nemo", DESCRIPTION, EPILOG, repeat=5, quick_repeat=1)
    matrix.add_link_option(parser, [matrix.DEFAULT_LINKS])
    arguments = parser.parse_args()
    cases, skipped = matrix.cases(arguments, STRATEGIES, SCENARIOS[:1] if arguments.quick else SCENARIOS)
    cases = [matrix.with_parameters(case, mobile=kind) for case in cases for kind in ("node", "router")]
    return matrix.run_series("nemo", arguments, cases, METRICS, skipped)


if __name__ == "__main__":
    sys.exit(guarded("nemo", main))
