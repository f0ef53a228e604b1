"""The parent's side of the wire process: WireProcess starts it, asks it, and notices when it dies."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from itertools import count
from pathlib import Path

from testbed.emulation.link_parameters import LinkError

# It answers within a millisecond or so; a machine on which it does not in this time cannot run an experiment.
ANSWER_TIMEOUT_S = 10
MESSAGE_OCTETS = 65536


class WireProcess:
    """A process that carries frames between TAP devices; see wire.py.

    Started with the first link, ended with the last.  Thread-safe.
    """

    _shared: WireProcess | None = None
    _shared_lock = threading.Lock()

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers = count(1)
        self._listeners: dict[int, Callable[[str], None]] = {}
        self._process: subprocess.Popen | None = None
        self._control: socket.socket | None = None
        self._owner = 0
        self.failure: str | None = None  # a sentence, once the process has died by itself

    @classmethod
    def shared(cls) -> WireProcess:
        """The one for all links that this process makes, unless they are given another."""
        with cls._shared_lock:
            shared = cls._shared
            # A process that has forked has its parent's object, but not its parent's child.
            if shared is None or shared.failure or shared._owner not in (0, os.getpid()):
                shared = cls._shared = cls()
            return shared

    @property
    def pid(self) -> int | None:
        """Its process id while it runs."""
        return self._process.pid if self._process else None

    def open_link(self, devices: list[int], parameters: list[dict], failed: Callable[[str], None]) -> int:
        """Add a link, without carrier; returns its number.

        devices: file descriptors of two TAP devices, which the caller may close afterwards; failed: called in
        another thread with a sentence if the process dies.
        """
        with self._lock:
            if self._process is None:
                self._start()
            number = next(self._numbers)
            self._listeners[number] = failed
        try:
            self.ask("add", devices, link=number, parameters=parameters)
        except BaseException:
            self.close_link(number, remove=False)
            raise
        return number

    def close_link(self, number: int, remove: bool = True) -> None:
        """Remove a link, and end the process if it was the last; nothing if the process has died."""
        with self._lock:
            if self._listeners.pop(number, None) is None or self.failure:
                return
            last = not self._listeners
        if remove and not last:
            self.ask("remove", link=number)
        if last:
            self._stop()

    def ask(self, do: str, devices: list[int] = (), /, **request: object) -> dict:
        """Send a request and return the answer.  Raises LinkError with the reason when it fails."""
        with self._lock:
            if self.failure or self._control is None:
                raise LinkError(self.failure or "the wire process has not been started")
            number = next(self._numbers)
            try:
                message = json.dumps({"do": do, "number": number, **request}).encode()
                socket.send_fds(self._control, [message], devices)
                # An answer to an earlier question is there when Ctrl-C has kept that from waiting for it.
                answer = self._control.recv(MESSAGE_OCTETS)
                while answer and json.loads(answer)["number"] != number:
                    answer = self._control.recv(MESSAGE_OCTETS)
            except TimeoutError as error:
                raise LinkError(f"the wire process (pid {self.pid}) has not answered for "
                                f"{ANSWER_TIMEOUT_S} s; the machine is too busy") from error
            except OSError:
                answer = b""
        if not answer:
            raise LinkError(f"the wire process (pid {self.pid}), which carries the links, has died")
        reply = json.loads(answer)
        if not reply["ok"]:
            raise LinkError(f"the wire process cannot {do}: {reply['error']}")
        return reply

    def _start(self) -> None:
        self._control, child = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.settimeout(ANSWER_TIMEOUT_S)
        # The kernel's death signal would come already when the thread ends that has started the child, so
        # only the main thread may ask for it; the end of the socket does the same a moment later.
        parent = os.getpid() if threading.current_thread() is threading.main_thread() else 0
        with child:
            self._process = subprocess.Popen(
                # A session of its own: Ctrl-C in the terminal must not reach it.
                [sys.executable, "-I", "-S", str(Path(__file__).with_name("wire.py")), str(child.fileno()),
                 str(parent)],
                pass_fds=[child.fileno()], stdin=subprocess.DEVNULL, start_new_session=True)
        self._owner = os.getpid()
        threading.Thread(target=self._watch, args=(self._process,), name="wire-watch", daemon=True).start()

    def _watch(self, process: subprocess.Popen) -> None:
        # Who stops and continues this program, and interrupts it meanwhile, wakes the main thread, or Python
        # would not notice before that has something else to do.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        status = process.wait()
        with self._lock:
            if process is not self._process:
                return  # it was told to end
            how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
            self.failure = f"the wire process (pid {process.pid}), which carries the links, {how}"
            listeners = list(self._listeners.values())
            self._control.close()
        for failed in listeners:
            failed(self.failure)

    def _stop(self) -> None:
        with self._lock:
            if self._process is None or self._listeners:
                return
            process, self._process = self._process, None
            self._control.close()
            self._control = None
        try:
            process.wait(ANSWER_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
