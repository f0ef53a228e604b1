"""The table of backends and kernels in the documentation has the backends that there are."""

import subprocess
import sys
from pathlib import Path

from backend import BACKENDS

PROJECT = Path(__file__).parents[2]
TABLE = PROJECT / "docs" / "kernels.md"


def rows(having):
    """The names of the rows with that in them."""
    return [line.split(" | ")[0][2:] for line in TABLE.read_text().splitlines() if having in line]


def test_every_backend_has_its_row():
    assert [row for row in rows("| ") if ": " in row] == [f"{kind}: {name}" for kind, name in BACKENDS]


def test_table_is_written_from_results(tmp_path):
    (tmp_path / "document.md").write_text("before\n<!-- results -->\nold\n<!-- end of results -->\nafter\n")
    (tmp_path / "results.xml").write_text("""\
        <testsuites><testsuite><properties><property name="kernel" value="9.1"/></properties>
        <testcase classname="tests.integration.test_a" name="test_b[netem]">
          <properties><property name="backend" value="link: netem"/></properties></testcase>
        <testcase classname="tests.integration.test_a" name="test_b[ip6tnl]"><skipped message="no"/>
          <properties><property name="backend" value="tunnel: ip6tnl"/></properties></testcase>
        <testcase classname="tests.integration.test_a" name="test_c"><failure message="x"/></testcase>
        <testcase classname="tests.unit.test_d" name="test_e"/></testsuite></testsuites>""")
    subprocess.run([sys.executable, PROJECT / "tests/kernel/matrix.py", "document.md", "results.xml"],
                   cwd=tmp_path, check=True)  # fmt: skip
    text = (tmp_path / "document.md").read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
    assert "| backend | needs | 9.1 |" in text
    assert "| link: netem | sch_netem | 1 passed |" in text
    assert "| tunnel: ip6tnl | ip6_tunnel | 1 skipped |" in text
    assert "| tunnel: seg6 | IPV6_SEG6_LWTUNNEL | – |" in text
    assert "| all integration tests |  | 1 passed, 1 FAILED, 1 skipped |" in text
    assert "| `test_a.py` | 1 | no |" in text


def test_a_test_that_no_kernel_ran_has_the_reasons_of_all(tmp_path):
    (tmp_path / "document.md").write_text("<!-- results -->\n<!-- end of results -->\n")
    for kernel, reason in (("9.1", "no device"), ("9.2", "it is a hop"), ("9.3", "no device")):
        (tmp_path / f"{kernel}.xml").write_text(f"""\
            <testsuites><testsuite><properties><property name="kernel" value="{kernel}"/></properties>
            <testcase classname="tests.integration.test_a" name="b"><skipped message="{reason}"/></testcase>
            </testsuite></testsuites>""")
    subprocess.run([sys.executable, PROJECT / "tests/kernel/matrix.py", "document.md", "9.1.xml", "9.2.xml",
                    "9.3.xml"], cwd=tmp_path, check=True)  # fmt: skip
    assert "| `test_a.py` | 1 | no device; it is a hop |" in (tmp_path / "document.md").read_text()
