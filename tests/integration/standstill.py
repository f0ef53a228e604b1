"""How long the machine did not run while something was timed. Class: `Standstill`."""

import threading
import time
from collections.abc import Callable

from datapath_network import wait_for

_TICK_S = 0.01
#: Who goes on after a standstill may be so much later than others.
_AFTERWARDS_S = 0.1
#: A machine that is only busy does not keep anybody waiting for so long.
_STOOD_STILL_S = 0.1


class Standstill:
    """A context manager around what is timed: a thread asks to be woken all the time, and sees by how much it
    is late, as everybody else is. All times are those of `clock`: `time.time` for stamps of packets."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._late: list[tuple[float, float]] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Standstill":
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.is_set():
            due = self._clock() + _TICK_S
            self._over.wait(_TICK_S)
            self._late.append((due, self._clock()))

    def seconds(self, start: float, end: float, at_once: float = 0.0) -> float:
        """How long nothing ran at times that have a part in this one, and were longer than `at_once`."""
        wait_for(lambda: self._late and self._late[-1][1] >= end)
        late = [woken - due for due, woken in self._late if due < end and woken > start]
        return sum(seconds for seconds in late if seconds > at_once)

    def allows(self, at_least: float, less_than: float, start: float, end: float) -> bool:
        """Whether so many seconds were between what was seen at `start` and at `end`, but for the time in
        which the machine stood still: the one may have been due earlier, the other was done later."""
        before = self.seconds(start - _AFTERWARDS_S, start, _STOOD_STILL_S)
        during = self.seconds(start, end, _STOOD_STILL_S)
        return at_least - before <= end - start < less_than + during
