"""Many cases, one after the other, in random order: progress, repeats on a busy machine, resuming.

Classes: `Series`, `Outcome`. Functions: `repeated`, `exclusive`. Exception: `SeriesError`.

A series' folder has `series.json` (what was planned, what was skipped and why, how each case ended) and a
folder below `cases/` for each case, in which `result.json` appears in one step when the case is finished:
whatever stops the series, finished cases stay, and saying it again does the rest.
"""

import contextlib
import fcntl
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from testbed.experiment.case import Case, write_case
from testbed.experiment.narrator import Narrator
from testbed.experiment.run import RunError
from testbed.report.result import ResultError, read_result

#: One case may take so long; nothing that is offered takes more than a third of it.
CASE_TIMEOUT_S = 600.0
#: A case is repeated if the machine was too busy, so many times at most.
ATTEMPTS = 3
#: Whoever measures holds this file on this machine.
LOCK = Path(tempfile.gettempdir(), "flowbind-measuring.lock")
_PROJECT = Path(__file__).resolve().parents[2]


class SeriesError(RunError):
    """A series cannot begin; the text is one sentence with the remedy."""


class Outcome(msgspec.Struct, kw_only=True):
    """How a case ended: state "done", "busy" (done, but the machine was too busy in every attempt) or
    "failed".

    `reason` is a sentence for the latter; `seconds` is what the last attempt took.
    """

    key: str
    state: str
    attempts: int
    seconds: float
    reason: str = ""


def repeated(cases: Iterable[Case], repetitions: int, seed: int) -> list[Case]:
    """Each case so many times, all in random order (which `seed` determines): what changes on the machine in
    the course of a series must not look like a difference between cases."""
    every = [
        msgspec.structs.replace(case, seed=seed, repetition=number)
        for case in cases
        for number in range(1, repetitions + 1)
    ]
    random.Random(seed).shuffle(every)
    return every


@contextlib.contextmanager
def exclusive(share: bool = False) -> Iterator[None]:
    """Be the only one on this machine that measures. Raises SeriesError if somebody else is; `share`: do not
    care."""
    if share:
        yield
        return
    with open(LOCK, "a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise SeriesError(
                f"another series is measuring on this machine ({lock.read().strip()}), and both would "
                "disturb each other's timing: wait for it, or say --share-machine."
            ) from None
        lock.truncate(0)
        lock.write(f"process {os.getpid()}")
        lock.flush()
        yield


class Series:
    """`cases` to be run, results in `folder`. `skipped`: what is left out, with the reason."""

    def __init__(
        self,
        name: str,
        cases: Sequence[Case],
        folder: Path,
        narrator: Narrator,
        *,
        skipped: Mapping[str, str] | None = None,
        attempts: int = ATTEMPTS,
        whole_packets: bool = False,
    ) -> None:
        self.name, self.cases, self.folder, self.narrator = name, list(cases), folder, narrator
        self.skipped = dict(skipped or {})
        self.attempts, self.whole_packets = attempts, whole_packets
        self.outcomes: dict[str, Outcome] = {}
        folder.mkdir(parents=True, exist_ok=True)
        self._read()

    def _read(self) -> None:
        file = self.folder / "series.json"
        try:
            before = json.loads(file.read_text())
            outcomes = msgspec.convert(before["outcomes"], list[Outcome])
        except FileNotFoundError:
            return
        except (ValueError, KeyError, TypeError, msgspec.ValidationError) as error:
            raise SeriesError(
                f"{file} is damaged ({error}): remove it, and say it again; what is finished stays."
            ) from None
        self.outcomes = {outcome.key: outcome for outcome in outcomes}

    def _write(self) -> None:
        document = {
            "name": self.name,
            "skipped": self.skipped,
            "cases": [msgspec.to_builtins(case) | {"key": case.key} for case in self.cases],
            "outcomes": [msgspec.to_builtins(outcome) for outcome in self.outcomes.values()],
        }
        temporary = self.folder / f".series.json.{os.getpid()}"
        try:
            temporary.write_text(json.dumps(document, indent=1))
            os.replace(temporary, self.folder / "series.json")
        finally:
            temporary.unlink(missing_ok=True)

    def place(self, case: Case) -> Path:
        """The folder of a case."""
        return self.folder / "cases" / case.key

    def finished(self, case: Case) -> bool:
        """Whether its result is there and can be read."""
        try:
            return read_result(self.place(case)).metadata.get("case") == msgspec.to_builtins(case)
        except ResultError:
            return False

    def run(self, until: float | None = None) -> bool:
        """Run what is not finished yet; True if every case has a result. Ctrl-C leaves what is finished.
        `until`: nothing is begun that would not be over by then (time.monotonic())."""
        left = [case for case in self.cases if not self.finished(case)]
        done = len(self.cases) - len(left)
        if done:
            self.narrator.say(f"{done} of {len(self.cases)} cases are finished already.")
        for what, reason in self.skipped.items():
            self.narrator.say(f"skipped: {what}: {reason}")
        self._write()
        self._run_each(left, done, until)
        return all(self.finished(case) for case in self.cases)

    def run_spoilt(self, until: float) -> None:
        """Run once more, in turns while there is time, the cases that a busy machine has spoilt."""
        while time.monotonic() < until:
            states = {key: outcome.state for key, outcome in self.outcomes.items()}
            spoilt = [case for case in self.cases if states.get(case.key) in ("busy", "failed")]
            if not spoilt or not self._run_each(spoilt, 0, until):
                return

    def _run_each(self, cases: Sequence[Case], done: int, until: float | None) -> int:
        """Run these cases, of which `done` others are finished; how many there was time for."""
        times: list[float] = []
        total = done + len(cases)
        for number, case in enumerate(cases, done + 1):
            earlier = [outcome.seconds for outcome in self.outcomes.values()]
            expected = statistics.mean(times or earlier or [0])
            if until is not None and time.monotonic() + expected > until:
                self.narrator.say(f"the time is over: {total - number + 1} cases are left for another time.")
                break
            minutes, seconds = divmod(round(expected * (total - number + 1)), 60)
            remaining = f", about {minutes}:{seconds:02} min to go" if times else ""
            self.narrator.say(f"[{number}/{total}{remaining}] {case.key}")
            begun = time.monotonic()
            self.record(self._until_quiet(case))
            times.append(time.monotonic() - begun)
        return len(times)

    def record(self, outcome: Outcome) -> None:
        """Note how a case ended."""
        self.outcomes[outcome.key] = outcome
        if outcome.state != "done":
            self.narrator.say(f"    {outcome.state}: {outcome.reason}")
        self._write()

    def _until_quiet(self, case: Case) -> Outcome:
        """Run a case; again if the machine was too busy meanwhile."""
        for attempt in range(1, self.attempts + 1):
            begun = time.monotonic()
            reason = run_in_process(case, self.place(case), self.whole_packets)
            outcome = Outcome(
                key=case.key, state="failed" if reason else "done", attempts=attempt,
                seconds=time.monotonic() - begun, reason=reason or "",
            )  # fmt: skip
            if reason:
                return outcome
            busy = busy_reason(self.place(case))
            if not busy:
                return outcome
            outcome.state, outcome.reason = "busy", busy
            if attempt < self.attempts:
                self.narrator.say(f"    the machine was too busy ({busy}): once more")
        return outcome


def run_in_process(case: Case, place: Path, whole_packets: bool = False) -> str | None:
    """Run a case in a process of its own; None, or a sentence on why it has no result."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    file = place / "case.json"
    write_case(case, file)
    # whatever ends this process ends the case with it: nothing may disturb those of the next time
    command = ["setpriv", "--pdeathsig", "KILL", sys.executable, "-m", "testbed.experiment.case"]
    command += [str(file), str(place)]
    with open(place / "case.log", "w") as log:
        process = subprocess.Popen(
            command + ["--pcap"] * whole_packets,
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=_PROJECT,
            env=os.environ | {"PYTHONPATH": str(_PROJECT)},
        )  # fmt: skip
        try:
            status = process.wait(CASE_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return f"it took more than {CASE_TIMEOUT_S:g} s"
        except BaseException:
            process.terminate()
            process.wait()
            raise
    if status == 0:
        return None
    lines = (place / "case.log").read_text(errors="replace").strip().splitlines()
    if not lines and not shutil.disk_usage(place).free:
        return f"no space is left in {place}, not even for its log"
    return lines[-1].removeprefix("case: ") if lines else f"it ended with status {status}"


def busy_reason(place: Path) -> str | None:
    """Why the figures of a finished case are not to be trusted, if they are not."""
    result = read_result(place)
    if result.busy:
        total = sum(span.end_s - span.start_s for span in result.busy)
        worst = max(span.late_ms for span in result.busy)
        return f"{total:.1f} s of it, wake-ups up to {worst:.0f} ms late"
    return next((warning for warning in result.warnings if "missed" in warning), None)
