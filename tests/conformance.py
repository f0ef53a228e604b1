"""Which test shows which requirement: `pytest --conformance docs/conformance.md` writes the table.

Tests carry `@pytest.mark.requirement("draft §8.1: what it says")`, document and section before the colon.
The results are those of the run, and of other kernels with `--results FILE.xml`, as often as there are files;
with `--collect-only`, of these alone. A test without a result keeps what the table says of it.
Functions: `requirements`, `row`, `summary`, `verdict`. The rest are pytest's hooks; this file is a plugin of
`tests/conftest.py`.
"""

import os
import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import pytest
from outcomes import Outcome, address, read

HEADER = """\
# Conformance: requirement, test, result

Written by `pytest --collect-only --conformance docs/conformance.md --results FILE.xml ...`, from what
`sudo ./run tests` leaves in `results/tests/` (`native.xml`, and of Debian's kernel `bookworm.xml`). Where
a result names a kernel, the test needs something that the kernel of this project's own machine has not;
"variants" are the backends that a test is run with. "draft" is draft-soliman-monami6-flow-binding-05; where
it leaves a choice, [draft-decisions.md](draft-decisions.md) says what was chosen and why. A test named here
can be run alone: `sudo ./run tests FILE::TEST`; `sudo ./run tests -k TEST --conformance docs/conformance.md`
puts in what it has found.
"""
_NAME = re.compile(r"^(?P<document>draft|[A-Z][\w-]*(?: \d+)?) ?§?(?P<section>[\d.]*)")
_ORDER = {"draft": 0, "RFC": 1}
NOT_RUN = "not run"


def requirements(item: pytest.Item) -> list[str]:
    """What a test shows, in the words of its marks."""
    return [str(mark.args[0]) for mark in item.iter_markers("requirement")]


def row(requirement: str, test: str) -> str:
    """The beginning of a line of the table: all but the result."""
    place, _, text = requirement.partition(": ")
    return f"| {place} | {text} | `{test}` |".replace("\n", " ")


def name(item: pytest.Item) -> str:
    """A test without its parameters, as it can be given to pytest."""
    return item.nodeid.partition("[")[0]


def summary(outcomes: list[str]) -> str:
    """The outcomes of a test with all its parameters: what this kernel lacks does not hide the rest."""
    if "failed" in outcomes:
        return "failed"
    skipped = outcomes.count("skipped")
    if skipped == len(outcomes):
        return "skipped"
    return f"passed, {skipped} of {len(outcomes)} variants skipped" if skipped else "passed"


def verdict(by_kernel: Mapping[str, Mapping[str, str]]) -> str | None:
    """What several kernels say of one test. `by_kernel`: kernel, the machine's own first -> variant ->
    outcome. None: it was run under none of them."""
    kernels = {kernel: outcomes for kernel, outcomes in by_kernel.items() if outcomes}
    failing = [kernel for kernel, outcomes in kernels.items() if "failed" in outcomes.values()]
    if failing:
        return f"failed under {' and '.join(failing)}"
    passed_under: dict[str, str] = {}
    variants: list[str] = []
    for kernel, outcomes in kernels.items():
        for variant, outcome in outcomes.items():
            if variant not in variants:
                variants.append(variant)
            if outcome == "passed":
                passed_under.setdefault(variant, kernel)
    if not variants:
        return None
    told = summary(["passed" if variant in passed_under else "skipped" for variant in variants])
    native = next(iter(by_kernel))
    others = [kernel for kernel in kernels if kernel != native and kernel in passed_under.values()]
    if not others:
        return told
    where = [kernel for kernel in passed_under.values() if kernel != native]
    if len(where) == len(variants):
        return f"{told} under {' and '.join(others)}"
    return f"{told}; {len(where)} of {len(variants)} variants under {' and '.join(others)}"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--conformance", metavar="FILE", help="write the table of requirements and tests")
    parser.addoption("--results", metavar="FILE.xml", action="append", default=[],
                     help="results of earlier runs (--junitxml) for that table")  # fmt: skip


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "requirement(text): what a test shows, as 'document §section: sentence'"
    )
    config.stash[_RESULTS] = {}
    config.stash[_DESELECTED] = []


#: By test, as `outcomes.address` has it.
_RESULTS: pytest.StashKey[dict[str, Outcome]] = pytest.StashKey()
#: What -k and -m have left out: it has its rows all the same.
_DESELECTED: pytest.StashKey[list[pytest.Item]] = pytest.StashKey()


@pytest.hookimpl
def pytest_deselected(items: list[pytest.Item]) -> None:
    for item in items:
        item.config.stash[_DESELECTED].append(item)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo):
    outcome = yield
    report = outcome.get_result()
    if report.when == "call" or not report.passed:
        item.config.stash[_RESULTS][address(item.nodeid)] = Outcome(report.outcome)


def pytest_sessionfinish(session: pytest.Session) -> None:
    path = session.config.getoption("--conformance")
    if not path:
        return
    results: dict[str, dict[str, Outcome]] = {os.uname().release: {}}
    for kernel, outcomes in read(map(Path, session.config.getoption("--results"))).items():
        results.setdefault(kernel, {}).update(outcomes)
    results[os.uname().release].update(session.config.stash[_RESULTS])
    items = sorted([*session.items, *session.config.stash[_DESELECTED]], key=lambda item: item.location[:2])
    Path(path).write_text(_table(items, results, _known(Path(path))))


def _known(path: Path) -> dict[str, str]:
    """What the table says so far: row -> result."""
    lines = path.read_text().splitlines() if path.exists() else []
    rows = (line.rpartition("` | ") for line in lines if line.startswith("| ") and "` | " in line)
    return {f"{before}` |": result.removesuffix(" |") for before, _, result in rows}


def _table(items: list[pytest.Item], results: dict[str, dict[str, Outcome]], known: dict[str, str]) -> str:
    tests: dict[str, list[str]] = defaultdict(list)
    variants: dict[str, list[str]] = defaultdict(list)
    for item in items:
        variants[name(item)].append(address(item.nodeid))
        for requirement in requirements(item):
            if name(item) not in tests[requirement]:
                tests[requirement].append(name(item))
    by_document = defaultdict(list)
    for requirement in sorted(tests, key=_sort_key):
        by_document[_document(requirement)].append(requirement)
    lines = [HEADER]
    for document, found in by_document.items():
        lines += [
            f"\n## {document}\n",
            "| section | requirement | test | result |",
            "| --- | --- | --- | --- |",
        ]
        for requirement in found:
            for test in tests[requirement]:
                begin = row(requirement, test)
                seen = {
                    kernel: {v: outcomes[v].state for v in variants[test] if v in outcomes}
                    for kernel, outcomes in results.items()
                }
                lines.append(f"{begin} {verdict(seen) or known.get(begin, NOT_RUN)} |")
    return "\n".join(lines) + "\n"


def _document(requirement: str) -> str:
    match = _NAME.match(requirement)
    return match["document"] if match else "Other"


def _sort_key(requirement: str) -> tuple:
    match = _NAME.match(requirement)
    if not match:
        return (2, "", (), requirement)
    sections = tuple(int(part) for part in match["section"].split(".") if part)
    document = match["document"]
    return (_ORDER.get(document.split()[0], 2), document, sections, requirement)
