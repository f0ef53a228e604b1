"""What changed between two sets of results, and whether it is more than chance. Class: `Change`. Functions:
`compare`, `compare_table`.

Cases are matched by kind and parameters. For each metric: medians, the exact Mann-Whitney test corrected for
the number of comparisons (Holm), and Cliff's delta as the size of the effect.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from testbed.report.collection import Collection, values_of
from testbed.report.metric import METRICS, Metric
from testbed.report.statistics import cliffs_delta, effect_word, holm, mann_whitney_p

SIGNIFICANT = 0.05
#: What two sets are compared by; the others follow from these or say the same.
COMPARED = (
    "interruption_ms", "first_packet_ms", "lost_percent", "late_percent", "duplicates_percent",
    "reordered_percent", "delay_p95_ms", "goodput_mbit", "overhead_percent", "signalling_octets",
    "setup_ms", "storm_p95_ms",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Change:
    """One metric of one case in both sets. `p` is corrected; None: too few runs for a test."""

    case: str
    metric: Metric
    before: tuple[float, ...]
    after: tuple[float, ...]
    p: float | None
    delta: float

    @property
    def significant(self) -> bool:
        """Whether chance alone would hardly make such a difference."""
        return self.p is not None and self.p < SIGNIFICANT

    @property
    def verdict(self) -> str:
        """In a word or two."""
        if self.p is None:
            return "too few runs to tell"
        if not self.significant:
            return "no significant change"
        better = (self.delta < 0) == (self.metric.better == "low")
        return f"{'better' if better else 'worse'}, {effect_word(self.delta)} effect"


def compare(before: Collection, after: Collection) -> list[Change]:
    """All changes, in the order of cases. Cases that are in one set only are left out (`unmatched`)."""
    old, new = before.groups(), after.groups()
    found = []
    for group in old.keys() & new.keys():
        for metric in METRICS:
            if metric.name not in COMPARED:
                continue
            sides = [tuple(values_of(side[group], metric)) for side in (old, new)]
            if all(sides) and any(sides[0] + sides[1]):
                title = old[group][0].title
                found.append((title, metric, *sides, mann_whitney_p(*sides), cliffs_delta(*sides)))
    corrected = holm([entry[4] for entry in found])
    changes = [Change(*entry[:4], p, entry[5]) for entry, p in zip(found, corrected, strict=True)]
    order = [metric.name for metric in METRICS]
    return sorted(changes, key=lambda change: (change.case, order.index(change.metric.name)))


def unmatched(before: Collection, after: Collection) -> tuple[list[str], list[str]]:
    """Titles of the cases that only the one set has, and of those that only the other has."""
    old, new = before.groups(), after.groups()
    return ([entries[0].title for group, entries in old.items() if group not in new],
            [entries[0].title for group, entries in new.items() if group not in old])  # fmt: skip


def compare_table(changes: Sequence[Change], everything: bool = False) -> str:
    """Lines for a person: the significant changes, or all."""
    lines, case = [], None
    for change in changes:
        if not everything and not change.significant:
            continue
        if change.case != case:
            case = change.case
            lines.append(f"\n{case}")
        metric = change.metric
        old, new = statistics.median(change.before), statistics.median(change.after)
        relative = f" ({(new - old) / abs(old):+.0%})" if old else ""
        p = "" if change.p is None else f", p = {change.p:.3f}"
        lines.append(
            f"  {metric.title}: {metric.text(old)} -> {metric.text(new)} {metric.unit}{relative}: "
            f"{change.verdict}{p}, n = {len(change.before)} and {len(change.after)}"
        )
    tested = sum(change.p is not None for change in changes)
    significant = sum(change.significant for change in changes)
    lines.append(f"\n{significant} of {tested} comparisons are significant (p < {SIGNIFICANT}, Mann-Whitney, "
                 "corrected by Holm's method).")  # fmt: skip
    few = [change for change in changes if change.p is not None and _least_p(change) * tested > SIGNIFICANT]
    if not tested:
        lines.append("A test needs two runs of a case or more in both sets, and some eight to show "
                     "something: run more repetitions.")  # fmt: skip
    elif few and not significant:
        numbers = sorted({(len(change.before), len(change.after)) for change in few})
        runs = " or ".join(f"{before} and {after}" for before, after in numbers)
        which = "" if len(few) == tested else f" of {len(few)} of them"
        lines.append(f"With {runs} runs a case, no difference{which} could be: run more repetitions, or "
                     "compare fewer cases.")  # fmt: skip
    return "\n".join(lines).lstrip("\n")


def _least_p(change: Change) -> float:
    """What the test could give at best with so many runs."""
    sizes = len(change.before), len(change.after)
    return mann_whitney_p(range(sizes[0]), range(sizes[0], sum(sizes)))
