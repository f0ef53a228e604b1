"""What benchmarks of the testbed share: command line, figures with their spread, the document.

Class: `Figure`. Functions: `parser`, `parse`, `quantile`, `digits`, `memory_octets`, `say`,
`print_table`, `others_percent`, `finish`.
"""

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TextIO

from testbed.experiment.options import JSON, Parser, seed
from testbed.measure.metadata import metadata

#: What others may use of the processors, in percent, before times are not to be trusted.
BUSY_PERCENT = 10.0
#: For how long it is measured what others use, in seconds.
_LOOK_S = 0.5


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured quantity: a value a repetition, in `unit`. `goal` for the median: at least that much, at
    most if `at_most`, no more than `tolerance` away if there is one; None where there is none."""

    name: str
    unit: str
    values: Sequence[float]
    goal: float | None = None
    at_most: bool = False
    tolerance: float | None = None

    @property
    def median(self) -> float:
        return median(self.values)

    @property
    def reached(self) -> bool | None:
        """Whether the median is where it should be, None without a goal."""
        if self.goal is None:
            return None
        value = self.median
        if self.tolerance is not None:
            return abs(value - self.goal) <= self.tolerance
        return value <= self.goal if self.at_most else value >= self.goal

    @property
    def _goal_is(self) -> str:
        if self.tolerance is not None:
            return f"within {self.tolerance:g} of"
        return "at most" if self.at_most else "at least"

    def to_json(self) -> dict:
        """Median, lowest, highest, all values, goal and whether it is reached."""
        return {
            "name": self.name,
            "unit": self.unit,
            "median": self.median,
            "low": min(self.values),
            "high": max(self.values),
            "values": list(self.values),
            "goal": self.goal,
            "goal_is": self._goal_is,
            "tolerance": self.tolerance,
            "reached": self.reached,
        }

    @classmethod
    def from_json(cls, saved: dict) -> "Figure":
        """The inverse of `to_json`."""
        at_most = saved["goal_is"] == "at most"
        return cls(saved["name"], saved["unit"], saved["values"], saved["goal"], at_most, saved["tolerance"])

    def row(self, width: int) -> str:
        """A line of the table; `width`: of the column of names."""
        shown = f"{digits(self.median)} ({digits(min(self.values))} - {digits(max(self.values))})"
        verdict = ""
        if self.goal is not None:
            sign = {"at most": "<=", "at least": ">="}.get(self._goal_is, self._goal_is)
            verdict = f"  goal {sign} {digits(self.goal)}: {'reached' if self.reached else 'MISSED'}"
        return f"{self.name:{width}} {shown:>32} {self.unit:10}{verdict}".rstrip()


def parser(
    name: str, description: str, epilog: str, repetitions: int, quick: str, random: bool = False
) -> Parser:
    """A parser with what all benchmarks have. `repetitions`: by default; `quick`: what --quick does;
    `random`: whether anything is, so that there is a --seed, which `finish` writes down."""
    made = Parser(
        prog=f"bench {name}",
        description=description,
        epilog=epilog,
    )
    made.add_argument("--quick", action="store_true", help=quick)
    made.add_argument("--json", action="store_true", help=JSON)
    made.add_argument("--out", type=Path, metavar="FILE", help="where that document goes (default: nowhere)")
    made.add_argument(
        "--repeat", dest="repetitions", type=int, metavar="N",
        help=f"each measurement so many times ({repetitions}; 1 with --quick)",
    )  # fmt: skip
    if random:
        made.add_argument("--seed", type=seed, default=1, metavar="N", help="of all that is random (1)")
    made.set_defaults(default_repetitions=repetitions)
    return made


def parse(made: Parser, arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options, `repetitions` filled in."""
    options = made.parse_args(arguments)
    if options.repetitions is None:
        options.repetitions = 1 if options.quick else options.default_repetitions
    if options.repetitions < 1:
        made.error(f"--repeat: expected 1 or more, not {options.repetitions}")
    return options


def quantile(values: Sequence[float], part: float) -> float:
    """The value that the `part` (0 to 1) of all values does not exceed."""
    return sorted(values)[min(int(part * len(values)), len(values) - 1)]


def digits(value: float) -> str:
    """Three or more significant digits, no exponent."""
    size = abs(value)
    return f"{value:,.0f}" if size >= 100 else f"{value:.1f}" if size >= 10 else f"{value:.3f}"


def memory_octets(pid: int) -> int:
    """Resident memory of a process, its part of what it shares with others."""
    with open(f"/proc/{pid}/smaps_rollup") as file:
        sizes = {line.split()[0]: int(line.split()[1]) for line in file.readlines()[1:]}
    return 1024 * sizes["Pss:"]


def say(text: str) -> None:
    """What is going on, for people."""
    print(text, file=sys.stderr, flush=True)


def print_table(figures: Sequence[Figure], out: TextIO) -> None:
    """For people."""
    width = max([len(figure.name) for figure in figures], default=0)
    print(f"{'median (lowest - highest)':>{width + 33}}", file=out)
    for figure in figures:
        print(figure.row(width), file=out)


def others_percent() -> float:
    """What is used of all processors now, in percent, while the caller does nothing."""

    def used_and_all() -> tuple[int, int]:
        with open("/proc/stat") as file:
            times = [int(field) for field in file.readline().split()[1:9]]
        return sum(times) - times[3] - times[4], sum(times)  # but idle, and waiting for disks

    before = used_and_all()
    time.sleep(_LOOK_S)  # what is measured is what the others do
    after = used_and_all()
    return 100 * (after[0] - before[0]) / max(after[1] - before[1], 1)


def finish(name: str, options: argparse.Namespace, figures: Sequence[Figure], **parameters: object) -> int:
    """Print the figures as a table, or as JSON; returns the exit status: 1 where a goal is missed."""
    load, others = os.getloadavg()[0], others_percent()
    busy = others > BUSY_PERCENT
    about = metadata()
    out = sys.stderr if options.json else sys.stdout
    print_table(figures, out)
    if busy:
        print(f"Warning: others use {others:.0f} % of the processors: times are of a busy machine.", file=out)
    met = all(figure.reached is not False for figure in figures)
    document = {
        "bench": name,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "processors": about["processors"],
        "processor": about["processor"],
        "commit": about["commit"],
        "code": about["code"],
        "time": about["time"],
        "load": load,
        "others_percent": others,
        "busy": busy,
        "quick": options.quick,
        "repetitions": options.repetitions,
        **({"seed": options.seed} if "seed" in options else {}),
        **parameters,
        "figures": [figure.to_json() for figure in figures],
        "reached": met,
    }
    text = json.dumps(document, indent=1)
    if options.json:
        print(text)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(text + "\n")
    return 0 if met else 1
