"""Tests that run out of time: what was not reached is no failure, what failed before is one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
FIRST_ENDS_THE_TIME = """
    from pathlib import Path

    def test_first():
        Path("end").touch()
        assert {first}

    def test_second():
        raise AssertionError("it was reached")
"""


@pytest.mark.parametrize("first, status", [(True, 0), (False, 1)])
def test_the_rest_is_not_run(tmp_path, first, status):
    lines = FIRST_ENDS_THE_TIME.format(first=first).splitlines()
    (tmp_path / "test_two.py").write_text("\n".join(line[4:] for line in lines))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "time_limit", "-p", "no:cacheprovider", "--end-file", "end"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(TESTS)},
    )
    assert done.returncode == status, done.stdout
    assert "there is no time left: the rest was not reached" in done.stdout
    assert ("1 passed" if first else "1 failed") in done.stdout
    assert "it was reached" not in done.stdout
