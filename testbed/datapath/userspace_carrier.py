"""Optimised routes by a process of our own, where BPF is not allowed. Class: `UserspaceCarrier`.

Policy routes take packets into TUN devices, one a mark; the process `testbed.datapath.forwarder` behind them
puts the headers in and gives the packets back as if the devices had received them, for nf_tables to send
them on (`dup`). Segments that are still to be cut pass uncut, 64 KB at a time.
"""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Collection
from ipaddress import IPv6Address
from pathlib import Path

from testbed.datapath import mark
from testbed.datapath.carrier import OWNER, PRIORITY, Carrier, Peer, Way, table_of
from testbed.datapath.optimisation_rules import number_of
from testbed.datapath.route import KernelObject, PolicyRule, Route

_ANSWER_TIMEOUT_S = 10.0


class UserspaceCarrier(Carrier):
    """The parent of the forwarding process, which begins when it is needed, and ends when its control socket
    does."""

    name = "tun"

    def __init__(self, name: str) -> None:
        self.devices = name
        self._process: subprocess.Popen | None = None

    def _start(self) -> None:
        self._control, control = socket.socketpair()
        root = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "testbed.datapath.forwarder", str(control.fileno())],
                pass_fds=(control.fileno(),),
                env={**os.environ, "PYTHONPATH": path},
                stdin=subprocess.DEVNULL,
            )
        finally:
            control.close()
        self._control.settimeout(_ANSWER_TIMEOUT_S)
        self._answers = self._control.makefile("r")
        self._expect_answer()

    def _expect_answer(self) -> None:
        try:
            answer = self._answers.readline()
        except TimeoutError:
            answer = "it does not answer"
        if answer != "ok\n":
            raise OSError(0, f"the forwarder: {answer.strip() or 'it has ended'}")

    def carry(self, ways: Collection[Way], peers: Collection[Peer], interfaces: Collection[int]) -> None:
        devices: dict[str, list[list[str]]] = {}

        def add(way: int, peer: int, *octets: bytes) -> None:
            """Source and destination (empty: any) at the device, and what they become (empty: as it is)."""
            devices.setdefault(self._device(way, peer), []).append([each.hex() for each in octets])

        by_home: dict[bytes, list[Peer]] = {}
        for peer in peers:
            by_home.setdefault(peer.home_address, []).append(peer)
            add(0, peer.peer, b"", peer.home_address, b"", peer.care_of_address)
        for way in ways:
            pair = way.home_address, way.correspondent
            add(way.way, 0, *pair, way.care_of_address, b"")
            for peer in by_home.get(way.correspondent, ()):
                add(way.way, peer.peer, *pair, way.care_of_address, peer.care_of_address)
        if self._process is None:
            if not devices:
                return
            self._start()
        self._control.sendall(json.dumps(devices).encode() + b"\n")
        self._expect_answer()

    def _device(self, way: int, peer: int) -> str:
        return f"{self.devices}{number_of(way, peer) - number_of()}"

    def way(
        self, way: int, interface: str, gateway: IPv6Address | None, peers: Collection[int]
    ) -> list[KernelObject]:
        return [o for peer in (0, *peers) for o in self._steering(way, peer)]

    def peer(self, peer: int) -> list[KernelObject]:
        return self._steering(0, peer)

    def _steering(self, way: int, peer: int) -> list[KernelObject]:
        table, value = table_of(way, peer), mark.value(number_of(way, peer))
        rule = PolicyRule(PRIORITY, table, value, mark.NUMBER_MASK, owner=OWNER)
        return [Route(table, mark.ANY, self._device(way, peer)), rule]

    def close(self) -> None:
        if self._process is None:
            return
        self._answers.close()
        self._control.close()
        try:
            self._process.wait(_ANSWER_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None
