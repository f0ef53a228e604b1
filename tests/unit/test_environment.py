"""testbed.environment: scripts find the project's Python environment, and old interpreters get a sentence."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
SCRIPT = """
import sys
sys.path.insert(0, {project!r})
from testbed.environment import reexec_in_project_environment
reexec_in_project_environment()
print(sys.prefix)
print(sys.argv[1:])
"""


@pytest.fixture
def project(tmp_path):
    """A checkout with nothing but what the script needs."""
    package = tmp_path / "checkout" / "testbed"
    package.mkdir(parents=True)
    for name in ("__init__.py", "environment.py"):
        shutil.copy(PROJECT / "testbed" / name, package)
    script = tmp_path / "checkout" / "script.py"
    script.write_text(SCRIPT.format(project=str(package.parent)))
    return package.parent


def run(python, project, *options, cwd="/"):
    return subprocess.run([python, *options, project / "script.py", "--option", "a b"], cwd=cwd, text=True,
                          capture_output=True)


def bare_python(tmp_path):
    """An interpreter without the project's packages."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    return tmp_path / "bare" / "bin" / "python"


def test_continues_in_the_environment_with_the_same_arguments(project, tmp_path):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", project / ".venv"], check=True)
    done = run(bare_python(tmp_path), project, "-I")
    assert done.stdout.splitlines() == [str(project / ".venv"), "['--option', 'a b']"], done.stderr


def test_without_environment_names_the_command_that_makes_it(project, tmp_path):
    done = run(bare_python(tmp_path), project)
    assert done.returncode == 2
    assert done.stderr == (f"flowbind: the project's Python environment is missing: set it up with: "
                           f"sudo {project}/run setup\n")


def test_an_environment_made_by_hand_will_do(project):
    pytest.importorskip("mininet")
    done = run(sys.executable, project)
    assert done.stdout.splitlines()[0] == sys.prefix, done.stderr


def test_ctrl_c_shows_no_traceback(project, tmp_path):
    with open(project / "script.py", "a") as script:
        script.write("raise KeyboardInterrupt\n")
    done = run(sys.executable, project)
    assert done.returncode == -signal.SIGINT
    assert done.stderr == "\nflowbind: stopped\n"


OLD = [python for python in ("python2.7", "python3.6", "python3.8", "python3.9") if shutil.which(python)]


@pytest.mark.skipif(not OLD, reason="no old Python on this machine")
def test_old_interpreter_gets_a_sentence(project):
    for python in OLD:
        done = run(python, project)
        if "command not found" in done.stderr:  # a version manager's place-holder
            continue
        assert done.returncode == 2
        assert "this needs Python 3.10 or later" in done.stderr
        assert "Traceback" not in done.stderr
        assert os.path.join(project, "run") in done.stderr
