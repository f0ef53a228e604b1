"""The command `./run kernel`: anything, but under the kernel of a Debian release, in software emulation."""

import argparse
import os
import platform
import shutil
import signal
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(PROJECT), str(PROJECT / "tests")]

from debian import Unavailable, fetch  # noqa: E402
from ending import not_ended  # noqa: E402
from guest import PACKAGES, Guest  # noqa: E402

from testbed.features import probe_features  # noqa: E402

#: What a kernel has to have for all tests to run under it, in the words of `./run check`.
EVERYTHING = {"ip6_tunnel", "netem", "openvswitch", "ESP", "XFRM route optimisation"}
#: Exit status if there is no such machine to be had, or no time.
NOTHING = 3
#: A test that is under way when the time is over has this part of it to come to its end.
GRACE = 8
_DESCRIPTION = """\
Run a command of this project under the kernel of a Debian release, in QEMU's software emulation: that has
what kernels for containers and cloud machines may lack (ip6_tunnel, netem, Open vSwitch's datapath, ESP). It
sees the files of this machine as they are at the start; of what it writes, only what is below results/ stays.
"""
_EPILOG = """\
commands:
  tests [--all | ARGUMENT...]  the tests that need such a kernel; all integration tests; what pytest is told
  check, multihome, ...        every other command of ./run, for example: ./run kernel multihome --quick
  /bin/ls, ...                 a program, by a name with a slash in it

Time in there is counted in instructions, 10⁹ to a second: it looks like a slow machine with one processor,
however busy this one is. Behaviour is the kernel's own; figures are not worth anything.
"""


def main() -> int:
    parser = argparse.ArgumentParser(
        "./run kernel",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("--suite", default="bookworm", help="a Debian release (default: bookworm)")
    parser.add_argument("--limit", type=float, metavar="SECONDS", help="end the tests after this time")
    parser.add_argument(
        "--unless-native", action="store_true", help="do nothing if this machine's own kernel has everything"
    )
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND ...")
    options = parser.parse_args()
    if not options.command:
        parser.error("a command is needed, for example: tests")
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        if options.unless_native and has_everything():
            print(f"This machine's own kernel, {platform.release()}, has everything: no other one is needed.")
            return 0
        return run(options.suite, options.command, options.limit)
    except Unavailable as reason:
        print(f"Not tested under another kernel than this machine's: {reason}.")
        return NOTHING


def has_everything() -> bool:
    return {feature.name for feature in probe_features() if feature.present} >= EVERYTHING


def run(suite: str, words: list[str], limit_s: float | None) -> int:
    """The exit status of the command. Raises Unavailable."""
    if platform.machine() != "x86_64":
        raise Unavailable(f"that needs an x86-64 processor, this one is {platform.machine()}")
    missing = [package for command, package in PACKAGES.items() if shutil.which(command) is None]
    if missing:
        raise Unavailable(f"apt-get install {' '.join(missing)}")
    kernel = fetch(suite, PROJECT / ".kernels")
    results = PROJECT / "results"
    results.mkdir(exist_ok=True)
    print(f"Under Debian {suite}'s kernel, {kernel.release}, in software emulation:", flush=True)
    with Guest(kernel, [results]) as guest:
        guest.start(in_guest(words, suite, guest), PROJECT, environment())
        status = guest.wait(limit_s)
        if status is None:
            guest.end_file.touch()
            status = guest.wait(limit_s / GRACE)
        if status is None:
            return not_ended(guest.end_file, limit_s * (1 + 1 / GRACE))
    return status


def in_guest(words: list[str], suite: str, guest: Guest) -> list[str]:
    """The command in the machine for the words of the user."""
    command, *arguments = words
    if "/" in command:
        return words
    if command != "tests":
        return [str(PROJECT / "run"), *words]
    if arguments in ([], ["--all"]):
        selection = ["tests/integration"] + ([] if arguments else ["-m", "distribution_kernel and not long"])
        arguments = [*selection, f"--junitxml=results/tests/{suite}.xml"]
    return [str(PROJECT / ".venv/bin/python"), "-m", "pytest", "-p", "no:cacheprovider",
            f"--end-file={guest.end_file_inside}", *arguments]  # fmt: skip


def environment() -> dict[str, str]:
    """What a command in the machine knows of the one here."""
    kept = {name: value for name, value in os.environ.items() if name.startswith("FLOWBIND_")}
    columns = str(shutil.get_terminal_size().columns)
    fixed = {"HOME": "/root", "LANG": "C.UTF-8", "FLOWBIND_EMULATED": "1"}
    return {"PATH": os.environ["PATH"], "COLUMNS": columns} | fixed | kept


if __name__ == "__main__":
    sys.exit(main())
