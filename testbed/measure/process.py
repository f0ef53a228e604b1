"""A measuring process inside a host: started, ready, stopped, its summary read. Class: `HostProcess`.

The protocol with the process is three lines long: it prints `ready` when it can measure, runs until it is
done or gets SIGTERM, and prints one JSON object, its summary, as its last line.
"""

import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

#: Starts a program in a host: `subprocess.Popen`, or `node.popen` of a Mininet node.
Popen = Callable[..., subprocess.Popen]

_PROJECT = Path(__file__).resolve().parents[2]


class MeasurementError(Exception):
    """A measuring process could not start, died, or hung. The text is one sentence for the user."""


class HostProcess:
    """`python -m MODULE ARGUMENTS` in a host.

    `popen` starts it (Mininet: `node.popen`), `name` is used in error messages.
    Raises MeasurementError from `wait_ready` and `wait`.
    """

    def __init__(self, popen: Popen, name: str, module: str, arguments: Sequence[object]):
        self.name = name
        self._stderr = tempfile.TemporaryFile()
        self._output = bytearray()
        self._popen = popen(
            [sys.executable, "-m", module, *(str(argument) for argument in arguments)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self._stderr, bufsize=0,
            env=dict(os.environ, PYTHONPATH=str(_PROJECT)))

    @property
    def pid(self) -> int:
        """The process id, as seen from here."""
        return self._popen.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self._popen.poll() is None

    def wait_ready(self, timeout_s: float = 60.0) -> None:
        """Return once the process has said that it is ready."""
        deadline = time.monotonic() + timeout_s
        while b"ready\n" not in self._output:
            data = self._read(deadline)
            if data is None:
                self.kill()
                raise MeasurementError(
                    f"{self.name} was not ready within {timeout_s:g} s{self._complaint()}")
            if not data:
                self._popen.wait()
                raise MeasurementError(f"{self.name} ended before it was ready{self._complaint()}")

    def terminate(self) -> None:
        """Ask the process to finish; `wait` for it afterwards."""
        if self.running:
            self._popen.terminate()

    def kill(self) -> None:
        """End the process at once. Its log keeps what was written."""
        if self.running:
            self._popen.kill()
            self._popen.wait()

    def ends_within(self, timeout_s: float) -> bool:
        """Whether the process ends by itself in that time."""
        try:
            self._popen.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def wait(self, timeout_s: float = 10.0) -> dict:
        """Wait for the end of the process and return its summary (an empty one if it printed none)."""
        deadline = time.monotonic() + timeout_s
        while self._read(deadline):
            pass
        try:
            code = self._popen.wait(max(deadline - time.monotonic(), 0.1))
        except subprocess.TimeoutExpired:
            self.kill()
            raise MeasurementError(
                f"{self.name} did not finish within {timeout_s:g} s and was killed") from None
        finally:
            self._popen.stdout.close()
        if code:
            raise MeasurementError(f"{self.name} failed with exit code {code}{self._complaint()}")
        lines = self._output.decode(errors="replace").strip().splitlines()
        return json.loads(lines[-1]) if lines and lines[-1].startswith("{") else {}

    def _read(self, deadline: float) -> bytes | None:
        """Add to the output, and return what has been added: nothing at its end; None at the deadline, if
        there is nothing to be read even then."""
        stdout = self._popen.stdout
        if stdout.closed:
            return b""
        readable, _, _ = select.select([stdout], [], [], max(deadline - time.monotonic(), 0))
        if not readable:
            return None
        data = os.read(stdout.fileno(), 65536)
        self._output += data
        return data

    def _complaint(self) -> str:
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").strip().splitlines()
        return f": {lines[-1]}" if lines else ""
