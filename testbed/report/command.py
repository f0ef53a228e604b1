"""What `./run report` and `./run compare` do: `python -m testbed.report.command report|compare ...`."""

import argparse
import sys
from pathlib import Path

from testbed.report.collection import read_collection
from testbed.report.compare import compare, compare_table, unmatched
from testbed.report.html import write_report
from testbed.report.markdown import markdown_table
from testbed.report.metric import METRICS, by_name
from testbed.report.result import ResultError

_REPORT = """\
One page for any set of results: strategy × scenario matrix, tables, plots, every run's details. It needs no
network. Beside it: runs.csv, cases.csv (medians, confidence intervals), and with --figures plots for papers.
"""
_COMPARE = """\
What changed between two sets of results, case by case, and whether it is more than chance: Mann-Whitney test
(exact for up to eight runs a side), corrected for the number of comparisons (Holm), Cliff's delta for the
size of the effect.
"""
_EXAMPLE = "Example: ./run %s"


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        return options.run(options)
    except ResultError as error:
        print(f"{options.command}: {error}", file=sys.stderr)
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        remedy = "; --out chooses another place" if options.command == "report" else ""
        print(f"{options.command}: {error.strerror}{where}{remedy}", file=sys.stderr)
    except KeyboardInterrupt:
        print(f"\n{options.command}: stopped", file=sys.stderr)
        return 130
    return 2


def _report(options: argparse.Namespace) -> int:
    folder = options.results[0] if options.results[0].is_dir() else options.results[0].parent
    page = options.out or folder / "report.html"
    if options.markdown is not None:
        metrics = [by_name(name) for name in options.markdown] or METRICS
        print(markdown_table(read_collection(options.results), metrics), end="")
        return 0
    for file in write_report(options.results, page, options.title, options.figures, options.dpi):
        print(file)
    return 0


def _compare(options: argparse.Namespace) -> int:
    sets = [read_collection([path]) for path in (options.before, options.after)]
    changes = compare(*sets)
    for path, titles in zip((options.before, options.after), unmatched(*sets), strict=True):
        if titles:
            print(f"Only in {path}: {'; '.join(titles)}")
    for path, collection in zip((options.before, options.after), sets, strict=True):
        if busy := sum(not entry.trusted for entry in collection.entries):
            print(f"Warning: in {busy} of {len(collection.entries)} runs in {path} the machine was too busy; "
                  "they are left out where their case has others.")  # fmt: skip
    if not changes:
        print("The two sets have no case in common: nothing to compare.")
        return 1
    print(compare_table(changes, options.all))
    return 0


def _figures(text: str) -> list[str]:
    formats = text.split(",")
    for one in formats:
        if one not in ("png", "pdf", "svg"):
            raise argparse.ArgumentTypeError(f"{one!r} is none of png, pdf, svg")
    return formats


def _metrics(text: str) -> list[str]:
    known = [metric.name for metric in METRICS]
    names = [] if text == "all" else text.split(",")
    for name in names:
        if name not in known:
            raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(known)}")
    return names


def _dpi(text: str) -> int:
    if not text.isdecimal() or not 10 <= int(text) <= 1200:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 10 to 1200")
    return int(text)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:
        self.exit(2, f"{self.prog.removeprefix('./run ')}: {message} (--help explains the options)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="./run")
    commands = parser.add_subparsers(dest="command", required=True, parser_class=_Parser)
    report = commands.add_parser(
        "report", description=_REPORT, epilog=_EXAMPLE % "report results/mine --figures pdf"
    )
    report.add_argument("results", nargs="+", type=Path, metavar="DIR",
                        help="folders of runs or series, or result.json files")  # fmt: skip
    report.add_argument(
        "--out", type=Path, metavar="FILE", help="the page (default: report.html in the first DIR)"
    )
    report.add_argument("--title", default="Flow bindings", help="of the page")
    report.add_argument(
        "--figures", type=_figures, default=[], metavar="png,pdf,svg", help="plots as files, too"
    )
    report.add_argument("--dpi", type=_dpi, default=200, metavar="N", help="of PNG files (200)")
    report.add_argument(
        "--markdown",
        type=_metrics,
        metavar="METRIC,...",
        help="print a table of these figures (all: every one) as Markdown instead",
    )
    report.set_defaults(run=_report)
    comparison = commands.add_parser(
        "compare", description=_COMPARE, epilog=_EXAMPLE % "compare results/before results/after"
    )
    comparison.add_argument("before", type=Path, metavar="A", help="folder of runs, before the change")
    comparison.add_argument("after", type=Path, metavar="B", help="folder of runs, after it")
    comparison.add_argument("--all", action="store_true", help="also what did not change significantly")
    comparison.set_defaults(run=_compare)
    return parser


if __name__ == "__main__":
    sys.exit(main())
