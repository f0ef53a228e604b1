"""What the mobile node can know of its paths: round trip and loss to the home agent, as ping finds them.

Class: `PathWatch`.
"""

import re
import statistics
import subprocess
import threading
import time
from collections import deque

from testbed.measure.process import Popen

INTERVAL_S = 0.1
#: Figures are those of so many echoes.
WINDOW = 20
#: An echo that has not been answered after this is lost (unless the round trip is longer than usual).
PATIENCE_S = 1.0
_ANSWER = re.compile(r"icmp_seq=(\d+) .*time=([\d.]+)")


class PathWatch:
    """Echoes from one interface to `target`, ten a second, from `start` to `stop`.

    An echo is 102 octets on the link, so that this costs each path some 8 kbit/s each way.
    """

    def __init__(self, popen: Popen, interface: str, target: str) -> None:
        self._command = ["ping", "-n", "-i", str(INTERVAL_S), "-I", interface, target]
        self._popen = popen
        self._process: subprocess.Popen | None = None
        self._answers: deque[tuple[int, float]] = deque(maxlen=4 * WINDOW)
        self._started_s = 0.0
        self._lock = threading.Lock()
        #: The number of the first echo that counts.
        self._since = 0

    def start(self) -> None:
        self._process = self._popen(
            self._command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            bufsize=1,
        )
        self._started_s = time.monotonic()
        threading.Thread(target=self._read, daemon=True).start()

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait()

    def _read(self) -> None:
        for line in self._process.stdout:
            if found := _ANSWER.search(line):
                with self._lock:
                    self._answers.append((int(found[1]), float(found[2])))

    def forget(self) -> None:
        """The path is another one from now on: what was measured before says nothing about it."""
        with self._lock:
            self._answers.clear()
            self._since = int((time.monotonic() - self._started_s) / INTERVAL_S)

    def figures(self) -> tuple[float | None, float | None]:
        """Median round trip (ms) and loss (0 to 1) of the last echoes; None where nothing is known yet."""
        with self._lock:
            answers = list(self._answers)
        asked = int((time.monotonic() - self._started_s) / INTERVAL_S)
        typical_ms = statistics.median(time_ms for _, time_ms in answers) if answers else 0.0
        due = asked - int(max(PATIENCE_S / 4, 2 * typical_ms / 1000) / INTERVAL_S)
        known = due - self._since
        recent = [(number, time_ms) for number, time_ms in answers if due - WINDOW < number <= due]
        if known < WINDOW:
            return (typical_ms or None), None
        loss = 1 - min(len({number for number, _ in recent}) / WINDOW, 1.0)
        return (statistics.median(time_ms for _, time_ms in recent) if recent else None), loss
