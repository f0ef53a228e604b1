"""What a test compares before and after: `snapshot` of the machine that the test runs on."""

import os
import subprocess


def snapshot() -> dict[str, object]:
    """Everything that a run could leave behind, as seen from the caller's namespaces."""
    return {
        "processes": sorted(_command(pid) for pid in os.listdir("/proc") if pid.isdigit()),
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


def network_namespaces() -> set[str]:
    """The network namespaces of all processes that can be seen from here."""
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
