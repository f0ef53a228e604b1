"""A plugin of `tests/conftest.py`: `pytest --end-file PATH` ends in good order once that file exists.

Who runs the tests on a machine that may be slow makes that file when there is no time left. What was not
reached is no failure: the exit status tells of the tests that have run. Should the machine be ended before
pytest is, what it knew by then is in two files beside that one: in `FAILED`, the tests that have failed; in
`RUNNING`, the one that was under way.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

_REASON = "there is no time left: the rest was not reached"
FAILED, RUNNING = "failed", "running"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--end-file", type=Path, metavar="PATH", help="end before the next test once it exists")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> bool | None:
    session, path = item.session, item.config.option.end_file
    if path is None:
        return None
    if not path.exists():
        path.with_name(RUNNING).write_text(item.nodeid)
        return None
    session.shouldstop = _REASON
    return True  # this one is not run either


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo) -> Iterator[None]:
    outcome = yield
    path = item.config.option.end_file
    if path is not None and outcome.get_result().failed:
        with path.with_name(FAILED).open("a") as file:
            file.write(f"{item.nodeid}\n")


def pytest_sessionfinish(session: pytest.Session) -> None:
    if session.shouldstop == _REASON:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED if session.testsfailed else pytest.ExitCode.OK
