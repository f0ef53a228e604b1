"""Movement answered by a Flow Identification option for each flow (draft §6.2, the first way)."""

import pytest
from simulation import CELLULAR, HOME_ADDRESS, HOME_AGENT, HOME_PREFIX, INTERFACES, KEY, ROUTER, WLAN
from simulation import Simulation as Network

from testbed.mobility.binding import FlowBinding
from testbed.mobility.forwarding import Action
from testbed.mobility.home_agent import HomeAgent, HomeAgentConfiguration
from testbed.mobility.mobile_node import MobileNode
from testbed.mobility.mobile_node_configuration import MobileNodeConfiguration
from testbed.mobility.registration import MAX_BINDACK_TIMEOUT
from testbed.wire.flow import FlowIdentification, Pro
from testbed.wire.message import BindingAcknowledgement, BindingUpdate, Status
from testbed.wire.option import BindingIdentifier
from testbed.wire.selector import IPv6TrafficSelector

requirement = pytest.mark.requirement
SSH, HTTPS = (IPv6TrafficSelector(source_port=(port, port)) for port in (22, 443))
FLOWS = (
    FlowBinding(1, 10, Action.FORWARD, (1,), SSH),
    FlowBinding(2, 10, Action.FORWARD, (2,), HTTPS),
    FlowBinding(3, 10, Action.N_CAST, (1, 2), IPv6TrafficSelector(source_port=(5004, 5004))),
)


@pytest.fixture
def world():
    simulation = Network()
    agent = HomeAgent(
        HomeAgentConfiguration(HOME_AGENT, (HOME_PREFIX,), associations={HOME_ADDRESS: KEY}), simulation.now
    )
    configuration = MobileNodeConfiguration(
        HOME_ADDRESS, HOME_AGENT, INTERFACES, 60, FLOWS, association=KEY, flow_updates="each"
    )
    node = MobileNode(configuration, simulation.now)
    simulation.add("ha", agent, HOME_AGENT)
    simulation.add("mn", node, WLAN, CELLULAR)
    node.move({"wlan": (WLAN, ROUTER), "cellular": (CELLULAR, ROUTER)}, simulation.now)
    simulation.run(2)
    return simulation, node, agent


def flows(agent):
    return {flow.fid: (flow.bids, flow.action) for _, flow in agent.flows()}


def bound(agent, simulation):
    return {b["bid"]: b["care_of_address"] for b in agent.bindings(simulation.now)}


@requirement("draft §6.2: one flow identification option per flow, PRO 1, no description")
@requirement("RFC 5648 §5.4: a binding is removed by its BID")
def test_flows_move_one_by_one_and_return(world):
    simulation, node, agent = world
    before, seen = flows(agent), len(simulation.packets)
    node.detach("wlan", simulation.now)
    simulation.run(3)
    updates = [p.message for p in simulation.packets[seen:] if isinstance(p.message, BindingUpdate)]
    options = {o.fid: o for o in updates[0].all_options(FlowIdentification)}
    assert options[1].pro == Pro.REPLACE and options[1].selector is None
    assert options[1].binding_reference == (2,)
    assert [o.bid for o in updates[-1].all_options(BindingIdentifier)] == [1]
    assert updates[-1].lifetime_s == 0
    assert bound(agent, simulation) == {2: str(CELLULAR)}
    assert flows(agent) == {
        1: ((2,), Action.FORWARD),
        2: ((2,), Action.FORWARD),
        3: ((2,), Action.FORWARD),
    }
    assert {flow.fid: flow.selector for _, flow in agent.flows()} == {f.fid: f.selector for f in FLOWS}
    node.attach("wlan", WLAN, ROUTER, simulation.now)
    simulation.run(3)
    assert flows(agent) == before
    assert bound(agent, simulation) == {1: str(WLAN), 2: str(CELLULAR)}
    assert [flow["state"] for flow in node.flows()] == ["registered"] * 3


@requirement("RFC 6275 §11.7.3: a removal that is refused is not taken for done, but asked for again")
def test_a_removal_that_is_refused(world):
    simulation, node, agent = world
    agreed = {1: str(WLAN), 2: str(CELLULAR)}

    def fails_to_remove(packet):
        if isinstance(packet.message, BindingUpdate) and packet.message.lifetime_s == 0:
            simulation.failing.add("ha")
        elif isinstance(packet.message, BindingAcknowledgement):
            simulation.failing.clear()
        return [0.01]

    simulation.fate = fails_to_remove
    node.detach("wlan", simulation.now)
    simulation.run(3)
    refused = [p.message.status for p in simulation.packets if isinstance(p.message, BindingAcknowledgement)]
    assert refused[-1] == Status.INSUFFICIENT_RESOURCES and bound(agent, simulation) == agreed
    assert {b.bid: str(b.registered) for b in node.registration.bindings.values()} == agreed
    simulation.fate = lambda packet: [0.01]
    simulation.run(MAX_BINDACK_TIMEOUT)  # long before its lifetime is over
    assert bound(agent, simulation) == {2: str(CELLULAR)}


@requirement("RFC 4285 §6: after MIPV6-ID-MISMATCH, a removal is sent again with the right time")
@pytest.mark.parametrize("leaving", [False, True])
def test_a_removal_at_the_wrong_time(world, leaving):
    simulation, node, agent = world
    agent.verifier._time_of_day = lambda now: now + 100
    if leaving:
        node.deregister(simulation.now)
    else:
        node.registration.removes_bids = True
        node.registration.bind(1, 20, None)
        node.registration.update(simulation.now)
    simulation.run(3)
    assert bound(agent, simulation) == ({} if leaving else {2: str(CELLULAR)})
    assert node.deregistered == leaving


def test_what_is_asked_for_meanwhile_is_kept(world):
    simulation, node, agent = world
    node.detach("wlan", simulation.now)
    simulation.run(3)
    node.add_flow(FlowBinding(4, 5, Action.FORWARD, (1,)), simulation.now)
    node.replace_flow(FlowBinding(1, 3, Action.FORWARD, (2,), SSH), simulation.now)
    node.remove_flow(2, simulation.now)
    simulation.run(3)
    assert flows(agent)[4] == ((2,), Action.FORWARD) and 2 not in flows(agent)
    snapshot = node.snapshot(simulation.now)
    assert {flow["fid"]: flow["bids"] for flow in snapshot["flows"]} == {1: [2], 3: [1, 2], 4: [1]}
    node.attach("wlan", WLAN, ROUTER, simulation.now)
    simulation.run(3)
    assert flows(agent) == {
        1: ((2,), Action.FORWARD),
        3: ((1, 2), Action.N_CAST),
        4: ((1,), Action.FORWARD),
    }


def test_no_access_network_at_all(world):
    simulation, node, agent = world
    before = flows(agent)
    node.move({"wlan": None, "cellular": None}, simulation.now)
    simulation.run(5)
    node.move({"wlan": (WLAN, ROUTER), "cellular": (CELLULAR, ROUTER)}, simulation.now)
    simulation.run(3)
    assert flows(agent) == before and bound(agent, simulation) == {1: str(WLAN), 2: str(CELLULAR)}


def test_for_long(world):
    simulation, node, agent = world
    node.detach("wlan", simulation.now)
    simulation.run(300)
    assert bound(agent, simulation) == {2: str(CELLULAR)} and len(flows(agent)) == 3
    assert not simulation.events("binding-expired")
