#!/usr/bin/env python3
"""Whether a home agent's tunnels are as fast for thousands of flow bindings and mobile nodes as for one."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from ipaddress import IPv6Address, IPv6Network
from pathlib import Path as FilePath

sys.path.insert(0, str(FilePath(__file__).resolve().parents[1]))

from testbed.environment import reexec_in_project_environment  # noqa: E402

reexec_in_project_environment()

import subprocess  # noqa: E402

from bench_tunnel import CARE_OF_ADDRESS, HOME_ADDRESS, HOME_AGENT, RATES, Bench  # noqa: E402

from testbed.datapath.error import DatapathError  # noqa: E402
from testbed.datapath.probe import BACKENDS, choose_tunnel_backend  # noqa: E402
from testbed.experiment import bench  # noqa: E402
from testbed.experiment.bench import Figure  # noqa: E402
from testbed.experiment.run import guarded  # noqa: E402
from testbed.isolation import isolate  # noqa: E402
from testbed.mobility.forwarding import Action, FlowRule, HomeBinding, Path  # noqa: E402
from testbed.wire.selector import IPv6TrafficSelector  # noqa: E402

DESCRIPTION = """\
Correspondent node, home agent, access router and mobile node are namespaces in a row, nothing is shaped. The
traffic goes through the home agent's tunnel and matches none of the flow bindings, the worst case where they
are tried in turn. Measured, with one flow binding and with many of the same mobile node, then with one mobile
node and with many at the home agent (8 flow bindings each):

  TCP       goodput of one connection (iperf3)
  packets   UDP packets of 100 octets a second that one sender gets through, and the same a second of its
            processor time: the kernel forwards them in the sender's time, whatever else the machine does
  change    time of Datapath.apply when one flow binding of the mobile node changes

One and many take turns, on one network; a ratio is that of neighbours. Only the home agent has the many.
"""
EPILOG = """\
The goal is a median ratio of 0.95 or more in each; exit status 1 if one is missed. The first packet of a
connection goes through all flow bindings and is in no figure here. Examples:
  sudo ./run bench scale
  sudo ./run bench scale --flows 1000 --nodes 100 --repeat 10
  sudo ./run bench scale --quick --json
"""
GOAL = 0.95
OTHER_HOMES = IPv6Network("2001:db8:100:0:1::/80")


def rules(count: int) -> tuple[FlowRule, ...]:
    """Flow bindings that match none of the traffic."""
    return tuple(
        FlowRule(number + 1, number % 256, selector(number), Action.FORWARD, (1,)) for number in range(count)
    )


@cache
def selector(number: int) -> IPv6TrafficSelector:
    """A single address and port of another correspondent. As in agents, where rules are made anew of the same
    selectors."""
    return IPv6TrafficSelector(
        source_address=(IPv6Address(0x20010DB8_0400 << 80 | number),) * 2,
        destination_port=(1 + number % 1000,) * 2,
        next_header=(6, 6),
    )


class ScaleBench(Bench):
    """The network of `bench tunnel` with a home agent whose state grows and shrinks while tunnels stay."""

    @contextmanager
    def bound(self) -> Iterator[None]:
        with self.tunnels():
            yield

    def anchor(self, flows: int, nodes: int) -> float:
        """Have the home agent serve that much; returns the time that one more change takes, in ms."""
        datapath = self._datapaths["ha"]
        path = (Path(1, HOME_AGENT, CARE_OF_ADDRESS),)
        complete = {HOME_ADDRESS: HomeBinding(HOME_ADDRESS, path, 1, rules(flows))}
        for number in range(1, nodes):
            home = OTHER_HOMES[number]
            path_of_other = (Path(1, HOME_AGENT, CARE_OF_ADDRESS + number),)
            complete[home] = HomeBinding(home, path_of_other, 1, rules(8))
        with self._nodes["ha"].entered():
            datapath.reconcile(complete)
            changed = HomeBinding(HOME_ADDRESS, path, 1, rules(flows + 1))
            begin = time.perf_counter()
            datapath.apply({HOME_ADDRESS: changed})
            return 1000 * (time.perf_counter() - begin)


def compare(network: ScaleBench, flows: int, nodes: int, options) -> dict[str, list[float]]:
    """The figures of one and many, and their ratios, one value a repetition."""
    found: dict[str, list[float]] = {}
    seconds = 1 if options.quick else 2
    for number in range(options.repetitions):
        values: dict[tuple[str, bool], float] = {}
        # who goes first changes
        for many in (False, True) if number % 2 else (True, False):
            change_ms = network.anchor(flows if many else 1, nodes if many else 1)
            values["change", many] = change_ms
            rates = network.rates(HOME_ADDRESS, False, seconds)
            values |= {(what, many): value for (what, _, _), value in zip(RATES, rates, strict=True)}
        for (what, many), value in values.items():
            found.setdefault(f"{what} {'many' if many else 'one'}", []).append(value)
        for what, _, _ in RATES:
            found.setdefault(f"{what} ratio", []).append(values[what, True] / values[what, False])
    return found


def figures(name: str, found: dict[str, list[float]]) -> list[Figure]:
    shown = []
    for what, unit, scale in RATES:
        shown.append(Figure(f"{name}: {what}, one", unit, [v / scale for v in found[f"{what} one"]]))
        shown.append(Figure(f"{name}: {what}", unit, [v / scale for v in found[f"{what} many"]]))
        shown.append(Figure(f"{name}: {what}, ratio", "", found[f"{what} ratio"], GOAL))
    shown.append(Figure(f"{name}: a flow binding changes, one", "ms", found["change one"]))
    shown.append(Figure(f"{name}: a flow binding changes", "ms", found["change many"]))
    return shown


def main() -> int:
    quick = "100 flow bindings, 100 mobile nodes, one repetition"
    made = bench.parser("scale", DESCRIPTION, EPILOG, 6, quick)
    made.add_argument("--flows", type=int, action="append", metavar="N",
                      help="flow bindings; may be given several times (100, 1000, 10000)")
    made.add_argument("--nodes", type=int, action="append", metavar="N",
                      help="mobile nodes; may be given several times (100, 1000)")
    made.add_argument("--backend", choices=BACKENDS, help="the tunnels (the best that this kernel has)")
    options = bench.parse(made)
    flows = options.flows or ([100] if options.quick else [100, 1000, 10_000])
    nodes = options.nodes or ([100] if options.quick else [100, 1000])
    if min(flows + nodes) < 2 or max(flows) > 65_000 or max(nodes) > 65_000:
        made.error("--flows and --nodes must be from 2 to 65000")
    isolate()
    try:
        backend = choose_tunnel_backend(options.backend or "auto")
    except ValueError as error:
        made.error(str(error))
    shown = []
    with ScaleBench(backend, 1) as network, network.bound():
        for count in flows:
            bench.say(f"{count} flow bindings")
            shown += figures(f"{count} flow bindings", compare(network, count, 1, options))
        for count in nodes:
            bench.say(f"{count} mobile nodes")
            shown += figures(f"{count} mobile nodes", compare(network, 1, count, options))
    return bench.finish("scale", options, shown, backend=backend, flows=flows, nodes=nodes)


if __name__ == "__main__":
    sys.exit(guarded("bench scale", main, DatapathError, subprocess.CalledProcessError))
