"""What this machine offers for the testbed: `python -m testbed.check [--json]`, or `./run check`.

Each line is something that the testbed uses: there, missing with a stand-in that is used instead, or missing
and what that costs. Exit status 0: the main job can run; 1: it cannot, and the table says what to do.

Classes: `Finding`. Functions: `main`.
"""

import argparse
import dataclasses
import json
import os
import platform
import shutil
import subprocess
import sys
import textwrap
from importlib.metadata import PackageNotFoundError, version

from testbed.isolation import isolate

#: Command, Debian package, whether the main job needs it, what it is for.
COMMANDS = (
    ("mnexec", "mininet", True, "puts processes into the hosts of the network"),
    ("ip", "iproute2", True, "sets addresses and routes"),
    ("nft", "nftables", False, "shows the rules that sort packets into flows"),
    ("radvd", "radvd", True, "sends Router Advertisements"),
    ("iperf3", "iperf3", True, "its library measures throughput"),
    ("ping", "iputils-ping", True, "tries paths"),
    ("ethtool", "ethtool", False, "switches off checksum offload behind software switches"),
    ("tcpdump", "tcpdump", False, "shows packets in the labs"),
    ("tshark", "tshark", False, "checks our packets in the tests"),
)
PACKAGES = ("mininet", "iperf3", "msgspec", "numpy", "matplotlib", "scapy")
_DESCRIPTION = """\
What this machine offers for the testbed, a line each: "ok"; "stand-in", with what is used instead and what
that costs; "missing", with what cannot be done; "NEEDED", with what to do about it.
"""
_EPILOG = "Exit status: 0 if experiments can run here, 1 if not."


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked for.

    state: "present", "stand-in" or "missing"; detail: what it is for, or what is missing; instead: what is
    used in its place, and cost: what is lost without it; remedy: what to do about it, only where the main job
    cannot run without it.
    """

    name: str
    state: str
    detail: str
    instead: str = ""
    cost: str = ""
    remedy: str = ""


def commands() -> list[Finding]:
    """The programs of other projects."""
    found = []
    for command, package, needed, purpose in COMMANDS:
        path = shutil.which(command)
        if path:
            found.append(Finding(command, "present", f"{purpose} ({path})"))
        else:
            install = f"install the package {package}"
            found.append(Finding(command, "missing", purpose, remedy=install) if needed else
                         Finding(command, "missing", f"{purpose}; to have it, {install}"))
    return found


def packages() -> list[Finding]:
    """Python and its packages."""
    found = [Finding("Python", "present", f"{platform.python_version()} ({sys.executable})")]
    for name in PACKAGES:
        try:
            found.append(Finding(name, "present", version(name)))
        except PackageNotFoundError:
            found.append(Finding(name, "missing", "Python package", remedy="set it up: sudo ./run setup"))
    return found


def namespaces() -> Finding:
    """Whether programs can be put into private namespaces."""
    command = [sys.executable, "-m", "testbed.isolation", "true"]
    tried = subprocess.run(command, capture_output=True, text=True)
    if tried.returncode == 0:
        return Finding("private namespaces", "present", "pid, network, mount, IPC, UTS")
    return Finding("private namespaces", "missing", "every run needs its own",
                   remedy=tried.stderr.strip().removeprefix("flowbind: "))


def processors() -> Finding:
    """Agents, traffic and links share the processors."""
    count = len(os.sched_getaffinity(0))
    if count > 1:
        return Finding("processors", "present", str(count))
    return Finding("processors", "missing", "one only", cost="delays look too long when it is busy")


def kernel() -> list[Finding]:
    """What the kernel offers, tried out in private namespaces."""
    from testbed.features import probe_features

    found = []
    for feature in probe_features():
        if feature.present:
            found.append(Finding(feature.name, "present", feature.detail))
        else:
            found.append(Finding(
                feature.name, "stand-in" if feature.fallback else "missing", feature.detail, feature.fallback,
                feature.cost, feature.remedy if feature.needed else ""))
    return found


def table(findings: list[Finding]) -> str:
    """The findings for people, 100 columns wide."""
    marks = {"present": "ok", "stand-in": "stand-in", "missing": "missing"}
    width = max(len(finding.name) for finding in findings)
    lines = []
    for finding in findings:
        text = "; ".join(filter(None, (
            finding.detail, finding.instead and f"used instead: {finding.instead}",
            finding.cost and f"cost: {finding.cost}", finding.remedy)))
        state = "NEEDED" if finding.remedy else marks[finding.state]
        lines += textwrap.wrap(f"{state:<9} {finding.name:<{width}}  {text}", 100,
                               subsequent_indent=" " * (width + 12), break_on_hyphens=False)
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="./run check", description=_DESCRIPTION, epilog=_EPILOG)
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    arguments = parser.parse_args()
    findings = [*packages(), *commands(), processors(), namespaces()]
    if findings[-1].state == "present":
        isolate()
        findings += kernel()
    needed = [finding for finding in findings if finding.remedy]
    if arguments.json:
        json.dump({"kernel": platform.release(), "machine": platform.machine(), "can_run": not needed,
                   "findings": [dataclasses.asdict(finding) for finding in findings]}, sys.stdout, indent=2)
        print()
    else:
        print(f"Linux {platform.release()} on {platform.machine()}\n\n{table(findings)}\n")
        for finding in needed:
            print(f"The main job cannot run without {finding.name}: {finding.remedy}")
        if not needed:
            print("The main job can run here: sudo ./run multihome")
    return 1 if needed else 0


if __name__ == "__main__":
    sys.exit(main())
