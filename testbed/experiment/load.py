"""One run with many mobile nodes and flow bindings: the case of kind "load". Function: `run_load`.

Parameters of the case: `mobile_nodes`, `flow_bindings` (of each mobile node), `links` (two link profiles).
All mobile nodes register; then all lose their first network at the same time, and get it back.
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from testbed.emulation.process import wait_until
from testbed.emulation.security import METHODS
from testbed.experiment.narrator import Narrator
from testbed.experiment.profile import access_networks, load_link
from testbed.experiment.run import Run
from testbed.measure.events import read_events
from testbed.measure.traffic import UdpProbe
from testbed.report.flow_figures import FlowBinding
from testbed.report.result import Result
from topologies.multihome import MultihomeTopology

#: The measured flow's port; the other bindings' ports count up from the next one, and nothing is sent to
#: them.
PORT, PER_SECOND = 5004, 500
BASELINE_S, LOST_S, BACK_S = 2.0, 3.0, 2.0
_TIMEOUT_S = 60.0


def run_load(
    parameters: Mapping[str, Any], seed: int, folder: Path, narrator: Narrator, whole_packets: bool = False
) -> Result:
    """Run the case; `metadata` of the result has `setup_ms`, and `storm_ms`: from the loss to the
    acknowledgement, of each mobile node."""
    nodes, flows, pace = parameters["mobile_nodes"], parameters["flow_bindings"], parameters.get("pace", 1.0)
    links = [load_link(name) for name in parameters["links"]]
    topology = MultihomeTopology(
        access_networks=access_networks(links),
        mobile_nodes=nodes,
        link_backend=parameters.get("link_backend", "auto"),
        tunnel_backend=parameters.get("tunnel_backend", "auto"),
        security=parameters.get("security", METHODS[0]),
        seed=seed,
    )
    first, second = (network.name for network in topology.access_networks[:2])
    bindings = [
        {"fid": number, "bids": [1 + (number - 1) % 2], "source_port": str(PORT + number - 1),
         "next_header": "udp"} for number in range(1, flows + 1)
    ]  # fmt: skip
    with Run(topology, folder, narrator, whole_packets=whole_packets) as run:
        mobile = [run.network[name] for name in topology.home_addresses]
        for node in mobile:
            node.await_care_of_addresses()
        run.ha.start_agent(topology.home_agent_configuration())
        begun = time.monotonic()
        for node in mobile:
            node.start_agent(topology.mobile_node_configuration(node.name, preferred=second, flows=bindings))
        for node in mobile:
            wait_until(lambda node=node: _registered(node, flows), _TIMEOUT_S, f"all bindings of {node.name}")
        setup_ms = (time.monotonic() - begun) * 1000
        ends = run.correspondent, run.mobile, run.logs
        probe = UdpProbe("probe", 1, *ends, port=PORT, per_second=PER_SECOND,
                         size=100, seed=seed)  # fmt: skip
        run.start_traffic([probe], {"probe": FlowBinding(1, f"udp, source port {PORT}", 1)})
        run.phase("baseline", BASELINE_S * pace, {})
        lost_s = time.monotonic()
        run.windows["baseline"] = run.origin_s, lost_s - 0.4
        others = [link for link in run.network.links
                  if link.intf1.name in {f"{node.name}-{first}" for node in mobile[1:]}]  # fmt: skip
        run.link_down(first)
        for link in others:
            link.set_carrier(False)
        run.phase(f"{first} lost", LOST_S * pace, {})
        back_s = time.monotonic()
        run.link_up(first)
        for link in others:
            link.set_carrier(True)
        run.phase(f"{first} back", BACK_S * pace, {})
        run.windows["events"] = lost_s - 0.4, time.monotonic()
        run.stop_traffic()
        backends = run.backends()
        events = read_events([run.logs / "events.jsonl"])
        storm = [(event["t"] - lost_s) * 1000 for node in mobile
                 for event in [_acknowledged(events, node.name, lost_s, back_s)] if event]  # fmt: skip
        return run.finish(
            "load",
            {
                "seed": seed,
                "backends": backends,
                "setup_ms": setup_ms,
                "storm_ms": storm,
                "mobile_nodes": nodes,
            },
        )


def _registered(node: Any, flows: int) -> bool:
    listed = node.agent.ask("flows")
    return len(listed) == flows and all(flow["state"] == "registered" for flow in listed) and all(
        binding["registered"] for binding in node.agent.ask("bindings"))  # fmt: skip


def _acknowledged(events: list[dict], node: str, begin_s: float, end_s: float) -> dict | None:
    """The first acknowledgement of a mobile node in this time."""
    return next((event for event in events if event["node"] == node and begin_s <= event["t"] < end_s
                 and event["event"] == "binding-acknowledgement-received"), None)  # fmt: skip
