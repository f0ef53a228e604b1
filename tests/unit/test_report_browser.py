"""The page of many results in a real browser."""

import re
import shutil
import subprocess

import pytest
from test_report_sample import sample

from testbed.report.html import write_report
from testbed.report.result import write_result

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --enable-logging=stderr"
).split()


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_a_link_to_a_case_opens_its_details_and_no_script_fails(tmp_path):
    write_result(sample(), tmp_path / "result.json")
    page = tmp_path / "report.html"
    write_report([tmp_path], page)
    identifier = re.search(r"<details id='([^']+)'", page.read_text())[1]
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={tmp_path}/browser", "--dump-dom"]
    opened, closed = (
        subprocess.run([*command, f"file://{page}{anchor}"], capture_output=True, text=True, timeout=60)
        for anchor in (f"#{identifier}", "")
    )
    assert "Uncaught" not in opened.stderr and "ERR_" not in opened.stderr
    assert re.search(rf'<details id="{identifier}" open="">', opened.stdout)
    assert f'<details id="{identifier}">' in closed.stdout


@pytest.mark.skipif(not (CHROMIUM and shutil.which("pdftotext")), reason="needs chromium and pdftotext")
@pytest.mark.parametrize("script", [True, False])
def test_details_are_open_on_paper(tmp_path, script):
    write_result(sample(), tmp_path / "result.json")
    page = tmp_path / "report.html"
    write_report([tmp_path], page)
    if not script:
        page.write_text(re.sub("<script>.*?</script>", "", page.read_text(), flags=re.DOTALL))
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={tmp_path}/browser"]
    command += [f"--print-to-pdf={tmp_path}/page.pdf", f"file://{page}"]
    subprocess.run(command, capture_output=True, check=True, timeout=60)
    command = ["pdftotext", tmp_path / "page.pdf", "-"]
    assert "Flows of run 1" in subprocess.run(command, capture_output=True, text=True, check=True).stdout
