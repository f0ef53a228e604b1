"""One case of a series: `python -m testbed.experiment.case CASE.json FOLDER` runs it and writes its result.

Class: `Case`. Functions: `read_case`, `write_case`, `run_case`. A case runs in a process and in namespaces of
its own: whatever happens to it, others do not notice.
"""

import argparse
import hashlib
import importlib
import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import msgspec

from testbed.experiment.narrator import Narrator
from testbed.experiment.parameters import check_parameters
from testbed.experiment.run import guarded
from testbed.isolation import isolate
from testbed.report.result import Result, write_result

#: Kinds of cases: module and function (parameters, seed, folder, narrator, whole_packets) -> Result.
KINDS = {
    "steering": ("testbed.experiment.steering", "run_steering"),
    "load": ("testbed.experiment.load", "run_load"),
}


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """What is run: `parameters` are those of its kind, JSON values. Two cases with the same `key` are the
    same."""

    kind: str
    parameters: dict[str, Any]
    seed: int = 1
    repetition: int = 1

    @property
    def group(self) -> str:
        """The same for all repetitions."""
        words = [str(part) for value in self.parameters.values()
                 for part in (value if isinstance(value, list) else [value])]  # fmt: skip
        text = re.sub(r"[^a-z0-9.]+", "-", "-".join([self.kind, *words]).lower()).strip("-")
        known = json.dumps([self.kind, self.parameters], sort_keys=True)
        return f"{text[:70]}-{hashlib.sha256(known.encode()).hexdigest()[:6]}"

    @property
    def key(self) -> str:
        return f"{self.group}-s{self.seed}-{self.repetition}"


def read_case(path: str | Path) -> Case:
    """Read a case. Raises ValueError or OSError."""
    return msgspec.json.decode(Path(path).read_bytes(), type=Case)


def write_case(case: Case, path: str | Path) -> None:
    """Write a case for `read_case`. Raises OSError."""
    Path(path).write_bytes(msgspec.json.encode(case))


def run_case(case: Case, folder: Path, narrator: Narrator, whole_packets: bool = False) -> Result:
    """Run it in this process's namespaces and write `result.json`; captures go, unless they are of whole
    packets. Raises ProfileError for parameters that no case of its kind has."""
    check_parameters(case.kind, case.parameters)
    module, function = KINDS[case.kind]
    run = getattr(importlib.import_module(module), function)
    # a repetition has other random numbers than the others, the same in each strategy
    seed = case.seed * 1000 + case.repetition
    result = run(case.parameters, seed, folder, narrator, whole_packets)
    result.metadata["case"] = msgspec.to_builtins(case)
    write_result(result, folder / "result.json")
    if not whole_packets:
        shutil.rmtree(folder / "captures", ignore_errors=True)
        for log in (folder / "logs").glob("*.probe"):
            log.unlink()
    return result


def main() -> int:
    parser = argparse.ArgumentParser(prog="case", description="Run one case of a series.")
    parser.add_argument("case", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pcap", action="store_true")
    options = parser.parse_args()
    case, folder = read_case(options.case), options.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    isolate()
    run_case(case, folder, Narrator(sys.stderr), options.pcap)
    return 0


if __name__ == "__main__":
    sys.exit(guarded("case", main))
