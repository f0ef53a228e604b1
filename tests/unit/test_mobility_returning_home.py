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
from testbed.mobility.home_agent import HomeAgent
from testbed.mobility.mobile_node import MobileNode
from testbed.wire.address import link_local_of
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
    assert simulation.events("home-link-gained") == [{"interface": "wlan"}]
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


@requirement("RFC 6275 §11.5.5: the home agent is instructed to stop, after a restart of the node, too")
def test_starting_at_home_after_an_earlier_life():
    simulation, node, agent = attached_pair()
    saved = node.snapshot(simulation.now)
    again = MobileNode(node.configuration, simulation.now)
    again.restore(saved, simulation.now, simulation.now)
    simulation.add("mn", again, WLAN, CELLULAR)
    go_home(simulation, again)
    assert again.is_home and agent.forwarding() == {}


@requirement("RFC 6275 §11.5.5: duplicate address detection after the bindings have expired")
def test_coming_home_after_the_bindings_have_expired():
    simulation, node, agent = attached_pair()
    go_home(simulation, node)
    assert not node.is_unguarded  # the home agent has kept the address
    away_again(simulation, node)
    simulation.fate = lambda packet: []
    simulation.run(100)
    assert not node.registered and agent.forwarding() == {}
    simulation.fate = lambda packet: [0.01]
    go_home(simulation, node)
    assert node.is_home and node.is_unguarded


@requirement("RFC 6275 §11.5.5: duplicate address detection where there was no binding (status 133)")
def test_coming_home_to_a_home_agent_that_has_forgotten():
    simulation, node, agent = attached_pair()
    simulation.add("ha", HomeAgent(agent.configuration, simulation.now))
    go_home(simulation, node)
    assert last(simulation, BindingAcknowledgement).message.status == 133
    assert node.is_home and node.is_unguarded
    away_again(simulation, node)
    go_home(simulation, node)
    assert node.is_home and not node.is_unguarded  # it has been guarded meanwhile


@requirement("RFC 6275 §11.7.1: the L bit: the link-local address has the same interface identifier")
@requirement("RFC 6275 §10.4.1: the home agent does the same for the link-local address of the mobile node")
@pytest.mark.parametrize("compatible", [True, False])
def test_link_local_address_compatibility(compatible):
    simulation, node, agent = pair(duplicate_address_detection=True)
    own = link_local_of(HOME_ADDRESS) if compatible else link_local_of(WLAN)
    node._link_local_addresses = lambda: [own]
    node.attach("wlan", WLAN, ROUTER, simulation.now)
    simulation.run(0.1)
    assert agent.probes() == [HOME_ADDRESS]
    assert agent.to_be_tested(HOME_ADDRESS) == (HOME_ADDRESS, own)[: 1 + compatible]
    agent.dad_result(HOME_ADDRESS, True, simulation.now)
    simulation.run(1)
    assert last(simulation, BindingUpdate).message.link_local_compatibility is compatible
    wanted = agent.home_binding(HOME_ADDRESS)
    assert wanted.defended_addresses == (HOME_ADDRESS, own)[: 1 + compatible]
    restarted = HomeAgent(agent.configuration, simulation.now)
    restarted.restore(agent.snapshot(simulation.now), simulation.now, simulation.now)
    assert restarted.home_binding(HOME_ADDRESS) == wanted
