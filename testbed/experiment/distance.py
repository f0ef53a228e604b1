"""Bindings at the home agent against bindings elsewhere, while the home agent is ever farther away.

Function: `compare_over_distance`, what the experiments `optimisation` and `hierarchy` do.
"""

from testbed.experiment import matrix
from testbed.experiment import options as command_line
from testbed.experiment.parameters import MAX_DISTANCE_MS

#: With bindings at the home agent.
REFERENCE = "static"
#: One-way delay between core and home agent, ms.
DISTANCES_MS, QUICK_DISTANCES_MS = (0.0, 25.0, 50.0, 100.0), (0.0, 50.0, 100.0)
METRICS = (
    "delay_p95_ms", "first_packet_ms", "interruption_ms", "lost_percent", "signalling_octets",
    "goodput_mbit",
)  # fmt: skip
_EPILOG = """\
examples:
  sudo ./run {name} --quick
  sudo ./run {name} --distance 0 --distance 50 --distance 200 --repeat 10 --out results/{name}

The output folder gets report.html, series.json, and result.json of each run. Exit status: 0 if every case has
a result, 1 if not, 2 if it could not run.
"""


def compare_over_distance(name: str, strategy: str, description: str) -> int:
    """The experiment `name`: `strategy` beside the one with bindings at the home agent, at each distance;
    the exit status. Raises what a series raises."""
    parser = command_line.series_parser(
        name, description, _EPILOG.format(name=name), repeat=5, quick_repeat=1
    )
    every, quick = command_line.listed(DISTANCES_MS), command_line.listed(QUICK_DISTANCES_MS)
    words = f"(default: {every}; with --quick {quick})"
    parser.add_argument("--distance", action="append", type=float, metavar="MS",
                        help=f"core to home agent, one way; may be given several times {words}")  # fmt: skip
    matrix.add_link_option(parser, [matrix.DEFAULT_LINKS])
    arguments = parser.parse_args()
    distances = arguments.distance or (QUICK_DISTANCES_MS if arguments.quick else DISTANCES_MS)
    if min(distances) < 0 or max(distances) > MAX_DISTANCE_MS:
        parser.error(f"--distance: expected 0 to {MAX_DISTANCE_MS:g} ms")
    cases, skipped = matrix.cases(arguments, (REFERENCE, strategy), ["link-loss"])
    cases = [
        matrix.with_parameters(case, ha_distance_ms=distance) for case in cases for distance in distances
    ]
    return matrix.run_series(name, arguments, cases, METRICS, skipped)
