"""A network with switches, agents and a controller for tests. Class: `ControllerNetwork`."""

import importlib.util
import shutil

import pytest

from testbed.emulation.controller import FlowBindingController
from testbed.emulation.openvswitch import choose_datapath
from testbed.emulation.process import EmulationError, wait_until
from testbed.emulation.switched_network import SwitchedNetwork
from testbed.measure.accounting import Received, Sent, account
from testbed.measure.events import read_events
from testbed.measure.probe_log import read_probe_log
from testbed.measure.traffic import Host, UdpProbe, start_traffic, stop_traffic
from topologies.sdn import SdnTopology

HOME_ADDRESS, CORRESPONDENT = "2001:db8:100::100", "2001:db8:300::2"
ACCESS = "wlan:1000:2+cellular:1000:4"
#: Ours, in what ovs-ofctl prints, and in what it takes.
MARK = "cookie=0xfb"
OURS = "cookie=0xfb00000000000000/0xff00000000000000"
FOREIGN = "cookie=0x77,table=10,priority=7,ip,nw_dst=192.0.2.1,actions=drop"

needs_switches = pytest.mark.skipif(
    not shutil.which("ovs-vswitchd", path="/usr/sbin:/sbin:/usr/local/sbin:/usr/bin:/bin"),
    reason="no Open vSwitch: apt-get install openvswitch-switch",
)
needs_controller = pytest.mark.skipif(
    importlib.util.find_spec("os_ken") is None, reason="no os-ken: pip install os-ken==4.2.2"
)


def needed_datapath(name):
    """The name of the switch datapath; the test is skipped where this kernel does not have it."""
    try:
        choose_datapath(name)
    except EmulationError as error:
        pytest.skip(str(error))
    return name


def datagrams_of(node):
    """How many UDP datagrams the node has sent."""
    counters = node.execute("cat", "/proc/net/snmp6").split()
    return int(counters[counters.index("Udp6OutDatagrams") + 1])


class ControllerNetwork:
    """A context manager; `controller` runs, the agents are registered. All waiting is for conditions."""

    def __init__(self, folder, python=None, library=None, datapath="auto", **more):
        self.folder = folder
        self.topology = SdnTopology(access_networks=ACCESS)
        self.network = SwitchedNetwork(self.topology, folder, datapath)
        self.fabric = self.topology.fabric(["/run/flowbind/ha.sock"], **more)
        self.controller = self.network.addController(
            "controller", controller=FlowBindingController, fabric=self.fabric, python=python, library=library
        )

    def __enter__(self):
        self.network.start()
        try:
            for name in ("mn", "ha", "cn", "s0", "s1", "s2"):
                setattr(self, name, self.network[name])
            self.daemon = self.network.daemon
            self.daemon.ofctl("add-flow", "s0", FOREIGN)
            self.mn.await_care_of_addresses()
            self.start_home_agent()
            self.mn.start_agent(self.topology.mobile_node_configuration())
            wait_until(self.is_registered, 30, "the registration of both care-of addresses")
            wait_until(lambda: self.controller.ask("rules"), 30, "the binding at the controller")
            wait_until(lambda: self.is_ready(), 30, "the readiness of all switches")
        except BaseException:
            self.network.stop()
            raise
        return self

    def __exit__(self, *exception):
        self.network.stop()

    def start_home_agent(self):
        self.ha.start_agent(self.topology.home_agent_configuration(state=str(self.folder / "ha.state")))

    def is_registered(self):
        return all(binding["registered"] for binding in self.mn.agent.ask("bindings"))

    def is_ready(self):
        return all(switch["ready"] for switch in self.controller.ask("status")["switches"])

    def bind(self, operation, fid, **arguments):
        """Change a flow binding."""
        return self.mn.agent.ask(f"flow-{operation}", fid=fid, **arguments)

    def flows(self):
        """What the controller tells of each flow binding, by FID."""
        homes = self.controller.ask("rules")
        return {flow["fid"]: flow for home in homes for flow in home["flows"]}

    def await_mirrored(self, fid, timeout_s=30):
        return wait_until(
            lambda: self.flows().get(fid, {}).get("mirrored"), timeout_s, f"the rules of FID {fid}"
        )

    def rules(self, switch, fid=None, table=10):
        """Ours, as `ovs-ofctl dump-flows` tells them, without counters and times."""
        found = [line for line in getattr(self, switch).rules(f"table={table}") if line.startswith(MARK)]
        if fid is not None:
            found = [
                line for line in found if int(line.split(",")[0].removeprefix("cookie="), 16) & 0xFFFF == fid
            ]
        return sorted(line.split("n_bytes=")[1].split(", ", 1)[1] for line in found)

    def gate_is_open(self, switch="s0"):
        return any("goto_table" in line or "resubmit" in line for line in self.rules(switch, table=0))

    def has_foreign_rule(self):
        return any("cookie=0x77" in line for line in self.s0.rules())

    def ha_packets(self):
        """Packets of flows through the home agent, both directions: into its tunnels and out of them."""
        counters = self.ha.agent.ask("counters")
        down = sum(flow["packets"] for flow in counters["flows"])
        out = self.mn.agent.ask("counters")
        return down, sum(flow["packets"] for flow in out["flows"])

    def probe(self, name, port, per_second=100.0, size=200, downlink=True):
        ends = Host(self.cn.popen, CORRESPONDENT), Host(self.mn.popen, HOME_ADDRESS)
        return UdpProbe(
            name, 1, *ends, self.folder, port=port, per_second=per_second, size=size, downlink=downlink
        )

    def run(self, seconds, *probes):
        """As many packets as some seconds bring; returns the accounting of each probe."""
        wanted = {node: datagrams_of(node) for node in (self.cn, self.mn)}
        for probe in probes:
            wanted[self.cn if probe.key.downlink else self.mn] += int(1000 * seconds / probe.spacing_ms)
        start_traffic(probes)
        for node, count in wanted.items():
            wait_until(lambda n=node, c=count: datagrams_of(n) >= c, 60, f"the traffic of {node.name}")
        return self.finish(*probes)

    def finish(self, *probes):
        assert stop_traffic(probes) == {}
        found = []
        for probe in probes:
            _, sent = read_probe_log(probe.logs[0])
            _, received = read_probe_log(probe.logs[1])
            found.append(
                account(
                    Sent(sent["sequence"], sent["sent_ns"], sent["octets"]),
                    Received(received["sequence"], received["received_ns"], received["octets"]),
                )
            )
        return found

    def events(self, node=None):
        found = read_events([self.folder / "events.jsonl"])
        return [event for event in found if node in (None, event["node"])]
