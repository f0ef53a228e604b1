"""What earlier test runs have found, as `pytest --junitxml` keeps it. Class: `Outcome`. Functions: `read`,
`address`."""

import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple


class Outcome(NamedTuple):
    """Of a test under a kernel: "passed", "failed" or "skipped"; why it was skipped; its backends."""

    state: str
    reason: str = ""
    backends: tuple[str, ...] = ()


def read(paths: Iterable[Path]) -> dict[str, dict[str, Outcome]]:
    """By kernel, and test as `address` has it. Of several files with a test under one kernel, the last one
    counts."""
    found: dict[str, dict[str, Outcome]] = defaultdict(dict)
    for path in paths:
        suite = ElementTree.parse(path).getroot().find("testsuite")
        kernel = next(p.get("value") for p in suite.iter("property") if p.get("name") == "kernel")
        for case in suite.iter("testcase"):
            found[kernel][f"{case.get('classname')}::{case.get('name')}"] = _outcome(case)
    return found


def _outcome(case: ElementTree.Element) -> Outcome:
    backends = tuple(p.get("value") for p in case.iter("property") if p.get("name") == "backend")
    for tag, state in (("failure", "failed"), ("error", "failed"), ("skipped", "skipped")):
        told = case.find(tag)
        if told is not None:
            return Outcome(state, told.get("message", ""), backends)
    return Outcome("passed", "", backends)


def address(node: str) -> str:
    """What such a file calls the test that pytest calls `node`, "tests/a.py::Class::test_b[parameters]"."""
    path, bracket, parameters = node.partition("[")
    file, *names = path.split("::")
    *classes, function = names
    module = file.removesuffix(".py").replace("/", ".")
    return ".".join([module, *classes]) + f"::{function}{bracket}{parameters}"
