"""The controller's control socket: one JSON object a line, as an agent's. Class: `ControlServer`."""

import json
import logging
import os
import socket
from collections.abc import Callable, Mapping
from typing import Any

logger = logging.getLogger(__name__)


class ControlServer:
    """Answers `{"command": NAME}` at a UNIX socket with what `commands[NAME]()` returns."""

    def __init__(
        self, path: str, commands: Mapping[str, Callable[[], Any]], spawn: Callable[..., Any]
    ) -> None:
        self.path = path
        self._commands = commands
        self._spawn = spawn
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        if os.path.lexists(path):
            os.unlink(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        mask = os.umask(0o177)
        try:
            self._socket.bind(path)
        finally:
            os.umask(mask)
        self._socket.listen(16)

    def run(self) -> None:
        """Serve until `close`."""
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self._spawn(self._serve, connection)

    def close(self) -> None:
        """Stop, and remove the socket."""
        self._socket.close()
        if os.path.lexists(self.path):
            os.unlink(self.path)

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as lines:
            try:
                for line in lines:
                    connection.sendall(json.dumps(self._answer(line)).encode() + b"\n")
            except OSError:
                pass  # it has left

    def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            request = json.loads(line)
            command = request["command"]
        except (ValueError, TypeError, KeyError):
            return {"ok": False, "error": 'expected a JSON object with the key "command"'}
        if command not in self._commands:
            known = ", ".join(self._commands)
            return {"ok": False, "error": f"there is no command {command!r}; known are {known}"}
        try:
            return {"ok": True, "result": self._commands[command]()}
        except Exception:  # a defect: the log shows where
            logger.exception("command %s failed", command)
            return {"ok": False, "error": "the controller failed at this; its log says where"}
