"""Hosts and routers of an emulated IPv6 network, as Mininet nodes that configure themselves.

Classes: `Host`, `CorrespondentNode`, `MobileNode`, `Router`, `HomeAgent`, `Advertiser`, `AccessRouter`,
`MobileRouter`.

They speak IPv6 only, and work under any `mininet.net.Mininet`. A node takes its addresses, routes and bridges
as parameters of its topology and sets them when Mininet configures it, once the links stand.
"""

import contextlib
import itertools
import json
import os
import shutil
import subprocess
import sys
import zlib
from collections.abc import Mapping, Sequence
from ipaddress import IPv6Address, IPv6Interface, IPv6Network
from pathlib import Path

from mininet.link import Link
from mininet.node import Node

from testbed.emulation.agent import STOP_TIMEOUT_S, Agent
from testbed.emulation.process import (
    EmulationError,
    end_processes,
    network_namespace,
    processes_in,
    wait_until,
)
from testbed.isolation import PRIVATE_DIRECTORY

PROJECT = Path(__file__).resolve().parents[2]
#: An emulated machine takes its time; an agent that ends at its start is noticed at once.
AGENT_START_TIMEOUT_S = 60.0
BRIDGE_FILTER = "/proc/sys/net/bridge/bridge-nf-call-ip6tables"
IFA_F_DADFAILED, IFA_F_TENTATIVE = 0x08, 0x40  # linux/if_addr.h

#: Set before a node has links, so that these take it over. IPv6 may be off in a container. Duplicate address
#: detection would hold back every address for a second (RFC 4862 §5.4); no two nodes here can have the same
#: one, because the topology gives all static addresses and hardware addresses are drawn at random.
#: A first Router Solicitation goes out without the random delay of RFC 4861 §6.3.7.
SYSCTLS = {f"net/ipv6/conf/{scope}/{name}": value for scope in ("all", "default") for name, value in {
    "disable_ipv6": 0, "accept_dad": 0, "dad_transmits": 0, "use_tempaddr": 0, "router_solicitation_delay": 0,
}.items()} | {"net/ipv6/conf/lo/disable_ipv6": 0}
#: The same TCP whatever the machine's default: what is measured is not to depend on that, nor on earlier
#: connections. Some kernels list congestion controls that they refuse in a namespace: the first one that is
#: taken.
TCP_SETTINGS = ("{ cd /proc/sys/net/ipv4; echo 1 >tcp_no_metrics_save; "
                "echo cubic >tcp_congestion_control || echo reno >tcp_congestion_control; } 2>/dev/null || :")
HOST_SYSCTLS = {f"net/ipv6/conf/{scope}/{name}": value for scope in ("all", "default") for name, value in {
    "forwarding": 0, "accept_ra": 2, "autoconf": 1}.items()}
ROUTER_SYSCTLS = {f"net/ipv6/conf/{scope}/{name}": value for scope in ("all", "default") for name, value in {
    "forwarding": 1, "accept_ra": 0, "autoconf": 0}.items()}


class Host(Node):
    """An IPv6 host.

    addresses: interface name to addresses with prefix length; routes: pairs of destination ("default" or a
    prefix) and gateway; bridges: names of bridges, made before the links that are to be their ports.
    log_directory: where logs, events and agent configurations are kept (the node's private folder if not
    given). agent_configuration: of an agent that is to run as soon as the node is configured. host_names:
    name to address, what commands in this node can call the others (/etc/hosts here). Raises EmulationError
    where the kernel has no IPv6, and where what the node starts does not start.
    """

    sysctls: Mapping[str, int] = SYSCTLS | HOST_SYSCTLS

    def __init__(self, name: str, addresses: Mapping[str, Sequence[str]] | None = None,
                 routes: Sequence[tuple[str, str]] = (), bridges: Sequence[str] = (),
                 log_directory: str | os.PathLike | None = None, agent_configuration: Mapping | None = None,
                 host_names: Mapping[str, str] | None = None, **parameters):
        self.addresses = {interface: [IPv6Interface(address) for address in values]
                          for interface, values in (addresses or {}).items()}
        self.routes = [(destination, IPv6Address(gateway)) for destination, gateway in routes]
        self.bridges = tuple(bridges)
        self.agent: Agent | None = None
        self.agent_configuration = agent_configuration
        self.host_names = dict(host_names or {})
        self.spawned: list[subprocess.Popen] = []
        self.run_directory = Path(PRIVATE_DIRECTORY, name)
        self.control_socket = str(Path(PRIVATE_DIRECTORY, f"{name}.sock"))
        try:
            self.run_directory.mkdir(parents=True)
        except FileExistsError:
            raise EmulationError(f"{self.run_directory} is in use by another network with such a node: "
                                 "start each with `run mn`, or call isolate() first.") from None
        self.log_directory = Path(log_directory or self.run_directory)
        parameters.pop("ip", None)  # Mininet's IPv4 default
        try:
            super().__init__(name, **parameters)
        except BaseException:
            self.terminate()
            raise

    def startShell(self, mnopts: str | None = None) -> None:
        super().startShell(mnopts)
        self.namespace = network_namespace(self.pid)
        if not os.path.isdir("/proc/sys/net/ipv6"):
            raise EmulationError("this kernel has no IPv6: start it without ipv6.disable=1.")
        commands = [f"echo {value} >/proc/sys/{key}" for key, value in self.sysctls.items()]
        commands += [TCP_SETTINGS, "ip link set lo up"]
        if self.bridges:  # their ports shall have no address: only interfaces that `config` sets up have one
            commands.append("echo 1 >/proc/sys/net/ipv6/conf/default/addr_gen_mode")
            # nor shall what a bridge takes in meet the rules of its node before it is known to be for it
            commands.append(f"[ ! -e {BRIDGE_FILTER} ] || echo 0 >{BRIDGE_FILTER}")
        for bridge in self.bridges:
            commands += [f"ip link add {bridge} address {self._hardware_address(bridge)} type bridge"
                         " forward_delay 0 stp_state 0 mcast_snooping 0", f"ip link set {bridge} up"]
        self.execute("sh", "-e", input="\n".join(commands) + "\n")

    def config(self, **parameters) -> dict:
        """Set addresses and routes, and start the agent that the node was made with."""
        commands = []
        for interface, addresses in self.addresses.items():
            if interface != "lo":  # its link-local address, see startShell
                commands.append(f"echo 0 >/proc/sys/net/ipv6/conf/{interface}/addr_gen_mode")
            commands += [f"ip address add {address} dev {interface} nodad" for address in addresses]
        commands += [f"ip route replace {destination} via {gateway}" for destination, gateway in self.routes]
        if self.host_names and os.path.isfile("/etc/hosts"):  # a bind mount needs something to stand on
            names = self.run_directory / "hosts"
            names.write_text("127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n" + "".join(
                f"{address} {name}\n" for name, address in self.host_names.items()))
            commands.append(f"mount --bind {names} /etc/hosts")  # seen in this node only
        self.execute("sh", "-e", input="\n".join(commands) + "\n")
        for interface in self.intfList():
            interface.ip = self.IP(interface)  # what Mininet's commands show
        if self.agent_configuration:
            self.start_agent(self.agent_configuration)
        return {}

    def IP(self, intf=None) -> str | None:
        """A static address of an interface, or of the node: for a mobile node, its home address."""
        addresses = self.addresses.get(str(intf), ()) if intf else itertools.chain(*self.addresses.values())
        return next((str(address.ip) for address in addresses), None)

    def terminate(self) -> None:
        """Undo all that this node has made: its processes, its folder, and with its shell its namespace."""
        if getattr(self, "shell", None):  # there is none where its start failed
            self.stop_processes()
            super().terminate()
        shutil.rmtree(self.run_directory, ignore_errors=True)
        with contextlib.suppress(OSError):  # the last one out; a private /run keeps its tmp folder
            os.rmdir(PRIVATE_DIRECTORY)

    def _popen(self, cmd, **params):
        params.setdefault("env", self.environment())
        return super()._popen(cmd, **params)

    def environment(self) -> dict[str, str]:
        """What a command here sees: `flowbind` and `python` are the project's, for this node's agent."""
        path = os.pathsep.join([os.path.join(sys.prefix, "bin"), os.environ.get("PATH", ""),
                                "/usr/local/sbin:/usr/sbin:/sbin"])
        modules = os.pathsep.join(filter(None, [str(PROJECT), os.environ.get("PYTHONPATH")]))
        return os.environ | {"PATH": path, "PYTHONPATH": modules, "FLOWBIND_SOCKET": self.control_socket}

    def execute(self, *command: str, input: str | None = None) -> str:
        """Run a command in this node, return its standard output. Raises EmulationError if it fails."""
        done = subprocess.run([*self.command_prefix, *command], input=input, capture_output=True, text=True,
                              env=self.environment())
        if done.returncode != 0:
            raise EmulationError(f"{self.name}: {' '.join(command)} failed: {done.stderr.strip()}")
        return done.stdout

    def spawn(self, *command: str, log: str) -> subprocess.Popen:
        """Start a command in this node, away from the terminal; it ends with the node, at the latest.

        Its output is appended to the file `log` in the log folder.
        """
        with open(self.log_directory / log, "ab") as output:
            process = subprocess.Popen(
                [*self.command_prefix, *command], stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                env=self.environment(), start_new_session=True)
        self.spawned.append(process)
        return process

    @property
    def command_prefix(self) -> list[str]:
        """What, put before a command, runs it in this node."""
        return ["mnexec", "-a", str(self.pid)]

    def link(self, interface: str) -> Link:
        """The link that an interface is an end of: an access link's has `set_carrier` and `move`."""
        return self.nameToIntf[interface].link

    def stop_processes(self) -> None:
        """End the agent in good order, then everything else in this node but its shell."""
        if self.agent:
            self.stop_agent()
        end_processes(set(processes_in([self.namespace])) - {self.pid, os.getpid()})
        while self.spawned:
            self.spawned.pop().wait()

    def start_agent(self, configuration: Mapping, timeout_s: float = AGENT_START_TIMEOUT_S) -> Agent:
        """Start an agent with this configuration and return it when it is ready.

        Unless the configuration says otherwise, its control socket is this node's; its events go to
        `events.jsonl` and its messages to `NAME-agent.log` in the log folder. Raises EmulationError.
        """
        if self.agent and self.agent.process.poll() is None:
            raise EmulationError(f"{self.name}: its agent runs already.")
        configuration = dict(configuration)
        configuration["control"] = {"socket": self.control_socket} | dict(configuration.get("control", {}))
        configuration["log"] = ({"level": "info", "events": str(self.log_directory / "events.jsonl")}
                                | dict(configuration.get("log", {})))
        self.agent = Agent(self.command_prefix, configuration, file=self.log_directory / f"{self.name}.toml",
                           log=self.log_directory / f"{self.name}-agent.log", environment=self.environment())
        try:
            self.agent.await_ready(timeout_s)
        except BaseException:
            self.kill_agent()
            raise
        return self.agent

    def stop_agent(self, timeout_s: float = STOP_TIMEOUT_S) -> int | None:
        """End the agent in good order; returns its exit status (None: there was none)."""
        agent, self.agent = self.agent, None
        return agent and agent.stop(timeout_s)

    def kill_agent(self) -> int | None:
        """End the agent as a crash would: what it had set in the kernel stays."""
        agent, self.agent = self.agent, None
        return agent and agent.kill()

    def global_addresses(self, interface: str) -> list[IPv6Address]:
        """The usable global addresses of an interface, in no order."""
        found = []
        with open(f"/proc/{self.pid}/net/if_inet6") as table:
            for line in table:
                address, _, _, scope, flags, name = line.split()
                usable = not int(flags, 16) & (IFA_F_TENTATIVE | IFA_F_DADFAILED)
                if name == interface and scope == "00" and usable:
                    found.append(IPv6Address(int(address, 16)))
        return found

    def _hardware_address(self, bridge: str) -> str:
        """A fixed address for a bridge, which would change its own with its ports; locally administered."""
        digest = zlib.crc32(f"{self.name}/{bridge}".encode())
        return "02:00:" + ":".join(f"{byte:02x}" for byte in digest.to_bytes(4, "big"))


class CorrespondentNode(Host):
    """A host that a mobile node talks to; without an agent it knows nothing of mobility."""


class MobileNode(Host):
    """A host with an interface in each of several access networks and an address of its own at home.

    home_address stands on the loopback interface; access_interfaces are those that form care-of addresses.
    """

    def __init__(self, name: str, home_address: str, access_interfaces: Sequence[str], **parameters):
        self.home_address = IPv6Address(home_address)
        self.access_interfaces = tuple(access_interfaces)
        addresses = {"lo": [f"{home_address}/128"]} | dict(parameters.pop("addresses", None) or {})
        super().__init__(name, addresses=addresses, **parameters)

    def care_of_address(self, interface: str) -> IPv6Address | None:
        """The address that stateless autoconfiguration made for an interface (RFC 4862 §5.5.3), if any.

        After a move to another access network there may be two for a while: it is the one that is still
        being advertised.
        """
        addresses = self.global_addresses(interface)
        if len(addresses) > 1:
            (listing,) = json.loads(self.execute("ip", "-6", "-json", "address", "show", "dev", interface))
            advertised = max((entry for entry in listing["addr_info"] if entry.get("scope") == "global"),
                             key=lambda entry: entry.get("valid_life_time", 0))
            return IPv6Address(advertised["local"])
        return addresses[0] if addresses else None

    def await_care_of_addresses(self, timeout_s: float = 30.0) -> dict[str, IPv6Address]:
        """Wait until each access interface has a care-of address, return them. Raises EmulationError."""
        return {interface: wait_until(lambda name=interface: self.care_of_address(name), timeout_s,
                                      f"a care-of address on {interface}")
                for interface in self.access_interfaces}


class Router(Host):
    """A host that forwards."""

    sysctls = SYSCTLS | ROUTER_SYSCTLS


class Advertiser(Host):
    """A host whose bridge `lan0` is a network with Router Advertisements for `prefix`.

    The intervals are those of RFC 6275 §7.5, so that a mobile node has its care-of address at once;
    `valid_lifetime_s` and `preferred_lifetime_s` are those of its address: no binding lasts longer than the
    care-of address is valid (RFC 6275 §11.7.1).
    """

    bridge = "lan0"
    RADVD_HOME_AGENT = RADVD_PREFIX = ""
    RADVD_CONFIGURATION = """\
interface {bridge} {{
    AdvSendAdvert on;
    AdvIntervalOpt on;        # RFC 6275 section 7.3; it is what allows intervals below 3 s
    MinRtrAdvInterval 0.03;
    MaxRtrAdvInterval 0.07;
    MinDelayBetweenRAs 0.03;
    AdvDefaultLifetime {router_lifetime_s};
    {home_agent}
    prefix {prefix} {{
        {more}
        AdvOnLink on;
        AdvAutonomous on;
        AdvValidLifetime {valid_lifetime_s};
        AdvPreferredLifetime {preferred_lifetime_s};
    }};
}};
"""

    def __init__(self, name: str, prefix: str, router_lifetime_s: int = 3, valid_lifetime_s: int = 120,
                 preferred_lifetime_s: int = 10, **parameters):
        self.prefix = IPv6Network(prefix)
        self.advertised = prefix
        self.lifetimes = {"router_lifetime_s": router_lifetime_s, "valid_lifetime_s": valid_lifetime_s,
                          "preferred_lifetime_s": preferred_lifetime_s}
        super().__init__(name, bridges=[self.bridge], **parameters)

    def config(self, **parameters) -> dict:
        result = super().config(**parameters)
        self.start_advertising()
        return result

    def start_advertising(self) -> None:
        """Start radvd on the access network. Raises EmulationError if it is not installed."""
        radvd = shutil.which("radvd", path=self.environment()["PATH"])
        if not radvd:
            raise EmulationError("radvd, which sends the Router Advertisements, is missing: install it with "
                                 "`apt-get install radvd`.")
        configuration = self.run_directory / "radvd.conf"
        configuration.write_text(self.RADVD_CONFIGURATION.format(
            bridge=self.bridge, prefix=self.advertised, home_agent=self.RADVD_HOME_AGENT,
            more=self.RADVD_PREFIX, **self.lifetimes))
        self.spawn(radvd, "--nodaemon", "--config", str(configuration),
                   "--pidfile", str(self.run_directory / "radvd.pid"),
                   "--logmethod", "stderr", log=f"{self.name}-radvd.log")


class AccessRouter(Advertiser, Router):
    """A router whose access network is the bridge `lan0`: access links are ports of that bridge.

    anchor_points: mobility anchor points that it advertises (RFC 5380), as `ADDRESS,DISTANCE`.
    """

    def __init__(self, name: str, anchor_points: Sequence[str] = (), **parameters):
        self.anchor_points = tuple(anchor_points)
        super().__init__(name, **parameters)

    def start_advertising(self) -> None:
        """Start radvd, or an advertiser of ours where there are anchor points to advertise."""
        if not self.anchor_points:
            return super().start_advertising()
        options = [f"--{key.replace('_s', '').replace('_', '-')}={value}"
                   for key, value in self.lifetimes.items()]
        options += [f"--map={anchor_point}" for anchor_point in self.anchor_points]
        self.spawn(sys.executable, "-m", "testbed.agent.advertiser", "--interface", self.bridge,
                   "--prefix", str(self.prefix), *options, log=f"{self.name}-advertiser.log")


class HomeAgent(Advertiser, Router):
    """A router on the home link; `address` is the home agent's, on the bridge `home_interface`.

    With `advertise` it sends Router Advertisements there, as a home agent does (RFC 6275 §7): a mobile node
    that comes there knows that it is at home.
    """

    RADVD_HOME_AGENT = "AdvHomeAgentFlag on;"
    RADVD_PREFIX = "AdvRouterAddr on;"

    def __init__(self, name: str, home_interface: str, home_prefix: str, advertise: bool = False,
                 **parameters):
        self.home_interface = self.bridge = home_interface
        self.home_prefix = IPv6Network(home_prefix)
        self.advertise = advertise
        super().__init__(name, prefix=home_prefix, **parameters)
        self.address = self.addresses[home_interface][0].ip
        self.advertised = f"{self.address}/{self.home_prefix.prefixlen}"

    def start_advertising(self) -> None:
        if self.advertise:
            super().start_advertising()


class MobileRouter(Advertiser, MobileNode):
    """A mobile node that is the router of the mobile network on its bridge `lan0` (RFC 3963).

    It forwards, but on its access interfaces it is a host: it listens to routers and is not taken for one
    (RFC 3963 §5.6, §5.7).
    """

    sysctls = SYSCTLS | HOST_SYSCTLS | {"net/ipv6/conf/all/forwarding": 1,
                                        "net/ipv6/conf/default/forwarding": 0}

    def config(self, **parameters) -> dict:
        self.execute("sh", "-e", input=f"echo 1 >/proc/sys/net/ipv6/conf/{self.bridge}/forwarding\n"
                                       f"echo 0 >/proc/sys/net/ipv6/conf/{self.bridge}/accept_ra\n")
        return super().config(**parameters)
