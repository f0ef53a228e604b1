#!/usr/bin/env python3
"""What 100,000 mobile nodes with 8 flows each ask of a home agent: the protocol alone, in simulated time."""

import gc
import heapq
import json
import os
import random
import resource
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from ipaddress import IPv6Address, IPv6Network
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from testbed.environment import reexec_in_project_environment  # noqa: E402

reexec_in_project_environment()

from testbed.experiment import bench  # noqa: E402
from testbed.experiment.options import JSON, Parser, positive, seed  # noqa: E402
from testbed.experiment.run import guarded  # noqa: E402
from testbed.mobility.binding import FlowBinding  # noqa: E402
from testbed.mobility.forwarding import Action  # noqa: E402
from testbed.mobility.home_agent import HomeAgent, HomeAgentConfiguration  # noqa: E402
from testbed.mobility.mobile_node import MobileNode  # noqa: E402
from testbed.mobility.mobile_node_configuration import (  # noqa: E402
    InterfaceConfiguration,
    MobileNodeConfiguration,
)
from testbed.mobility.policy import Policy  # noqa: E402
from testbed.mobility.role import Role  # noqa: E402
from testbed.wire.codec import Codec  # noqa: E402
from testbed.wire.packet import build_packet, parse_packet  # noqa: E402
from testbed.wire.selector import IPv6TrafficSelector  # noqa: E402

DESCRIPTION = """\
One home agent and many mobile nodes, each the protocol's own code, exchange Binding Updates and
Acknowledgements as octets over a network with a delay, in one process, in simulated time. Every mobile node
has two access networks and flow bindings that are spread over them; it appears at a random moment of the
first lifetime, loses and regains its first access network at random (exponential intervals), and refreshes
what it has. Nothing is sampled: each message is built, sent, parsed and judged.

Reported: messages and octets a second at the home agent when all are there, the processor time that its share
takes (parse, judge, acknowledge, wanted forwarding state; the mobile nodes' own is not counted), its state.
"""
EPILOG = """\
100,000 mobile nodes take some minutes and some 2 GB of memory. Examples:
  ./run simulate_scale
  ./run simulate_scale --nodes 10000 --lifetime 120 --handovers-per-hour 30
  ./run simulate_scale --quick --json
"""
HOME_AGENT = IPv6Address("2001:db8:100::1")
HOME_PREFIX = IPv6Network("2001:db8:100::/64")
ROUTER = IPv6Address("fe80::1")
INTERFACES = (InterfaceConfiguration("wlan", 1, 10), InterfaceConfiguration("cellular", 2, 20))
DELAY_S = 0.02


@dataclass
class Load:
    """What the home agent has had to do within a span of simulated time."""

    received: Counter = field(default_factory=Counter)
    octets_received: int = 0
    octets_sent: int = 0
    changes: int = 0
    processor_s: float = 0.0


class Simulation:
    """The home agent, the mobile nodes, and what is under way between them."""

    def __init__(self, nodes: int, flows: int, lifetime_s: int, handovers_per_hour: float, seed: int) -> None:
        self.random = random.Random(seed)
        self.codec = Codec()
        self.now = 0.0
        self.load = Load()
        policy = Policy(max_mobile_nodes=nodes)
        self.agent = HomeAgent(
            HomeAgentConfiguration(
                HOME_AGENT, (HOME_PREFIX,), lifetime_s, policy=policy, accept_unauthenticated=True
            ),
            0.0,
        )
        self.nodes: list[MobileNode] = []
        self._handover_s = 3600 / handovers_per_hour if handovers_per_hour else None
        #: time, serial number, what, which node (-1: the home agent), octets
        self._agenda: list[tuple[float, int, str, int, bytes | None]] = []
        self._serial = 0
        self._timers: dict[int, float] = {}
        bindings = tuple(
            FlowBinding(
                fid, fid, Action.FORWARD, (1 + fid % 2,),
                IPv6TrafficSelector(source_port=(8000 + fid,) * 2, next_header=(6, 6)),
            )
            for fid in range(1, flows + 1)
        )
        for number in range(nodes):
            configuration = MobileNodeConfiguration(
                HOME_PREFIX[0x10000 + number], HOME_AGENT, INTERFACES, lifetime_s
            )
            node = MobileNode(configuration, 0.0, sequence=self.random.randrange(65536))
            for flow in bindings:
                node.add_flow(flow, 0.0)
            self.nodes.append(node)
            self._at(self.random.uniform(0, lifetime_s), "appear", number)

    def _at(self, when: float, what: str, number: int, data: bytes | None = None) -> None:
        self._serial += 1
        heapq.heappush(self._agenda, (when, self._serial, what, number, data))

    def run(self, until: float) -> Load:
        """Let simulated time pass; returns what the home agent had to do meanwhile."""
        self.load = Load()
        while self._agenda and self._agenda[0][0] <= until:
            self.now, _, what, number, data = heapq.heappop(self._agenda)
            if number < 0:
                self._serve(what, data)
            else:
                getattr(self, "_" + what)(number, data)
        self.now = until
        return self.load

    def _serve(self, what: str, data: bytes | None) -> None:
        load, agent = self.load, self.agent
        if what == "timer" and self._timers.get(-1) != self.now:
            return  # it has been set anew
        begin = time.process_time_ns()
        if data is None:
            agent.handle_timer(self.now)
        else:
            packet = parse_packet(data, self.codec)
            agent.receive(packet, "eth0", self.now)
        sent = [(t.packet.destination, build_packet(t.packet, self.codec)) for t in agent.transmissions()]
        changes = agent.changes()
        agent.events()
        timer = agent.timer()
        load.processor_s += (time.process_time_ns() - begin) / 1e9
        load.changes += len(changes)
        if data is not None:
            load.received[type(packet.message).__name__] += 1
            load.octets_received += len(data)
        for destination, octets in sent:
            load.octets_sent += len(octets)
            self._at(self.now + DELAY_S, "arrive", _number(destination), octets)
        self._arm(-1, timer)

    def _appear(self, number: int, _: bytes | None) -> None:
        for bid in (1, 2):
            self.nodes[number].attach(
                INTERFACES[bid - 1].name, _care_of_address(number, bid), ROUTER, self.now
            )
        self._settle(number)
        if self._handover_s:
            self._at(self.now + self.random.expovariate(1 / self._handover_s), "lose", number)

    def _lose(self, number: int, _: bytes | None) -> None:
        self.nodes[number].detach("wlan", self.now)
        self._settle(number)
        self._at(self.now + self.random.expovariate(1 / self._handover_s), "regain", number)

    def _regain(self, number: int, _: bytes | None) -> None:
        self.nodes[number].attach("wlan", _care_of_address(number, 1), ROUTER, self.now)
        self._settle(number)
        self._at(self.now + self.random.expovariate(1 / self._handover_s), "lose", number)

    def _arrive(self, number: int, data: bytes | None) -> None:
        self.nodes[number].receive(parse_packet(data, self.codec), "eth0", self.now)
        self._settle(number)

    def _timer(self, number: int, _: bytes | None) -> None:
        if self._timers.get(number) == self.now:
            self.nodes[number].handle_timer(self.now)
            self._settle(number)

    def _settle(self, number: int) -> None:
        node: Role = self.nodes[number]
        for transmission in node.transmissions():
            self._at(self.now + DELAY_S, "message", -1, build_packet(transmission.packet, self.codec))
        node.changes()
        node.events()
        self._arm(number, node.timer())

    def _arm(self, number: int, when: float | None) -> None:
        if when is not None and self._timers.get(number) != when:
            when = max(when, self.now)
            self._timers[number] = when
            self._at(when, "timer", number)


def _care_of_address(number: int, bid: int) -> IPv6Address:
    return IPv6Address(int(IPv6Address("2001:db8:200::")) + (bid << 80) + 0x10000 + number)


def _number(care_of_address: IPv6Address) -> int:
    """Whose care-of address this is."""
    return (int(care_of_address) & 0xFFFFFFFF) - 0x10000


def resident_octets() -> int:
    fields = Path("/proc/self/statm").read_text().split()
    return int(fields[1]) * resource.getpagesize()


def main() -> int:
    made = Parser(prog="simulate_scale", description=DESCRIPTION, epilog=EPILOG)
    made.add_argument("--quick", action="store_true", help="1,000 mobile nodes")
    made.add_argument("--json", action="store_true", help=JSON)
    made.add_argument("--out", type=Path, metavar="FILE", help="where that document goes (default: nowhere)")
    made.add_argument("--seed", type=seed, default=1, metavar="N", help="of all that is random (1)")
    made.add_argument("--nodes", type=positive, metavar="N", help="mobile nodes (100000)")
    made.add_argument("--flows", type=int, default=8, metavar="N", help="flow bindings of each (8)")
    made.add_argument("--lifetime", type=int, default=600, metavar="SECONDS", help="of bindings (600)")
    made.add_argument("--handovers-per-hour", type=float, default=6, metavar="N",
                      help="changes an hour of each: a network is lost, regained, lost, ... (6)")
    made.add_argument("--seconds", type=float, metavar="SECONDS",
                      help="observed after all are there (default: the lifetime)")  # fmt: skip
    options = made.parse_args()
    nodes = options.nodes or (1000 if options.quick else 100_000)
    lifetime_s = options.lifetime // 4 * 4
    if nodes < 1 or nodes > 10**7 or not 0 <= options.flows <= 200 or lifetime_s < 8:
        made.error("--nodes must be from 1 to 10000000, --flows from 0 to 200, --lifetime 8 or more")
    if not options.handovers_per_hour >= 0 or not (options.seconds is None or options.seconds > 0):
        made.error("--handovers-per-hour must be 0 or more, --seconds more than 0")
    observed_s = options.seconds or (60 if options.quick else float(lifetime_s))
    begin = time.monotonic()
    bench.say(f"making {nodes} mobile nodes with {options.flows} flow bindings each")
    simulation = Simulation(nodes, options.flows, lifetime_s, options.handovers_per_hour, options.seed)
    gc.freeze()
    bench.say("they appear, and register")
    arrival = simulation.run(lifetime_s + 10)
    bench.say(f"observing {observed_s:g} s")
    steady = simulation.run(simulation.now + observed_s)
    entries = list(simulation.agent.cache)
    bindings = sum(len(entry.bindings) for entry in entries)
    flows = sum(len(entry.flows) for entry in entries)
    updates = steady.received["BindingUpdate"]
    result = {
        "nodes": nodes,
        "flows_each": options.flows,
        "lifetime_s": lifetime_s,
        "handovers_per_hour": options.handovers_per_hour,
        "seed": options.seed,
        "observed_s": observed_s,
        "bound_nodes": sum(1 for entry in entries if entry.bindings),
        "bindings": bindings,
        "flow_bindings": flows,
        "binding_updates_per_s": updates / observed_s,
        "octets_received_per_s": steady.octets_received / observed_s,
        "octets_sent_per_s": steady.octets_sent / observed_s,
        "octets_per_binding_update": steady.octets_received / max(updates, 1),
        "forwarding_changes_per_s": steady.changes / observed_s,
        "decision_us": 1e6 * steady.processor_s / max(updates, 1),
        "processor_share_percent": 100 * steady.processor_s / observed_s,
        "registration": {
            "binding_updates": arrival.received["BindingUpdate"],
            "decision_us": 1e6 * arrival.processor_s / max(arrival.received["BindingUpdate"], 1),
        },
        "state_octets_per_node": _state_octets(entries),
        "process_octets": resident_octets(),
        "took_s": time.monotonic() - begin,
        "processors": os.cpu_count(),
    }
    document = json.dumps(result, indent=1) + "\n"
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(document)
    if options.json:
        print(document, end="")
        return 0
    print(f"{nodes:,} mobile nodes, {result['bound_nodes']:,} bound: {bindings:,} bindings, "
          f"{flows:,} flow bindings")
    print(f"signalling at the home agent: {result['binding_updates_per_s']:,.0f} Binding Updates/s of "
          f"{result['octets_per_binding_update']:.0f} octets; {result['octets_received_per_s'] / 125e3:.2f} "
          f"Mbit/s in, {result['octets_sent_per_s'] / 125e3:.2f} Mbit/s out")
    print(f"forwarding state changes: {result['forwarding_changes_per_s']:,.0f} home addresses/s")
    print(f"decision: {result['decision_us']:.0f} us of processor time a Binding Update "
          f"({result['registration']['decision_us']:.0f} us for a first registration), "
          f"{result['processor_share_percent']:.1f} % of one processor")
    print(f"state: {result['state_octets_per_node']:,.0f} octets a mobile node")
    print(f"simulated {lifetime_s + 10 + observed_s:g} s in {result['took_s']:.0f} s, "
          f"{result['process_octets'] / 2**20:,.0f} MiB for all mobile nodes and the home agent")
    return 0


def _state_octets(entries: list) -> float:
    """Memory of the binding cache, a mobile node: of a sample, by following references once."""
    sample = entries[:1000]
    seen: set[int] = set()
    total = 0
    waiting: list = list(sample)
    while waiting:
        item = waiting.pop()
        if id(item) in seen or isinstance(item, type | str) or callable(item):
            continue
        seen.add(id(item))
        total += sys.getsizeof(item)
        waiting += gc.get_referents(item)
    return total / max(len(sample), 1)


if __name__ == "__main__":
    sys.exit(guarded("simulate_scale", main))
