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
import os  # noqa: E402
import platform  # noqa: E402
import subprocess  # noqa: E402

from testbed.experiment import bench  # noqa: E402
from testbed.experiment.bench import Figure  # noqa: E402
from testbed.experiment.options import Parser  # noqa: E402

DESCRIPTION = """\
Runs the measurements named, or all of them, one after the other, as each is run by its own name, and says in
between how far it is and how long the rest will take. At the end: one table of all figures with their goals,
and one JSON document with the documents of all (`benches`), which `--json` puts on standard output and which
otherwise goes into a file.
"""
EPILOG = """\
Exit status 1 if a goal is missed, 2 if a measurement could not be made. Examples:
  sudo ./run bench                       some 20 minutes on a machine that does nothing else
  sudo ./run bench --quick               some 3 minutes: to see that all of it works
  sudo ./run bench control scale --json
"""
#: What each takes, seconds: in full, in short. Only for saying how long the rest will take.
EXPECTED_S = {
    "control": (60, 5),
    "controller": (120, 40),
    "handover": (90, 30),
    "links": (300, 60),
    "optimisation": (120, 15),
    "scale": (400, 20),
    "security": (2, 1),
    "start": (150, 15),
    "tunnel": (60, 10),
}
UNKNOWN_S = (120, 15)


def names() -> list[str]:
    """All measurements, by the files that there are."""
    found = (path.stem.removeprefix("bench_") for path in Path(__file__).parent.glob("bench_*.py"))
    return sorted(name for name in found if name != "all")


def run(name: str, quick: bool) -> dict | None:
    """The document of one measurement, None if it could not be made."""
    program = Path(__file__).with_name(f"bench_{name}.py")
    command = [sys.executable, str(program), "--json", *(["--quick"] if quick else [])]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode not in (0, 1):
        return None
    return json.loads(done.stdout)


def run_all(wanted: list[str], quick: bool) -> dict[str, dict | None]:
    """The documents by name; tells of the progress."""
    found: dict[str, dict | None] = {}
    begin, pace = time.monotonic(), 1.0
    expected = {name: EXPECTED_S.get(name, UNKNOWN_S)[quick] for name in wanted}
    for number, name in enumerate(wanted, 1):
        left = pace * sum(expected[other] for other in wanted if other not in found)
        bench.say(f"\n{number} of {len(wanted)}: {name}; {_minutes(left)} left")
        found[name] = run(name, quick)
        pace = (time.monotonic() - begin) / sum(expected[other] for other in found)
    return found


def _minutes(seconds: float) -> str:
    return f"about {seconds / 60:.0f} min" if seconds >= 90 else f"about {seconds:.0f} s"


def main() -> int:
    known = names()
    parser = Parser(
        prog="bench",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(known)} (all)")
    parser.add_argument("--quick", action="store_true", help="the short form of each")
    parser.add_argument("--json", action="store_true", help="standard output is one JSON document")
    parser.add_argument("--out", type=Path, metavar="FILE", help="of the document (results/bench-TIME.json)")
    options = parser.parse_args()
    unknown = sorted(set(options.names) - set(known))
    if unknown:
        parser.error(f"there is no measurement named {unknown[0]}: there are {', '.join(known)}")
    wanted = list(dict.fromkeys(options.names)) or known
    found = run_all(wanted, options.quick)
    documents = [document for document in found.values() if document is not None]
    failed = [name for name, document in found.items() if document is None]
    out = sys.stderr if options.json else sys.stdout
    for document in documents:
        print(f"\n{document['bench']}", file=out)
        bench.print_table([Figure.from_json(figure) for figure in document["figures"]], out)
    missed = sum(figure["reached"] is False for document in documents for figure in document["figures"])
    print(f"\n{missed or 'no'} goals missed", file=out)
    if failed:
        print(f"not measured, see above: {', '.join(failed)}", file=out)
    summary = {
        "bench": "all",
        "kernel": platform.release(),
        "processors": os.cpu_count(),
        "quick": options.quick,
        "benches": documents,
        "failed": failed,
        "reached": not (failed or missed),
    }
    _deliver(summary, options)
    return 2 if failed else 1 if missed else 0


def _deliver(summary: dict, options: argparse.Namespace) -> None:
    text = json.dumps(summary, indent=1)
    if options.json:
        print(text)
    if options.out or not options.json:
        path = options.out or Path("results") / time.strftime("bench-%Y%m%d-%H%M%S.json")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
        bench.say(f"the document: {path}")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
