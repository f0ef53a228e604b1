"""What tests of a clean end compare: `snapshot` of the machine, `assert_untouched` since one."""

import contextlib
import os
import subprocess

from testbed.emulation.process import EmulationError, wait_until


def snapshot() -> dict[str, object]:
    """Everything that a run could leave behind, as seen from the caller's namespaces."""
    return {
        "processes": sorted(_command(pid) for pid in os.listdir("/proc") if pid.isdigit()),
        "network namespaces": _network_namespaces(),
        "interfaces": _output("ip", "-br", "link"),
        "addresses": _output("ip", "-6", "-br", "address"),
        "routes": _output("ip", "-6", "route", "show", "table", "all"),
        "rules": _output("ip", "-6", "rule"),
        "nftables": _output("nft", "list", "ruleset"),
        "files in /run": sorted(os.listdir("/run")),
        "files in /run/flowbind": _files("/run/flowbind"),
        "files in /run/netns": _files("/run/netns"),
        "files in /tmp": sorted(os.listdir("/tmp")),
        "mounts": _read("/proc/self/mounts"),
        "host name": os.uname().nodename,
        "process limit": _read("/proc/sys/kernel/pty/max"),
        "open files": _read("/proc/sys/fs/file-max"),
    }


def assert_untouched(before: dict[str, object], timeout_s: float = 30.0) -> None:
    """Fail unless everything is as before; the kernel may need a moment to end what was killed."""
    with contextlib.suppress(EmulationError):
        wait_until(lambda: snapshot() == before, timeout_s, "the end of everything")
    after = snapshot()
    assert {key: (before[key], after[key]) for key in before if after[key] != before[key]} == {}


def _network_namespaces() -> set[str]:
    found = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            found.add(os.readlink(f"/proc/{pid}/ns/net"))
        except OSError:
            pass  # it has ended
    return found


def _command(pid: str) -> str:
    try:
        with open(f"/proc/{pid}/cmdline") as file:
            return file.read().replace("\0", " ").strip()
    except OSError:
        return ""


def _files(folder: str) -> list[str]:
    return sorted(os.listdir(folder)) if os.path.isdir(folder) else []


def _read(path: str) -> str:
    with open(path) as file:
        return file.read()


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
