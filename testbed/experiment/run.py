"""One run of an experiment: the network, its agents, the traffic, and everything that is recorded.

Classes: `Run`, `RunError`. Function: `guarded`.
"""

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from ipaddress import IPv6Address
from pathlib import Path
from typing import Any

from mininet.cli import CLI
from mininet.log import setLogLevel

from testbed.emulation.link import LinkError, LinkParameters, ShapedLink
from testbed.emulation.network import Network
from testbed.emulation.process import EmulationError, wait_until
from testbed.experiment.narrator import Narrator
from testbed.experiment.profile import ProfileError
from testbed.experiment.verdict import SETTLED_S
from testbed.measure.capture import Capture
from testbed.measure.machine import STOOD_STILL_S, MachineWatch
from testbed.measure.metadata import host_metadata, metadata
from testbed.measure.process import MeasurementError
from testbed.measure.traffic import Host, Traffic, start_traffic, stop_traffic
from testbed.report.assembly import assemble
from testbed.report.flow_figures import FlowBinding
from testbed.report.result import Result, ResultError
from testbed.strategy.registry import StrategyError
from topologies.multihome import MultihomeTopology

_TICK_S = 0.2
#: After its start, traffic settles for so long before anything is measured.
WARM_UP_S = 1.5
#: A time that is not judged takes away so much more: bins of the time series at its edges.
_EDGES_S = 0.2
#: So much longer is a phase at most for the time in which the machine stands still.
STALLED_S = 30.0


class RunError(Exception):
    """The run cannot go on; the text is one sentence."""


#: What tells a user in one sentence what is wrong.
EXPECTED = (
    EmulationError, LinkError, MeasurementError, ProfileError, ResultError, RunError, StrategyError,
)  # fmt: skip


class Run:
    """A started network with captures; `finish` ends it and makes the result. A context manager.

    What the experiment does to the network goes through the methods here, which log it as the cause of what
    follows. `folder`: where all files of the run go.
    """

    def __init__(
        self, topology: MultihomeTopology, folder: Path, narrator: Narrator, *, whole_packets: bool = False
    ) -> None:
        self.topology = topology
        self.folder = folder
        self.narrator = narrator
        self.logs = folder / "logs"
        self.captures_folder = folder / "captures"
        self.network = Network(topology, log_directory=self.logs)
        self.traffic: list[Traffic] = []
        self.bindings: dict[str, FlowBinding] = {}
        self.errors: dict[str, str] = {}
        self.phases: list[dict[str, Any]] = []
        #: Parts of the run that get figures of their own: name -> begin and end.
        self.windows: dict[str, tuple[float, float]] = {}
        self.origin_s = self.end_s = 0.0
        #: The node to whose agent Binding Updates of a handover go.
        self.binder = "ha"
        self._whole_packets = whole_packets
        self._events = None
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> "Run":
        setLogLevel("error")
        with contextlib.ExitStack() as stack:
            self.captures_folder.mkdir(parents=True, exist_ok=True)
            for old in (*self.logs.glob("*.jsonl"), *self.captures_folder.glob("*.pcap")):
                old.unlink()  # agents append
            stack.enter_context(self.network)
            self._events = stack.enter_context(open(self.logs / "events.jsonl", "a", buffering=1))
            names = (self.topology.mobile_name, "ha", "cn")
            self.mn, self.ha, self.cn = (self.network[name] for name in names)
            self._captures = [
                Capture(
                    self.cn.popen, "cn", ["cn-core"], self.captures_folder, whole_packets=self._whole_packets
                ),
                Capture(
                    self.mn.popen,
                    self.mn.name,
                    list(self.mn.access_interfaces),
                    self.captures_folder,
                    whole_packets=self._whole_packets,
                ),
            ]
            self._machine = MachineWatch(self.network["core"].popen, self.logs)
            for capture in self._captures:
                capture.start()
            self._machine.start()
            for capture in self._captures:
                capture.wait_ready()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def start_agents(self, mobile_node: Mapping[str, Any], home_agent: Mapping[str, Any]) -> None:
        """Start the home agent, then the mobile node; both are ready at the return."""
        self.mn.await_care_of_addresses()
        self.ha.start_agent(home_agent)
        self.mn.start_agent(mobile_node)

    def start_correspondent_agent(self) -> None:
        """Let the correspondent node take bindings itself (RFC 6275 §9)."""
        self.cn.start_agent({"role": "correspondent-node", "name": "cn"})

    def start_anchor_point(self, name: str) -> None:
        """Let this anchor point take the bindings of its domain (RFC 5380)."""
        self.network[name].start_agent(self.topology.anchor_point_configuration(name))
        self.binder = name

    def ask(self, command: str, **arguments: Any) -> Any:
        """One command to the mobile node's agent. Raises EmulationError with its sentence."""
        return self.mn.agent.ask(command, **arguments)

    def await_bindings(self, timeout_s: float = 30.0) -> list[dict[str, Any]]:
        """Wait until every BID is registered at the care-of address of its own interface."""

        def registered() -> list[dict[str, Any]] | None:
            bindings = self.ask("bindings")
            own = {name: str(self.mn.care_of_address(name)) for name in self.mn.access_interfaces}
            return bindings if all(b["registered"] == own[b["interface"]] for b in bindings) else None

        return wait_until(registered, timeout_s, "all care-of addresses registered")

    def log(self, event: str, **fields: Any) -> None:
        """Log what the experiment is about to do."""
        line = {"t": time.monotonic(), "node": "experiment", "event": event, **fields}
        self._events.write(json.dumps(line) + "\n")

    def access_link(self, access_network: str) -> ShapedLink:
        """The mobile node's link into an access network."""
        name = f"{self.mn.name}-{access_network}"
        return next(link for link in self.network.links if link.intf1.name == name)

    def link_down(self, access_network: str) -> None:
        """The mobile node's interface loses its link, and what is on the link is lost."""
        link = self.access_link(access_network)
        self.log("link-down", interface=link.intf1.name, text=f"{access_network} goes away")
        link.set_carrier(False)

    def link_up(self, access_network: str) -> None:
        """The link is back."""
        link = self.access_link(access_network)
        self.log("link-up", interface=link.intf1.name, text=f"{access_network} is back")
        link.set_carrier(True)

    def link_move(self, access_network: str, to: str) -> None:
        """The mobile node's interface attaches to the access router of network `to`, its own or another."""
        link = self.access_link(access_network)
        names = [network.name for network in self.topology.access_networks]
        router = self.network[f"ar{names.index(to) + 1}"]
        where = "another point of its network" if link.intf2.node is router else to
        self.log("move", interface=link.intf1.name, text=f"{access_network} moves to {where}")
        link.move(router, router.bridge)

    def link_change(self, access_network: str, text: str, *parameters: LinkParameters) -> None:
        """The link gets other figures: those from the mobile node, those to it."""
        link = self.access_link(access_network)
        self.log("link-change", interface=link.intf1.name, text=text)
        link.change(*parameters)

    def flow(self, operation: str, fid: int, text: str, **arguments: Any) -> None:
        """Add, replace or remove a flow binding; at the return the home agent has acknowledged it."""
        self.log(f"flow-{operation}", fid=fid, text=text)
        self.ask(f"flow-{operation}", fid=fid, **arguments)

    @property
    def mobile(self) -> Host:
        """Where the mobile node's programs run: at its home address, or in the network behind a mobile
        router."""
        nodes = getattr(self.topology, "mobile_network_nodes", ())
        if nodes:
            node, interface = self.network[nodes[0]], f"{nodes[0]}-{self.mn.name}"
            words = f"an address of {nodes[0]} in the mobile network"
            return Host(node.popen, str(wait_until(lambda: node.global_addresses(interface), 30.0, words)[0]))
        return Host(self.mn.popen, str(self.mn.home_address))

    @property
    def correspondent(self) -> Host:
        """Where traffic's other end is."""
        return Host(self.cn.popen, "2001:db8:300::2")

    def start_traffic(
        self, traffic: Iterable[Traffic], bindings: Mapping[str, FlowBinding], more_s: float = 0.0
    ) -> None:
        """Start all flows, let them settle, `more_s` longer than usual; measuring begins at the return."""
        self.traffic, self.bindings = list(traffic), dict(bindings)
        start_traffic(self.traffic)
        self._pass(WARM_UP_S + more_s, "traffic settles")
        self.origin_s = time.monotonic()

    def phase(
        self,
        name: str,
        seconds: float,
        paths: Mapping[str, Iterable[str]],
        meanwhile: Callable[[], None] | None = None,
    ) -> None:
        """Let the traffic run. `paths`: the access networks that each flow ought to take meanwhile;
        `meanwhile` is called some times a second. If paths are given, by which the phase will be judged, it
        is longer by what this machine stands still, up to STALLED_S."""
        begin_s = time.monotonic()
        self._pass(seconds, name, meanwhile, STALLED_S if paths else 0.0)
        mobile = self.mn.name
        expected = {flow: sorted(f"{mobile}-{name}" for name in names) for flow, names in paths.items()}
        self.phases.append(
            {
                "name": name,
                "start_s": begin_s - self.origin_s,
                "end_s": time.monotonic() - self.origin_s,
                "paths": expected,
            }
        )

    def _pass(
        self, seconds: float, text: str, meanwhile: Callable[[], None] | None = None, more_s: float = 0.0
    ) -> None:
        """Let time pass, up to `more_s` longer if the machine stands still; raise RunError as soon as an
        agent or a link is dead."""
        end = time.monotonic() + seconds
        latest = end + more_s
        while (left := end - time.monotonic()) > 0:
            self.narrator.progress(f"{text}: {left:.1f} s")
            due = time.monotonic() + min(left, _TICK_S)
            time.sleep(min(left, _TICK_S))  # traffic
            self._check_alive()
            late = time.monotonic() - due
            if late > STOOD_STILL_S:
                end = min(end + late + _TICK_S + SETTLED_S + _EDGES_S, latest)
            if meanwhile:
                meanwhile()
        self.narrator.progress_done()

    def _check_alive(self) -> None:
        for node in {self.mn, self.ha, self.cn, self.network[self.binder]}:
            if node.agent is not None and node.agent.process.poll() is not None:
                raise RunError(f"the agent of {node.name} has died: see {self.logs}/{node.name}-agent.log")
        for link in self.network.links:
            if isinstance(link, ShapedLink) and link.failure:
                raise RunError(f"a link has died: {link.failure}")

    def stop_traffic(self) -> None:
        """End all flows; measuring ends with the call."""
        self.end_s = time.monotonic()
        self.errors = stop_traffic(self.traffic)

    def finish(self, experiment: str, facts: Mapping[str, Any]) -> Result:
        """Stop captures and watch, compute the result. `facts`: more metadata."""
        for capture in self._captures:
            capture.stop()
        self._machine.stop()
        mobile_pid = self.mn.pid
        described = metadata(
            experiment=experiment,
            topology=self.topology.draw(),
            phases=self.phases,
            hosts={self.mn.name: host_metadata(mobile_pid), "ha": host_metadata(self.ha.pid)},
            **facts,
        )
        correspondent, mobile = (capture.files for capture in self._captures)
        return assemble(
            experiment=experiment,
            metadata=described,
            origin_s=self.origin_s,
            end_s=self.end_s,
            traffic=self.traffic,
            bindings=self.bindings,
            correspondent=correspondent,
            access=mobile,
            event_logs=[self.logs / "events.jsonl"],
            machine_log=self._machine.log,
            errors=self.errors,
            windows=self.windows,
            mobile_node=self.mn.name,
            home_agent=self.binder,
        )

    def backends(self) -> dict[str, str]:
        """Who shapes the access links and who encapsulates packets in this run."""
        return {
            "link": self.access_link(self.topology.access_networks[0].name).backend,
            "tunnel": self.ha.agent.ask("status")["tunnel_backend"] if self.ha.agent else "none",
        }

    def command_line(self) -> None:
        """Mininet's own command line, in the network as it stands."""
        self.narrator.say("\nThe network is yours; try mn flowbind flows, or mn ping -c3 cn; exit goes on.")
        CLI(self.network)

    def care_of_addresses(self) -> dict[str, IPv6Address | None]:
        """By interface, as the kernel has them."""
        return {name: self.mn.care_of_address(name) for name in self.mn.access_interfaces}


def guarded(program: str, main: Callable[[], int], *more: type[Exception]) -> int:
    """Run an experiment's main function; what can go wrong, `more` included, becomes one sentence and status
    2."""
    try:
        return main()
    except (*EXPECTED, *more) as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        print(
            f"{program}: {error.strerror or error}{where}; --out chooses another folder for the files",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        print(f"\n{program}: stopped; nothing of the network is left", file=sys.stderr)
        return 130
