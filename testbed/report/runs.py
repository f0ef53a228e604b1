"""`runs.csv`, one line a run, and `cases.csv`, one line a case and metric, for spreadsheets and notebooks.

Function: `write_runs_csv`.
"""

import csv
import statistics
from pathlib import Path

from testbed.report.collection import Collection, text_of, values_of
from testbed.report.metric import METRICS, meets_goal
from testbed.report.statistics import interval


def write_runs_csv(collection: Collection, folder: Path) -> list[Path]:
    """Write both files in `folder`; their paths. Raises OSError."""
    names = sorted({name for entry in collection.entries for name in entry.parameters})
    with open(folder / "runs.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["kind", *names, "repetition", "trusted", "goal_met", *(m.name for m in METRICS), "file"]
        )
        for entry in collection.entries:
            writer.writerow([
                entry.kind, *(text_of(entry.parameters.get(name, "")) for name in names),
                entry.repetition, entry.trusted, meets_goal(entry.result), *(metric.of(entry.result) for
                metric in METRICS), entry.path,
            ])  # fmt: skip
    with open(folder / "cases.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["kind", *names, "metric", "unit", "runs", "median", "low_95", "high_95"])
        for entries in collection.groups().values():
            first = entries[0]
            for metric in METRICS:
                if values := values_of(entries, metric):
                    writer.writerow([
                        first.kind, *(text_of(first.parameters.get(name, "")) for name in names), metric.name,
                        metric.unit, len(values), statistics.median(values), *(interval(values) or ("", "")),
                    ])  # fmt: skip
    return [folder / "runs.csv", folder / "cases.csv"]
