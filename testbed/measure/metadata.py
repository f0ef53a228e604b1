"""What a run ran on, so that someone else can judge and repeat it. Functions: `metadata`, `host_metadata`."""

import importlib.metadata
import os
import platform
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from testbed.measure import checkout

PACKAGES = ("mininet", "pyroute2", "pip-nftables", "iperf3", "msgspec", "numpy", "matplotlib", "scapy")
SYSCTLS = ("net.ipv4.tcp_congestion_control", "net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem", "net.core.rmem_max",
           "net.core.wmem_max", "net.core.default_qdisc", "net.ipv6.conf.all.forwarding",
           "net.ipv6.conf.default.accept_dad", "net.ipv6.conf.default.dad_transmits",
           "net.ipv4.tcp_no_metrics_save", "net.ipv4.tcp_timestamps")


def metadata(**facts: object) -> dict:
    """Kernel, interpreter, packages, processors, commit and time, and any `facts` of the caller's."""
    return {"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "kernel": platform.release(),
            "machine": platform.machine(), "system": _system(), "processors": os.cpu_count(),
            "processor": _processor(), "memory_mib": _memory_mib(), "versions": _versions(),
            "commit": checkout.commit(), "code": checkout.digest(),
            "command": [Path(sys.argv[0]).name, *sys.argv[1:]], **facts}


def host_metadata(pid: int, interfaces: Iterable[str] = (), tool: Iterable[str] = ("nsenter",)) -> dict:
    """Sysctls and queueing disciplines in the network namespace of process `pid`, as text.

    A sysctl that this kernel lacks is left out, as are the disciplines without `tc`.
    """
    enter = [*tool, f"--net=/proc/{pid}/ns/net", "--"]
    names = " ".join(f"/proc/sys/{name.replace('.', '/')}" for name in SYSCTLS)
    values = checkout.output([*enter, "sh", "-c", f"grep -H . {names} 2>/dev/null; true"]) or ""
    sysctls = dict(line.removeprefix("/proc/sys/").split(":", 1) for line in values.splitlines())
    disciplines = (checkout.output([*enter, "tc", "qdisc", "show"]) or "").splitlines()
    wanted = set(interfaces)
    return {"sysctls": {name.replace("/", "."): value for name, value in sysctls.items()},
            "qdiscs": [line for line in disciplines
                       if not wanted or any(f" dev {name} " in line for name in wanted)]}


def _versions() -> Mapping[str, str]:
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _system() -> str | None:
    try:
        lines = Path("/etc/os-release").read_text().splitlines()
    except OSError:
        return None
    return next((line.split("=", 1)[1].strip('"') for line in lines if line.startswith("PRETTY_NAME=")), None)


def _processor() -> str | None:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return None
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), None)


def _memory_mib() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20
