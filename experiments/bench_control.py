#!/usr/bin/env python3
"""How many Binding Updates a home agent can take, how fast it is, and what it costs while nothing happens."""

import json
import os
import socket
import sys
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import IPv6Address, IPv6Network
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from testbed.environment import reexec_in_project_environment  # noqa: E402

reexec_in_project_environment()

import cProfile  # noqa: E402
import pstats  # noqa: E402
import select  # noqa: E402
import subprocess  # noqa: E402
import tempfile  # noqa: E402

from testbed.agent.garbage import collect_rarely  # noqa: E402
from testbed.agent.mobility_socket import MobilitySocket  # noqa: E402
from testbed.emulation.agent import Agent, home_agent_configuration  # noqa: E402
from testbed.emulation.link_probe import private_namespaces  # noqa: E402
from testbed.emulation.security import shared_keys  # noqa: E402
from testbed.experiment import bench  # noqa: E402
from testbed.experiment.bench import Figure  # noqa: E402
from testbed.experiment.run import guarded  # noqa: E402
from testbed.isolation import isolate  # noqa: E402
from testbed.mobility.authentication import SecurityAssociation, ntp_timestamp, signed  # noqa: E402
from testbed.mobility.home_agent import HomeAgent, HomeAgentConfiguration  # noqa: E402
from testbed.wire.codec import Codec  # noqa: E402
from testbed.wire.flow import FlowIdentification, Pro  # noqa: E402
from testbed.wire.message import BindingAcknowledgement, BindingUpdate  # noqa: E402
from testbed.wire.option import BindingIdentifier, MessageIdentifier  # noqa: E402
from testbed.wire.packet import Packet, build_packet, parse_packet  # noqa: E402
from testbed.wire.selector import IPv6TrafficSelector  # noqa: E402

DESCRIPTION = """\
Three things are measured, each in the terms that a home agent is bought by.

core      Binding Updates a second of processor time through the protocol alone: octets in, parsed, judged,
          binding cache changed, wanted forwarding state computed, acknowledgement out as octets. Of 1,000
          mobile nodes, in turn, with four kinds of message: one binding (RFC 6275); two bindings (RFC
          5648); these with three flow bindings, added, then refreshed (the draft); and the same,
          authenticated (RFC 4285).
agent     a whole agent with the kernel's state. Authenticated Binding Updates that move two bindings with
          three flow bindings to new care-of addresses come as fast as they are acknowledged, 32 under way;
          then one at a time, for the time from the arrival (the kernel's time stamp) until the kernel
          forwards as they say, while 1,000 other mobile nodes are bound. Then what the agent uses while
          nothing happens, and its memory.
memory    of the binding cache and timers of the core, by tracemalloc, for one binding and one flow binding.
"""
EPILOG = """\
Exit status 1 if a goal is missed. Figures in processor time stand on a busy machine, times do not. Examples:
  sudo ./run bench control
  sudo ./run bench control --quick --json
  ./run bench control --profile        where the time of the core goes, function by function
"""
HOME_AGENT = IPv6Address("2001:db8:100::1")
HOME_PREFIX = IPv6Network("2001:db8:100::/64")
MOBILE_END, AGENT_END = IPv6Address("2001:db8:201::1"), IPv6Address("2001:db8:ff01::1")
KEY = SecurityAssociation(1000, bytes(range(16)))
KINDS = ("one binding", "two bindings", "two, three flows", "two, three flows, authenticated")
PIPELINE = 32
LIFETIME_S = 400
READY_S = 60.0


def home_address(number: int) -> IPv6Address:
    return HOME_PREFIX[0x10000 + number]


def care_of_address(network: int, number: int) -> IPv6Address:
    """Of the mobile node `number` in access network 1 or 2; those of different numbers differ."""
    return IPv6Address(int(IPv6Address("2001:db8:200::")) + (network << 80) + 0x10000 + number)


def binding_update(kind: int, node: int, sequence: int, now: float, codec: Codec, places: int = 0) -> bytes:
    """A Binding Update as octets. `kind`: index into KINDS; `now`: seconds since 1970; `places`: added to the
    numbers of the care-of addresses."""
    home = home_address(node)
    first, second = (care_of_address(network, node + places) for network in (1, 2))
    options: tuple = ()
    if kind >= 1:
        options = (
            BindingIdentifier(1, priority=10, care_of_address=first),
            BindingIdentifier(2, priority=20, care_of_address=second),
        )
    if kind >= 2:
        new = sequence == 1
        options += tuple(
            FlowIdentification(
                fid,
                fid,
                pro=Pro.ADD if new else Pro.REFRESH,
                binding_reference=(1 + fid % 2,) if new else None,
                selector=IPv6TrafficSelector(source_port=(fid, fid), next_header=(6, 6)) if new else None,
            )
            for fid in (1, 2, 3)
        )
    update = BindingUpdate(sequence, LIFETIME_S, acknowledge=True, home_registration=True, options=options)
    if kind == 3:
        update = replace(update, options=(*options, MessageIdentifier(ntp_timestamp(now))))
        update = signed(update, KEY, first, home, codec)
    return build_packet(Packet(first, HOME_AGENT, update, home), codec)


class Core:
    """A home agent without agent and kernel."""

    def __init__(self, nodes: int, kind: int) -> None:
        keys = {home_address(node): KEY for node in range(nodes)} if kind == 3 else {}
        configuration = HomeAgentConfiguration(
            HOME_AGENT, (HOME_PREFIX,), associations=keys, accept_unauthenticated=kind < 3
        )
        self.codec = Codec(require_alignment=True)
        self.role = HomeAgent(configuration, 0.0, self.codec)

    def take(self, data: bytes, now: float) -> None:
        """What an agent does with a message, but for sockets and kernel."""
        role = self.role
        role.receive(parse_packet(data, self.codec), "eth0", now)
        transmissions = role.transmissions()
        role.changes()
        for transmission in transmissions:
            build_packet(transmission.packet, self.codec)
        role.events()
        role.timer()
        if len(transmissions) != 1 or transmissions[0].packet.message.status >= 128:
            raise RuntimeError(f"the core did not accept a Binding Update: {transmissions}")


def core_messages(kind: int, nodes: int, rounds: int) -> list[tuple[bytes, float]]:
    codec = Codec()
    return [
        (binding_update(kind, node, sequence, float(sequence), codec), float(sequence))
        for sequence in range(1, rounds + 1)
        for node in range(nodes)
    ]


def measure_core(nodes: int, rounds: int, repetitions: int) -> list[Figure]:
    messages = [core_messages(kind, nodes, rounds) for kind in range(len(KINDS))]
    rates: list[list[float]] = [[] for _ in KINDS]
    for number in range(repetitions):
        bench.say(f"core: repetition {number + 1} of {repetitions}")
        for kind in range(len(KINDS)):
            core = Core(nodes, kind)
            begin = time.process_time()
            for data, now in messages[kind]:
                core.take(data, now)
            rates[kind].append(len(messages[kind]) / (time.process_time() - begin))
    return [
        Figure(f"core: Binding Updates, {name}", "/s of CPU", rates[kind], 10_000)
        for kind, name in enumerate(KINDS)
    ]


def profile_core(nodes: int, rounds: int) -> None:
    messages = core_messages(len(KINDS) - 1, nodes, rounds)
    core = Core(nodes, len(KINDS) - 1)
    profile = cProfile.Profile()
    profile.enable()
    for data, now in messages:
        core.take(data, now)
    profile.disable()
    pstats.Stats(profile).sort_stats("tottime").print_stats(30)


def measure_memory(nodes: int) -> list[Figure]:
    """Of the role; what a binding and a flow binding add to a mobile node's first."""

    def octets(kind: int) -> float:
        messages = core_messages(kind, nodes, 1)
        core = Core(nodes, kind)
        tracemalloc.start()
        for data, now in messages:
            core.take(data, now)
        size = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        return size / nodes

    one, two, flows = (octets(kind) for kind in (0, 1, 2))
    return [
        Figure("core: memory of a mobile node with one binding", "octets", [one], 2048, at_most=True),
        Figure("core: memory of each further binding", "octets", [two - one], 2048, at_most=True),
        Figure("core: memory of a flow binding", "octets", [(flows - two) / 3], 2048, at_most=True),
    ]


class AgentBench:
    """A home agent's agent, and a wire to it on which mobile nodes are imitated. A context manager."""

    def __init__(self, nodes: int) -> None:
        self.nodes = nodes
        self.codec = Codec()
        self._sequences: dict[int, int] = {}
        self._places = 0

    @contextmanager
    def running(self, folder: Path) -> Iterator["AgentBench"]:
        with private_namespaces(2) as (agent, mobile):
            self._connect(agent, mobile)
            keys = shared_keys({str(home_address(node)): KEY.key.hex() for node in range(self.nodes)})
            configuration = home_agent_configuration("ha", HOME_AGENT, "home0", [HOME_PREFIX], keys)
            configuration["control"] = {"socket": str(folder / "ha.sock")}
            self.events = folder / "events.jsonl"
            configuration["log"] = {"events": str(self.events), "level": "warning"}
            prefix = ["nsenter", f"--net=/proc/{agent.pid}/ns/net"]
            environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
            process = Agent(prefix, configuration, folder / "ha.toml", folder / "ha.log", environment)
            try:
                process.await_ready(READY_S)
                self.pid = process.process.pid
                with mobile.entered():
                    self._receiving = MobilitySocket()
                    # it takes the IPv6 header from us, whose source address is nobody's
                    self._sending = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW)
                with self._sending:
                    yield self
                self._receiving.close()
            finally:
                process.stop()

    def _connect(self, agent, mobile) -> None:
        def run(namespace, *command: str) -> None:
            with namespace.entered():
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

        run(agent, "ip", "link", "add", "home0", "type", "veth", "peer", "name", "home1")
        run(agent, "ip", "link", "add", "out", "type", "veth", "peer", "name", "in", "netns", str(mobile.pid))
        for namespace, address, device, other in (
            (agent, AGENT_END, "out", MOBILE_END),
            (mobile, MOBILE_END, "in", AGENT_END),
        ):
            run(namespace, "ip", "address", "add", f"{address}/128", "dev", device, "nodad")
            run(namespace, "ip", "link", "set", device, "up")
            run(namespace, "ip", "-6", "route", "add", str(other), "dev", device)
            run(namespace, "ip", "-6", "route", "add", "default", "via", str(other), "dev", device)
        for device in ("home0", "home1"):
            run(agent, "ip", "link", "set", device, "up")
        run(agent, "ip", "address", "add", f"{HOME_AGENT}/64", "dev", "home0", "nodad")
        # the mobile nodes' end takes acknowledgements to any care-of address for its own
        run(mobile, "ip", "-6", "route", "add", "local", "2001:db8:200::/40", "dev", "lo")
        run(mobile, "ping", "-c", "1", "-W", "5", "-q", str(AGENT_END))

    def _send(self, node: int) -> None:
        sequence = self._sequences[node] = self._sequences.get(node, 0) + 1
        data = binding_update(3, node, sequence, time.time(), self.codec, self._places)
        self._sending.sendto(data, (str(HOME_AGENT), 0))

    def _await(self) -> list[int]:
        """The nodes whose acknowledgements have come in; waits for the first."""
        while True:
            if not select.select([self._receiving.fileno()], [], [], READY_S)[0]:
                raise RuntimeError(f"the agent has not answered within {READY_S:g} s")
            found = []
            for datagram in self._receiving.receive():
                packet = parse_packet(datagram.data, self.codec)
                if isinstance(packet.message, BindingAcknowledgement):
                    if packet.message.status:
                        raise RuntimeError(f"the agent answered with status {packet.message.status}")
                    found.append(int(packet.routing_address) - int(home_address(0)))
            if found:
                return found

    def move(self, nodes: range, under_way: int = PIPELINE) -> float:
        """Binding Updates of these mobile nodes, all to new care-of addresses; returns how long it took, in
        seconds."""
        self._places += 0x10000
        begin = time.perf_counter()
        left = list(reversed(nodes))
        waiting = 0
        while left or waiting:
            while left and waiting < under_way:
                self._send(left.pop())
                waiting += 1
            waiting -= len(self._await())
        return time.perf_counter() - begin

    def cpu_s(self) -> float:
        """Processor time of the agent, in seconds."""
        # the clock of clock_getcpuclockid(3), in ns; /proc counts in ticks, of which idling takes none or one
        return time.clock_gettime(~self.pid << 3 | 2)

    def memory_octets(self) -> int:
        """Resident memory of the agent that is its own."""
        return bench.memory_octets(self.pid)

    def ready_ms(self, skip: int) -> list[float]:
        """From the arrival of each Binding Update to its forwarding state; without the first `skip`."""
        latencies, arrived = [], 0.0
        for line in self.events.read_text().splitlines():
            event = json.loads(line)
            if event["event"] == "binding-update-received":
                arrived = event["t"]
            elif event["event"] == "datapath-ready":
                latencies.append(1000 * (event["t"] - arrived))
        return latencies[skip:]


def measure_agent(others: int, moves: int, repetitions: int, idle_s: float) -> list[Figure]:
    with tempfile.TemporaryDirectory() as folder, AgentBench(others + 1).running(Path(folder)) as agent:
        empty = agent.memory_octets()
        bench.say(f"agent: {others} mobile nodes register")
        agent.move(range(1, others + 1))
        full = agent.memory_octets()
        rates, processor_rates, medians, tails, idle = [], [], [], [], []
        for number in range(repetitions):
            bench.say(f"agent: repetition {number + 1} of {repetitions}")
            nodes = range(1, min(moves, others) + 1)
            before = agent.cpu_s()
            rates.append(len(nodes) / agent.move(nodes))
            processor_rates.append(len(nodes) / max(agent.cpu_s() - before, 0.01))
            skip = len(agent.ready_ms(0))
            for _ in range(moves):
                agent.move(range(0, 1))
            latencies = agent.ready_ms(skip)
            medians.append(bench.quantile(latencies, 0.5))
            tails.append(bench.quantile(latencies, 0.99))
        for _ in range(repetitions):  # at last: new bindings are told on the home link for seconds
            before = agent.cpu_s(), time.perf_counter()
            time.sleep(idle_s)  # what is measured is that nothing happens
            idle.append(100 * (agent.cpu_s() - before[0]) / (time.perf_counter() - before[1]))
        bindings = 2 * others
        return [
            Figure("agent: Binding Updates with kernel state", "/s", rates, 1000),
            Figure("agent: the same, in its processor time", "/s of CPU", processor_rates),
            Figure(f"agent: datapath ready, {others} others, median", "ms", medians, 3, at_most=True),
            Figure(f"agent: datapath ready, {others} others, p99", "ms", tails, 10, at_most=True),
            Figure("agent: memory without bindings", "MiB", [empty / 2**20], 40, at_most=True),
            Figure(f"agent: memory with {bindings} bindings", "MiB", [full / 2**20]),
            Figure("agent: memory of a binding, rules and routes included", "octets",
                   [(full - empty) / bindings], 2048, at_most=True),
            Figure("agent: processor while idle", "%", idle, 0.5, at_most=True),
        ]


def main() -> int:
    made = bench.parser("control", DESCRIPTION, EPILOG, 5, "100 others, few messages: to see that it works")
    made.add_argument("--others", type=int, metavar="N", help="other mobile nodes bound (1000)")
    made.add_argument("--profile", action="store_true", help="show where the core's time goes, and end")
    made.add_argument("--core-only", action="store_true", help="only what needs neither root nor kernel")
    options = bench.parse(made)
    nodes, rounds, moves, idle_s = (100, 3, 50, 1.0) if options.quick else (1000, 4, 500, 5.0)
    if options.profile:
        profile_core(nodes, rounds)
        return 0
    others = options.others or nodes
    collect_rarely()  # as agents do
    if not options.core_only:
        isolate()
    figures = measure_core(nodes, rounds, options.repetitions) + measure_memory(nodes)
    if not options.core_only:
        figures += measure_agent(others, moves, options.repetitions, idle_s)
    return bench.finish("control", options, figures, others=others)


if __name__ == "__main__":
    sys.exit(guarded("bench control", main, RuntimeError, subprocess.CalledProcessError))
