"""The files of a result in its folder. Function: `write_files`."""

import json
from collections.abc import Iterable
from pathlib import Path

from testbed.report.flows import write_flows_csv
from testbed.report.plot import draw_all
from testbed.report.result import Result, write_result


def write_files(result: Result, folder: str | Path, formats: Iterable[str] = ("png", "pdf")) -> None:
    """Write result.json, events.jsonl, flows.csv and the plots in these formats. Raises OSError."""
    folder = Path(folder)
    for old in (path for kind in ("png", "pdf", "svg") for path in folder.glob(f"*.{kind}")):
        old.unlink()  # of an earlier run
    write_result(result, folder / "result.json")
    with open(folder / "events.jsonl", "w") as events:
        events.writelines(json.dumps(event) + "\n" for event in result.events)
    write_flows_csv(result, folder / "flows.csv")
    draw_all(result, folder, formats)
