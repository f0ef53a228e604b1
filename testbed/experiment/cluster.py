"""Cases of a series on the workers of a Dask cluster. Function: `run_on_cluster`.

An extra: `pip install 'flow-bindings-testbed[cluster]'`. Workers are started by whoever owns the machines, as
root and from a checkout of the same commit::

    dask worker tcp://SCHEDULER:8786 --nthreads 1

Results come back over the network: no shared folder is needed.
"""

import collections
import tempfile
import time
from pathlib import Path

from testbed.experiment.case import Case
from testbed.experiment.run import RunError
from testbed.experiment.series import Outcome, Series, SeriesError, busy_reason, exclusive, run_in_process

_CONNECT_S = 15


def machine_identity() -> str:
    """What tells this machine from others, containers on one machine not from each other."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def run_case_here(case: Case, attempts: int, share_machine: bool) -> tuple[dict, bytes | None, str]:
    """On a worker: run a case; its outcome, result file and log."""
    outcome, result, log = None, None, ""
    with tempfile.TemporaryDirectory(prefix="flowbind-case-") as folder:
        place = Path(folder, "case")
        for attempt in range(1, attempts + 1):
            begun = time.monotonic()
            try:
                with exclusive(share_machine):
                    reason = run_in_process(case, place)
            except SeriesError as error:
                reason = str(error)
            busy = None if reason else busy_reason(place)
            outcome = {"key": case.key, "state": "failed" if reason else "busy" if busy else "done",
                       "attempts": attempt, "seconds": time.monotonic() - begun,
                       "reason": reason or busy or ""}  # fmt: skip
            result = None if reason else (place / "result.json").read_bytes()
            log = (place / "case.log").read_text(errors="replace") if place.exists() else ""
            if reason or not busy:
                break
    return outcome, result, log


def run_on_cluster(series: Series, scheduler: str, share_machine: bool = False) -> bool:
    """Run what is not finished yet on the workers; True if every case has a result.

    Raises SeriesError: no Dask, no cluster, or two workers on one machine, whose cases would disturb each
    other's timing (`share_machine`: let them).
    """
    try:
        from distributed import Client, as_completed
    except ImportError:
        raise SeriesError("--scheduler needs Dask: pip install distributed") from None
    try:
        client = Client(scheduler, timeout=_CONNECT_S)
    except (OSError, ValueError) as error:  # nobody answers; no address
        raise SeriesError(f"there is no Dask scheduler at {scheduler}: {error}") from error
    with client:
        try:
            machines = client.run(machine_identity)
        except Exception as error:  # whatever they lack
            raise SeriesError(
                f"the workers cannot run this ({type(error).__name__}: {error}): start them from a checkout "
                "of the same commit"
            ) from error
        if not machines:
            raise SeriesError(f"the Dask scheduler at {scheduler} has no workers: start some, as root")
        shared = [machine for machine, count in collections.Counter(machines.values()).items() if count > 1]
        if shared and not share_machine:
            names = ", ".join(worker for worker, machine in machines.items() if machine == shared[0])
            raise SeriesError(
                f"the workers {names} are on one machine, where cases would disturb each other's timing: "
                "start one worker a machine, or say --share-machine"
            )
        left = [case for case in series.cases if not series.finished(case)]
        done = len(series.cases) - len(left)
        begun = time.monotonic()
        jobs = {}
        for case in left:
            job = client.submit(run_case_here, case, series.attempts, share_machine, pure=False, retries=2)
            jobs[job] = case
        for number, job in enumerate(as_completed(jobs), 1):
            case = jobs[job]
            try:
                outcome, result, log = job.result()
            except RunError as error:
                outcome, result, log = _failed(case, str(error)), None, ""
            except Exception as error:  # the worker died, or lacks something: the other cases go on
                outcome, result, log = _failed(case, f"{type(error).__name__}: {error}"), None, ""
            keep(series, case, result, log)
            minutes, seconds = divmod(round((time.monotonic() - begun) / number * (len(left) - number)), 60)
            series.narrator.say(
                f"[{done + number}/{len(series.cases)}, about {minutes}:{seconds:02} min to go] {case.key}"
            )
            series.record(Outcome(**outcome))
    return all(series.finished(case) for case in series.cases)


def _failed(case: Case, reason: str) -> dict:
    return {"key": case.key, "state": "failed", "attempts": 1, "seconds": 0.0, "reason": reason}


def keep(series: Series, case: Case, result: bytes | None, log: str) -> None:
    """Write what a worker has sent; the result in one step."""
    place = series.place(case)
    place.mkdir(parents=True, exist_ok=True)
    (place / "case.log").write_text(log)
    if result is not None:
        temporary = place / ".result.json"
        temporary.write_bytes(result)
        temporary.replace(place / "result.json")
