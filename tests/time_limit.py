"""A plugin of `tests/conftest.py`: `pytest --end-file PATH` ends in good order once that file exists.

Who runs the tests on a machine that may be slow makes that file when there is no time left. What was not
reached is no failure: the exit status tells of the tests that have run.
"""

from pathlib import Path

import pytest

_REASON = "there is no time left: the rest was not reached"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--end-file", type=Path, metavar="PATH", help="end before the next test once it exists")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> bool | None:
    session, path = item.session, item.config.option.end_file
    if path is None or not path.exists():
        return None
    session.shouldstop = _REASON
    return True  # this one is not run either


def pytest_sessionfinish(session: pytest.Session) -> None:
    if session.shouldstop == _REASON:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED if session.testsfailed else pytest.ExitCode.OK
