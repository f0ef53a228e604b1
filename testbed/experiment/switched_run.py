"""A run over the network with switches. Class: `SwitchedRun`. Dataclass: `Load`."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testbed.emulation.controller import FlowBindingController
from testbed.emulation.process import wait_until
from testbed.emulation.switched_network import SwitchedNetwork
from testbed.experiment.narrator import Narrator
from testbed.experiment.run import Run
from topologies.sdn import SdnTopology


@dataclass(frozen=True, slots=True)
class Load:
    """What a part of the network had to carry or send, since it began or between two times."""

    packets: int
    octets: int

    def __sub__(self, other: "Load") -> "Load":
        return Load(self.packets - other.packets, self.octets - other.octets)


class SwitchedRun(Run):
    """A run in which a controller mirrors flow bindings into the switches, if `mirrored`; else they are only
    there, and everything is the home agent's."""

    def __init__(
        self, topology: SdnTopology, folder: Path, narrator: Narrator, *, mirrored: bool, **parameters: Any
    ) -> None:
        super().__init__(topology, folder, narrator, **parameters)
        self.network = SwitchedNetwork(topology, self.logs)
        self.controller: FlowBindingController | None = None
        if mirrored:
            self.controller = self.network.addController(
                "controller",
                controller=FlowBindingController,
                fabric=topology.fabric(["/run/flowbind/ha.sock"]),
            )

    def start_agents(self, mobile_node: Mapping[str, Any], home_agent: Mapping[str, Any]) -> None:
        """Start the agents. The mobile node's answers without a tunnel where packets come without one."""
        datapath = dict(mobile_node.get("datapath", {})) | {"native_uplink": self.controller is not None}
        super().start_agents(dict(mobile_node) | {"datapath": datapath}, home_agent)

    def await_mirrored(self, *fids: int, timeout_s: float = 30.0) -> None:
        """Wait until the switches have the rules of these flow bindings."""
        if self.controller is None:
            return

        def mirrored() -> bool:
            flows = [flow for home in self.controller.ask("rules") for flow in home["flows"]]
            return set(fids) <= {flow["fid"] for flow in flows if flow["mirrored"]}

        wait_until(mirrored, timeout_s, f"the switch rules of flow bindings {fids}")

    def home_agent_load(self) -> Load:
        """What has come to the home agent from the core: packets to tunnel, tunnel packets, signalling."""
        (link,) = json.loads(self.ha.execute("ip", "-json", "-s", "link", "show", "dev", "ha-core"))
        return Load(link["stats64"]["rx"]["packets"], link["stats64"]["rx"]["bytes"])

    def openflow_load(self) -> Load:
        """Messages that the controller has sent to the switches."""
        if self.controller is None:
            return Load(0, 0)
        sent = self.controller.ask("status")["sent"]
        return Load(sent["messages"], sent["octets"])
