"""The controller that mirrors flow bindings, as a Mininet controller. Class: `FlowBindingController`."""

import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from mininet.node import Controller, Node

from testbed.emulation.process import EmulationError
from testbed.isolation import PRIVATE_DIRECTORY

PROJECT = Path(__file__).resolve().parents[2]
START_TIMEOUT_S = 60.0
#: For an answer, and for the end: it takes its rules along then, from switches that may be slow.
_PATIENCE_S = 30.0


class FlowBindingController(Controller):
    """`python -m controllers.runner` on a port of its own, outside the hosts.

    fabric: what is to stand in its description of the switches (see `controllers.fabric`). python: the
    interpreter, of an environment with os-ken or Ryu; library: "os_ken" or "ryu", None for what is there. Its
    log is `NAME.log` and its events go to `events.jsonl` in the log folder; its control socket is
    /run/flowbind/NAME.control.
    """

    def __init__(
        self,
        name: str,
        fabric: Mapping | None = None,
        python: str | None = None,
        library: str | None = None,
        log_directory: str | os.PathLike | None = None,
        port: int | None = None,
        **parameters,
    ) -> None:
        self.fabric = fabric
        self.python = python or sys.executable
        self.library = library
        self.control_socket = str(Path(PRIVATE_DIRECTORY, f"{name}.control"))
        self.log_directory = Path(log_directory or PRIVATE_DIRECTORY)
        self.process: subprocess.Popen | None = None
        super().__init__(name, port=port or _free_port(), **parameters)

    def checkListening(self) -> None:
        """Mininet's check wants telnet; the program itself says when its port is taken."""

    def start(self) -> None:
        """Start it, and return when switches can connect. Raises EmulationError."""
        if self.fabric is None:
            raise EmulationError(f"{self.name}: the controller needs a description of the switches.")
        if self.process and self.process.poll() is None:
            return
        self.log_directory.mkdir(parents=True, exist_ok=True)
        fabric = self.log_directory / f"{self.name}.toml"
        fabric.write_text(_to_toml(self.fabric))
        command = [
            self.python,
            "-W",
            "ignore",
            "-m",
            "controllers.runner",
            "--fabric",
            str(fabric),
            "--port",
            str(self.port),
            "--socket",
            self.control_socket,
            "--events",
            str(self.log_directory / "events.jsonl"),
        ]
        environment = os.environ | {"PYTHONPATH": str(PROJECT)}
        if self.library:
            environment["FLOWBIND_CONTROLLER_LIBRARY"] = self.library
        with open(self.log_file, "ab") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
                start_new_session=True,
            )
        readable, _, _ = select.select([self.process.stdout], [], [], START_TIMEOUT_S)
        if not readable or not self.process.stdout.readline():
            self.kill()
            raise EmulationError(f"the controller did not start: {self._last_words()}")

    @property
    def log_file(self) -> Path:
        return self.log_directory / f"{self.name}.log"

    def stop(self, *arguments, **parameters) -> None:
        """End it in good order: it takes its rules out of the switches."""
        self._end(signal.SIGTERM)
        Node.stop(self, *arguments, **parameters)  # Controller's would look for a job of its shell

    def kill(self) -> None:
        """End it as a crash would."""
        self._end(signal.SIGKILL)

    def _end(self, number: int) -> None:
        process, self.process = self.process, None
        if process is None:
            return
        process.send_signal(number)
        try:
            process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()

    def ask(self, command: str) -> object:
        """The answer of its control socket. Raises EmulationError if it refuses, OSError if there is none."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(_PATIENCE_S)
            connection.connect(self.control_socket)
            connection.sendall(json.dumps({"command": command}).encode() + b"\n")
            with connection.makefile() as lines:
                answer = json.loads(lines.readline())
        if not answer.get("ok"):
            raise EmulationError(f"{self.name}: {answer.get('error')}")
        return answer["result"]

    def _last_words(self) -> str:
        lines = self.log_file.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"it wrote nothing to {self.log_file}"


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _to_toml(tables: Mapping) -> str:
    """Values first, then tables, then arrays of tables: JSON's values are TOML's."""
    plain = [f"{key} = {json.dumps(value)}" for key, value in tables.items() if not _is_table(value)]
    for key, value in tables.items():
        if isinstance(value, Mapping):
            plain += [f"\n[{key}]", *(f"{json.dumps(str(k))} = {json.dumps(v)}" for k, v in value.items())]
        elif _is_table(value):
            for item in value:
                plain += [f"\n[[{key}]]", *(f"{k} = {json.dumps(v)}" for k, v in item.items())]
    return "\n".join(plain) + "\n"


def _is_table(value: object) -> bool:
    return isinstance(value, Mapping) or (
        isinstance(value, (list, tuple)) and bool(value) and all(isinstance(item, Mapping) for item in value)
    )
