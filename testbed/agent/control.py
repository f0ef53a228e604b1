"""Talking to an agent through its control socket, from any program.

Classes: `Client`. Functions: `find_socket`. Exceptions: `ControlError`, `Refused`.

Both sides write one JSON object a line: `{"command": ..., arguments}` is answered by
`{"ok": true, "result": ...}` or `{"ok": false, "error": "sentence"}`.
"""

import glob
import itertools
import json
import os
import socket
import stat
from collections.abc import Iterator
from typing import Any

#: Where agents have their control sockets by default, and the variable that names another one.
SOCKET_FOLDER = "/run/flowbind"
SOCKET_VARIABLE = "FLOWBIND_SOCKET"


class ControlError(Exception):
    """The agent cannot be talked to; the text is one sentence."""


class Refused(ControlError):
    """The agent has understood and refuses; the text is its sentence."""


def find_socket(path: str | None = None) -> str:
    """The control socket to use: `path`, else $FLOWBIND_SOCKET, else the only one in /run/flowbind.

    Raises ControlError if that does not name one.
    """
    path = path or os.environ.get(SOCKET_VARIABLE)
    if path:
        return path
    found = sorted(p for p in glob.glob(f"{SOCKET_FOLDER}/*.sock") if stat.S_ISSOCK(os.stat(p).st_mode))
    if len(found) == 1:
        return found[0]
    if not found:
        raise ControlError(f"no agent runs here: there is no control socket in {SOCKET_FOLDER}")
    names = ", ".join(found)
    raise ControlError(f"several agents run here: choose one with --socket or ${SOCKET_VARIABLE}: {names}")


class Client:
    """A connection to an agent. Also a context manager.

    `timeout_s` is how long to wait for an answer. Raises ControlError if there is no agent at `path`.
    """

    def __init__(self, path: str | None = None, timeout_s: float = 10.0) -> None:
        self.path = find_socket(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self._socket.settimeout(timeout_s)
        try:
            self._socket.connect(self.path)
        except PermissionError:
            self._socket.close()
            raise ControlError(f"{self.path} is not yours to use: try it as root (sudo)") from None
        except OSError as error:
            self._socket.close()
            raise ControlError(f"no agent answers at {self.path}: {error.strerror or error}") from None
        self._lines = self._socket.makefile("rb")

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """End the connection."""
        self._lines.close()
        self._socket.close()

    def request(self, command: str, **arguments: Any) -> Any:
        """The result of `command`. Raises Refused with the agent's sentence, ControlError if none comes."""
        given = {key: value for key, value in arguments.items() if value is not None}
        request = {"command": command, **given}
        try:
            self._socket.sendall(json.dumps(request).encode() + b"\n")
        except OSError as error:
            raise ControlError(f"the agent at {self.path} is gone: {error.strerror or error}") from None
        answer = self._read()
        if answer.get("ok"):
            return answer.get("result")
        raise Refused(answer.get("error", "the agent refuses"))

    def events(self, last: int = 0) -> Iterator[dict[str, Any]]:
        """The `last` events that happened, then each as it happens, without end. The connection is then used
        up. Raises ControlError when the agent ends."""
        recent = self.request("events", last=last, follow=True)
        self._socket.settimeout(None)
        return itertools.chain(recent, iter(self._read, None))

    def _read(self) -> dict[str, Any]:
        try:
            line = self._lines.readline()
        except TimeoutError:
            raise ControlError(f"the agent at {self.path} does not answer") from None
        except OSError as error:
            raise ControlError(f"the agent at {self.path} is gone: {error.strerror or error}") from None
        if not line.endswith(b"\n"):
            raise ControlError(f"the agent at {self.path} has ended")
        try:
            return json.loads(line)
        except ValueError:
            raise ControlError(f"what answers at {self.path} is not an agent") from None
