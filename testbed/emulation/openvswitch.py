"""Open vSwitch as Mininet switches, run by the network itself: nothing of the machine's own is used or
changed.

Classes: `OpenVSwitchDaemon`, `OpenVSwitch`. Function: `choose_datapath`.

The daemon keeps its database, sockets and logs in a folder of its own. With the kernel's datapath where
there is one, else with that of Open vSwitch in user space, which works on any kernel with TUN/TAP (some
0.8 Gbit/s).
"""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from mininet.node import Controller, Switch

from testbed.emulation.ethernet_offload import stop_transmit_checksums
from testbed.emulation.link_device import Device, Namespace
from testbed.emulation.process import EmulationError, end_processes, wait_until
from testbed.isolation import PRIVATE_DIRECTORY

SCHEMA = "/usr/share/openvswitch/vswitch.ovsschema"
START_TIMEOUT_S = 60.0
BACKENDS = ("auto", "kernel", "user")
#: Rules that belong to the switch itself; the cookie tells them from a controller's.
BASE_COOKIE = 0xBA5E


def choose_datapath(forced: str = "auto") -> str:
    """Open vSwitch's name of the datapath to use here: "system" (the kernel's) or "netdev" (user space).

    forced: one of BACKENDS. Raises EmulationError when that cannot be had.
    """
    if forced not in BACKENDS:
        raise EmulationError(f"there is no switch datapath {forced!r}; there are {', '.join(BACKENDS)}.")
    if forced == "user":
        return "netdev"
    # asking the kernel for this generic netlink family also makes it load the module
    found = subprocess.run(["ovs-dpctl", "dump-dps"], capture_output=True).returncode == 0
    if forced == "kernel" and not found:
        raise EmulationError(
            "this kernel has no Open vSwitch datapath (modprobe openvswitch); use auto or user."
        )
    return "system" if found else "netdev"


class OpenVSwitchDaemon:
    """One ovsdb-server and one ovs-vswitchd, for all the switches of a network.

    folder: for its files (a fresh one below the run's private folder if not given); logs go to
    `log_directory`. Raises EmulationError where Open vSwitch is not installed or does not start.
    """

    def __init__(self, datapath: str = "auto", log_directory: str | os.PathLike | None = None) -> None:
        for program in ("ovsdb-server", "ovs-vswitchd", "ovs-vsctl", "ovs-ofctl", "ovsdb-tool"):
            if not self._which(program):
                raise EmulationError(f"{program} is missing: `apt-get install openvswitch-switch`.")
        self.datapath = choose_datapath(datapath)
        self.folder = Path(PRIVATE_DIRECTORY, "openvswitch")
        self.log_directory = Path(log_directory or self.folder)
        #: Names of the switches that are there.
        self.bridges: set[str] = set()
        self._processes: list[subprocess.Popen] = []
        self._started = False

    _shared: "OpenVSwitchDaemon | None" = None

    @classmethod
    def shared(cls) -> "OpenVSwitchDaemon":
        """The one of all switches of this process that have no other."""
        cls._shared = cls._shared or cls()
        return cls._shared

    @property
    def running(self) -> bool:
        """Whether both programs are there."""
        return len(self._processes) == 2 and all(process.poll() is None for process in self._processes)

    @staticmethod
    def _which(program: str) -> str | None:
        return shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")

    @property
    def environment(self) -> dict[str, str]:
        """What makes the ovs commands speak to this daemon."""
        places = {
            name: str(self.folder) for name in ("OVS_RUNDIR", "OVS_DBDIR", "OVS_SYSCONFDIR", "OVS_LOGDIR")
        }
        return os.environ | places | {"PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin"}

    @property
    def database(self) -> str:
        """Where ovs-vsctl finds the database."""
        return f"unix:{self.folder}/db.sock"

    def start(self) -> None:
        """Start both programs; returns when they serve. Raises EmulationError."""
        if self._started:
            return
        self._started = True
        try:
            self.folder.mkdir(parents=True)
        except FileExistsError:
            raise EmulationError(
                f"{self.folder} is in use: another network with switches runs here."
            ) from None
        self._run("ovsdb-tool", "create", str(self.folder / "conf.db"), SCHEMA)
        self._spawn("ovsdb-server", str(self.folder / "conf.db"), f"--remote=punix:{self.folder}/db.sock")
        wait_until(lambda: self._is_served("db.sock"), START_TIMEOUT_S, "the start of ovsdb-server")
        # In user space, one thread both forwards packets and asks the kernel for statistics of ports, which
        # may wait for a lock that all namespaces share; nobody here reads those.
        self._run(
            "ovs-vsctl",
            f"--db={self.database}",
            "--no-wait",
            "init",
            "--",
            "set",
            "Open_vSwitch",
            ".",
            "other_config:stats-update-interval=86400000",
        )
        self.start_switching()

    def start_switching(self) -> None:
        """Start ovs-vswitchd, which finds its switches in the database; the rules in them are gone."""
        self._spawn("ovs-vswitchd", self.database)
        # this waits until it has set up what the database asks for; no change, no waiting
        process = self._processes[-1].pid
        self.vsctl("--timeout=60", "set", "Open_vSwitch", ".", f"external_ids:process={process}")

    def kill_switching(self) -> None:
        """End ovs-vswitchd as a crash would."""
        process = self._processes.pop()
        process.kill()
        process.wait()
        os.unlink(self._control("ovs-vswitchd"))

    def stop(self) -> None:
        """End both, and remove the folder."""
        if not self._started:
            return
        for process in reversed(self._processes):
            end_processes([process.pid])
            process.wait()
        self._processes.clear()
        shutil.rmtree(self.folder, ignore_errors=True)
        self._started = False

    def vsctl(self, *arguments: str) -> str:
        """Run ovs-vsctl. Raises EmulationError."""
        return self._run("ovs-vsctl", f"--db={self.database}", *arguments)

    def ofctl(self, command: str, bridge: str, *arguments: str, input: str | None = None) -> str:
        """Run ovs-ofctl with OpenFlow 1.3. Raises EmulationError."""
        management = f"unix:{self.folder}/{bridge}.mgmt"
        return self._run(
            "ovs-ofctl", "-O", "OpenFlow13", "--names", command, management, *arguments, input=input
        )

    def _is_served(self, name: str) -> bool:
        if self._processes[-1].poll() is not None:
            raise EmulationError(
                f"ovsdb-server ended at its start; see {self.log_directory}/ovsdb-server.log."
            )
        return (self.folder / name).exists()

    def _run(self, *command: str, input: str | None = None) -> str:
        done = subprocess.run(command, input=input, capture_output=True, text=True, env=self.environment)
        if done.returncode != 0:
            raise EmulationError(f"{' '.join(command[:4])} ... failed: {done.stderr.strip()}")
        return done.stdout

    def _spawn(self, program: str, *arguments: str) -> None:
        with open(self.log_directory / f"{program}.log", "ab") as log:
            command = [self._which(program), *arguments, f"--unixctl={self._control(program)}"]
            self._processes.append(
                subprocess.Popen(
                    ["nice", "-n", "-10", *command],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=self.environment,
                    start_new_session=True,
                )
            )

    def _control(self, program: str) -> str:
        return f"{self.folder}/{program}.ctl"


class OpenVSwitch(Switch):
    """A bridge of the network's OpenVSwitchDaemon.

    daemon: of all switches of the network; without one, as under `mn`, switches of this process share one,
    which ends with the last of them. base_rules: texts for `ovs-ofctl add-flows` that are the switch's own,
    with names of ports; without any it is an ordinary learning switch. vlans: port name -> VLAN, to keep
    ports apart that no rule connects. A switch does what its rules say whether a controller is there or not
    (`fail_mode=secure`).
    """

    def __init__(
        self,
        name: str,
        daemon: OpenVSwitchDaemon | None = None,
        base_rules: Sequence[str] = (),
        vlans: Mapping[str, int] | None = None,
        **parameters,
    ) -> None:
        self.shares_daemon = daemon is None
        self.daemon = daemon or OpenVSwitchDaemon.shared()
        self.base_rules = [*base_rules] or ["priority=0,actions=NORMAL"]
        self.vlans = dict(vlans or {})
        parameters.pop("log_directory", None)
        super().__init__(name, **parameters)

    @property
    def port_names(self) -> list[str]:
        return [interface.name for interface in self.intfList() if interface.name != "lo"]

    def start(self, controllers: Sequence[Controller]) -> None:
        """Make the bridge with its ports and base rules, and tell it where its controllers are."""
        self.daemon.start()
        self.daemon.bridges.add(self.name)
        arguments = [
            "add-br",
            self.name,
            "--",
            "set",
            "bridge",
            self.name,
            "fail_mode=secure",
            f"datapath_type={self.daemon.datapath}",
            "protocols=OpenFlow13",
            f"other_config:datapath-id={self.dpid}",
            "other_config:disable-in-band=true",
        ]
        for port in self.port_names:
            self._prepare(port)
            arguments += ["--", "add-port", self.name, port]
            if port in self.vlans:
                arguments += ["--", "set", "port", port, f"tag={self.vlans[port]}"]
        targets = [f"tcp:{controller.IP()}:{controller.port}" for controller in controllers]
        if targets:
            # probes find a controller that is there but silent; a lost one is looked for every second
            arguments += ["--", "set-controller", self.name, *targets]
            arguments += ["--", "set", "controller", self.name, "inactivity_probe=2000", "max_backoff=1000"]
        self.daemon.vsctl(*arguments)
        self.put_base_rules()

    def put_base_rules(self) -> None:
        """The rules that the switch has of its own; a restart of the daemon loses them."""
        lines = "".join(f"cookie={BASE_COOKIE:#x},{rule}\n" for rule in self.base_rules)
        self.daemon.ofctl("add-flows", self.name, "-", input=lines)

    def _prepare(self, port: str) -> None:
        device = Device(Namespace(self.pid), port)
        device.set_sysctl("disable_ipv6", 1)  # this namespace takes no part in what passes
        if self.daemon.datapath == "netdev":
            interface = self.nameToIntf[port]
            other = interface.link.intf1 if interface.link.intf2 is interface else interface.link.intf2
            if not isinstance(other.node, OpenVSwitch):
                stop_transmit_checksums(Device(Namespace(other.node.pid), other.name))

    def rules(self, *filters: str) -> list[str]:
        """What `ovs-ofctl dump-flows` says, a rule a line."""
        lines = self.daemon.ofctl("dump-flows", self.name, *filters).splitlines()
        return [line.strip() for line in lines if "actions=" in line]

    def stop(self, deleteIntfs: bool = True) -> None:
        """Remove the bridge; its ports are their links' to remove."""
        if self.daemon.running:
            self.daemon.vsctl("--if-exists", "del-br", self.name)
        self.daemon.bridges.discard(self.name)
        if self.shares_daemon and not self.daemon.bridges:
            self.daemon.stop()
        super().stop(deleteIntfs=False)
