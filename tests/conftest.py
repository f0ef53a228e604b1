"""What all tests share: integration tests run as root in private namespaces that vanish with the test run."""

import os
from collections import Counter
from pathlib import Path

import pytest

from testbed.isolation import isolate

pytest_plugins = ["backend", "conformance", "time_limit"]

INTEGRATION = Path(__file__).with_name("integration")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--walk", type=int, metavar="N", help="take N random walks, other ones each time")


def needs_namespaces(item: pytest.Item) -> bool:
    return INTEGRATION in item.path.parents


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.geteuid() != 0:
        for item in filter(needs_namespaces, items):
            item.add_marker(pytest.mark.skip(reason="needs root"))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Run the tests in namespaces of their own, so that the machine stays clean whatever fails.

    The workers of `./run tests` are there from their start.
    """
    if session.config.option.collectonly or os.geteuid() != 0 or "PYTEST_XDIST_WORKER" in os.environ:
        return
    if any(map(needs_namespaces, session.items)):
        with session.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
            isolate()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what was left out by reason: with every place, it would hide what failed."""
    skipped = [report.longrepr for report in terminalreporter.stats.get("skipped", ())]
    reasons = Counter(told[2].removeprefix("Skipped: ") for told in skipped if isinstance(told, tuple))
    if reasons:
        terminalreporter.section("left out")
    for reason, count in reasons.most_common():
        terminalreporter.line(f"{count:4}  {reason}")
