"""An agent as a process of an emulated host: its configuration file, start, readiness and end.

Functions: `mobile_node_configuration`, `home_agent_configuration`, `to_toml`. Class: `Agent`.
"""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from testbed.agent.control import Client, ControlError
from testbed.emulation.process import EmulationError, wait_until

#: A mobile node says goodbye, for 3 s where nobody answers; the rest is for a machine that stands still.
STOP_TIMEOUT_S = 20.0


def mobile_node_configuration(
    name: str,
    home_address: str,
    home_agent: str,
    interfaces: Iterable[Mapping],
    security: Mapping,
    flows: Iterable[Mapping] = (),
    lifetime_s: int = 60,
    tunnel_backend: str = "auto",
) -> dict:
    """The configuration of a mobile node's agent.

    `interfaces`: mappings with `name`, `bid`, `priority` (the lowest is the default binding); `security`: the
    tables of what it shares with the home agent (see `testbed.emulation.security`); `flows`: mappings with
    `fid`, `priority`, `action`, `bids` and selector keys.
    """
    return {
        "role": "mobile-node",
        "name": name,
        "home_address": str(home_address),
        "home_agent": str(home_agent),
        "lifetime_s": lifetime_s,
        "interface": [dict(interface) for interface in interfaces],
        **security,
        "flow": [dict(flow) for flow in flows],
        "datapath": {"tunnel_backend": tunnel_backend},
    }


def home_agent_configuration(
    name: str,
    address: str,
    home_interface: str,
    home_prefixes: Sequence[str],
    security: Mapping,
    max_lifetime_s: int = 420,
    tunnel_backend: str = "auto",
) -> dict:
    """The configuration of a home agent's agent. `security`: tables of what mobile nodes share with it."""
    return {
        "role": "home-agent",
        "name": name,
        "address": str(address),
        "home_interface": home_interface,
        "home_prefixes": [str(prefix) for prefix in home_prefixes],
        **security,
        "max_lifetime_s": max_lifetime_s,
        "duplicate_address_detection": False,  # nor do the nodes: it would hold everything back for a second
        "datapath": {"tunnel_backend": tunnel_backend},
    }


def to_toml(configuration: Mapping) -> str:
    """`configuration` as TOML: plain values first, then tables, then arrays of tables; what is a
    table within a table is written in line."""
    plain, tables = [], []
    for key, value in configuration.items():
        if isinstance(value, Mapping):
            tables += [f"\n[{key}]"] + [f"{k} = {_toml_value(v)}" for k, v in value.items()]
        elif isinstance(value, (list, tuple)) and value and all(isinstance(item, Mapping) for item in value):
            for item in value:
                tables += [f"\n[[{key}]]"] + [f"{k} = {_toml_value(v)}" for k, v in item.items()]
        elif value is not None and not (isinstance(value, (list, tuple)) and not value):  # these say nothing
            plain.append(f"{key} = {_toml_value(value)}")
    return "\n".join(plain + tables) + "\n"


def _toml_value(value: object) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_toml_value(each)}" for key, each in value.items()) + " }"
    if isinstance(value, bool) or isinstance(value, str):
        return json.dumps(value)  # JSON's strings and booleans are valid TOML
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_toml_value(item) for item in value) + "]"
    return repr(value)


class Agent:
    """One run of `python -m testbed.agent` in a host.

    `command_prefix` is what puts a command into the host; the process's output goes to `log`.
    """

    def __init__(self, command_prefix: Sequence[str], configuration: Mapping, file: Path, log: Path,
                 environment: Mapping[str, str]):
        self.name = configuration["name"]
        self.socket = configuration["control"]["socket"]
        self.log = log
        self._stopping = False
        file.unlink(missing_ok=True)
        with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as text:  # has a key in it
            text.write(to_toml(configuration))
        with open(log, "ab") as output:
            self.process = subprocess.Popen(
                [*command_prefix, sys.executable, "-m", "testbed.agent", str(file)],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=output, env=dict(environment),
                start_new_session=True)  # Ctrl-C in the command line is for what was typed there

    def await_ready(self, timeout_s: float) -> None:
        """Return when the agent has said that it is ready and its control socket answers.

        Raises EmulationError with the last line of its log if it ends or stays silent.
        """
        deadline = time.monotonic() + timeout_s
        readable, _, _ = select.select([self.process.stdout], [], [], timeout_s)
        if not readable:
            raise EmulationError(f"the agent of {self.name} was not ready within {timeout_s:g} s: "
                                 f"{self._last_words()}")
        if not self.process.stdout.readline():
            self.process.wait()
            raise EmulationError(f"the agent of {self.name} ended at its start: {self._last_words()}")
        remaining_s = max(0.1, deadline - time.monotonic())
        wait_until(self.answers, remaining_s, f"an answer of the agent of {self.name}")

    def answers(self) -> bool:
        """Whether the control socket answers a command."""
        try:
            self.ask("bindings")
        except EmulationError:
            return False
        return True

    def ask(self, command: str, **arguments: object) -> object:
        """Send one command to the control socket, return its result.

        Raises EmulationError with a sentence if the agent refuses or does not answer.
        """
        try:
            with Client(self.socket) as client:
                return client.request(command, **arguments)
        except ControlError as error:
            raise EmulationError(f"{self.name}: {error}") from None

    def begin_stop(self) -> None:
        """Ask it to end in good order (SIGTERM: a mobile node de-registers), and do not wait."""
        if not self._stopping and self.process.poll() is None:
            self._stopping = True  # a second signal might meet it when it no longer listens to signals
            self.process.send_signal(signal.SIGTERM)

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> int:
        """End it in good order; kill it if that takes too long.

        Returns its exit status, negative if a signal ended it.
        """
        self.begin_stop()
        if self.process.poll() is None:
            try:
                self.process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self.process.kill()
        return self._reap()

    def kill(self) -> int:
        """End it at once, as a crash would."""
        self.process.kill()
        return self._reap()

    def _reap(self) -> int:
        self.process.stdout.close()
        return self.process.wait()

    def _last_words(self) -> str:
        lines = self.log.read_text(errors="replace").strip().splitlines() if os.path.exists(self.log) else []
        return lines[-1] if lines else f"it wrote nothing to {self.log}"
