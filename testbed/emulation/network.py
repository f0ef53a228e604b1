"""A whole emulated network that leaves nothing behind.

Class: `Network`.
"""

import contextlib
import os
import resource
from pathlib import Path

from mininet.link import Link
from mininet.log import info
from mininet.net import Mininet
from mininet.topo import Topo

from testbed.emulation.node import Host, MobileNode
from testbed.emulation.process import EmulationError, end_processes, processes_in


class Network(Mininet):
    """A Mininet network of IPv6 hosts, without switches and controllers of its own making.

    A context manager: started inside, stopped at its end::

        with Network(MultihomeTopology(), log_directory=out) as network:
            network["mn"].await_care_of_addresses()

    Whatever is made is noted for its removal in the same step, and `stop` removes exactly that, in reverse.
    Kernel-wide settings stay as they are (Mininet's own start changes some). Raises EmulationError.
    """

    def __init__(self, topology: Topo, log_directory: str | os.PathLike | None = None):
        if os.geteuid() != 0:
            raise EmulationError("a network needs root: start it with sudo.")
        _raise_open_file_limit()
        Mininet.inited = True  # it would change kernel-wide settings
        self.log_directory = log_directory and Path(log_directory)
        self._undo = contextlib.ExitStack()
        super().__init__(topo=topology, host=Host, link=Link, controller=None, switch=None, build=False)

    def __enter__(self) -> "Network":
        self.start()
        return self

    def __exit__(self, *exception) -> None:
        self.stop()

    def start(self) -> None:
        """Make nodes and links, and configure them; whatever fails, nothing of it stays."""
        if self.log_directory:
            self.log_directory.mkdir(parents=True, exist_ok=True)
        try:
            super().start()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End agents (mobile nodes first: they de-register), all other processes, links and nodes."""
        info("*** Stopping the network\n")
        try:
            for node in self.hosts:
                if isinstance(node, MobileNode) and node.agent:
                    node.agent.begin_stop()  # all at once
            for node in sorted(self.hosts, key=lambda node: not isinstance(node, MobileNode)):
                node.stop_agent()
            shells = {node.pid for node in self.hosts}
            end_processes(set(processes_in(node.namespace for node in self.hosts)) - shells - {os.getpid()})
        finally:
            self._undo.close()
            self.hosts, self.links, self.nameToNode, self.built = [], [], {}, False

    def addHost(self, name, cls=None, **params):
        if self.log_directory:
            params.setdefault("log_directory", self.log_directory)
        host = super().addHost(name, cls, **params)
        self._undo.callback(host.terminate)
        return host

    def addLink(self, *arguments, **parameters):
        link = super().addLink(*arguments, **parameters)
        self._undo.callback(link.stop)
        return link

    def draw(self) -> str:
        """The network as text for people: the topology's own drawing."""
        return self.topo.draw()


def _raise_open_file_limit() -> None:
    """Each node costs a few descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 16384 if hard == resource.RLIM_INFINITY else min(16384, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
