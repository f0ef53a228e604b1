"""testbed.isolation: a program in private namespaces behaves as one outside, and cannot leave anything."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
ISOLATE = [sys.executable, "-m", "testbed.isolation"]


def isolated(*command, **options):
    options = {"capture_output": True, "text": True, "timeout": 60, "cwd": PROJECT} | options
    return subprocess.run([*ISOLATE, *command], **options)


def isolated_python(code, **options):
    """Run Python code after isolate() in one program."""
    code = f"import sys; sys.path.insert(0, {str(PROJECT)!r})\nfrom testbed.isolation import isolate\n{code}"
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            text=True, **options)


@pytest.mark.parametrize("end, status", [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137), ("kill $$", 143)])
def test_exit_status_is_the_programs(end, status):
    assert isolated("sh", "-c", end).returncode == status


def test_standard_streams_are_the_programs():
    done = isolated("sh", "-c", "cat; echo trouble >&2", input="some input\n")
    assert (done.stdout, done.stderr) == ("some input\n", "trouble\n")


def test_working_folder_and_arguments_are_kept(tmp_path):
    done = isolated("sh", "-c", 'pwd; echo "$1"', "sh", "a b", cwd=tmp_path,
                    env=os.environ | {"PYTHONPATH": str(PROJECT)})
    assert done.stdout == f"{tmp_path}\na b\n"


def test_sees_only_its_own_processes_and_links():
    done = isolated("sh", "-c", "ps -e -o pid= | wc -l; ls /sys/class/net; cat /proc/net/if_inet6 | wc -l")
    processes, links, addresses = done.stdout.split()
    assert int(processes) <= 4  # init, sh, ps, wc
    assert (links, addresses) == ("lo", "1")  # loopback is up


def test_run_is_private_and_what_stood_there_stays_visible():
    folder = Path("/run/isolation-test")
    folder.mkdir()
    try:
        (folder / "before").write_text("seen\n")
        done = isolated("sh", "-c", "cd /run; cat isolation-test/before; echo kept >isolation-test/result;"
                                    "echo secret >flowbind/file; echo secret >file; ls flowbind")
        assert done.stdout.split() == ["seen", "file"]
        assert (folder / "result").read_text() == "kept\n"
        assert not os.path.exists("/run/file")
        assert not os.path.exists("/run/flowbind/file")
    finally:
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()


@pytest.mark.parametrize("place", ["/tmp", "/var/tmp", "/run", None], ids=str)
def test_output_folder_is_the_machines(place):
    with tempfile.TemporaryDirectory(dir=place) as folder:
        isolated("sh", "-c", f"echo kept >{folder}/result")
        assert Path(folder, "result").read_text() == "kept\n"


def test_temporary_files_vanish():
    name = isolated("sh", "-c", "mktemp").stdout.strip()
    assert name.startswith("/run/tmp.")
    assert not os.path.exists(name)


@pytest.mark.parametrize("setting", ["fs/file-max", "kernel/pty/max", "vm/swappiness"])
def test_kernel_wide_settings_are_out_of_reach(setting):
    done = isolated("sh", "-c", f"cat /proc/sys/{setting} >/proc/sys/{setting}")
    assert done.returncode != 0
    assert "Read-only" in done.stderr or "nonexistent" in done.stderr


def test_settings_of_the_network_are_its_own():
    before = Path("/proc/sys/net/ipv6/conf/all/forwarding").read_text()
    done = isolated("sh", "-c", "cd /proc/sys/net/ipv6/conf/all && echo 1 >forwarding && cat forwarding")
    assert done.stdout == "1\n", done.stderr
    assert Path("/proc/sys/net/ipv6/conf/all/forwarding").read_text() == before


def test_may_be_nested():
    assert isolated(*ISOLATE, "sh", "-c", "ls /sys/class/net").stdout == "lo\n"


def test_works_in_a_chroot(tmp_path):
    """Commands that join the namespaces from a program in a chroot stay in that."""
    script = f"""
        mount --bind / {tmp_path} && mount -t tmpfs none {tmp_path}/mnt && touch {tmp_path}/mnt/inside &&
        mount -t proc proc {tmp_path}/proc && cd / && PYTHONPATH={PROJECT} exec chroot {tmp_path} \
        {sys.executable} -m testbed.isolation sh -c 'ls /mnt; mnexec -a $$ ls /mnt'"""
    done = subprocess.run(["unshare", "--mount", "sh", "-c", script], capture_output=True, text=True)
    assert done.stdout.split() == ["inside", "inside"], done.stderr


def test_orphans_are_reaped():
    ended = "until [ -z \"$(ps -e -o pid= | grep -w $(cat /run/orphan))\" ]; do :; done"
    done = isolated("sh", "-c", f"(sh -c 'sleep 0.01 & echo $! >/run/orphan'); {ended}; echo reaped")
    assert done.stdout == "reaped\n"


@pytest.mark.parametrize("number, status", [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_signals_stop_the_program_in_good_order(number, status):
    program = isolated_python(
        "import signal\nisolate()\n"
        "try:\n    print('ready', flush=True); signal.pause()\nfinally:\n    print('stopped', flush=True)")
    assert program.stdout.readline() == "ready\n"
    program.send_signal(number)
    assert program.communicate(timeout=30)[0] == "stopped\n"
    assert program.returncode == status


def test_interrupt_that_arrives_twice_counts_once():
    program = isolated_python(
        "import os, signal\nisolate()\n"
        "try:\n    print('ready', flush=True); signal.pause()\n"
        "except KeyboardInterrupt:\n    os.kill(os.getpid(), signal.SIGINT); print('stopped', flush=True)")
    assert program.stdout.readline() == "ready\n"
    program.send_signal(signal.SIGINT)
    assert program.communicate(timeout=30) == ("stopped\n", "")
    assert program.returncode == 0


def test_user_signals_are_handed_on():
    program = isolated_python(
        "import signal\nisolate()\nsignal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])\n"
        "print('ready', flush=True); signal.sigwait([signal.SIGUSR1]); print('got it')")
    assert program.stdout.readline() == "ready\n"
    program.send_signal(signal.SIGUSR1)
    assert program.communicate(timeout=30)[0] == "got it\n"


def test_command_that_does_not_exist():
    done = isolated("no-such-command")
    assert (done.returncode, done.stderr) == (
        127, "flowbind: cannot start no-such-command: No such file or directory.\n")


def test_not_root():
    program = isolated_python("import os\nos.setuid(65534)\nisolate()")
    assert program.communicate(timeout=30) == (
        "", "flowbind: this needs root, to make network namespaces: start it again with sudo.\n")
    assert program.returncode == 2


def test_namespaces_refused():
    """As in a container without privileges."""
    weaker = ["setpriv", "--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin"]
    done = subprocess.run([*weaker, *ISOLATE, "true"], cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == (
        "flowbind: the system refuses a process namespace (Operation not permitted): in a container, start "
        "that with --privileged (or with --cap-add ALL and without seccomp and AppArmor profiles).\n")
