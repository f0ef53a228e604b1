"""A plain network (no Mininet) with real agents. Classes: `AgentNetwork`, `Agent`.

    hn -- home0 (ha) -- core (ar) -- bridges wlan, cellular, other -- mn-wlan, mn-cellular (mn)

Access routers are one namespace with real Router Advertisements; care-of addresses come from SLAAC.
"""

import json
import signal
import subprocess
import sys
from pathlib import Path

from datapath_network import Namespace, wait_for

from testbed.agent.control import Client
from testbed.measure.events import read_events

ROOT = Path(__file__).resolve().parents[2]
HOME_AGENT, HOME_ADDRESS = "2001:db8:100::1", "2001:db8:100::100"
CORRESPONDENT = "2001:db8:300::2"
#: What has a mobile node optimise its route to the correspondent node.
OPTIMISED = f'[[correspondent]]\naddress = "{CORRESPONDENT}"\n'
KEY = "00112233445566778899aabbccddeeff"
PREFIXES = {"wlan": "2001:db8:201::", "cellular": "2001:db8:202::", "other": "2001:db8:203::"}

MOBILE_NODE = f"""
role = "mobile-node"
name = "mn"
home_address = "{HOME_ADDRESS}"
home_agent = "{HOME_AGENT}"
state = "FOLDER/mn.state"
security = {{ spi = 1000, key = "{KEY}" }}
[[interface]]
name = "mn-wlan"
bid = 1
priority = 20
[[interface]]
name = "mn-cellular"
bid = 2
priority = 10
[[flow]]
fid = 1
bids = ["wlan"]
next_header = "tcp"
source_port = 22
"""
HOME = f"""
role = "home-agent"
name = "ha"
address = "{HOME_AGENT}"
home_interface = "home0"
home_prefixes = ["2001:db8:100::/64"]
state = "FOLDER/ha.state"
security_association = [{{ home_address = "{HOME_ADDRESS}", spi = 1000, key = "{KEY}" }}]
duplicate_address_detection = false
"""
CORRESPONDENT_NODE = """
role = "correspondent-node"
name = "cn"
state = "FOLDER/cn.state"
"""
COMMON = """
[control]
socket = "FOLDER/NAME.sock"
[log]
events = "FOLDER/events.jsonl"
"""


class AgentNetwork:
    """The namespaces, as attributes: ha, hn, ar, mn. `close` ends everything in them. `valid_s`: the valid
    lifetime of the access networks' prefixes, in seconds; `link_local`: the link-local address of all access
    routers, by default each has its own."""

    def __init__(self, folder: Path, valid_s: int = 86400, link_local: str | None = None) -> None:
        self.ha, self.hn, self.ar, self.mn = (Namespace(name) for name in ("ha", "hn", "ar", "mn"))
        self._at_home: set[str] = set()
        forwarding = "echo 1 >/proc/sys/net/ipv6/conf/all/forwarding; "
        self.ha.shell(
            f"{forwarding}"
            f"ip link add home0 type bridge; ip link add hn type veth peer name eth0 netns {self.hn.pid}; "
            "ip link set hn master home0 up; "
            f"ip link add core type veth peer name core netns {self.ar.pid}; "
            f"ip link set home0 up; ip link set core up; ip -6 addr add {HOME_AGENT}/64 dev home0 nodad; "
            "ip -6 addr add 2001:db8:ff01::1/64 dev core nodad; "
            "ip -6 route add 2001:db8:200::/40 via 2001:db8:ff01::2"
        )
        self.hn.shell(
            "ip link set eth0 up; ip -6 addr add 2001:db8:100::2/64 dev eth0 nodad; "
            f"ip -6 route add default via {HOME_AGENT}"
        )
        self.ar.shell(
            f"{forwarding} ip link set core up; ip -6 addr add 2001:db8:ff01::2/64 dev core nodad; "
            "ip -6 route add default via 2001:db8:ff01::1"
        )
        for name, prefix in PREFIXES.items():
            self.ar.shell(
                f"ip link add {name} type bridge; "
                f"{f'ip link set {name} addrgenmode none; ' if link_local else ''}ip link set {name} up; "
                f"{f'ip -6 addr add {link_local}/64 dev {name} nodad; ' if link_local else ''}"
                f"ip -6 addr add {prefix}1/64 dev {name} nodad"
            )
        self.mn.shell("ip link add spare1 type veth peer name spare2")  # or veth ends share their index
        for name in ("wlan", "cellular"):
            self.mn.shell(f"ip link add mn-{name} type veth peer name {name}-mn netns {self.ar.pid}")
            self.ar.shell(f"ip link set {name}-mn master {name} up")
            settings = f"/proc/sys/net/ipv6/conf/mn-{name}"
            self.mn.shell(f"echo 0 >{settings}/router_solicitation_delay; ip link set mn-{name} up")
        file = folder / "radvd.conf"
        file.write_text(
            "".join(
                f"interface {name} {{ AdvSendAdvert on; AdvIntervalOpt on; MinRtrAdvInterval 0.2; "
                f"MaxRtrAdvInterval 0.5; MinDelayBetweenRAs 0.05; AdvDefaultLifetime 9000; "
                f"prefix {prefix}1/64 {{ AdvOnLink on; AdvAutonomous on; AdvRouterAddr on; "
                f"AdvValidLifetime {valid_s}; AdvPreferredLifetime {min(valid_s, 14400)}; }}; }};\n"
                for name, prefix in PREFIXES.items()
            )
        )
        self.ar.start(
            "radvd", "-n", "-C", str(file), "-p", str(folder / "radvd.pid"), "-m", "stderr",
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        for name in ("wlan", "cellular"):
            wait_for(lambda name=name: self.address(f"mn-{name}"))

    def address(self, interface: str, prefix: str = "2001:db8:") -> str | None:
        """The global address of an interface of the mobile node."""
        found = json.loads(self.mn.shell(f"ip -j -6 addr show dev {interface} scope global"))
        entries = [entry.get("local", "") for link in found for entry in link.get("addr_info", ())]
        return next((address for address in entries if address.startswith(prefix)), None)

    def set_link(self, name: str, up: bool) -> None:
        """Pull or plug the access router's end: the mobile node's loses or gains carrier."""
        self.ar.shell(f"ip link set {name}-mn {'up' if up else 'down'}")

    def plug(self, name: str, network: str) -> None:
        """Have the mobile node's interface to the access network `name` in another network, unnoticed: the
        carrier stays."""
        self.ar.shell(f"ip link set {name}-mn master {network}")

    def bring_home(self, name: str) -> None:
        """Have the mobile node's interface to the access network `name` on the home link."""
        self._at_home.add(name)
        self.ar.shell(f"ip link set {name}-mn nomaster netns {self.ha.pid}")
        self.ha.shell(f"ip link set {name}-mn master home0 up")

    def take_away(self, name: str) -> None:
        """And back, if it is there."""
        if name not in self._at_home:
            return
        self._at_home.remove(name)
        self.ha.shell(f"ip link set {name}-mn nomaster netns {self.ar.pid}")
        self.ar.shell(f"ip link set {name}-mn master {name} up")

    def advertise_home(self, folder: Path, more: str = "") -> None:
        """Router Advertisements on the home link, with these options of radvd's."""
        file = folder / "home.conf"
        file.write_text(
            "interface home0 { AdvSendAdvert on; MinRtrAdvInterval 0.2; MaxRtrAdvInterval 0.5; "
            f"MinDelayBetweenRAs 0.05; AdvDefaultLifetime 9000; AdvHomeAgentFlag on; {more} "
            "prefix 2001:db8:100::/64 { AdvOnLink on; AdvAutonomous on; }; };\n"
        )
        self.ha.start(
            "radvd", "-n", "-C", str(file), "-p", str(folder / "home.pid"), "-m", "stderr",
            stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def add_correspondent(self) -> Namespace:
        """A correspondent node behind the access router, as attribute `cn`."""
        self.cn = Namespace("cn")
        self.ar.shell(
            f"ip link add cn type veth peer name eth0 netns {self.cn.pid}; ip link set cn up; "
            "ip -6 addr add 2001:db8:300::1/64 dev cn nodad"
        )
        self.cn.shell(
            f"ip link set eth0 up; ip -6 addr add {CORRESPONDENT}/64 dev eth0 nodad; "
            "ip -6 route add default via 2001:db8:300::1"
        )
        self.ha.shell("ip -6 route add 2001:db8:300::/64 via 2001:db8:ff01::2")
        return self.cn

    def close(self) -> None:
        for node in (self.mn, self.hn, self.ha, self.ar, *([self.cn] if hasattr(self, "cn") else [])):
            node.close()


class Agent:
    """A real agent in a namespace. A context manager that kills it, if need be. `more`, `first`: what its
    configuration has after and before the rest; `text`: that rest."""

    def __init__(
        self, node: Namespace, folder: Path, more: str = "", first: str = "", text: str | None = None
    ) -> None:
        self.node, self.folder, self.name = node, folder, node.name
        if text is None:
            text = {"mn": MOBILE_NODE, "ha": HOME, "cn": CORRESPONDENT_NODE}[node.name]
        text = first + text + more + COMMON
        self.file = folder / f"{node.name}.toml"
        self.file.write_text(text.replace("FOLDER", str(folder)).replace("NAME", node.name))
        self.file.chmod(0o600)
        self.socket = str(folder / f"{node.name}.sock")
        self.start()

    def start(self) -> None:
        """Start it (again), until it says that it is ready."""
        self.process = self.node.start(
            sys.executable, "-m", "testbed.agent", str(self.file), cwd=ROOT, text=True, stdout=subprocess.PIPE
        )
        assert self.process.stdout.readline() == "ready\n"

    def __enter__(self) -> "Agent":
        return self

    def __exit__(self, *exception: object) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal; the exit status."""
        self.process.send_signal(number)
        return self.process.wait(20)

    def ask(self, command: str, **arguments: object) -> object:
        with Client(self.socket) as client:
            return client.request(command, **arguments)

    def flowbind(self, *arguments: str) -> subprocess.CompletedProcess:
        """Run the command as a person does."""
        program = "import sys; from testbed.agent.command import main; sys.exit(main())"
        return subprocess.run(
            [sys.executable, "-c", program, "--socket", self.socket, *arguments],
            cwd=ROOT, text=True, capture_output=True, timeout=30,
        )  # fmt: skip

    def events(self, name: str, since: float = 0.0) -> list[dict]:
        """What it has recorded under this name."""
        events = read_events([self.folder / "events.jsonl"])
        return [e for e in events if e["node"] == self.name and e["event"] == name and e["t"] >= since]
