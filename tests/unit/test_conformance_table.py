"""The table of requirements in the documentation is that of the tests."""

from pathlib import Path

import pytest
from conformance import name, requirements, row, verdict
from outcomes import address

TABLE = Path(__file__).parents[2] / "docs" / "conformance.md"


def test_every_requirement_is_in_the_table(request):
    table = TABLE.read_text()
    expected = {row(text, name(item)) for item in request.session.items for text in requirements(item)}
    missing = sorted(line for line in expected if line not in table)
    assert not missing, f"write it anew with --conformance {TABLE}"


def test_every_test_in_the_table_is_there():
    named = {
        line.split("`")[1] for line in TABLE.read_text().splitlines() if line.startswith("| ") and "`" in line
    }
    root = TABLE.parents[1]
    for test in named:
        path, _, function = test.partition("::")
        assert function.rpartition("::")[2] in (root / path).read_text(), test


OWN, OTHER = "own", "other"


@pytest.mark.parametrize("own, other, told", [
    ("p", "", "passed"),
    ("p", "p", "passed"),
    ("", "", None),
    ("s", "", "skipped"),
    ("s", "s", "skipped"),
    ("s", "p", "passed under other"),
    ("", "p", "passed under other"),
    ("ps", "", "passed, 1 of 2 variants skipped"),
    ("ps", "sp", "passed; 1 of 2 variants under other"),
    ("pss", "ssp", "passed, 1 of 3 variants skipped; 1 of 3 variants under other"),
    ("p", "f", "failed under other"),
    ("f", "p", "failed under own"),
])  # fmt: skip
def test_verdict_of_several_kernels(own, other, told):
    words = {"p": "passed", "s": "skipped", "f": "failed"}
    outcomes = {
        kernel: {str(number): words[letter] for number, letter in enumerate(letters)}
        for kernel, letters in ((OWN, own), (OTHER, other))
    }
    assert verdict(outcomes) == told


@pytest.mark.parametrize("node, known_as", [
    ("tests/unit/test_a.py::test_b[x-y::z]", "tests.unit.test_a::test_b[x-y::z]"),
    ("tests/unit/test_a.py::TestC::test_b", "tests.unit.test_a.TestC::test_b"),
])  # fmt: skip
def test_address_in_a_file_of_results(node, known_as):
    assert address(node) == known_as
