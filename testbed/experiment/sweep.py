"""A grid of cases from a file: `./run sweep FILE` (`python -m testbed.experiment.sweep FILE`).

Class: `SweepFile`. Functions: `load_sweep`, `grid`, `combinations`. The file is TOML::

    name = "distance"
    repeat = 5
    seed = 1
    [grid]                      # every combination of these
    kind = ["steering"]
    strategy = ["static", "ncast-always"]
    scenario = ["link-loss"]
    links = [["wlan", "4g"], ["wlan", "satellite"]]
    [[case]]                    # and these beside them
    kind = "steering"
    strategy = "single"
    scenario = "steady"
    links = ["wlan", "4g"]
"""

import itertools
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from testbed.experiment import options as command_line
from testbed.experiment.case import Case
from testbed.experiment.matrix import show, summary
from testbed.experiment.narrator import Narrator
from testbed.experiment.parameters import check_parameters, with_whole_paths
from testbed.experiment.profile import ProfileError, read_tables
from testbed.experiment.run import guarded
from testbed.experiment.series import ATTEMPTS, Series, exclusive, repeated
from testbed.report.collection import read_collection
from testbed.report.html import write_report
from testbed.report.metric import METRICS
from testbed.strategy.registry import StrategyError, find_strategy

_DESCRIPTION = """\
Run every case of a grid, each in a process and namespaces of its own, in random order, with progress and the
remaining time. Say it again after whatever stopped it: what is finished stays. A case that a busy machine
spoilt is repeated. With --scheduler, the cases run on the workers of a Dask cluster, one at a time on each
machine.
"""
_EPILOG = """\
examples:
  sudo ./run sweep examples/sweep.toml
  sudo ./run sweep examples/sweep.toml --scheduler tcp://10.0.0.1:8786 --out results/grid

Exit status: 0 if every case has a result, 1 if not, 2 if it could not run.
"""


class SweepFile(Struct, forbid_unknown_fields=True, kw_only=True):
    """The file: each combination of `grid`, and each `case`, `repeat` times."""

    name: Annotated[str, Meta(pattern="^[A-Za-z0-9_.-]{1,40}$")] = "sweep"
    repeat: Annotated[int, Meta(ge=1)] = 3
    seed: Annotated[int, Meta(ge=0, le=command_line.MAXIMUM_SEED)] = 1
    grid: dict[str, list[Any]] = {}
    case: list[dict[str, Any]] = []


def load_sweep(path: str | Path) -> SweepFile:
    """Read and check a file. Raises ProfileError, one sentence that names file and key."""
    found = read_tables(path, SweepFile)
    if not grid(found):
        raise ProfileError(f"{path}: there is no case in it: expected [grid] with lists, or [[case]].")
    return found


def grid(file: SweepFile) -> list[Case]:
    """The cases, without repetitions."""
    found = combinations(file.grid) + [_case(table) for table in file.case]
    return [msgspec.structs.replace(case, seed=file.seed) for case in found]


def combinations(lists: Mapping[str, list[Any]]) -> list[Case]:
    """A case of every combination of these values; none if there are no lists."""
    values = itertools.product(*lists.values()) if lists else ()
    return [_case(dict(zip(lists, combination, strict=True))) for combination in values]


def _case(table: Mapping[str, Any]) -> Case:
    parameters = dict(table)
    return Case(kind=parameters.pop("kind", "steering"), parameters=parameters)


def check(cases: list[Case]) -> tuple[list[Case], dict[str, str]]:
    """The cases that can be run, and those skipped with the reason. Raises ProfileError, StrategyError for
    what cannot be meant."""
    kept, skipped = [], {}
    for case in cases:
        check_parameters(case.kind, case.parameters)
        if case.kind == "steering" and (missing := find_strategy(case.parameters["strategy"])().missing()):
            skipped[case.parameters["strategy"]] = missing
            continue
        kept.append(msgspec.structs.replace(case, parameters=with_whole_paths(case.parameters)))
    return kept, skipped


def main() -> int:
    parser = command_line.Parser(prog="sweep", description=_DESCRIPTION, epilog=_EPILOG)
    parser.add_argument("file", metavar="FILE", help="the grid, such as examples/sweep.toml")
    parser.add_argument("--quick", action="store_true", help="each case once")
    parser.add_argument("--repeat", type=command_line.positive, metavar="N",
                        help="how many times each case is run (default: as the file says)")  # fmt: skip
    parser.add_argument("--seed", type=command_line.seed, metavar="N",
                        help="of all that is random (default: the file's)")  # fmt: skip
    parser.add_argument("--json", action="store_true", help=command_line.JSON)
    parser.add_argument("--out", type=Path, metavar="DIR",
                        help="where the runs go; what is finished there stays (results/NAME)")  # fmt: skip
    parser.add_argument("--attempts", type=command_line.positive, default=ATTEMPTS, metavar="N",
                        help="how often a case is tried if the machine is too busy (3)")  # fmt: skip
    parser.add_argument("--pcap", action="store_true", help="keep captures of whole packets, for Wireshark")
    parser.add_argument("--scheduler", metavar="ADDRESS", help="of a Dask cluster whose workers run as root")
    parser.add_argument("--share-machine", action="store_true",
                        help=command_line.SHARE_MACHINE)  # fmt: skip
    arguments = parser.parse_args()
    if arguments.scheduler and arguments.pcap:
        parser.error("--pcap: captures do not come back from workers: not with --scheduler")
    try:
        file = load_sweep(arguments.file)
        if arguments.seed is not None:
            file.seed = arguments.seed
    except ProfileError as error:
        parser.error(str(error))
    try:
        cases, skipped = check(grid(file))
    except (ProfileError, StrategyError) as error:
        parser.error(f"{arguments.file}: {error}")
    if arguments.out is None:
        arguments.out = Path("results", file.name)
    folder = command_line.series_folder(arguments, "sweep")
    narrator = Narrator(sys.stderr)
    repeat = arguments.repeat or (1 if arguments.quick else file.repeat)
    series = Series(file.name, repeated(cases, repeat, file.seed), folder, narrator, skipped=skipped,
                    attempts=arguments.attempts, whole_packets=arguments.pcap)  # fmt: skip
    if arguments.scheduler:
        from testbed.experiment.cluster import run_on_cluster

        complete = run_on_cluster(series, arguments.scheduler, arguments.share_machine)
    else:
        with exclusive(arguments.share_machine):
            complete = series.run()
    if any(series.finished(case) for case in series.cases):
        collection = read_collection([folder])
        out = narrator if arguments.json else Narrator(sys.stdout)
        show(collection, [metric.name for metric in METRICS[:10]], out)
        write_report([folder], folder / "report.html", title=file.name)
        narrator.say(f"\nAll of it, with plots: {folder}/report.html")
        if arguments.json:
            sys.stdout.buffer.write(msgspec.json.encode(summary(collection)) + b"\n")
    return 0 if complete else 1


if __name__ == "__main__":
    sys.exit(guarded("sweep", main))
