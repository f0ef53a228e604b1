"""Waiting for conditions, and ending exactly the processes that a network has started.

Functions: `wait_until`, `network_namespace`, `processes_in`, `end_processes`. Exception: `EmulationError`.
"""

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable, Iterable

POLL_INTERVAL_S = 0.005


class EmulationError(Exception):
    """The emulated network cannot do what was asked; the text is one sentence for the person."""


def wait_until(condition: Callable[[], object], timeout_s: float, what: str) -> object:
    """Return the first true value of `condition()`.

    Raises EmulationError that names `what` was waited for after `timeout_s` seconds without one.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() >= deadline:
            raise EmulationError(f"{what} did not happen within {timeout_s:g} s.")
        time.sleep(POLL_INTERVAL_S)


def network_namespace(pid: int) -> int | None:
    """The inode number that identifies the network namespace of a process; None if that is gone."""
    try:
        return os.stat(f"/proc/{pid}/ns/net").st_ino
    except OSError:
        return None


def processes_in(namespaces: Iterable[int]) -> list[int]:
    """The process ids of everything that runs in these network namespaces (inode numbers)."""
    wanted = set(namespaces)
    pids = (int(name) for name in os.listdir("/proc") if name.isdigit())
    return [pid for pid in pids if network_namespace(pid) in wanted]


def end_processes(pids: Iterable[int], timeout_s: float = 1.0) -> None:
    """Ask processes to end (SIGTERM), and after `timeout_s` seconds make those that have not (SIGKILL).

    Returns when all have ended. Children of this process stay zombies until their `Popen` is asked.
    """
    watched = {}
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            watched[os.pidfd_open(pid)] = pid
    try:
        _signal(watched, signal.SIGTERM)
        _await_end(watched, timeout_s)
        _signal(watched, signal.SIGKILL)
        _await_end(watched, timeout_s=60.0)
    finally:
        for descriptor in watched:
            os.close(descriptor)


def _signal(watched: dict[int, int], number: int) -> None:
    for descriptor in watched:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(descriptor, number)


def _await_end(watched: dict[int, int], timeout_s: float) -> None:
    """Close and forget the descriptors of those that end; a pidfd becomes readable when its process ends."""
    poller = select.poll()
    for descriptor in watched:
        poller.register(descriptor, select.POLLIN)
    deadline = time.monotonic() + timeout_s
    while watched:
        ended = poller.poll(max(0.0, (deadline - time.monotonic()) * 1000))
        if not ended:
            return
        for descriptor, _ in ended:
            poller.unregister(descriptor)
            os.close(descriptor)
            del watched[descriptor]
