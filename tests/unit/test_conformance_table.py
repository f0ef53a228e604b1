"""The table of requirements in the documentation is that of the tests."""

from pathlib import Path

from conformance import name, requirements, row

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
