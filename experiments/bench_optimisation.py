#!/usr/bin/env python3
"""What route optimisation costs: packets straight between correspondent node and care-of address, with the
headers of Mobile IPv6, against plain routing on the same path."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from ipaddress import IPv6Address
from pathlib import Path as FilePath

sys.path.insert(0, str(FilePath(__file__).resolve().parents[1]))

from testbed.environment import reexec_in_project_environment  # noqa: E402

reexec_in_project_environment()

from bench_tunnel import CARE_OF_ADDRESS, CORRESPONDENT, HOME_ADDRESS, ROUTER, Bench  # noqa: E402

from testbed.datapath.bpf import is_available  # noqa: E402
from testbed.datapath.datapath import Datapath, DatapathConfiguration  # noqa: E402
from testbed.datapath.error import DatapathError  # noqa: E402
from testbed.datapath.optimisation import OptimisedRoutes, choose_carrier  # noqa: E402
from testbed.experiment import bench  # noqa: E402
from testbed.experiment.bench import Figure  # noqa: E402
from testbed.experiment.run import guarded  # noqa: E402
from testbed.isolation import isolate  # noqa: E402
from testbed.mobility.forwarding import Path, RouteOptimisation, Side  # noqa: E402

DESCRIPTION = """\
Correspondent node, home agent, access router and mobile node are namespaces in a row; nothing is shaped. The
traffic goes to the mobile node's care-of address while nothing of Mobile IPv6 is there (plain routing), or to
its home address by the optimised route: the same path, but with a type 2 routing header in each packet to the
mobile node, and a Home Address option in each packet from it. Measured, for each way to put these headers in
that this kernel has (bpf, xfrm, tun), in both directions (down: to the mobile node):

  TCP       goodput of one connection (iperf3)
  packets   UDP packets of 100 octets a second that one sender gets through; with bpf and xfrm also those a
            second of its processor time, in which the kernel forwards them, whatever else the machine does
            (with tun, a process of its own has part of the work)

Plain routing and the carriers take turns, in another order each time; a ratio is that of one turn.
"""
EPILOG = """\
The goal is a median ratio of 0.5 or more of TCP, in each direction; exit status 1 if one is missed.
Small packets, of which each is paid for by itself, have none. Examples:
  sudo ./run bench optimisation
  sudo ./run bench optimisation --carrier tun --repeat 20
  sudo ./run bench optimisation --quick --json
"""
GOAL = 0.5
CARRIERS = ("bpf", "xfrm", "tun")
PLAIN = "plain routing"
ANY = IPv6Address("::")
#: What is measured, its unit, and what of it makes one unit.
RATES = (("TCP", "Gbit/s", 1e9), ("packets", "k/s", 1e3), ("packets by CPU", "k/s of CPU", 1e3))
DIRECTIONS = {"down": False, "up": True}


class OptimisationBench(Bench):
    """The network of `bench tunnel`, with optimised routes at both ends."""

    def __init__(self) -> None:
        super().__init__("auto", flows=1)

    @contextmanager
    def optimised(self, carrier: str) -> Iterator[None]:
        """Packets between home address and correspondent node go straight, for as long as the block runs."""
        ours = Path(1, CARE_OF_ADDRESS, CORRESPONDENT, "ar", ROUTER)
        theirs = Path(1, CORRESPONDENT, CARE_OF_ADDRESS)
        wanted = {
            "mn": RouteOptimisation(HOME_ADDRESS, CORRESPONDENT, Side.MOBILE, (ours,), 1),
            "cn": RouteOptimisation(HOME_ADDRESS, ANY, Side.CORRESPONDENT, (theirs,), 1),
        }
        with self._nodes["mn"].entered():
            configuration = DatapathConfiguration(kernel_mobility=carrier == "xfrm")
            self._datapaths["mn"] = Datapath(Side.MOBILE, configuration)
        routes: dict[str, OptimisedRoutes] = {}
        with self.tunnels():
            try:
                for node, optimisation in wanted.items():
                    homes = [HOME_ADDRESS] if node == "mn" else []
                    with self._nodes[node].entered():
                        routes[node] = OptimisedRoutes(optimisation.side, carrier=carrier, homes=homes)
                        pair = optimisation.home_address, optimisation.correspondent
                        routes[node].apply({pair: optimisation})
                self._await(HOME_ADDRESS)
                yield
                for node, made in routes.items():
                    with self._nodes[node].entered():
                        counted = made.counters()
                    if not sum(packets for packets, _ in counted.values()):
                        raise DatapathError(f"the packets from {node} did not take the optimised route.")
            finally:
                for node, made in routes.items():
                    with self._nodes[node].entered():
                        made.close()

    def rates(self, destination: IPv6Address, seconds: int) -> dict[tuple[str, str], float]:
        """By what is measured and direction."""
        found = {}
        for direction, reverse in DIRECTIONS.items():
            found["TCP", direction] = self.measure(destination, reverse, seconds)
            by_time, by_cpu = self.packets(destination, reverse, seconds / 2)
            found["packets", direction], found["packets by CPU", direction] = by_time, by_cpu
        return found

    def turn(self, kind: str, seconds: int) -> dict[tuple[str, str], float]:
        """The rates of plain routing or of a carrier."""
        if kind == PLAIN:
            return self.rates(CARE_OF_ADDRESS, seconds)
        with self.optimised(kind):
            return self.rates(HOME_ADDRESS, seconds)


def measure(
    carriers: Sequence[str], repetitions: int, seconds: int
) -> dict[str, list[dict[tuple[str, str], float]]]:
    """The rates of plain routing and of each carrier, one value a turn."""
    kinds = [PLAIN, *carriers]
    runs: dict[str, list[dict[tuple[str, str], float]]] = {kind: [] for kind in kinds}
    with OptimisationBench() as network:
        for number in range(repetitions):
            bench.say(f"turn {number + 1} of {repetitions}")
            first = number % len(kinds)
            for kind in kinds[first:] + kinds[:first]:
                runs[kind].append(network.turn(kind, seconds))
    return runs


def figures(runs: dict[str, list[dict[tuple[str, str], float]]]) -> list[Figure]:
    plain = runs[PLAIN]
    shown = []
    for kind, turns in runs.items():
        for what, unit, scale in RATES:
            if (kind, what) == ("tun", "packets by CPU"):
                continue
            for direction in DIRECTIONS:
                name, key = f"{kind}: {what}, {direction}", (what, direction)
                shown.append(Figure(name, unit, [turn[key] / scale for turn in turns]))
                if kind != PLAIN:
                    ratios = [turn[key] / other[key] for turn, other in zip(turns, plain, strict=True)]
                    shown.append(Figure(f"{name}, ratio", "", ratios, GOAL if what == "TCP" else None))
    return shown


def usable_carriers() -> dict[str, str | None]:
    """All carriers, each with the reason why it cannot be used here, None where it can."""
    found: dict[str, str | None] = {}
    for carrier in CARRIERS:
        try:
            choose_carrier(carrier)
            found[carrier] = None
        except DatapathError as error:
            found[carrier] = str(error)
    if not is_available():
        found["bpf"] = "BPF programs cannot be loaded here."
    return found


def main() -> int:
    made = bench.parser("optimisation", DESCRIPTION, EPILOG, 5, "one turn, 1 s each")
    made.add_argument(
        "--carrier",
        action="append",
        choices=CARRIERS,
        help="only this one; may be given several times (all that this kernel has)",
    )
    options = bench.parse(made)
    isolate()
    usable = usable_carriers()
    for carrier in options.carrier or ():
        if usable[carrier]:
            made.error(f"--carrier {carrier}: {usable[carrier]}")
    missing = {carrier: reason for carrier, reason in usable.items() if reason}
    for carrier, reason in missing.items():
        bench.say(f"not measured: {carrier}: {reason}")
    carriers = [carrier for carrier in dict.fromkeys(options.carrier or CARRIERS) if carrier not in missing]
    seconds = 1 if options.quick else 2
    runs = measure(carriers, options.repetitions, seconds)
    return bench.finish(
        "optimisation", options, figures(runs), carriers=carriers, missing=missing, seconds_each=seconds
    )


if __name__ == "__main__":
    sys.exit(guarded("bench optimisation", main, DatapathError, subprocess.CalledProcessError))
