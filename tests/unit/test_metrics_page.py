"""docs/metrics.md: every figure is defined there, with the document that it follows."""

import re
from pathlib import Path

from testbed.report.metric import METRICS

PAGE = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()


def rows() -> dict[str, list[str]]:
    """The lines of tables, by each name in their first cell."""
    found = {}
    for line in PAGE.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")] if line.startswith("| `") else []
        for name in re.findall(r"`(\w+)`", cells[0] if cells else ""):
            found[name] = cells
    return found


def test_every_metric_has_its_line():
    known = rows()
    for metric in METRICS:
        assert metric.name in known, metric.name


def test_every_figure_of_a_flow_and_of_a_run_has_a_source():
    known = rows()
    stages = PAGE[PAGE.index("| Stage | Event |") : PAGE.index("`flows` has for each flow")]
    without = [name for name, cells in known.items() if len(cells) < 3 or not cells[-1].strip(" |")]
    assert [name for name in without if f"`{name}`" not in stages] == []
