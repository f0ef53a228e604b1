#!/usr/bin/env python3
"""All measurements of the testbed itself, one after the other: one table, one document."""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from testbed.environment import reexec_in_project_environment  # noqa: E402

reexec_in_project_environment()

import argparse  # noqa: E402
import json  # noqa: E402
import subprocess  # noqa: E402
from collections.abc import Iterator  # noqa: E402

from testbed.experiment import bench  # noqa: E402
from testbed.experiment.bench import Figure  # noqa: E402
from testbed.experiment.bench_page import fill_files  # noqa: E402
from testbed.experiment.options import JSON, Parser  # noqa: E402
from testbed.experiment.run import guarded  # noqa: E402

DESCRIPTION = """\
Runs the measurements named, or all of them, one after the other, as each is run by its own name, and says in
between how far it is and how long the rest will take. At the end: one table of all figures with their goals,
and one JSON document with the documents of all (`benches`), which `--json` puts on standard output and which
otherwise goes into a file; that is written after each measurement, so that an interrupted run is not lost.
`--pages` puts the figures into the pages of docs; with `--from`, those of an earlier run.
"""
EPILOG = """\
Exit status 1 if a goal is missed, 2 if a measurement could not be made. Examples:
  sudo ./run bench                       some 20 minutes on a machine that does nothing else
  sudo ./run bench --quick               some 3 minutes: to see that all of it works
  sudo ./run bench control scale --json
  sudo ./run bench --pages               and its figures into docs/benchmarks.md and other pages
  sudo ./run bench --from results/bench-20261123-140000.json --pages /tmp/docs
"""
#: What each takes, seconds: in full, in short. Only for saying how long the rest will take.
EXPECTED_S = {
    "control": (65, 6),
    "controller": (55, 25),
    "handover": (55, 20),
    "links": (270, 60),
    "optimisation": (100, 15),
    "scale": (220, 15),
    "security": (2, 1),
    "start": (125, 10),
    "tunnel": (145, 12),
}
UNKNOWN_S = (120, 15)
#: How many times as long it may take before it is given up.
PATIENCE = 10
DOCS = Path(__file__).resolve().parents[1] / "docs"


def names() -> list[str]:
    """All measurements, by the files that there are."""
    found = (path.stem.removeprefix("bench_") for path in Path(__file__).parent.glob("bench_*.py"))
    return sorted(name for name in found if name != "all")


def expected_s(name: str, quick: bool) -> float:
    return EXPECTED_S.get(name, UNKNOWN_S)[quick]


def run(name: str, quick: bool) -> dict | None:
    """The document of one measurement, None if it could not be made."""
    program = Path(__file__).with_name(f"bench_{name}.py")
    # whatever ends this process ends the measurement with it
    command = ["setpriv", "--pdeathsig", "KILL", sys.executable, str(program), "--json"]
    command += ["--quick"] if quick else []
    limit_s = PATIENCE * expected_s(name, quick) + 60
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=limit_s)
    except subprocess.TimeoutExpired:
        bench.say(f"bench {name}: given up after {limit_s:.0f} s")
        return None
    if done.returncode not in (0, 1):
        return None
    return json.loads(done.stdout)


def run_all(wanted: list[str], quick: bool) -> Iterator[tuple[str, dict | None]]:
    """Names and documents; tells of the progress."""
    begin, pace, past_s = time.monotonic(), 1.0, 0.0
    for number, name in enumerate(wanted, 1):
        left_s = pace * sum(expected_s(other, quick) for other in wanted[number - 1 :])
        bench.say(f"\n{number} of {len(wanted)}: {name}; {_minutes(left_s)} left")
        yield name, run(name, quick)
        past_s += expected_s(name, quick)
        pace = (time.monotonic() - begin) / past_s


def _minutes(seconds: float) -> str:
    return f"about {seconds / 60:.0f} min" if seconds >= 90 else f"about {seconds:.0f} s"


def options() -> argparse.Namespace:
    known = names()
    parser = Parser(
        prog="bench",
        description=DESCRIPTION,
        epilog=EPILOG,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(known)} (all)")
    parser.add_argument("--quick", action="store_true", help="the short form of each")
    parser.add_argument("--json", action="store_true", help=JSON)
    parser.add_argument(
        "--out", type=Path, metavar="FILE",
        help="where the document goes (default: results/bench-TIME.json; with --json nowhere)",
    )  # fmt: skip
    parser.add_argument("--pages", type=Path, nargs="?", const=DOCS, metavar="DIR",
                        help="fill the pages in this folder (docs)")  # fmt: skip
    parser.add_argument("--from", type=Path, dest="source", metavar="FILE",
                        help="measure nothing: this is the document")  # fmt: skip
    chosen = parser.parse_args()
    unknown = sorted(set(chosen.names) - set(known))
    if unknown:
        parser.error(f"there is no measurement named {unknown[0]}: there are {', '.join(known)}")
    if chosen.pages and chosen.quick:
        parser.error("--pages: the figures of the short form are not for pages")
    if chosen.source and (chosen.names or chosen.quick or chosen.out):
        parser.error("--from: the document is there already: neither NAME, --quick nor --out")
    try:
        chosen.document = read(chosen.source) if chosen.source else None
    except OSError as error:
        parser.error(f"--from {chosen.source}: {error.strerror}")
    except ValueError as error:
        parser.error(f"--from {chosen.source}: {error}")
    chosen.names = list(dict.fromkeys(chosen.names)) or known
    if not (chosen.json or chosen.source or chosen.out):
        chosen.out = Path("results") / time.strftime("bench-%Y%m%d-%H%M%S.json")
    return chosen


def read(path: Path) -> dict:
    """The document of all measurements, or of one. Raises OSError, ValueError if it is none."""
    try:
        found = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"is not JSON: {error}") from error
    documents = found.get("benches", [found]) if isinstance(found, dict) else None
    if not isinstance(documents, list) or not all(isinstance(d, dict) and "figures" in d for d in documents):
        raise ValueError("is not what `bench --json` or `--out` writes")
    return {"bench": "all", "failed": [], **found, "benches": documents}


def measure(chosen: argparse.Namespace) -> dict:
    """The document of all that is asked for."""
    others = bench.others_percent()
    if others > bench.BUSY_PERCENT:
        bench.say(f"Warning: others use {others:.0f} % of the processors: times will be of a busy machine.")
    documents, failed = [], []
    summary = {"bench": "all", "quick": chosen.quick, "benches": documents, "failed": failed}
    for name, document in run_all(chosen.names, chosen.quick):
        if document is None:
            failed.append(name)
        else:
            documents.append(document)
        summary["reached"] = not failed and all(document["reached"] for document in documents)
        if chosen.out:
            chosen.out.parent.mkdir(parents=True, exist_ok=True)
            chosen.out.write_text(json.dumps(summary, indent=1) + "\n")
    return summary


def main() -> int:
    chosen = options()
    summary = chosen.document or measure(chosen)
    documents, failed = summary["benches"], summary["failed"]
    out = sys.stderr if chosen.json else sys.stdout
    for document in documents:
        print(f"\n{document['bench']}{' (on a busy machine)' if document['busy'] else ''}", file=out)
        bench.print_table([Figure.from_json(figure) for figure in document["figures"]], out)
    missed = sum(figure["reached"] is False for document in documents for figure in document["figures"])
    print(f"\n{missed or 'no'} goals missed", file=out)
    if failed:
        print(f"not measured, see above: {', '.join(failed)}", file=out)
    if chosen.json:
        print(json.dumps(summary, indent=1))
    if chosen.out:
        bench.say(f"the document: {chosen.out}")
    if chosen.pages:
        for file in fill_files(chosen.pages, documents):
            bench.say(f"written: {file}")
    return 2 if failed else 1 if missed else 0


if __name__ == "__main__":
    sys.exit(guarded("bench", main))
