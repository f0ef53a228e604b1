"""One run of a strategy under a scenario: the case of kind "steering". Class: `Steering`. Function:
`run_steering`.

Parameters of the case: `strategy`, `scenario`, `links` (two or more link profiles, the preferred one first),
and if wanted `pace` (all times of the scenario are multiplied by it), `ha_distance_ms` and
`cn_distance_ms` (one-way delay between core and home agent, core and correspondent node), `mobile`: "router"
(the traffic is that of a node in a mobile network, RFC 3963) instead of "node".
"""

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from testbed.emulation.process import wait_until
from testbed.emulation.security import METHODS
from testbed.experiment.narrator import Narrator
from testbed.experiment.profile import (
    FlowProfile,
    LinkProfile,
    ScenarioProfile,
    Step,
    access_networks,
    link_trace,
    load_link,
    load_scenario,
    load_traffic,
)
from testbed.experiment.run import Run, RunError
from testbed.experiment.switched_run import SwitchedRun
from testbed.experiment.trace import TracePlayer
from testbed.measure.iperf import LIMITED_BLOCK_OCTETS
from testbed.measure.path_watch import PathWatch
from testbed.measure.traffic import BulkTransfer, Host, TcpProbe, Traffic, UdpProbe
from testbed.report.flow_figures import FlowBinding
from testbed.report.result import Result
from testbed.strategy.registry import ask, find_strategy, strategy_names
from testbed.strategy.strategy import Binding, Carrier, Event, Flow, Link, Strategy
from topologies.distance import DistanceTopology, DistantHierarchicalTopology
from topologies.multihome import HOME_AGENT
from topologies.nemo import NemoTopology
from topologies.sdn import SdnTopology

#: Packets sent so long before something happens may be hit by it: no part of the baseline.
UNDER_WAY_S = 0.4
#: TCP fills a longer path in bursts, a window a round trip, until it is that of its sender's rate.
SETTLING_ROUND_TRIPS = 8
CORRESPONDENT = "2001:db8:300::2"
#: What `SPRAYED` marks every second packet with, and binds to the second network.
SPRAY_CLASS, SPRAY_FID = 0x20, 1000
#: What has flow bindings that can be changed.
_BY_AGENTS = (Carrier.HOME_AGENT, Carrier.CORRESPONDENT, Carrier.SWITCHES, Carrier.ANCHOR_POINT)
#: As fast as any link of a profile goes.
UNLIMITED_BPS = 1_000_000_000
#: Where both access networks are.
ANCHOR_POINT = "map1"
#: Table of the routes from care-of addresses where no agent cares for them.
_PLAIN_TABLE = 7000


class Steering:
    """Asks the strategy, and has the mobile node's agent do what it says."""

    def __init__(
        self, run: Run, strategy: Strategy, flows: Sequence[FlowProfile], links: Sequence[LinkProfile]
    ) -> None:
        self.run, self.strategy = run, strategy
        self.flows = [
            Flow(f.name, f.protocol, f.port, f.offered_bps, f.real_time, f.network)
            for f in flows
            if f.protocol in strategy.protocols
        ]
        self.fids = {flow.name: number for number, flow in enumerate(self.flows, 1)}
        self.bound: dict[str, Binding] = {}
        self.leaving: set[int] = set()
        self.watches: dict[int, PathWatch] = {}
        self._names = [network.name for network in run.topology.access_networks]
        self._bandwidths = [profile.bandwidth_mbit for profile in links]
        self._preferred: int | None = None
        self._was_up = {number: True for number in range(1, len(links) + 1)}
        # one command at a time for each flow; those of several flows go out in one Binding Update
        self._workers = {flow.name: ThreadPoolExecutor(1) for flow in self.flows}
        self._answers: list[Future] = []

    @property
    def by_agents(self) -> bool:
        """Whether flow bindings carry the strategy out, which agents can change."""
        return self.strategy.carrier in _BY_AGENTS

    def links(self) -> list[Link]:
        """The access networks as the mobile node's agent knows them."""
        status = self.run.ask("status") if self.run.mn.agent else {"interfaces": []}
        at = {entry["bid"]: entry for entry in status["interfaces"]}
        found = []
        for number, name in enumerate(self._names, 1):
            entry = at.get(number, {"link": "up", "care_of_address": "?"})
            up = entry["link"] == "up" and entry["care_of_address"] is not None
            round_trip_ms, loss = self.watches[number].figures() if number in self.watches else (None, None)
            bandwidth = self._bandwidths[number - 1]
            found.append(Link(number, name, bandwidth, up, number in self.leaving, round_trip_ms, loss))
        return found

    def watch_paths(self) -> None:
        """Measure round trip and loss of each path, if the strategy wants to know them."""
        if self.strategy.measures:
            for number, name in enumerate(self._names, 1):
                watch = PathWatch(self.run.mn.popen, f"{self.run.mn.name}-{name}", str(HOME_AGENT))
                watch.start()
                self.watches[number] = watch

    def initial(self) -> list[dict[str, Any]]:
        """The flow bindings at the start, for the agent's configuration."""
        links = [Link(n, name, self._bandwidths[n - 1]) for n, name in enumerate(self._names, 1)]
        answer = ask(self.strategy, self.flows, links, Event("start", time.monotonic()))
        self.bound = dict(answer)
        return [{"fid": self.fids[name], **self._wanted(name, answer[name])} for name in answer]

    @property
    def configuration(self) -> dict[str, Any]:
        """Keys of the mobile node's configuration: flow bindings and what else there is at the start."""
        if self.strategy.carrier is Carrier.ONE_CARE_OF_ADDRESS:
            return {"multiple_care_of_addresses": False}
        return {"flows": self.initial()} if self.by_agents else {}

    def _wanted(self, name: str, binding: Binding) -> dict[str, Any]:
        flow = next(flow for flow in self.flows if flow.name == name)
        return {
            "bids": list(binding.networks),
            "action": ("discard", "forward", "n-cast")[min(len(binding.networks), 2)],
            "source_port": str(flow.port),
            "next_header": flow.protocol,
        }

    def tell(self, name: str, link: int | None = None) -> None:
        """Something has happened: let the strategy answer it."""
        if not self.by_agents and self.strategy.carrier is not Carrier.ONE_CARE_OF_ADDRESS:
            return
        links = self.links()
        answer = ask(self.strategy, self.flows, links, Event(name, time.monotonic(), link))
        if self.strategy.carrier is Carrier.ONE_CARE_OF_ADDRESS:
            return self._prefer(answer)
        changed = [flow.name for flow in self.flows if answer.get(flow.name) != self.bound.get(flow.name)]
        if not changed:
            return
        self.run.log("steer", text=f"{self.strategy.name} moves {', '.join(changed)}")
        for flow in changed:
            self._bind(flow, answer.get(flow))

    def _prefer(self, answer: Mapping[str, Binding]) -> None:
        """All flows are to go by one network: the first one that is named, if any is."""
        number = next((binding.networks[0] for binding in answer.values()), None)
        if number == self._preferred:
            return
        self._preferred = number
        name = self._names[number - 1] if number else None
        self.run.log("steer", text=f"{self.strategy.name} prefers {name or self._names[0]}")
        self.run.ask("prefer", interface=name)

    def _bind(self, name: str, binding: Binding | None) -> None:
        before = self.bound.pop(name, None)
        command, arguments = "flow-remove", {}
        if binding is not None:
            self.bound[name] = binding
            command, arguments = "flow-replace" if before else "flow-add", self._wanted(name, binding)
        job = self._workers[name].submit(self.run.ask, command, fid=self.fids[name], **arguments)
        self._answers.append(job)

    def tick(self) -> None:
        """Look whether links have come or gone; ask the strategy."""
        if not self.run.mn.agent:
            return
        for link in self.links():
            if link.up != self._was_up[link.number]:
                self._was_up[link.number] = link.up
                if link.up:
                    self.leaving.discard(link.number)
                    if link.number in self.watches:
                        self.watches[link.number].forget()
                self.tell("link-up" if link.up else "link-down", link.number)
        self.tell("tick")

    def refusals(self) -> list[str]:
        """What the agent could not do, a sentence each; ends the commands."""
        for worker in self._workers.values():
            worker.shutdown()
        errors = (answer.exception() for answer in self._answers)
        return [f"A change of bindings was not made: {error}." for error in errors if error]

    def stop(self) -> None:
        """End all measurements that the strategy was given."""
        for watch in self.watches.values():
            watch.stop()


def run_steering(
    parameters: Mapping[str, Any], seed: int, folder: Path, narrator: Narrator, whole_packets: bool = False
) -> Result:
    """Run the case; everything is in `folder` afterwards. Raises ProfileError, StrategyError, RunError,
    ..."""
    scenario, pace = load_scenario(parameters["scenario"]), parameters.get("pace", 1.0)
    strategy = find_strategy(parameters["strategy"])()
    if missing := strategy.missing():
        raise RunError(f"{strategy.name}: {missing}")
    links = [load_link(name) for name in parameters["links"]]
    profiles = load_traffic(scenario.traffic).flow
    with _network(parameters, strategy, links, seed, folder, narrator, whole_packets) as run:
        topology = run.topology
        for number, (profile, network) in enumerate(zip(links, topology.access_networks, strict=True), 1):
            if profile.uplink:
                run.access_link(network.name).change(
                    profile.uplink.parameters(seed + 100 + number), network.parameters(seed + number)
                )
        steering = Steering(run, strategy, profiles, links)
        players = _players(run, parameters["links"])
        try:
            mobile = _set_up(run, steering)
            steering.watch_paths()
            used = [profile for profile in profiles if profile.protocol in strategy.protocols]
            traffic = [_traffic(run, mobile, number, profile, seed, strategy.carrier)
                       for number, profile in enumerate(used, 1)]  # fmt: skip
            bindings = {profile.name: _binding(steering, profile) for profile in used}
            run.start_traffic(traffic, bindings, SETTLING_ROUND_TRIPS * _distance_s(parameters))
            for player in players:
                player.start()
            _play(run, steering, scenario, pace)
            run.stop_traffic()
            refusals = steering.refusals()
            backends = run.backends()
        finally:
            steering.stop()
            for player in players:
                player.stop()
        result = run.finish(
            "steering",
            {
                "seed": seed,
                "backends": backends,
                "carrier": strategy.carrier.value,
                "rank": (strategy_names() + [strategy.name]).index(strategy.name),
                "not_carried": [profile.name for profile in profiles if profile not in used],
                "goal": {"interruption_ms": scenario.goal.interruption_ms,
                         "lost_percent": scenario.goal.lost_percent},
            },
        )  # fmt: skip
    result.warnings += refusals
    failures = [player.failure for player in players if player.failure]
    result.warnings += [f"A recording was not played to its end: {failure}." for failure in failures]
    return result


def _network(
    parameters: Mapping[str, Any],
    strategy: Strategy,
    links: Sequence[LinkProfile],
    seed: int,
    folder: Path,
    narrator: Narrator,
    whole_packets: bool,
) -> Run:
    """The network that the strategy runs on, not started yet."""
    common = {
        "access_networks": access_networks(links),
        "link_backend": parameters.get("link_backend", "auto"),
        "tunnel_backend": parameters.get("tunnel_backend", "auto"),
        "security": parameters.get("security", METHODS[0]),
        "seed": seed,
    }
    distances = {name: parameters.get(name, 0.0) for name in ("ha_distance_ms", "cn_distance_ms")}
    router = parameters.get("mobile") == "router"
    if (router and strategy.carrier is not Carrier.HOME_AGENT) or (
        strategy.carrier is Carrier.SWITCHES and any(distances.values())
    ):
        raise RunError(f"{strategy.name}: it has no network with a mobile router or with distances")
    if strategy.carrier is Carrier.ANCHOR_POINT and common["security"] != METHODS[0]:
        raise RunError(f"{strategy.name}: {common['security']} does not go with anchor points")
    if strategy.carrier is Carrier.SWITCHES:
        return SwitchedRun(
            SdnTopology(**common), folder, narrator, mirrored=True, whole_packets=whole_packets
        )
    if router:
        topology = NemoTopology(**common)
    elif strategy.carrier is Carrier.ANCHOR_POINT:
        topology = DistantHierarchicalTopology(**distances, **common)
    else:
        topology = DistanceTopology(**distances, **common)
    return Run(topology, folder, narrator, whole_packets=whole_packets)


def _distance_s(parameters: Mapping[str, Any]) -> float:
    """How much longer a round trip through a distant home agent is, s: it passes that way four times."""
    home_agent, correspondent = (parameters.get(f"{name}_distance_ms", 0.0) for name in ("ha", "cn"))
    return (4 * home_agent + 2 * correspondent) / 1000


def _players(run: Run, names: Sequence[str]) -> list[TracePlayer]:
    return [
        TracePlayer(run.access_link(network.name), trace)
        for name, network in zip(names, run.topology.access_networks, strict=True)
        if (trace := link_trace(name)) is not None
    ]


def _set_up(run: Run, steering: Steering) -> Host:
    """Make the network carry packets as the strategy wants; where the mobile node's programs are then."""
    carrier, topology = steering.strategy.carrier, run.topology
    first, second = (network.name for network in topology.access_networks[:2])
    if carrier in (Carrier.PLAIN, Carrier.MULTIPATH_TCP):
        addresses = _plain_routes(run)
        if carrier is Carrier.MULTIPATH_TCP:
            _multipath_endpoints(run, addresses)
        return Host(run.mn.popen, addresses[f"{run.mn.name}-{first}"])
    more: dict[str, Any] = {"preferred": first} | steering.configuration
    if carrier is Carrier.SPRAYED:
        more["flows"] = [{"fid": SPRAY_FID, "bids": [2], "traffic_class": str(SPRAY_CLASS)}]
        _spray(run)
    if carrier is Carrier.ANCHOR_POINT:
        run.start_anchor_point(ANCHOR_POINT)
    if carrier is Carrier.CORRESPONDENT:
        run.start_correspondent_agent()
        more["correspondent"] = [{"address": CORRESPONDENT}]
    run.start_agents(topology.mobile_node_configuration(**more), topology.home_agent_configuration())
    run.await_bindings()
    wait_until(lambda: all(flow["state"] == "registered" for flow in run.ask("flows")), 30.0,
               "all flow bindings registered")  # fmt: skip
    if carrier is Carrier.ANCHOR_POINT:
        keys = ("registered_with_anchor_point", "registered")
        wait_until(lambda: all(run.ask("status").get(key) for key in keys), 30.0,
                   "registration with anchor point and home agent")  # fmt: skip
    if isinstance(run, SwitchedRun):
        run.await_mirrored(*(flow["fid"] for flow in more["flows"]))
    if carrier is Carrier.CORRESPONDENT:
        wait_until(lambda: _optimised(run), 30.0, "bindings at the correspondent node")
    return run.mobile


def _optimised(run: Run) -> bool:
    routes = run.ask("routes")
    return bool(routes) and len(run.cn.agent.ask("bindings")) >= 2


def _plain_routes(run: Run) -> dict[str, str]:
    """A default route for each care-of address by its own interface, and the addresses by interface."""
    addresses = run.mn.await_care_of_addresses()
    for number, (interface, address) in enumerate(addresses.items(), 1):
        table, router = str(_PLAIN_TABLE + number), run.network[f"ar{number}"].prefix[1]
        run.mn.execute("ip", "route", "add", "default", "via", str(router), "dev", interface, "table", table)
        run.mn.execute("ip", "-6", "rule", "add", "from", str(address), "lookup", table)
    return {interface: str(address) for interface, address in addresses.items()}


def _multipath_endpoints(run: Run, addresses: Mapping[str, str]) -> None:
    """Multipath TCP may use every care-of address (RFC 8684 §2.5)."""
    for node in (run.mn, run.cn):
        node.execute("sysctl", "-q", "-w", "net.mptcp.enabled=1")
        node.execute("ip", "mptcp", "limits", "set", "subflows", "4", "add_addr_accepted", "4")
    for interface, address in addresses.items():
        run.mn.execute("ip", "mptcp", "endpoint", "add", address, "dev", interface, "subflow")


def _spray(run: Run) -> None:
    """Mark every second packet to the home address; one flow binding takes those to the second network."""
    rules = f"""
table ip6 spray {{
    chain output {{
        type filter hook output priority 0;
        ip6 daddr {run.mn.home_address} numgen inc mod 2 0 ip6 dscp set {SPRAY_CLASS >> 2:#x}
    }}
}}
"""
    run.cn.execute("nft", "-f", "-", input=rules)
    run.cn.execute("ethtool", "-K", "cn-core", "tso", "off", "gso", "off")


def _traffic(
    run: Run, mobile: Host, number: int, profile: FlowProfile, seed: int, carrier: Carrier
) -> Traffic:
    ends = run.correspondent, mobile, run.logs
    multipath = carrier is Carrier.MULTIPATH_TCP
    if profile.kind == "bulk" and not multipath:
        return BulkTransfer(profile.name, *ends, port=profile.port, bitrate=profile.rate_bps)
    common = {"port": profile.port, "per_second": profile.per_second, "size": profile.size}
    common["seed"] = seed + number
    if profile.kind == "bulk":  # libiperf speaks no Multipath TCP: the same blocks at the same rate
        rate_bps = profile.rate_bps or UNLIMITED_BPS
        common |= {"size": LIMITED_BLOCK_OCTETS, "per_second": rate_bps / 8 / LIMITED_BLOCK_OCTETS}
    if profile.kind == "udp":
        return UdpProbe(profile.name, number, *ends, **common)
    paths = None
    if multipath:
        addresses = map(str, run.care_of_addresses().values())
        paths = [address for address in addresses if address != mobile.address]
    return TcpProbe(
        profile.name, number, *ends, kind=profile.kind, page_size=profile.page_size, paths=paths, **common
    )


def _binding(steering: Steering, profile: FlowProfile) -> FlowBinding:
    binding = steering.bound.get(profile.name)
    if binding is None:
        return FlowBinding(None, "", 1 if steering.strategy.carrier is Carrier.HOME_AGENT else None)
    networks = list(binding.networks)
    selector = f"{profile.protocol}, source port {profile.port}"
    return FlowBinding(steering.fids[profile.name], selector, networks[0] if len(networks) == 1 else networks)


def _play(run: Run, steering: Steering, scenario: ScenarioProfile, pace: float) -> None:
    """The scenario: nothing, then its steps."""
    run.phase("baseline", scenario.baseline_s * pace, {}, steering.tick)
    begin_s = time.monotonic() - UNDER_WAY_S
    run.windows["baseline"] = run.origin_s, begin_s
    for step in scenario.step:
        _do(run, steering, step)
        run.phase(step.event, step.seconds * pace, {}, steering.tick)
    run.windows["events"] = begin_s, time.monotonic()


def _do(run: Run, steering: Steering, step: Step) -> None:
    networks = run.topology.access_networks
    network = networks[step.network - 1]
    link = run.access_link(network.name)
    if step.event == "announce":
        run.log("link-going-down", interface=link.intf1.name, text=f"{network.name} is about to go away")
        steering.leaving.add(step.network)
        steering.tell("announced", step.network)
    elif step.event == "link-down":
        run.link_down(network.name)
    elif step.event == "link-up":
        run.link_up(network.name)
    elif step.event == "move":
        run.link_move(network.name, networks[step.to - 1].name)
    elif step.event == "change":
        changed = (replace(p, **step.changes()) for p in (link.parameters, link.parameters_back))
        words = ", ".join(f"{name} {value:g}" for name, value in step.changes().items())
        run.link_change(network.name, f"{network.name}: {words}", *changed)
    elif step.event == "restore":
        run.link_change(network.name, f"{network.name} as before", network.parameters(), network.parameters())
