"""What a narrated experiment does for --repeat: its runs in random order, those again that a busy machine has
spoilt, and a summary. Functions: `run_repeatedly`, `summarise`.
"""

import argparse
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from testbed.experiment.case import Case
from testbed.experiment.matrix import show, summary
from testbed.experiment.narrator import Narrator
from testbed.experiment.series import ATTEMPTS, repeated
from testbed.report.collection import read_collection
from testbed.report.html import write_report
from testbed.report.result import Result

#: Figures that mean something in a run whose parts are not told apart.
_METRICS = (
    "first_packet_ms", "acknowledged_ms", "recovery_ms", "delay_p95_ms", "goodput_mbit", "duplicates_percent",
    "overhead_percent", "signalling_packets",
)  # fmt: skip


def run_repeatedly(
    name: str,
    arguments: argparse.Namespace,
    variants: Sequence[Mapping[str, Any]],
    folder: Path,
    narrator: Narrator,
    once: Callable[[Case, int, Path], Result],
) -> list[tuple[Case, Result]]:
    """Call `once(case, seed, folder)` --repeat times for each of the `variants` (parameters of a case); the
    results, in the order of variants and repetitions.

    A single run of a single variant goes right into `folder`, others into folders of their own in it.
    """
    planned = [Case(kind=name, parameters=dict(variant)) for variant in variants]
    attempts = arguments.attempts or (ATTEMPTS if arguments.repeat > 1 else 1)
    found = []
    cases = repeated(planned, arguments.repeat, arguments.seed) if arguments.repeat > 1 else planned
    for number, case in enumerate(cases, 1):
        # the first repetition has the seed that was asked for, the same in each variant
        seed = arguments.seed + 1000 * (case.repetition - 1)
        if arguments.repeat > 1:
            words = ", ".join([*map(str, case.parameters.values()), f"repetition {case.repetition}"])
            narrator.say(f"\n##### Run {number} of {len(cases)}: {words}")
        for attempt in range(1, attempts + 1):
            result = once(case, seed, _place(folder, case, arguments.repeat))
            if not result.busy or attempt == attempts:
                break
            narrator.say("\nThe machine was too busy meanwhile: once more.")
        found.append((case, result))
    return sorted(found, key=lambda entry: (planned.index(_first(entry[0])), entry[0].repetition))


def mark(result: Result, case: Case) -> None:
    """Let reports know the run as a repetition of this case."""
    result.metadata["case"] = msgspec.to_builtins(case)


def summarise(
    arguments: argparse.Namespace, found: Sequence[tuple[Case, Result]], folder: Path, narrator: Narrator
) -> dict:
    """Tell how often each check passed, and medians; write report.html. Returns the same as JSON values."""
    counts: dict[str, int] = {}
    for _, result in found:
        for check in result.checks:
            counts[check.text] = counts.get(check.text, 0) + check.passed
    runs = arguments.repeat
    narrator.say(f"\nIn {runs} runs a kind, so often this was shown:")
    for text, passed in counts.items():
        narrator.say(f"  {passed} of {runs}  {text}")
    places = [_place(folder, case, runs) for case, _ in found]
    collection = read_collection(places)
    show(collection, _METRICS, narrator)
    write_report(places, folder / "report.html", title=found[0][1].experiment)
    narrator.say(f"\nAll of it, with plots: {folder}/report.html")
    checks = [{"text": text, "passed": passed, "runs": runs} for text, passed in counts.items()]
    return {"experiment": found[0][1].experiment, "checks": checks, **summary(collection)}


def _first(case: Case) -> Case:
    return Case(kind=case.kind, parameters=case.parameters)


def _place(folder: Path, case: Case, repetitions: int) -> Path:
    words = [re.sub(r"[^a-z0-9]+", "-", str(value).lower()) for value in case.parameters.values()]
    if repetitions > 1:
        words = [*(words or ["run"]), str(case.repetition)]
    return folder / "-".join(words) if words else folder
