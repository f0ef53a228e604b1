"""Recordings of what a link's rate and loss were, and their playing. Classes: `Trace`, `TracePlayer`.
Function: `read_trace`. Exception: `TraceError`.

Three formats, in which recordings of mobile networks are published; the name's end tells them apart:

- `.csv`: a header line with `time_s`, `bandwidth_mbit`, and if wanted `loss_percent` and `delay_ms`; each
  line holds from its time on, times ascend from 0, and the last line ends the recording;
- `.mahimahi`, `.up`, `.down`, `.pps`: the Mahimahi link emulator's: one line for each opportunity to deliver
  1500 octets, its time in ms;
- any other: lines of numbers. Two are a time (s) and the rate (Mbit/s) since the line before, as adaptive
  streaming is simulated with (Pensieve). Six are a log of a download (3G of Oslo, 4G of Ghent), of which the
  last two count: the octets since the line before, and in how many ms they came.
"""

import csv
import itertools
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

from testbed.emulation.link import LinkError, ShapedLink

#: Opportunities of a Mahimahi recording are counted over this time.
BIN_MS = 100
OPPORTUNITY_OCTETS = 1500
#: A link cannot have no rate at all: a packet would stay on it for ever.
LEAST_MBIT = 0.05


class TraceError(Exception):
    """A recording cannot be used; the text names file and line."""


@dataclass(frozen=True, slots=True)
class Sample:
    """From `time_s` on; None: as the profile has it."""

    time_s: float
    bandwidth_mbit: float
    loss_percent: float | None = None
    delay_ms: float | None = None

    def changes(self) -> dict[str, float]:
        """What the link is to become, as fields of `LinkParameters`."""
        named = {field.name: getattr(self, field.name) for field in fields(self)[1:]}
        return {name: value for name, value in named.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Trace:
    """`samples` hold one after the other; after `duration_s` the first comes again."""

    samples: tuple[Sample, ...]
    duration_s: float


def read_trace(path: str | Path) -> Trace:
    """Read a recording. Raises TraceError."""
    path = Path(path)
    try:
        if path.suffix in (".mahimahi", ".up", ".down", ".pps"):
            return _mahimahi(path)
        with open(path, newline="", encoding="utf-8") as file:
            lines = [line for line in file if not line.startswith("#")]
        return _csv(path, csv.DictReader(lines)) if path.suffix == ".csv" else _columns(path, lines)
    except (OSError, UnicodeDecodeError) as error:
        raise TraceError(f"trace: {path} cannot be read: {getattr(error, 'strerror', error)}") from error


def _csv(path: Path, rows: csv.DictReader) -> Trace:
    known = [field.name for field in fields(Sample)]
    unknown = set(rows.fieldnames or ()) - set(known)
    if unknown or not {"time_s", "bandwidth_mbit"} <= set(rows.fieldnames or ()):
        raise TraceError(f"trace: {path} has no header line with time_s and bandwidth_mbit, and if wanted "
                         "loss_percent and delay_ms")  # fmt: skip
    samples: list[Sample] = []
    for number, row in enumerate(rows, 1):
        try:
            values = {name: float(text) for name, text in row.items() if text not in ("", None)}
            sample = Sample(**values)
        except (TypeError, ValueError) as error:
            raise TraceError(f"trace: {path}, sample {number}: {error}") from error
        if min(values.values()) < 0 or values.get("loss_percent", 0) > 100:
            raise TraceError(f"trace: {path}, sample {number}: a value is out of its range")
        if sample.time_s <= samples[-1].time_s if samples else sample.time_s != 0:
            raise TraceError(f"trace: {path}, sample {number}: times are to ascend from 0")
        samples.append(replace(sample, bandwidth_mbit=max(sample.bandwidth_mbit, LEAST_MBIT)))
    if len(samples) < 2:
        raise TraceError(f"trace: {path} has fewer than two samples")
    return Trace(tuple(samples[:-1]), samples[-1].time_s)


def _mahimahi(path: Path) -> Trace:
    try:
        times = [int(line) for line in path.read_text().split()]
    except ValueError as error:
        raise TraceError(f"trace: {path} is no Mahimahi recording: {error}") from error
    if not times or times[-1] < BIN_MS or times != sorted(times) or times[0] < 0:
        raise TraceError(f"trace: {path} is no Mahimahi recording: expected ascending times in ms")
    counts = [0] * (-(-(times[-1] + 1) // BIN_MS))
    for at_ms in times:
        counts[at_ms // BIN_MS] += 1
    megabits = OPPORTUNITY_OCTETS * 8 / 1000 / BIN_MS
    samples = (Sample(index * BIN_MS / 1000, max(count * megabits, LEAST_MBIT))
               for index, count in enumerate(counts))  # fmt: skip
    return Trace(tuple(samples), len(counts) * BIN_MS / 1000)


def _columns(path: Path, lines: Sequence[str]) -> Trace:
    """Rates that held from the line before to their own."""
    try:
        rows = [[float(word) for word in line.split()] for line in lines if line.strip()]
    except ValueError as error:
        raise TraceError(f"trace: {path} is no recording: {error}") from error
    width = len(rows[0]) if rows else 0
    if width not in (2, 6) or any(len(row) != width for row in rows):
        raise TraceError(f"trace: {path} is no recording: expected two numbers in each line, or six")
    if width == 2:
        pieces = [(after[0] - before[0], after[1]) for before, after in itertools.pairwise(rows)]
    else:
        pieces = [(row[5] / 1000, row[4] * 8 / row[5] / 1000) for row in rows if row[5]]
    if not pieces or min(seconds for seconds, _ in pieces) <= 0 or min(rate for _, rate in pieces) < 0:
        raise TraceError(f"trace: {path} is no recording: expected times that ascend and rates of 0 or more")
    ends = list(itertools.accumulate(seconds for seconds, _ in pieces))
    starts = [0.0, *ends[:-1]]
    samples = (Sample(start, max(rate, LEAST_MBIT)) for start, (_, rate) in zip(starts, pieces, strict=True))
    return Trace(tuple(samples), ends[-1])


class TracePlayer:
    """Plays a recording on both directions of a link, again and again, from its start to `stop`."""

    def __init__(self, link: ShapedLink, trace: Trace) -> None:
        self._link, self._trace = link, trace
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._play, daemon=True)
        self.failure: str | None = None

    def start(self) -> None:
        """Begin to change the link; times count from now."""
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _play(self) -> None:
        begin, original = time.monotonic(), (self._link.parameters, self._link.parameters_back)
        step = 0
        while True:
            turn, index = divmod(step, len(self._trace.samples))
            sample = self._trace.samples[index]
            due_s = begin + turn * self._trace.duration_s + sample.time_s
            if self._stop.wait(max(due_s - time.monotonic(), 0)):
                return
            try:
                self._link.change(*(replace(parameters, **sample.changes()) for parameters in original))
            except (LinkError, ValueError) as error:
                self.failure = str(error)
                return
            step += 1
