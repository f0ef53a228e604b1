"""The command line of experiments. Functions: `parser`, `parse`, `network`, `access_networks`,
`traffic_seconds`, `begin`, `add_repeat_options`; of series `series_parser`, `positive`, `seed`,
`repetitions`, `listed`, `common_parameters`, `series_folder`."""

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from testbed.datapath import probe
from testbed.emulation.link import BACKENDS as LINK_BACKENDS
from testbed.emulation.security import METHODS
from testbed.isolation import isolate
from topologies.multihome import DEFAULT_ACCESS_NETWORKS, AccessNetwork

Network = TypeVar("Network")

TUNNEL_BACKENDS = ("auto", *probe.BACKENDS)
#: What --json does, everywhere.
JSON = "one JSON document on standard output, all else on standard error"
#: What --share-machine does, in all series.
SHARE_MACHINE = "measure although another series does so on this machine"
#: A repetition's seed is this number's thousandfold and more, and fits 64 bits.
MAXIMUM_SEED = 10**9


class _Paragraphs(argparse.HelpFormatter):
    """Texts are as wide as the terminal; paragraphs with indented lines (examples) stay as they are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        fill = super()._fill_text
        paragraphs = text.strip().split("\n\n")
        return "\n\n".join(p if "\n " in p else fill(p, width, indent) for p in paragraphs)


class Parser(argparse.ArgumentParser):
    """Of the command `prog` of `./run`. Errors are one sentence and the way to more; exit status 2."""

    def __init__(self, prog: str, **parameters: object) -> None:
        super().__init__(prog=f"./run {prog}", formatter_class=_Paragraphs, **parameters)

    def error(self, message: str) -> None:
        self.exit(2, f"{self.prog.removeprefix('./run ')}: {message} (--help explains the options)\n")


def parser(program: str, description: str, epilog: str, duration_s: float, quick_s: float) -> Parser:
    """A parser with the options that all experiments have.

    `duration_s`: seconds of traffic by default, `quick_s` with --quick.
    """
    made = Parser(
        prog=program,
        description=description,
        epilog=epilog,
    )
    made.set_defaults(quick_s=quick_s)
    length = made.add_mutually_exclusive_group()
    length.add_argument(
        "--duration",
        type=_seconds,
        default=duration_s,
        metavar="SECONDS",
        help=f"seconds of traffic, all steps together (default {duration_s:g})",
    )
    length.add_argument("--quick", action="store_true", help=f"the same steps in {quick_s:g} s of traffic")
    made.add_argument(
        "--seed", type=seed, default=1, metavar="N", help="of all that is random: loss, jitter, traffic (1)"
    )
    made.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="where the files go (default: a new folder below results/ in the current one)",
    )
    made.add_argument(
        "--access",
        action="append",
        type=_access_network,
        metavar="NAME:MBIT:MS[:JITTER:LOSS:QUEUE]",
        help="an access network: rate in Mbit/s, one-way delay and jitter in ms, loss in percent, queue in "
        "packets; give two or more (default: " + " and ".join(map(_spelled, DEFAULT_ACCESS_NETWORKS)) + ")",
    )
    made.add_argument("--pcap", action="store_true", help="keep captures of whole packets, for Wireshark")
    made.add_argument("--cli", action="store_true", help="stay in the Mininet command line before the end")
    made.add_argument(
        "--json",
        action="store_true",
        help=JSON,
    )
    _add_choices(made)
    return made


def _add_choices(made: Parser) -> None:
    """How the network is made."""
    best = "(auto: the best that this kernel has)"
    made.add_argument(
        "--link-backend", choices=LINK_BACKENDS, default="auto", help=f"who shapes the links {best}"
    )
    made.add_argument(
        "--tunnel-backend", choices=TUNNEL_BACKENDS, default="auto", help=f"who encapsulates packets {best}"
    )
    made.add_argument(
        "--security",
        choices=METHODS,
        default=METHODS[0],
        help="what protects the signalling with the home agent: RFC 4285 (the default), or ESP where the "
        "kernel has it",
    )


def add_repeat_options(made: Parser) -> None:
    """The options of an experiment that can be run several times over."""
    made.add_argument(
        "--repeat", type=positive, default=1, metavar="N",
        help="run everything so many times, in random order where there is one to choose (1)",
    )  # fmt: skip
    made.add_argument(
        "--attempts", type=positive, metavar="N",
        help="how often a run is tried if the machine is too busy (1; with --repeat 3)",
    )  # fmt: skip


def series_parser(
    program: str, description: str, epilog: str, *, repeat: int, quick_repeat: int, pace: float = 0.7
) -> Parser:
    """A parser with the options of experiments that are series of cases.

    `repeat`: how many times each case is run by default, `quick_repeat` with --quick, in which all steps are
    shorter by the factor `pace`.
    """
    made = Parser(
        prog=program,
        description=description,
        epilog=epilog,
    )
    made.set_defaults(default_repeat=repeat, quick_repeat=quick_repeat, quick_pace=pace)
    made.add_argument("--quick", action="store_true", help=f"shorter steps, and --repeat {quick_repeat}")
    made.add_argument(
        "--repeat", type=positive, metavar="N", help=f"how many times each case is run ({repeat})"
    )
    made.add_argument(
        "--seed", type=seed, default=1, metavar="N", help="of all that is random, the order too (1)"
    )
    made.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="where the files go (default: a new folder below results/ in the current one); what is finished "
        "there stays",
    )
    made.add_argument("--pcap", action="store_true", help="keep captures of whole packets, for Wireshark")
    made.add_argument("--json", action="store_true", help=JSON)
    made.add_argument(
        "--attempts",
        type=positive,
        default=3,
        metavar="N",
        help="how often a case is tried if the machine is too busy (3)",
    )
    made.add_argument("--share-machine", action="store_true", help=SHARE_MACHINE)
    _add_choices(made)
    return made


def repetitions(options: argparse.Namespace) -> int:
    """How many times each case of a series is run."""
    return options.repeat or (options.quick_repeat if options.quick else options.default_repeat)


def common_parameters(options: argparse.Namespace) -> dict:
    """The parameters that all cases of a series share: only those that are not the default ones."""
    found = {"pace": options.quick_pace} if options.quick else {}
    for name, default in (("link_backend", "auto"), ("tunnel_backend", "auto"), ("security", METHODS[0])):
        if getattr(options, name) != default:
            found[name] = getattr(options, name)
    return found


def series_folder(options: argparse.Namespace, name: str) -> Path:
    """Where a series goes, absolute. Exits with status 2 and a sentence if this is not root."""
    if os.geteuid() != 0:
        print(f"{name}: this needs root, for network namespaces: start it again with sudo", file=sys.stderr)
        raise SystemExit(2)
    return (options.out or Path("results") / time.strftime(f"{name}-%Y%m%d-%H%M%S")).absolute()


def seed(text: str) -> int:
    """What random numbers begin from, as type of an option. Raises ArgumentTypeError."""
    if not text.isdecimal() or int(text) > MAXIMUM_SEED:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to {MAXIMUM_SEED}")
    return int(text)


def positive(text: str) -> int:
    """A whole number above 0, as type of an option. Raises ArgumentTypeError."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def access_networks(options: argparse.Namespace) -> Sequence[AccessNetwork]:
    """Those given, or the default ones."""
    return options.access or DEFAULT_ACCESS_NETWORKS


def network(kind: Callable[..., Network], options: argparse.Namespace, seed: int) -> Network:
    """The topology of this kind that the options describe. Raises ValueError that names the parameter."""
    return kind(
        access_networks=access_networks(options),
        link_backend=options.link_backend,
        tunnel_backend=options.tunnel_backend,
        security=options.security,
        seed=seed,
    )


def parse(made: Parser, kind: Callable[..., Network]) -> argparse.Namespace:
    """The options of an experiment on a network of this kind; exits with status 2 and a sentence where there
    is none such."""
    options = made.parse_args()
    try:
        network(kind, options, options.seed)
    except ValueError as error:
        made.error(str(error).replace("access_networks:", "--access:"))
    return options


def traffic_seconds(options: argparse.Namespace) -> float:
    """How long the traffic runs."""
    return options.quick_s if options.quick else options.duration


def begin(options: argparse.Namespace, name: str) -> Path:
    """Make the folder for this run's files, go on in private namespaces, and return the folder, absolute.

    Exits with status 2 and a sentence if this is not root, or the kernel refuses; raises OSError if the
    folder cannot be had.
    """
    if os.geteuid() != 0:
        print(
            f"{name}: this needs root, to make network namespaces: start it again with sudo", file=sys.stderr
        )
        raise SystemExit(2)
    folder = options.out or Path("results") / time.strftime(f"{name}-%Y%m%d-%H%M%S")
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    isolate()
    return folder


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds") from None
    if not 10 <= value <= 3600:
        raise argparse.ArgumentTypeError(f"{text} is not between 10 and 3600 seconds")
    return value


def _access_network(text: str) -> AccessNetwork:
    try:
        return AccessNetwork.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def listed(numbers: Sequence[float]) -> str:
    """Default values, for a help text."""
    return ", ".join(f"{number:g}" for number in numbers)


def _spelled(network: AccessNetwork) -> str:
    return f"{network.name}:{network.bandwidth_mbit:g}:{network.delay_ms:g}"
