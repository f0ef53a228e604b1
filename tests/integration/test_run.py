"""The command `run`: what it answers without setting anything up."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
#: What a minimal Debian has, and `run` relies on.
MINIMAL = "sh cat dirname env flock id mkdir readlink rm sha256sum sort tail tr python3".split()


def run(*arguments, **options):
    return subprocess.run([PROJECT / "run", *arguments], capture_output=True, text=True, **options)


@pytest.fixture
def minimal_path():
    """Commands of a minimal machine, no sudo and apt-get among them, in a folder that everyone may read."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        os.chmod(folder, 0o755)
        for command in MINIMAL:
            os.symlink(shutil.which(command), os.path.join(folder, command))
        yield folder


@pytest.mark.parametrize("option", [["--help"], ["-h"], ["help"], []])
def test_help_lists_the_commands(option):
    done = run(*option)
    assert (done.returncode, done.stderr) == (0, "")
    for command in ("multihome", "mn", "shell", "check", "setup", "tests", "kernel", "bench"):
        assert f"  {command} " in done.stdout


@pytest.mark.parametrize("arguments, sentence", [
    (["fly"], "run: unknown command fly; ./run --help lists the commands.\n"),
    (["--fly"], "run: unknown command --fly; ./run --help lists the commands.\n"),
    (["../setup"], "run: unknown command ../setup; ./run --help lists the commands.\n"),
    (["__init__"], "run: unknown command __init__; ./run --help lists the commands.\n"),
    (["bench", "nothing"], "run: there is no measurement named nothing; ./run --help lists them.\n"),
])
def test_errors_are_one_sentence(arguments, sentence):
    done = run(*arguments)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", sentence)


def test_without_root_and_sudo(minimal_path):
    command = shutil.copy(PROJECT / "run", minimal_path)
    done = subprocess.run([command, "setup"], capture_output=True, text=True, user="nobody",
                          env={"PATH": minimal_path})
    assert done.returncode == 2
    assert done.stderr == "run: this needs root, and there is no sudo: say it again as root.\n"


@pytest.mark.parametrize("command", ["report", "compare"])
def test_reading_results_without_root_needs_a_finished_set_up(minimal_path, command):
    script = shutil.copy(PROJECT / "run", minimal_path)
    done = subprocess.run([script, command, "folder"], capture_output=True, text=True, user="nobody",
                          env={"PATH": minimal_path})
    sentence = ("reading results takes no root, but a finished set-up, and there is none: "
                "say sudo ./run setup once.")
    assert (done.returncode, done.stderr) == (2, f"run: {sentence}\n")


def test_without_apt_names_what_to_install(minimal_path):
    """In a private mount namespace without the system folders that `run` looks into, too."""
    script = (f"mount -t tmpfs none /usr/local/sbin; mount -t tmpfs none /usr/sbin; PATH={minimal_path} "
              f"{PROJECT}/run setup")
    done = subprocess.run(["unshare", "--mount", "sh", "-c", script], capture_output=True, text=True)
    assert done.returncode == 2
    sentence = done.stderr.strip()
    assert sentence.startswith("run: install these Debian packages' equivalents, then say it again: ")
    for package in ("mininet", "nftables", "radvd", "iproute2"):
        assert package in sentence


def test_a_read_only_checkout_without_environment(tmp_path):
    for name in ("run", "setup.py", "constraints.txt"):
        shutil.copy(PROJECT / name, tmp_path)
    script = (f"mount --bind {tmp_path} {tmp_path}; mount -o remount,ro,bind {tmp_path}; "
              f"exec {tmp_path}/run setup")
    done = subprocess.run(["unshare", "--mount", "sh", "-c", script], capture_output=True, text=True)
    sentence = f"nothing can be set up in {tmp_path}: it is read-only. "\
               f"Say {tmp_path}/run setup where it is not."
    assert (done.returncode, done.stderr) == (2, f"run: {sentence}\n")


def test_help_takes_no_root(nobody):
    """Where all is set up; `shell` and `setup` do nothing but explain themselves."""
    for arguments in (["shell", "--help"], ["setup", "-h"]):
        done = run(*arguments, user=nobody)
        assert (done.returncode, done.stderr) == (0, "")
        assert "setup        set up whatever is missing" in done.stdout
