#!/usr/bin/env python3
"""How exact and how fast links are: delay, jitter, rate, loss, events, throughput, each backend here."""

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from testbed.environment import reexec_in_project_environment  # noqa: E402

reexec_in_project_environment()

from testbed.emulation.link_parameters import LinkParameters  # noqa: E402
from testbed.emulation.link_probe import (  # noqa: E402
    Cable,
    connect,
    measure_delays,
    measure_rate,
    measure_tcp,
    private_namespaces,
)
from testbed.emulation.link_veth import VethCable  # noqa: E402
from testbed.emulation.netem import has_netem  # noqa: E402
from testbed.experiment import bench  # noqa: E402
from testbed.experiment.run import guarded  # noqa: E402
from testbed.isolation import isolate  # noqa: E402

DESCRIPTION = """\
Two namespaces and one link. Delay, jitter and loss: UDP packets of 200 octets at regular times, the time of
sending in each, the time of arrival stamped by the kernel. Rate: UDP at 1.3 times the rate, octets counted by
the receiving device. Events: the duration of the call, after which the first end's kernel has told the news.
Throughput: one TCP connection (cubic). The repetitions are interleaved between backends; each draws jitter
and loss from a seed of its own: --seed, and then the next ones.
"""
EPILOG = """\
Accuracy is for a machine that does nothing else. Exit status 1 when a median is outside its tolerance. With
--quick, jitter has so few packets that another seed than 1 may miss it by chance alone.
Examples:
  sudo ./run bench links
  sudo ./run bench links --quick --backend wire --json
"""
DELAY_TOLERANCE_MS = 1.0
RATE_TOLERANCE = 0.05
LOSS_TOLERANCE_POINTS = 0.5
PROBE_OCTETS = 200
LOSS_PACKETS = 40_000  # so many that chance alone is within the tolerance


@dataclass(frozen=True)
class Figure:
    """One measured quantity: what was asked for, and how far it may be off (None: nothing asked)."""

    name: str
    unit: str
    value: float
    wanted: float | None = None
    tolerance: float | None = None


@dataclass(frozen=True)
class Case:
    """A link and what is measured on it."""

    name: str
    parameters: LinkParameters
    measure: Callable[[Cable], list[Figure]]


def delay_case(name: str, parameters: LinkParameters, packets: int, interval_s: float) -> Case:
    def measure(cable: Cable) -> list[Figure]:
        arrivals = measure_delays(cable, packets, interval_s, PROBE_OCTETS)
        sending_ms = 8e-3 * PROBE_OCTETS / parameters.bandwidth_mbit if parameters.bandwidth_mbit else 0
        figures = []
        for quantile in (0.05, 0.5, 0.95):
            # Jitter is drawn evenly from an interval.
            wanted = parameters.delay_ms + sending_ms + (2 * quantile - 1) * parameters.jitter_ms
            figures.append(Figure(f"p{100 * quantile:.0f}", "ms", arrivals.delay_ms(quantile), wanted,
                                  DELAY_TOLERANCE_MS))
        return figures

    return Case(name, parameters, measure)


def rate_case(mbit: float, seconds: float) -> Case:
    parameters = LinkParameters(bandwidth_mbit=mbit, delay_ms=1, queue_packets=1000)
    return Case(f"rate {mbit} Mbit/s", parameters, lambda cable: [
        Figure("received", "Mbit/s", measure_rate(cable, 1.3 * mbit, seconds), mbit, RATE_TOLERANCE * mbit)])


def loss_case(percent: float, seconds: float) -> Case:
    def measure(cable: Cable) -> list[Figure]:
        arrivals = measure_delays(cable, LOSS_PACKETS, seconds / LOSS_PACKETS, PROBE_OCTETS, patience_s=3)
        return [Figure("lost", "%", arrivals.loss_percent, percent, LOSS_TOLERANCE_POINTS)]

    name = f"loss {percent} %, {LOSS_PACKETS} packets in {seconds} s"
    return Case(name, LinkParameters(loss_percent=percent), measure)


def tcp_case(name: str, parameters: LinkParameters, seconds: float) -> Case:
    return Case(f"TCP, {name}", parameters, lambda cable: [
        Figure("goodput", "Mbit/s", measure_tcp(cable, seconds))])


def event_case(name: str, parameters: LinkParameters, times: int) -> Case:
    """How long the calls take, after which the first end's kernel has announced the new state."""
    def measure(cable: Cable) -> list[Figure]:
        took: dict[str, list[float]] = {"cut": [], "restore": [], "move": []}

        def timed(event: str, call: Callable[..., None], *arguments: object) -> None:
            begin = time.perf_counter()
            call(*arguments)
            took[event].append(1000 * (time.perf_counter() - begin))

        here, there = cable.ends[1].namespace, cable.ends[0].namespace
        for _ in range(times):
            timed("cut", cable.set_carrier, False)
            timed("restore", cable.set_carrier, True)
            timed("move", cable.move, there, None)
            timed("move", cable.move, here, None)
        return [Figure(event, "ms", median(durations)) for event, durations in took.items()]

    return Case(name, parameters, measure)


def cases(quick: bool) -> Iterator[Case]:
    packets, seconds = (100, 1) if quick else (300, 2)
    yield delay_case("delay 1 ms", LinkParameters(delay_ms=1), packets, 0.0103)
    yield delay_case("delay 10 ms, 50 Mbit/s", LinkParameters(50, 10), packets, 0.0103)
    yield delay_case("delay 40 ms, 20 Mbit/s", LinkParameters(20, 40), packets, 0.0103)
    yield delay_case("delay 40 ms, 2,000 packets/s", LinkParameters(20, 40), 10 * packets, 0.0005)
    if not quick:
        yield delay_case("delay 200 ms", LinkParameters(delay_ms=200), packets, 0.0103)
    yield delay_case("delay 40 ± 10 ms", LinkParameters(delay_ms=40, jitter_ms=10),
                     packets if quick else 1000, 0.0103)
    for mbit in (20, 50, 500) if quick else (1, 5, 20, 50, 100, 200, 500, 1000):
        yield rate_case(mbit, seconds)
    for percent in (1,) if quick else (1, 5, 20):
        yield loss_case(percent, 4 if quick else 8)
    yield event_case("events, nothing shaped", LinkParameters(), packets // 10)
    yield event_case("events, 50 Mbit/s, 10 ms", LinkParameters(50, 10), packets // 10)
    yield tcp_case("nothing shaped", LinkParameters(), seconds)
    yield tcp_case("delay 10 ms", LinkParameters(delay_ms=10), seconds)
    yield tcp_case("50 Mbit/s, 10 ms", LinkParameters(50, 10), seconds)
    yield tcp_case("1,000 Mbit/s, 1 ms", LinkParameters(1000, 1, queue_packets=1000), seconds)
    yield tcp_case("loss 0.001 % only", LinkParameters(loss_percent=0.001), seconds)


def run(case: Case, backend: str, namespaces: list, seed: int) -> list[Figure]:
    """One repetition; with the wire also its processor time and its lateness."""
    with connect(namespaces, backend, replace(case.parameters, seed=seed)) as cable:
        if isinstance(cable, VethCable):
            return case.measure(cable)
        cpu, begin = cpu_seconds(cable.wire.pid), time.monotonic()
        figures = case.measure(cable)
        cpu, seconds = cpu_seconds(cable.wire.pid) - cpu, time.monotonic() - begin
        late = max(counters.late_max_ms for counters in cable.counters())
        return [*figures, Figure("wire's CPU", "%", 100 * cpu / seconds), Figure("latest", "ms late", late)]


def cpu_seconds(pid: int) -> float:
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def measure_all(backends: list[str], quick: bool, repetitions: int, seed: int) -> list[bench.Figure]:
    """Case by case, all backends one after the other. A repetition has the same seed with each backend, the
    next repetition the next seed."""
    shown = []
    with private_namespaces(2) as namespaces:
        for case in cases(quick):
            usable = [name for name in backends if name != "veth" or not case.parameters.shaped]
            results: dict[str, list[list[Figure]]] = {name: [] for name in usable}
            for number in range(repetitions):
                for backend in usable:
                    bench.say(f"{case.name}: {backend} ({number + 1}/{repetitions})")
                    results[backend].append(run(case, backend, namespaces, seed + number))
            for backend, runs in results.items():
                for figures in zip(*runs, strict=True):
                    shown.append(summary(backend, case, figures))
    return shown


def summary(backend: str, case: Case, figures: tuple[Figure, ...]) -> bench.Figure:
    first, values = figures[0], [figure.value for figure in figures]
    name = f"{backend}: {case.name}: {first.name}"
    return bench.Figure(name, first.unit, values, first.wanted, tolerance=first.tolerance)


def main() -> int:
    quick = "fewer cases, once each: half a minute a backend"
    made = bench.parser("links", DESCRIPTION, EPILOG, 3, quick, random=True)
    made.add_argument("--backend", action="append", choices=("veth", "netem", "wire"),
                      help="only this one; may be given several times (all that are here)")
    options = bench.parse(made)
    backends = options.backend or ["veth", *(["netem"] if has_netem() else []), "wire"]
    if "netem" in backends and not has_netem():
        made.error("--backend netem: this kernel has no netem, or tc is not installed")
    isolate()
    figures = measure_all(backends, options.quick, options.repetitions, options.seed)
    return bench.finish("links", options, figures)


if __name__ == "__main__":
    sys.exit(guarded("bench links", main))
