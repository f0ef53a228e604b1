"""When the probe sends, and how it is told to stop. Class: `Stop`; functions: `arrivals`,
`take_precedence`.
"""

import os
import select
import signal
import time
from collections.abc import Iterator
from random import Random

PATTERNS = ("constant", "poisson")


class Stop:
    """SIGTERM and SIGINT as something to wait for, from any thread. Made once, in the main thread."""

    def __init__(self):
        self._reader, self._writer = os.pipe()
        self.is_set = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.set())

    def set(self) -> None:
        self.is_set = True
        os.write(self._writer, b"x")

    def fileno(self) -> int:
        """Readable from the moment the stop is set, for ever."""
        return self._reader

    def wait_until(self, due_ns: int) -> bool:
        """Wait until the CLOCK_MONOTONIC time `due_ns`; True, at once, if stopped."""
        while not self.is_set:
            remaining_ns = due_ns - time.monotonic_ns()
            if remaining_ns <= 0:
                return False
            select.select([self._reader], [], [], remaining_ns / 1e9)
        return True


def arrivals(start_ns: int, per_second: float, pattern: str = "constant", seed: int = 0) -> Iterator[int]:
    """Times, in ns, at which to send: each one computed from the start, so that lateness never adds up.

    "constant" is the periodic stream of RFC 3432, its phase drawn from the seed so that flows of the same
    rate are not in step; "poisson" has exponential spacing (RFC 2330). Raises ValueError for others.
    """
    random = Random(seed)
    interval_ns = 1e9 / per_second
    if pattern == "constant":
        first = start_ns + random.random() * interval_ns
        number = 0
        while True:
            yield int(first + number * interval_ns)
            number += 1
    if pattern != "poisson":
        raise ValueError(f"pattern {pattern!r} is unknown: it is one of {', '.join(PATTERNS)}")
    due = float(start_ns)
    while True:
        due += random.expovariate(1 / interval_ns)
        yield int(due)


def take_precedence() -> None:
    """Let this process run as soon as it is due: an instrument must not be what is measured.

    Real-time round robin at its lowest priority, for this process only, and 1 ns of timer slack; where that
    is forbidden things are as they were, and the recorded lateness tells.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(1))
    except OSError:
        pass
    try:
        with open("/proc/self/timerslack_ns", "w") as slack:
            slack.write("1")
    except OSError:
        pass
