"""A network with OpenFlow switches that leaves nothing behind. Class: `SwitchedNetwork`."""

import os

from mininet.topo import Topo

from testbed.emulation.network import Network
from testbed.emulation.openvswitch import OpenVSwitchDaemon


class SwitchedNetwork(Network):
    """A `Network` whose switches are bridges of an Open vSwitch of its own.

    switch_datapath: "auto", "kernel" or "user". Controllers are added before the start::

        network = SwitchedNetwork(topology)
        fabric = topology.fabric(["/run/flowbind/ha.sock"])
        network.addController("controller", controller=FlowBindingController, fabric=fabric)
        with network:
            ...
    """

    def __init__(
        self, topology: Topo, log_directory: str | os.PathLike | None = None, switch_datapath: str = "auto"
    ) -> None:
        super().__init__(topology, log_directory)
        self.daemon = OpenVSwitchDaemon(switch_datapath, self.log_directory)

    def addSwitch(self, name, cls=None, **params):
        if not self.switches:
            self._undo.callback(self.daemon.stop)
        switch = super().addSwitch(name, cls, daemon=self.daemon, **params)
        self._undo.callback(switch.terminate)
        return switch

    def addController(self, name="controller", controller=None, **params):
        if self.log_directory:
            params.setdefault("log_directory", self.log_directory)
        added = super().addController(name, controller, **params)
        self._undo.callback(added.terminate)
        self._undo.callback(added.stop)
        return added

    def stop(self) -> None:
        """End the controllers, while there are switches to take rules out of, and then everything else."""
        for controller in self.controllers:
            controller.stop()
        super().stop()
        self.switches, self.controllers = [], []
