"""Optimised routes by a process of our own, where BPF is not allowed. Classes: `UserspaceCarrier`,
`ForwarderReports`.

Policy routes take packets into TUN devices, one a mark; the process `testbed.datapath.forwarder` behind them
puts the header in and sends them on. What arrives it sees by a packet socket, takes the header out, and hands
it to the kernel by another TUN device. nf_tables drops the original. One packet at a time: some hundred
Mbit/s leaving; arriving segments that are still to be cut pass uncut.
"""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Collection, Iterator
from ipaddress import IPv6Address
from pathlib import Path

from testbed.datapath import mark
from testbed.datapath.carrier import Carrier, Way
from testbed.datapath.optimisation_rules import FIRST_NUMBER
from testbed.datapath.rejected import Rejected
from testbed.datapath.route import KernelObject, PolicyRule, Route
from testbed.mobility.forwarding import Side

_ANSWER_TIMEOUT_S = 10.0
_RECORD_OCTETS = 48


class ForwarderReports:
    """What the forwarder refused, as RejectedPackets tells it."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        sock.setblocking(False)

    def fileno(self) -> int:
        return self._socket.fileno()

    def read(self, limit: int = 64) -> Iterator[Rejected]:
        for _ in range(limit):
            try:
                record = self._socket.recv(_RECORD_OCTETS)
            except (BlockingIOError, InterruptedError):
                return
            if len(record) < _RECORD_OCTETS:
                return
            yield Rejected(*(IPv6Address(record[at : at + 16]) for at in (0, 16, 32)))

    def close(self) -> None:
        self._socket.close()


class UserspaceCarrier(Carrier):
    """The parent of the forwarding process, which ends when its control socket does."""

    name = "tun"

    def __init__(self, side: Side, name: str) -> None:
        self._side = side
        self._name = name
        self._process: subprocess.Popen | None = None
        self._reports: ForwarderReports | None = None

    def open(self) -> None:
        self._control, control = socket.socketpair()
        reports, report = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        root = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "testbed.datapath.forwarder", self._side.value, self._name]
                + [str(control.fileno()), str(report.fileno())],
                pass_fds=(control.fileno(), report.fileno()),
                env={**os.environ, "PYTHONPATH": path},
                stdin=subprocess.DEVNULL,
            )
        finally:
            control.close()
            report.close()
        self._control.settimeout(_ANSWER_TIMEOUT_S)
        self._answers = self._control.makefile("r")
        if self._side is Side.CORRESPONDENT:
            self._reports = ForwarderReports(reports)
        else:
            reports.close()
        self._expect_answer()

    def _expect_answer(self) -> None:
        try:
            answer = self._answers.readline()
        except TimeoutError:
            answer = "it does not answer"
        if answer != "ok\n":
            raise OSError(0, f"the forwarder: {answer.strip() or 'it has ended'}")

    def carry(
        self,
        ways: Collection[Way],
        ours: Collection[bytes],
        interfaces: Collection[int],
        homes: Collection[bytes] = (),
    ) -> None:
        request = {
            "devices": {str(way.mark): self._device(way.mark) for way in ways},
            "ways": [[way.mark, way.interface, *(octets.hex() for octets in way[2:])] for way in ways],
            "ours": [octets.hex() for octets in ours],
            "homes": [octets.hex() for octets in homes],
        }
        self._control.sendall(json.dumps(request).encode() + b"\n")
        self._expect_answer()

    def _device(self, value: int) -> str:
        return f"{self._name}{(value >> 16) - FIRST_NUMBER}"

    def steering(self, table: int, rule: PolicyRule, route: Route | None) -> list[KernelObject]:
        return [Route(table, mark.ANY, self._device(rule.mark)), rule]

    def reports(self) -> ForwarderReports | None:
        return self._reports

    def close(self) -> None:
        if self._process is None:
            return
        self._answers.close()
        self._control.close()
        if self._reports is not None:
            self._reports.close()
            self._reports = None
        try:
            self._process.wait(_ANSWER_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None
