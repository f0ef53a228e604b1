"""Tests that run out of time: what was not reached is no failure, what failed before is one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
sys.path.insert(0, str(TESTS / "kernel"))

from debian import Unavailable  # noqa: E402
from ending import not_ended  # noqa: E402

FIRST_ENDS_THE_TIME = """
    from pathlib import Path

    def test_first():
        Path("end").touch()
        assert {first}

    def test_second():
        raise AssertionError("it was reached")
"""


def run_tests(folder, text):
    (folder / "test_two.py").write_text("\n".join(line[4:] for line in text.splitlines()))
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "time_limit", "-p", "no:cacheprovider", "--end-file", "end"],
        cwd=folder,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(TESTS)},
    )


@pytest.mark.parametrize("first, status", [(True, 0), (False, 1)])
def test_the_rest_is_not_run(tmp_path, first, status):
    done = run_tests(tmp_path, FIRST_ENDS_THE_TIME.format(first=first))
    assert done.returncode == status, done.stdout
    assert "there is no time left: the rest was not reached" in done.stdout
    assert ("1 passed" if first else "1 failed") in done.stdout
    assert "it was reached" not in done.stdout


ONE_NEVER_ENDS = """
    import os
    import signal

    def test_first():
        assert {first}

    def test_second():
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("first", [True, False])
def test_what_has_failed_before_a_forced_end_is_a_failure(tmp_path, capsys, first):
    run_tests(tmp_path, ONE_NEVER_ENDS.format(first=first))
    if first:
        with pytest.raises(Unavailable, match=r"within 9 s \(the last test that it began: .*::test_second\)"):
            not_ended(tmp_path / "end", 9)
    else:
        assert not_ended(tmp_path / "end", 9) == 1
        told = capsys.readouterr().out
        assert "test_two.py::test_first" in told.partition("these had failed:")[2]
        assert "test_second" not in told.partition("these had failed:")[2]


def test_nothing_is_known_of_what_has_not_begun(tmp_path):
    with pytest.raises(Unavailable, match="within 9 s$"):
        not_ended(tmp_path / "end", 9)
