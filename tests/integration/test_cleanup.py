"""Whatever way a run ends, the machine is as it was: processes, links, namespaces, rules, files, settings."""

import os
import pty
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("isolated_program.py")
STEPS = ["isolated", "started", "ready"]


def start(end, **options):
    return subprocess.Popen([sys.executable, str(PROGRAM), end], text=True, **(
        {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL} | options))


def read_until(program, step):
    for line in program.stdout:
        if line.strip() == step:
            return
    raise AssertionError(f"{step} was not reached: {program.stderr.read()}")


def test_end(untouched):
    program = start("exit")
    assert program.communicate(timeout=60) == ("isolated\nstarted\nready\nstopped\n", "")
    assert program.returncode == 3


def test_exception(untouched):
    program = start("raise")
    output, errors = program.communicate(timeout=60)
    assert "stopped" not in output
    assert errors.endswith("RuntimeError: as told\n")
    assert program.returncode == 1


def test_terminate(untouched):
    program = start("wait")
    read_until(program, "ready")
    program.terminate()
    program.communicate(timeout=60)
    assert program.returncode == 143


@pytest.mark.parametrize("step", STEPS)
def test_kill_after_a_step(untouched, step):
    program = start("wait")
    read_until(program, step)
    program.kill()
    program.communicate(timeout=60)


@pytest.mark.parametrize("seed", range(6))
def test_kill_at_a_random_moment(untouched, seed):
    """The moment is anywhere in the start of the program and the network, which takes some 0.4 s."""
    program = start("wait")
    try:
        program.wait(timeout=random.Random(seed).uniform(0.0, 0.6))
    except subprocess.TimeoutExpired:
        program.kill()
    program.communicate(timeout=60)


def test_interrupt_at_the_terminal(untouched):
    """Ctrl-C goes to every process of the foreground group; once is enough, and the order is good."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, str(PROGRAM), "wait"])
    with os.fdopen(terminal, "rb", buffering=0) as stream:
        seen = read_terminal(stream, until=b"ready")
        os.write(terminal, b"\x03")
        seen += read_terminal(stream)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status == 130
    assert seen.count(b"interrupted") == 1
    assert b"Traceback" not in seen


def read_terminal(stream, until=None):
    seen = b""
    while until is None or until not in seen:
        try:
            data = stream.read(1024)
        except OSError:  # the other side has closed it
            data = b""
        if not data:
            break
        seen += data
    return seen


def test_two_side_by_side(untouched):
    """Same node names, interface names, addresses and sockets, at the same time."""
    programs = [start("wait"), start("wait")]
    for program in programs:
        read_until(program, "ready")
    programs[0].kill()
    programs[0].communicate(timeout=60)
    assert programs[1].poll() is None
    programs[1].send_signal(signal.SIGINT)
    output, errors = programs[1].communicate(timeout=60)
    assert (output, errors) == ("interrupted\n", "")
