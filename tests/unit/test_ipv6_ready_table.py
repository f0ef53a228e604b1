"""docs/ipv6-ready.md: every case has its line, every test that it names exists."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TABLE = (ROOT / "docs" / "ipv6-ready.md").read_text()
ROW = re.compile(r"^\| ([CM]N-[\d-]+) \| .* \| (passed|not applicable|not yet)(: .*)? \|$", re.MULTILINE)


def test_every_case_has_one_line():
    cases = [match[1] for match in ROW.finditer(TABLE)]
    assert len(cases) == len(set(cases)) == TABLE.count("\n| CN-") + TABLE.count("\n| MN-")
    assert (sum(case.startswith("CN") for case in cases), sum(case.startswith("MN") for case in cases)) == (
        136,
        198,
    )


def test_the_figures_are_those_of_the_table():
    for kind, node in (("CN", "Correspondent node"), ("MN", "Mobile node")):
        found = [match[2] for match in ROW.finditer(TABLE) if match[1].startswith(kind)]
        figures = [f"{found.count(word)} {word}" for word in ("passed", "not applicable", "not yet")]
        assert f"{node}: {', '.join(figures)}." in TABLE


def test_the_tests_that_are_named_exist():
    for module, function in set(re.findall(r"`(test_\w+)::(\w+)`", TABLE)):
        (file,) = [path for path in (ROOT / "tests").glob(f"*/{module}.py")]
        assert f"def {function}(" in file.read_text(), f"{module}::{function}"


def test_each_case_of_the_testers_tests_is_in_the_table():
    for path in (ROOT / "tests" / "integration").glob("test_ipv6_ready_*.py"):
        for case in re.findall(r'"([CM]N-[\d-]+\d)"', path.read_text()):
            assert f"| {case} |" in TABLE
