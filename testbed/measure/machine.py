"""Whether the machine was fast enough: `python -m testbed.measure.machine --log FILE` beside a run.

A canary of ordinary priority asks to be woken every 10 ms and notes by how much it is late, as any agent
would be; every 100 ms goes to the log with the processors' shares from /proc/stat. A figure taken while the
machine was busy is not trusted without a word: `busy_spans` finds those times, `standstills`
those in which it did not run at all, `MachineWatch` runs the canary.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from testbed.measure.pacing import Stop
from testbed.measure.process import HostProcess, Popen

_CANARY_NS = 10_000_000
_PERIOD_NS = 100_000_000

#: What is too busy: a wake-up far too late, time taken by other virtual machines, or no processor time left
#: and wake-ups late for it.
LATE_ABOVE_MS, STEAL_ABOVE, IDLE_BELOW, LATE_WITHOUT_IDLE_MS = 10.0, 0.10, 0.03, 3.0
_JOIN_S = 0.3
#: Who is woken so late knows that the machine stood still: no other load makes anybody wait for so long.
STOOD_STILL_S = 0.1


@dataclass(frozen=True, slots=True)
class MachineSample:
    """The 0.1 s that ended at `t` (seconds of CLOCK_MONOTONIC). Shares of all processors together, 0 to 1."""

    t: float
    idle: float
    steal: float
    late_ms: float

    @property
    def busy(self) -> bool:
        """Whether figures of this time are not to be trusted."""
        return (self.late_ms > LATE_ABOVE_MS or self.steal > STEAL_ABOVE
                or (self.idle < IDLE_BELOW and self.late_ms > LATE_WITHOUT_IDLE_MS))


@dataclass(frozen=True, slots=True)
class BusySpan:
    """A time in which figures are not to be trusted (seconds of CLOCK_MONOTONIC), with its worst values."""

    start: float
    end: float
    idle: float
    steal: float
    late_ms: float

    def text(self, origin: float = 0.0) -> str:
        """One sentence for people, times from `origin` on."""
        return (f"From {self.start - origin:.1f} s to {self.end - origin:.1f} s this machine was too busy "
                f"(idle {self.idle:.0%}, stolen {self.steal:.0%}, wake-ups up to {self.late_ms:.0f} ms "
                "late): figures from this time cannot be trusted.")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="machine", description="Note how busy this machine is.")
    parser.add_argument("--log", type=Path, required=True, metavar="FILE")
    options = parser.parse_args(arguments)
    stop = Stop()
    print("ready", flush=True)
    with open("/proc/stat", "rb", buffering=0) as stat, open(options.log, "w") as log:
        _watch(stat, log, stop)
    return 0


def _watch(stat, log, stop: Stop) -> None:
    before = _processors(stat)
    due_ns = next_ns = time.monotonic_ns()
    late_ns = 0
    while not stop.wait_until(due_ns):
        now_ns = time.monotonic_ns()
        late_ns = max(late_ns, now_ns - due_ns)
        if now_ns >= next_ns + _PERIOD_NS:
            after = _processors(stat)
            total = max(sum(after) - sum(before), 1)
            idle, steal = after[3] + after[4] - before[3] - before[4], after[7] - before[7]
            log.write(json.dumps({"t": now_ns / 1e9, "idle": round(idle / total, 4),
                                  "steal": round(steal / total, 4), "late_ms": late_ns / 1e6}) + "\n")
            before, late_ns, next_ns = after, 0, now_ns - (now_ns - next_ns) % _PERIOD_NS
        due_ns += _CANARY_NS * max((now_ns - due_ns) // _CANARY_NS, 1)


def _processors(stat) -> list[int]:
    """Ticks of all processors: user, nice, system, idle, iowait, irq, softirq, steal (proc(5))."""
    stat.seek(0)
    return [int(word) for word in stat.read(512).split(b"\n", 1)[0].split()[1:9]]


class MachineWatch:
    """The canary as a process, from `start` to `stop`. Raises MeasurementError if it cannot run."""

    def __init__(self, popen: Popen, directory: str | Path):
        self.log = Path(directory) / "machine.jsonl"
        self._popen = popen
        self._process: HostProcess | None = None

    def start(self) -> None:
        """Begin; returns once samples are taken. Raises MeasurementError."""
        self._process = HostProcess(self._popen, "machine watch", "testbed.measure.machine",
                                    ["--log", self.log])
        self._process.wait_ready()

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait()


def read_machine(path: str | Path) -> list[MachineSample]:
    """The samples of a log, without a last line that was cut short."""
    samples = []
    for line in Path(path).read_text().splitlines():
        try:
            samples.append(MachineSample(**json.loads(line)))
        except (ValueError, TypeError):
            continue
    return samples


def busy_spans(samples: Sequence[MachineSample]) -> list[BusySpan]:
    """Busy times; those less than 0.3 s apart are one. Processor shares of a single sample are no news (ten
    ticks of 10 ms are a coarse scale), a late wake-up is."""
    spans: list[list[MachineSample]] = []
    for sample in samples:
        if not sample.busy:
            continue
        if spans and _begin(sample) - spans[-1][-1].t <= _JOIN_S:
            spans[-1].append(sample)
        else:
            spans.append([sample])
    return [BusySpan(_begin(span[0]), span[-1].t, min(one.idle for one in span),
                     max(one.steal for one in span), max(one.late_ms for one in span))
            for span in spans if len(span) > 1 or span[0].late_ms > LATE_ABOVE_MS]


def standstills(samples: Sequence[MachineSample]) -> list[tuple[float, float]]:
    """Begin and end of each time in which the machine stood still, and only of that: it may have been busy
    for long before and after."""
    return [(one.t - one.late_ms / 1000, one.t) for one in samples if one.late_ms > STOOD_STILL_S * 1000]


def _begin(sample: MachineSample) -> float:
    """A sample ends when the canary has been woken: one that was woken late is longer."""
    return sample.t - max(_PERIOD_NS / 1e9, sample.late_ms / 1000)


if __name__ == "__main__":
    sys.exit(main())
