"""Which test shows which requirement: `pytest --conformance docs/conformance.md` writes the table.

Tests carry `@pytest.mark.requirement("draft §8.1: what it says")`, document and section before the colon.
Functions: `requirements`, `row`, `summary`. The rest are pytest's hooks; this file is a plugin of
`tests/conftest.py`.
"""

import re
from collections import defaultdict
from pathlib import Path

import pytest

HEADER = """\
# Conformance: requirement, test, result

Written by `sudo ./run tests --conformance docs/conformance.md`, from the tests of that run. "draft" is
draft-soliman-monami6-flow-binding-05; where it leaves a choice, [draft-decisions.md](draft-decisions.md) says
what was chosen and why. A test named here can be run alone: `sudo ./run tests FILE::TEST`.
"""
_NAME = re.compile(r"^(?P<document>draft|[A-Z][\w-]*(?: \d+)?) ?§?(?P<section>[\d.]*)")
_ORDER = {"draft": 0, "RFC": 1}


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


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--conformance", metavar="FILE", help="write the table of requirements and tests")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "requirement(text): what a test shows, as 'document §section: sentence'"
    )
    config.stash[_RESULTS] = defaultdict(list)
    config.stash[_REQUIREMENTS] = defaultdict(list)


_RESULTS: pytest.StashKey[dict] = pytest.StashKey()
_REQUIREMENTS: pytest.StashKey[dict] = pytest.StashKey()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo):
    outcome = yield
    report = outcome.get_result()
    if report.when == "call" or not report.passed:
        item.config.stash[_RESULTS][name(item)].append(report.outcome)
        for requirement in requirements(item):
            found = item.config.stash[_REQUIREMENTS][requirement]
            if name(item) not in found:
                found.append(name(item))


def pytest_sessionfinish(session: pytest.Session) -> None:
    path = session.config.getoption("--conformance")
    if not path:
        return
    results = session.config.stash[_RESULTS]
    by_document = defaultdict(list)
    for requirement in sorted(session.config.stash[_REQUIREMENTS], key=_sort_key):
        by_document[_document(requirement)].append(requirement)
    lines = [HEADER]
    for document, found in by_document.items():
        lines += [
            f"\n## {document}\n",
            "| section | requirement | test | result |",
            "| --- | --- | --- | --- |",
        ]
        for requirement in found:
            for test in session.config.stash[_REQUIREMENTS][requirement]:
                lines.append(f"{row(requirement, test)} {summary(results[test])} |")
    Path(path).write_text("\n".join(lines) + "\n")


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
