"""Returning home and leaving it (RFC 6275 §11.5.5, draft §6.4)."""

import pytest
from simulation import (
    CELLULAR,
    CORRESPONDENT,
    HOME_ADDRESS,
    HOME_AGENT,
    HOME_PREFIX,
    ROUTER,
    WLAN,
    agree,
    attached_pair,
    pair,
    trio,
)

from testbed.mobility.binding import FlowBinding
from testbed.mobility.forwarding import Action
from testbed.wire.message import BindingAcknowledgement, BindingUpdate

requirement = pytest.mark.requirement
AT_HOME = HOME_PREFIX[0xAAAA]


def go_home(simulation, node):
    simulation.addresses[HOME_ADDRESS] = "mn"
    node.attach("wlan", AT_HOME, ROUTER, simulation.now)
    simulation.run(2)


def away_again(simulation, node):
    del simulation.addresses[HOME_ADDRESS]
    node.attach("wlan", WLAN, ROUTER, simulation.now)
    simulation.run(2)


def last(simulation, kind):
    return [packet for packet in simulation.packets if isinstance(packet.message, kind)][-1]


@requirement("RFC 6275 §11.5.5: a node that returns home de-registers, from its home address")
@requirement("draft §6.4: returning home removes all bindings and flow bindings")
def test_returning_home():
    simulation, node, agent = attached_pair()
    node.add_flow(FlowBinding(1, 10, Action.FORWARD, (1,)), simulation.now)
    simulation.run(1)
    go_home(simulation, node)
    update = last(simulation, BindingUpdate)
    assert (update.source, update.destination, update.home_address) == (HOME_ADDRESS, HOME_AGENT, None)
    message = update.message
    assert message.acknowledge and message.home_registration and message.lifetime_s == 0
    answer = last(simulation, BindingAcknowledgement)
    assert (answer.destination, answer.routing_address) == (HOME_ADDRESS, None)
    assert answer.message.status == 0
    assert node.is_home and node.home_interface == "wlan" and not node.registered
    assert agent.forwarding() == {} and node.forwarding() == {}
    assert agent.flows() == []
    count = len(simulation.packets)
    simulation.run(500)
    assert len(simulation.packets) == count


@requirement("draft §6.4: leaving home, the bindings and flow bindings are there again")
def test_leaving_home():
    simulation, node, agent = attached_pair()
    node.add_flow(FlowBinding(1, 10, Action.FORWARD, (1,)), simulation.now)
    simulation.run(1)
    before = agent.forwarding()
    go_home(simulation, node)
    away_again(simulation, node)
    assert node.home_interface is None and not node.is_home
    assert agent.forwarding() == before
    agree(node, agent)
    assert [flow["state"] for flow in node.flows()] == ["registered"]


def test_starting_at_home():
    simulation, node, agent = pair()
    node.attach("wlan", AT_HOME, ROUTER, simulation.now)
    simulation.run(1)
    assert node.is_home and simulation.packets == []
    node.attach("wlan", WLAN, ROUTER, simulation.now)
    simulation.run(2)
    agree(node, agent)
    assert node.registered


@requirement("RFC 5648 §5.5.1: at home, the other interfaces are not used")
def test_other_interfaces_do_not_matter_at_home():
    simulation, node, agent = attached_pair()
    go_home(simulation, node)
    node.detach("cellular", simulation.now)
    node.attach("cellular", CELLULAR, ROUTER, simulation.now)
    simulation.run(2)
    assert node.is_home and agent.forwarding() == {}


def test_a_de_registration_that_is_lost_is_sent_again():
    simulation, node, agent = attached_pair()
    simulation.fate = lambda packet: []
    go_home(simulation, node)
    assert not node.is_home and node.home_interface == "wlan"
    simulation.fate = lambda packet: [0.01]
    simulation.run(5)
    assert node.is_home and agent.forwarding() == {}


def test_a_node_that_only_looks_in_at_home_registers_again():
    simulation, node, agent = attached_pair()
    simulation.fate = lambda packet: []
    go_home(simulation, node)
    simulation.fate = lambda packet: [0.01]
    away_again(simulation, node)
    agree(node, agent)
    assert node.registered


def test_from_one_interface_to_the_other_at_home():
    simulation, node, agent = attached_pair()
    go_home(simulation, node)
    count = len(simulation.packets)
    node.move({"wlan": None, "cellular": (AT_HOME + 1, ROUTER)}, simulation.now)
    simulation.run(2)
    assert node.is_home and node.home_interface == "cellular" and len(simulation.packets) == count


@requirement("RFC 6275 §11.5.5, §11.7.2: bindings at correspondent nodes go, and come back")
def test_route_optimisation_ends_at_home():
    simulation, node, correspondent = trio()
    node.optimise(CORRESPONDENT, simulation.now)
    simulation.run(3)
    assert correspondent.cache.get(HOME_ADDRESS).bindings
    go_home(simulation, node)
    simulation.run(5)
    entry = correspondent.cache.get(HOME_ADDRESS)
    assert entry is None or not entry.bindings
    assert node.is_home
    away_again(simulation, node)
    simulation.run(5)
    assert len(correspondent.cache.get(HOME_ADDRESS).bindings) == 2


def test_the_end_of_a_node_at_home():
    simulation, node, _ = attached_pair()
    go_home(simulation, node)
    node.deregister(simulation.now)
    simulation.run(3)
    assert node.deregistered
