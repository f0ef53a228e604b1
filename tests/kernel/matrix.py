"""The table of docs/kernels.md from results: `matrix.py docs/kernels.md RESULTS.xml...`, a column for each.

Results are what `--junitxml` writes: `./run tests` leaves results/tests/native.xml and bookworm.xml. Those of
one kernel may be given in several files; the last one counts where a test is in more than one of them.

Functions: `rows`, `table`.
"""

import sys
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from backend import BACKENDS  # noqa: E402
from outcomes import Outcome, read  # noqa: E402

BEGIN, END = "<!-- results -->\n", "<!-- end of results -->\n"
EVERYTHING = "all integration tests"
_WORDS = {"passed": "passed", "failed": "FAILED", "skipped": "skipped"}


def rows() -> list[str]:
    """The names of the rows, in their order."""
    return [*(f"{kind}: {name}" for kind, name in BACKENDS), EVERYTHING]


def table(results: dict[str, dict[str, Outcome]]) -> str:
    results = {kernel: _integration(outcomes) for kernel, outcomes in results.items()}
    kernels = list(results)
    lines = [
        f"| backend | needs | {' | '.join(kernels)} |",
        f"| --- | --- |{' --- |' * len(kernels)}",
    ]
    for row, needs in zip(rows(), [*BACKENDS.values(), ""], strict=True):
        cells = [_cell(results[kernel].values(), row) for kernel in kernels]
        lines.append(f"| {row} | {needs} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", *_left_out(results)]) + "\n"


def _integration(outcomes: dict[str, Outcome]) -> dict[str, Outcome]:
    return {test: outcome for test, outcome in outcomes.items() if "tests.integration" in test}


def _cell(outcomes: Iterable[Outcome], row: str) -> str:
    counts = Counter(o.state for o in outcomes if row == EVERYTHING or row in o.backends)
    return ", ".join(f"{counts[state]} {word}" for state, word in _WORDS.items() if counts[state]) or "–"


def _left_out(results: dict[str, dict[str, Outcome]]) -> list[str]:
    """Tests that were skipped under every kernel under which they were tried."""
    tried: dict[str, list[Outcome]] = defaultdict(list)
    for outcomes in results.values():
        for test, outcome in outcomes.items():
            tried[test].append(outcome)
    never = Counter(
        # under one kernel for want of the backend, under another by nature
        (test.partition("::")[0].rpartition(".")[2], "; ".join(dict.fromkeys(one.reason for one in seen)))
        for test, seen in tried.items()
        if {outcome.state for outcome in seen} == {"skipped"}
    )
    if not never:
        return ["No test was skipped under each of these kernels."]
    told = [f"| `{file}.py` | {count} | {reason} |" for (file, reason), count in sorted(never.items())]
    return ["Skipped under each of these kernels that they were tried under:", "",
            "| file | tests | reason |", "| --- | --- | --- |", *told]  # fmt: skip


def main(document: Path, *paths: Path) -> None:
    text = document.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    document.write_text(before + BEGIN + "\n" + table(read(paths)) + "\n" + END + after)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
