"""Captures packets inside a host: `python -m testbed.measure.capture ... INTERFACE=FILE ...`.

Files are pcap with nanoseconds, link type Ethernet, as Wireshark and tcpdump read them. An interface that
goes down is captured again when it is up, one that is replaced by another of the same name likewise. Beside
the packets the process keeps facts: drops, and samples of the wall clock, which stamps packets, against the
monotonic clock, which stamps events. Classes for the experiment: `Capture`, `CaptureFile`.
"""

import argparse
import json
import select
import socket
import struct
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from testbed.measure.pacing import Stop
from testbed.measure.packet_ring import PacketRing
from testbed.measure.process import HostProcess, Popen

#: Ethernet, two IPv6 headers, an extension header, TCP with its options or UDP with the probe's header.
HEADERS_ONLY = 176
WHOLE_PACKETS = 262144

_PCAP_HEADER = struct.pack("@IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, WHOLE_PACKETS, 1)
_RTMGRP_LINK = 1
_CLOCK_PERIOD_NS = 500_000_000
_SETTLE_S = 0.15


class _Recorder:
    """One interface and its file, across the interface's ups, downs and replacements."""

    def __init__(self, interface: str, path: Path, snaplen: int, ring_octets: int):
        self.interface = interface
        self._snaplen, self._ring_octets = snaplen, ring_octets
        self._file = open(path, "wb", buffering=0)
        self._file.write(_PCAP_HEADER)
        self._records = bytearray()
        self._index: int | None = None
        self._current: PacketRing | None = None
        #: Rings of interfaces that are gone, until their last block has come, which is not full.
        self._retiring: list[tuple[PacketRing, float]] = []
        self.packets = self.drops = 0
        self.follow()

    @property
    def rings(self) -> list[PacketRing]:
        return [ring for ring, _ in self._retiring] + ([self._current] if self._current else [])

    @property
    def retiring(self) -> bool:
        return bool(self._retiring)

    def follow(self) -> None:
        """Be on the interface that now has the name. Raises OSError on any failure but its absence."""
        try:
            index = socket.if_nametoindex(self.interface)
        except OSError:
            index = None
        if index == self._index:
            return
        if self._current is not None:
            self._retiring.append((self._current, time.monotonic() + _SETTLE_S))
        self._current = None if index is None else PacketRing(
            self.interface, self._snaplen, self._ring_octets)
        self._index = index

    def drain(self) -> None:
        """Write all that is ready."""
        for ring in self.rings:
            while ring.read(self._records):
                if len(self._records) >= 1 << 20:
                    self._write()
        self._write()
        now = time.monotonic()
        for ring, until in self._retiring:
            if until <= now:
                self._close(ring)
        self._retiring = [(ring, until) for ring, until in self._retiring if until > now]

    def close(self) -> None:
        self.drain()
        for ring in self.rings:
            self._close(ring)
        self._file.close()

    def _close(self, ring: PacketRing) -> None:
        packets, drops = ring.count()
        self.packets, self.drops = self.packets + packets, self.drops + drops
        ring.close()

    def _write(self) -> None:
        self._file.write(self._records)
        self._records.clear()


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    stop = Stop()
    recorders: list[_Recorder] = []
    try:
        for interface, path in options.captures:
            recorders.append(_Recorder(interface, path, options.snaplen, options.ring_octets))
            if not recorders[-1].rings:
                raise OSError(None, f"there is no interface {interface}")
        clock = _record(recorders, stop)
    except OSError as error:
        print(f"cannot capture: {error.strerror or error}", file=sys.stderr)
        return 1
    finally:
        for recorder in recorders:
            recorder.close()
    facts = {"clock": clock, "interfaces": {recorder.interface: {
        "packets": recorder.packets, "drops": recorder.drops} for recorder in recorders}}
    options.facts.write_text(json.dumps(facts))
    print(json.dumps(facts["interfaces"]), flush=True)
    return 0


def _record(recorders: list[_Recorder], stop: Stop) -> list[tuple[int, int]]:
    """Write packets until stopped; the clock samples (monotonic ns, wall ns)."""
    links = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
    links.bind((0, _RTMGRP_LINK))
    links.setblocking(False)
    clock = [_clock_sample()]
    print("ready", flush=True)
    finish_ns = None
    with links:
        while finish_ns is None or time.monotonic_ns() < finish_ns:
            poll = select.poll()
            poll.register(links, select.POLLIN)
            if finish_ns is None:
                poll.register(stop, select.POLLIN)
            for recorder in recorders:
                for ring in recorder.rings:
                    poll.register(ring, select.POLLIN)
            hurry = finish_ns is not None or any(recorder.retiring for recorder in recorders)
            poll.poll(50 if hurry else 500)
            if stop.is_set and finish_ns is None:
                # A block that is not full comes after the kernel's time-out.
                finish_ns = time.monotonic_ns() + int(_SETTLE_S * 1e9)
            changed = _pending(links)
            for recorder in recorders:
                for ring in recorder.rings:
                    changed |= ring.clear_error() != 0
                recorder.drain()
                if changed:
                    recorder.follow()
            if time.monotonic_ns() - clock[-1][0] >= _CLOCK_PERIOD_NS:
                clock.append(_clock_sample())
    clock.append(_clock_sample())
    return clock


def _clock_sample() -> tuple[int, int]:
    before, wall, after = time.monotonic_ns(), time.time_ns(), time.monotonic_ns()
    return (before + after) // 2, wall


def _pending(links: socket.socket) -> bool:
    """Whether the kernel announced a change of any link since the last look."""
    changed = False
    while True:
        try:
            changed |= bool(links.recv(65536))
        except BlockingIOError:
            return changed
        except OSError:  # announcements were lost: look for oneself
            changed = True


def _parser() -> argparse.ArgumentParser:
    def capture(text: str) -> tuple[str, Path]:
        interface, equals, path = text.partition("=")
        if not (interface and equals and path):
            raise argparse.ArgumentTypeError(f"{text!r} is not INTERFACE=FILE")
        return interface, Path(path)

    parser = argparse.ArgumentParser(prog="capture", description="Capture interfaces into pcap files.")
    parser.add_argument("captures", nargs="+", type=capture, metavar="INTERFACE=FILE")
    parser.add_argument("--facts", type=Path, required=True, metavar="FILE",
                        help="drops and clock samples (JSON)")
    parser.add_argument("--snaplen", type=int, default=HEADERS_ONLY, metavar="OCTETS")
    parser.add_argument("--ring-octets", type=int, default=16 << 20, metavar="OCTETS",
                        help="buffer of each interface")
    return parser


@dataclass(frozen=True, slots=True)
class CaptureFile:
    """One interface's packets: `facts` is the JSON file with its drops and clock samples."""

    host: str
    interface: str
    path: Path
    facts: Path

    def clock(self) -> list[tuple[int, int]]:
        """(monotonic ns, wall ns) samples."""
        return [tuple(sample) for sample in json.loads(self.facts.read_text())["clock"]]

    def drops(self) -> int:
        """Packets that the capture missed because this machine was too slow."""
        return json.loads(self.facts.read_text())["interfaces"][self.interface]["drops"]


class Capture:
    """Captures `interfaces` of one host from `start` to `stop`, into DIRECTORY/HOST.INTERFACE.pcap.

    Raises MeasurementError if the capture cannot start or dies.
    """

    def __init__(self, popen: Popen, host: str, interfaces: Sequence[str], directory: str | Path, *,
                 whole_packets: bool = False):
        directory = Path(directory)
        facts = directory / f"{host}.capture.json"
        self.files = [CaptureFile(host, interface, directory / f"{host}.{interface}.pcap", facts)
                      for interface in interfaces]
        self._popen, self._host, self._facts = popen, host, facts
        self._snaplen = WHOLE_PACKETS if whole_packets else HEADERS_ONLY
        self._process: HostProcess | None = None

    def start(self) -> None:
        """Begin; `wait_ready` says when packets are being captured."""
        self._process = HostProcess(self._popen, f"capture in {self._host}", "testbed.measure.capture", [
            "--facts", self._facts, "--snaplen", self._snaplen,
            *(f"{file.interface}={file.path}" for file in self.files)])

    def wait_ready(self, timeout_s: float = 10.0) -> None:
        """Return once packets are captured. Raises MeasurementError."""
        self._process.wait_ready(timeout_s)

    def stop(self, timeout_s: float = 10.0) -> dict[str, dict[str, int]]:
        """End; packets and drops of each interface."""
        self._process.terminate()
        return self._process.wait(timeout_s)


if __name__ == "__main__":
    sys.exit(main())
