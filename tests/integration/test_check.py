"""testbed.check: what it says of machines that can and that cannot run the main job."""

import json
import os
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
CHECK = [sys.executable, "-m", "testbed.check"]
STATES = {"present", "stand-in", "missing"}


def check(*options, before=(), **settings):
    command = [*before, *CHECK, *options]
    return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, **settings)


def test_table_and_exit_status_of_a_machine_that_can(untouched):
    done = check()
    assert done.returncode == 0, done.stdout
    assert done.stdout.startswith(f"Linux {os.uname().release} on {os.uname().machine}\n")
    for name in ("private namespaces", "veth", "bridge", "nftables", "radvd"):
        assert f"\nok        {name} " in done.stdout
    assert done.stdout.endswith("The main job can run here: sudo ./run multihome\n")
    assert max(map(len, done.stdout.splitlines())) <= 100


def test_json():
    document = json.loads(check("--json").stdout)
    assert document["can_run"] is True
    assert {finding["state"] for finding in document["findings"]} <= STATES
    for finding in document["findings"]:
        assert finding["detail"]
        if finding["state"] == "stand-in":
            assert finding["instead"]


def test_machine_without_radvd():
    """The folders of system commands are empty but for those that are there to find."""
    script = ("cp -a $(readlink -f $(command -v ip nft ifconfig)) /run; mount -t tmpfs none /usr/sbin; "
              f"PATH=/run:/usr/bin exec {' '.join(CHECK)}")
    done = check(before=["unshare", "--mount", "sh", "-c", script])
    assert done.returncode == 1
    assert "\nNEEDED    radvd " in done.stdout
    assert "The main job cannot run without radvd: install the package radvd\n" in done.stdout


def test_machine_without_namespaces():
    done = check("--json", before=["setpriv", "--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin"])
    document = json.loads(done.stdout)
    assert (done.returncode, document["can_run"]) == (1, False)
    (finding,) = (finding for finding in document["findings"] if finding["remedy"])
    assert finding["name"] == "private namespaces"
    assert finding["remedy"].startswith("the system refuses a process namespace (Operation not permitted): ")


def test_unknown_option():
    done = check("--fly")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
