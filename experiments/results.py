#!/usr/bin/env python3
"""The book of results measured anew: every case that a page of docs/results rests on, then the figures into
the pages."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from testbed.environment import reexec_in_project_environment  # noqa: E402

reexec_in_project_environment()

import argparse  # noqa: E402
import time  # noqa: E402
from pathlib import Path  # noqa: E402

import msgspec  # noqa: E402

from testbed.experiment import matrix  # noqa: E402
from testbed.experiment import options as command_line  # noqa: E402
from testbed.experiment.book import load_book, planned, write_pages  # noqa: E402
from testbed.experiment.narrator import Narrator  # noqa: E402
from testbed.experiment.profile import ProfileError  # noqa: E402
from testbed.experiment.run import guarded  # noqa: E402
from testbed.experiment.series import ATTEMPTS, Series, exclusive  # noqa: E402
from testbed.experiment.sweep import check  # noqa: E402
from testbed.report.collection import read_collection  # noqa: E402
from testbed.report.html import write_report  # noqa: E402
from testbed.strategy.registry import StrategyError  # noqa: E402

DESCRIPTION = """\
Run every case of the book (docs/results/book.toml) once, then again as often as it says, each turn in random
order; then what a busy machine has spoilt. When time is over (--minutes), every case has been run about as
often; say it again to go on. Then tables, figures and plots are written into the pages.
"""
EPILOG = """\
examples:
  sudo ./run results --minutes 25
  sudo ./run results --page ncast --repeat 6 --out results/ncast-book --pages /tmp/pages
  sudo ./run results --minutes 0              only write the pages from what is there

Exit status: 0 if every case has a result, 1 if not, 2 if it could not run.
"""
PAGES = Path(__file__).resolve().parents[1] / "docs" / "results"


def options() -> argparse.ArgumentParser:
    parser = command_line.Parser(prog="results", description=DESCRIPTION, epilog=EPILOG)
    parser.add_argument("--quick", action="store_true", help="each case once")
    parser.add_argument(
        "--repeat",
        type=command_line.positive,
        metavar="N",
        help="how many times each case is run (default: as the book says)",
    )
    parser.add_argument("--seed", type=command_line.seed, metavar="N",
                        help="of all that is random (default: the book's)")  # fmt: skip
    parser.add_argument("--minutes", type=float, metavar="N", help="begin no case that would not end by then")
    parser.add_argument("--page", action="append", metavar="NAME",
                        help="only this page; may be given several times (default: all)")  # fmt: skip
    parser.add_argument("--out", type=Path, default=Path("results/book"), metavar="DIR",
                        help="where the runs go; what is finished there stays (results/book)")  # fmt: skip
    parser.add_argument("--pages", type=Path, default=PAGES, metavar="DIR",
                        help="where book.toml and the pages are (docs/results)")  # fmt: skip
    parser.add_argument("--json", action="store_true", help=command_line.JSON)
    parser.add_argument("--pcap", action="store_true", help="keep captures of whole packets, for Wireshark")
    parser.add_argument("--share-machine", action="store_true",
                        help=command_line.SHARE_MACHINE)  # fmt: skip
    return parser


def main() -> int:
    begun = time.monotonic()
    parser = options()
    arguments = parser.parse_args()
    try:
        book = load_book(arguments.pages / "book.toml")
        known = [page.name for page in book.page]
        for name in arguments.page or ():
            if name not in known:
                parser.error(f"--page: there is no page {name!r}; there are {', '.join(known)}")
        book.page = [page for page in book.page if page.name in (arguments.page or known)]
        seed = book.seed if arguments.seed is None else arguments.seed
        cases, skipped = check(planned(book.page, seed, 1 if arguments.quick else arguments.repeat))
    except (ProfileError, StrategyError) as error:
        parser.error(str(error))
    folder = command_line.series_folder(arguments, "results")
    narrator = Narrator(sys.stderr)
    limited = arguments.minutes is not None
    series = Series("results", cases, folder, narrator, skipped=skipped, attempts=1 if limited else ATTEMPTS,
                    whole_packets=arguments.pcap)  # fmt: skip
    until = begun + 60 * arguments.minutes if limited else None
    with exclusive(arguments.share_machine):
        complete = series.run(until)
        if limited:  # what was spoilt has waited for its turn
            series.run_spoilt(until)
    if not any(series.finished(case) for case in series.cases):
        return 2
    collection = read_collection([folder])
    for file in write_pages(book, collection, arguments.pages):
        narrator.say(f"written: {file}")
    write_report([folder], folder / "report.html", title="Results")
    narrator.say(f"\nAll of it, with plots: {folder}/report.html")
    if arguments.json:
        sys.stdout.buffer.write(msgspec.json.encode(matrix.summary(collection)) + b"\n")
    return 0 if complete else 1


if __name__ == "__main__":
    sys.exit(guarded("results", main))
