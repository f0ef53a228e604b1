"""What integration tests share."""

import subprocess

import pytest

pytest.register_assert_rewrite("machine")

from machine import assert_untouched, snapshot  # noqa: E402


@pytest.fixture
def untouched():
    """The machine is the same after the test as before."""
    # What other programs do in /tmp meanwhile does not matter: it is the test's own.
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/tmp"], check=True)
    try:
        before = snapshot()
        yield
        assert_untouched(before)
    finally:
        subprocess.run(["umount", "--lazy", "/tmp"], check=True)
