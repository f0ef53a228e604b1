"""Strategies × scenarios × links as a series, and what all such experiments do with it.

Functions: `add_link_option`, `add_scenario_option`, `cases`, `with_parameters`, `run_series`,
`show`, `summary`.
"""

import argparse
import statistics
import sys
from collections.abc import Iterable, Sequence

import msgspec

from testbed.experiment import options as command_line
from testbed.experiment.case import Case
from testbed.experiment.narrator import Narrator
from testbed.experiment.parameters import check_parameters, with_whole_paths
from testbed.experiment.profile import profile_names
from testbed.experiment.series import Series, exclusive, repeated
from testbed.report.collection import Collection, read_collection, values_of
from testbed.report.html import write_report
from testbed.report.metric import METRICS, by_name
from testbed.report.statistics import interval
from testbed.report.table import comparison_table
from testbed.strategy.registry import find_strategy

#: The two access networks of the other experiments.
DEFAULT_LINKS = ("wlan", "4g")


def add_link_option(parser: argparse.ArgumentParser, default: Sequence[Sequence[str]]) -> None:
    """The option --links, which may be given several times."""
    words = " and ".join("+".join(names) for names in default)
    parser.add_argument(
        "--links",
        action="append",
        type=_link_names,
        metavar="PROFILE+PROFILE",
        help=f"link profiles, the preferred network first: {', '.join(profile_names('links'))}, or paths of "
        f"files; may be given several times (default: {words})",
    )
    parser.set_defaults(default_links=[list(names) for names in default])


def _link_names(text: str) -> list[str]:
    names = text.split("+")
    if len(names) < 2:
        raise argparse.ArgumentTypeError(f"{text!r} has one: expected two link profiles or more")
    return names


def add_scenario_option(parser: argparse.ArgumentParser, default: Sequence[str], quick: str = "") -> None:
    """The option --scenario, which may be given several times. `quick`: what the default is with --quick."""
    known, usual = ", ".join(profile_names("scenarios")), ", ".join(default) + quick
    parser.add_argument(
        "--scenario",
        action="append",
        metavar="NAME",
        help=f"{known}, or the path of a file; may be given several times (default: {usual})",
    )


def cases(
    arguments: argparse.Namespace, strategies: Iterable[str], scenarios: Iterable[str]
) -> tuple[list[Case], dict[str, str]]:
    """The cases, and what is skipped with the reason. Raises StrategyError."""
    links = arguments.links or arguments.default_links
    skipped: dict[str, str] = {}
    found = []
    for strategy in strategies:
        if missing := find_strategy(strategy)().missing():
            skipped[strategy] = missing
            continue
        for scenario in scenarios:
            for names in links:
                parameters = {"strategy": strategy, "scenario": scenario, "links": names}
                found.append(
                    Case(
                        kind="steering",
                        parameters=with_whole_paths(parameters) | command_line.common_parameters(arguments),
                        seed=arguments.seed,
                    )
                )
    return found, skipped


def with_parameters(case: Case, **more: object) -> Case:
    """The case with further parameters."""
    return msgspec.structs.replace(case, parameters={**case.parameters, **more})


def run_series(
    name: str,
    arguments: argparse.Namespace,
    wanted: Iterable[Case],
    metrics: Sequence[str],
    skipped: dict[str, str] | None = None,
) -> int:
    """Run the cases, print a table of these metrics, write the report; the exit status. Raises ProfileError
    for what no case can have, before any is run."""
    wanted = list(wanted)
    for case in wanted:
        check_parameters(case.kind, case.parameters)
    folder = command_line.series_folder(arguments, name)
    narrator = Narrator(sys.stderr)
    series = Series(
        name,
        repeated(wanted, command_line.repetitions(arguments), arguments.seed),
        folder,
        narrator,
        skipped=skipped,
        attempts=arguments.attempts,
        whole_packets=arguments.pcap,
    )
    with exclusive(arguments.share_machine):
        complete = series.run()
    if not any(series.finished(case) for case in series.cases):
        return 2
    collection = read_collection([folder])
    show(collection, metrics, narrator if arguments.json else Narrator(sys.stdout))
    write_report([folder], folder / "report.html", title=name)
    narrator.say(f"\nAll of it, with plots: {folder}/report.html")
    if arguments.json:
        sys.stdout.buffer.write(msgspec.json.encode(summary(collection)) + b"\n")
    return 0 if complete else 1


def show(collection: Collection, metrics: Sequence[str], narrator: Narrator) -> None:
    """The median of each metric for each case, and what cannot be trusted."""
    narrator.say("\n" + comparison_table(collection, [by_name(name) for name in metrics]))
    busy = [entry for entry in collection.entries if not entry.trusted]
    if busy:
        narrator.say(f"\nIn {len(busy)} of {len(collection.entries)} runs the machine was too busy: left out "
                     "where a case has others, else marked *.")  # fmt: skip
    for what, reason in {**collection.skipped, **collection.failed}.items():
        narrator.say(f"no result of {what}: {reason}")


def summary(collection: Collection) -> dict:
    """Median, confidence interval and values of each metric of each case; how many runs these rest on
    (`runs`), and in how many of all its runs the machine was too busy (`busy`)."""
    found = []
    all_groups = collection.all_groups()
    for group, entries in collection.groups().items():
        figures = {}
        for metric in METRICS:
            values = values_of(entries, metric)
            if values:
                figures[metric.name] = {
                    "median": statistics.median(values), "interval": interval(values), "values": values,
                }  # fmt: skip
        found.append({
            "kind": entries[0].kind, "parameters": dict(entries[0].parameters), "runs": len(entries),
            "busy": sum(not entry.trusted for entry in all_groups[group]), "metrics": figures,
        })  # fmt: skip
    return {"cases": found, "skipped": collection.skipped, "failed": collection.failed}
