#!/usr/bin/env python3
"""What the home agent's tunnels cost: TCP and UDP through them against plain routing on the same path."""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from pathlib import Path as FilePath

sys.path.insert(0, str(FilePath(__file__).resolve().parents[1]))

from testbed.environment import reexec_in_project_environment  # noqa: E402

reexec_in_project_environment()

from testbed.datapath.datapath import Datapath, DatapathConfiguration  # noqa: E402
from testbed.datapath.error import DatapathError  # noqa: E402
from testbed.datapath.probe import BACKENDS, choose_tunnel_backend  # noqa: E402
from testbed.emulation.link_probe import private_namespaces  # noqa: E402
from testbed.experiment import bench  # noqa: E402
from testbed.experiment.bench import Figure  # noqa: E402
from testbed.experiment.run import guarded  # noqa: E402
from testbed.isolation import isolate  # noqa: E402
from testbed.mobility.forwarding import Action, FlowRule, HomeBinding, Path, Side  # noqa: E402
from testbed.wire.selector import IPv6TrafficSelector  # noqa: E402

DESCRIPTION = """\
Correspondent node, home agent, access router and mobile node are namespaces in a row; nothing is shaped.
Traffic goes to the mobile node's care-of address while no datapath is there (plain routing), or to its home
address through the tunnel, with a few flow bindings on the way:

  TCP       goodput of one connection (iperf3), or of several
  packets   UDP packets of 100 octets a second that one sender gets through, and the same a second of its
            processor time: the kernel forwards them in the sender's time, whatever else the machine does

The two take turns, in both directions, so that whatever else the machine does hits both. A ratio is that of
two neighbouring runs.
"""
EPILOG = """\
The goal is a median ratio of 0.95 or more of TCP, of all runs of a backend; exit status 1 if it is missed.
Small packets, of which each is paid for by itself, have none. Examples:
  sudo ./run bench tunnel
  sudo ./run bench tunnel --backend seg6 --repeat 40 --duration 320
  sudo ./run bench tunnel --congestion-control cubic --connections 4
  sudo ./run bench tunnel --quick --json
"""
GOAL = 0.95
HOME_AGENT, HOME_ADDRESS = IPv6Address("2001:db8:100::1"), IPv6Address("2001:db8:100::100")
CARE_OF_ADDRESS, ROUTER = IPv6Address("2001:db8:201::2"), IPv6Address("2001:db8:201::1")
#: Left to right: cn, ha, ar, mn; each link has a prefix, ::1 at its left or right end as the router needs it.
NAMES = ("cn", "ha", "ar", "mn")
LINKS = (
    ("2001:db8:300::2", "2001:db8:300::1"),
    ("2001:db8:ff01::1", "2001:db8:ff01::2"),
    (str(ROUTER), str(CARE_OF_ADDRESS)),
)
CORRESPONDENT = IPv6Address(LINKS[0][0])
READY_S = 10.0
PORT = 5004
PACKET_OCTETS = 100
CHOSEN = FilePath("/proc/sys/net/ipv4/tcp_congestion_control")
AVAILABLE = CHOSEN.with_name("tcp_available_congestion_control")


#: What is measured of each run: name, unit, and what of it makes one unit.
RATES = (("TCP", "Gbit/s", 1e9), ("packets", "k/s", 1e3), ("packets by CPU", "k/s of CPU", 1e3))


@dataclass
class Series:
    """The runs of one direction, a value of each of RATES; run N of `plain` and of `tunnel` are neighbours in
    time."""

    plain: list[tuple[float, ...]] = field(default_factory=list)
    tunnel: list[tuple[float, ...]] = field(default_factory=list)

    def ratios(self, rate: int) -> list[float]:
        """Of the rate of that place in RATES."""
        return [tunnel[rate] / plain[rate] for tunnel, plain in zip(self.tunnel, self.plain, strict=True)]


class Bench:
    """The four nodes, and the datapaths of the two ends of the tunnel. A context manager."""

    def __init__(self, backend: str, flows: int, tcp: Sequence[str] = ()) -> None:
        """`tcp`: more options of iperf3."""
        self._backend = backend
        self._flows = flows
        self._tcp = tcp
        self._undo = ExitStack()

    def __enter__(self) -> "Bench":
        with ExitStack() as undo:
            self._nodes = dict(zip(NAMES, undo.enter_context(private_namespaces(4)), strict=True))
            self._build()
            self._datapaths = {
                "ha": self._datapath("ha", Side.ANCHOR),
                "mn": self._datapath("mn", Side.MOBILE),
            }
            with self._nodes["mn"].entered():
                server = subprocess.Popen(["iperf3", "-s"], stdout=subprocess.DEVNULL)
            undo.callback(server.wait)
            undo.callback(server.kill)
            self._await(CARE_OF_ADDRESS)
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._undo.close()

    def _run(self, node: str, *command: str) -> str:
        with self._nodes[node].entered():
            return subprocess.run(command, check=True, text=True, capture_output=True).stdout

    def _build(self) -> None:
        script = "echo 1 >/proc/sys/net/ipv6/conf/all/forwarding"
        for node in ("ha", "ar"):
            self._run(node, "sh", "-c", script)
        for left, right, ends in zip(NAMES, NAMES[1:], LINKS, strict=False):
            self._run(
                left,
                "ip",
                "link",
                "add",
                right,
                "type",
                "veth",
                "peer",
                "name",
                left,
                "netns",
                str(self._nodes[right].pid),
            )
            for node, device, address in ((left, right, ends[0]), (right, left, ends[1])):
                self._run(node, "ip", "address", "add", f"{address}/64", "dev", device, "nodad")
                self._run(node, "ip", "link", "set", device, "up")
        self._run("ha", "ip", "address", "add", f"{HOME_AGENT}/128", "dev", "lo", "nodad")
        for node, destination, gateway in (
            ("cn", "default", LINKS[0][1]),
            ("ha", "2001:db8:201::/64", LINKS[1][1]),
            ("ar", "default", LINKS[1][0]),
            ("mn", "default", str(ROUTER)),
        ):
            self._run(node, "ip", "-6", "route", "add", destination, "via", gateway)

    def _datapath(self, node: str, side: Side) -> Datapath:
        with self._nodes[node].entered():
            return Datapath(side, DatapathConfiguration(tunnel_backend=self._backend))

    @contextmanager
    def tunnels(self) -> Iterator[None]:
        """Both ends have their datapath, for as long as the block runs."""
        rules = tuple(
            FlowRule(
                number + 1,
                number,
                IPv6TrafficSelector(source_port=(22 + number,) * 2, next_header=(6, 6)),
                Action.FORWARD,
                (1,),
            )
            for number in range(self._flows)
        )
        paths = {
            "ha": Path(1, HOME_AGENT, CARE_OF_ADDRESS),
            "mn": Path(1, CARE_OF_ADDRESS, HOME_AGENT, "ar", ROUTER),
        }
        try:
            for node, datapath in self._datapaths.items():
                with self._nodes[node].entered():
                    datapath.reconcile({HOME_ADDRESS: HomeBinding(HOME_ADDRESS, (paths[node],), 1, rules)})
            self._await(HOME_ADDRESS)
            yield
            default = self._datapaths["ha"].counters()[HOME_ADDRESS, None][0]
            if not default:
                raise DatapathError("the packets did not take the tunnel.")
        finally:
            for node, datapath in self._datapaths.items():
                with self._nodes[node].entered():
                    datapath.close()

    def _await(self, destination: IPv6Address) -> None:
        end = time.monotonic() + READY_S
        while True:
            try:
                self._run("cn", "ping", "-c", "1", "-W", "1", str(destination))
                return
            except subprocess.CalledProcessError as error:
                if time.monotonic() > end:
                    raise DatapathError(f"{destination} does not answer: {error.stdout.strip()}") from None

    def measure(self, destination: IPv6Address, reverse: bool, duration_s: int) -> float:
        """TCP goodput between correspondent node and `destination`, bit/s, all connections together."""
        options = "-t", str(duration_s), "-J", *self._tcp, *(("-R",) if reverse else ())
        output = self._run("cn", "iperf3", "-c", str(destination), *options)
        return json.loads(output)["end"]["sum_received"]["bits_per_second"]

    def rates(self, destination: IPv6Address, reverse: bool, duration_s: int) -> tuple[float, ...]:
        """A value of each of RATES, one after the other; the packets' take half as long."""
        tcp = self.measure(destination, reverse, duration_s)
        return tcp, *self.packets(destination, reverse, duration_s / 2)

    def packets(self, destination: IPv6Address, reverse: bool, seconds: float) -> tuple[float, float]:
        """UDP packets of 100 octets between correspondent node and `destination` that have arrived: a second
        of time, and of the sender's processor time."""
        sender, receiver, device = ("mn", "cn", "ha") if reverse else ("cn", "mn", "ar")
        source, destination = (destination, CORRESPONDENT) if reverse else (CORRESPONDENT, destination)
        with self._nodes[sender].entered():
            sending = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        with sending:
            sending.bind((str(source), 0))
            sending.connect((str(destination), PORT))
            payload = bytes(PACKET_OCTETS - 48)
            end = time.perf_counter() + 0.1
            while time.perf_counter() < end:
                _send(sending, payload)
            before, begin, used = self._received(receiver, device), time.perf_counter(), time.process_time()
            end = begin + seconds
            while time.perf_counter() < end:
                for _ in range(100):
                    _send(sending, payload)
            used = time.process_time() - used
            received = self._received(receiver, device) - before
            return received / (time.perf_counter() - begin), received / used

    def _received(self, node: str, device: str) -> int:
        """Packets that came to this node."""
        with self._nodes[node].entered():
            text = FilePath("/proc/thread-self/net/dev").read_text()
        line = next(line for line in text.splitlines() if line.strip().startswith(f"{device}:"))
        return int(line.split(":")[1].split()[1])


def _send(sending: socket.socket, payload: bytes) -> None:
    try:
        sending.send(payload)
    except OSError:
        pass  # a queue is full, or an ICMPv6 error has come back: nobody listens at the port


def measure(
    backend: str, repetitions: int, duration_s: int, flows: int, tcp: Sequence[str] = ()
) -> dict[str, Series]:
    series = {"down": Series(), "up": Series()}
    with Bench(backend, flows, tcp) as network:
        for number in range(repetitions):
            bench.say(f"{backend}: run {number + 1} of {repetitions}")
            for direction, runs in series.items():
                reverse = direction == "up"
                # who goes first changes, too
                for kind in ("plain", "tunnel") if number % 2 else ("tunnel", "plain"):
                    if kind == "plain":
                        runs.plain.append(network.rates(CARE_OF_ADDRESS, reverse, duration_s))
                    else:
                        with network.tunnels():
                            runs.tunnel.append(network.rates(HOME_ADDRESS, reverse, duration_s))
    return series


def figures(backend: str, series: dict[str, Series]) -> list[Figure]:
    """Both directions count for the goal, each run against its neighbour."""
    shown = []
    for place, (what, unit, scale) in enumerate(RATES):
        for direction, runs in series.items():
            name = f"{backend}, {direction}: {what}"
            shown.append(Figure(f"{name}, plain routing", unit, [run[place] / scale for run in runs.plain]))
            shown.append(Figure(f"{name}, tunnel", unit, [run[place] / scale for run in runs.tunnel]))
            shown.append(Figure(f"{name}, ratio", "", runs.ratios(place)))
    ratios = [ratio for runs in series.values() for ratio in runs.ratios(0)]
    return [*shown, Figure(f"{backend}: TCP, ratio of tunnel to plain routing", "", ratios, GOAL)]


def main() -> int:
    made = bench.parser("tunnel", DESCRIPTION, EPILOG, 20, "one repetition, of 1 s")
    made.add_argument(
        "--duration",
        type=float,
        default=160,
        metavar="SECONDS",
        help="seconds of TCP in all, shared by the runs; packets take half as long (160)",
    )
    made.add_argument("--flows", type=int, default=3, metavar="N", help="flow bindings that do not match (3)")
    made.add_argument(
        "--backend",
        action="append",
        choices=BACKENDS,
        help="only this one; may be given several times (all that this kernel has)",
    )
    made.add_argument(
        "--connections", type=int, default=1, metavar="N", help="TCP connections at once, 1 to 128 (1)"
    )
    made.add_argument(
        "--congestion-control",
        choices=AVAILABLE.read_text().split(),
        help="of TCP (what this kernel is set to)",
    )
    options = bench.parse(made)
    if not 1 <= options.connections <= 128:
        made.error("--connections must be 1 to 128, as iperf3 has it")
    if options.flows < 0 or options.duration <= 0:
        made.error("--flows must be 0 or more, --duration more than 0")
    isolate()
    backends = []
    for backend in options.backend or BACKENDS:
        try:
            backends.append(choose_tunnel_backend(backend))
        except ValueError as error:
            if options.backend:
                made.error(str(error))
    if not backends:
        made.error("this kernel has no tunnels for IPv6 in IPv6: ./run check says more")
    runs = 4 * options.repetitions * len(backends)
    each_s = 1 if options.quick else max(round(options.duration / runs), 1)
    congestion_control = options.congestion_control
    tcp_options = "-P", str(options.connections), *(("-C", congestion_control) if congestion_control else ())
    shown = []
    for backend in backends:
        shown += figures(backend, measure(backend, options.repetitions, each_s, options.flows, tcp_options))
    return bench.finish(
        "tunnel",
        options,
        shown,
        backends=backends,
        seconds_each=each_s,
        flows=options.flows,
        connections=options.connections,
        congestion_control=congestion_control or CHOSEN.read_text().strip(),
    )


if __name__ == "__main__":
    sys.exit(guarded("bench tunnel", main, DatapathError, subprocess.CalledProcessError))
