"""Plain Mobile IPv6 (RFC 6275): one binding, no BID, no flow bindings."""

from dataclasses import replace

import pytest
from simulation import (
    CELLULAR,
    CORRESPONDENT,
    HOME_ADDRESS,
    HOME_AGENT,
    INTERFACES,
    KEY,
    ROUTER,
    WLAN,
    agree,
    attached_pair,
    pair,
    trio,
)

from testbed.mobility.binding import NO_BID, Binding, FlowBinding
from testbed.mobility.correspondent_node import CorrespondentNode, CorrespondentNodeConfiguration
from testbed.mobility.forwarding import Action
from testbed.mobility.listed_flows import FlowError
from testbed.mobility.mobile_node import MobileNode, MobileNodeConfiguration
from testbed.mobility.policy import Policy
from testbed.wire.message import BindingUpdate
from testbed.wire.option import BindingIdentifier

ANY = FlowBinding(1, 10, Action.FORWARD, (1,), None)
requirement = pytest.mark.requirement


def plain_pair():
    """A mobile node with one binding in place of the usual one, and its home agent."""
    simulation, _, agent = pair()
    node = MobileNode(
        MobileNodeConfiguration(
            HOME_ADDRESS, HOME_AGENT, INTERFACES, 60, association=KEY, multiple_care_of_addresses=False
        ),
        simulation.now,
    )
    simulation.add("mn", node, WLAN, CELLULAR)
    node.attach("wlan", WLAN, ROUTER, simulation.now)
    node.attach("cellular", CELLULAR, ROUTER, simulation.now)
    simulation.run(2)
    return simulation, node, agent


def updates(simulation):
    return [packet for packet in simulation.packets if isinstance(packet.message, BindingUpdate)]


def places(agent):
    return {path.bid: path.remote for path in agent.home_binding(HOME_ADDRESS).paths}


@requirement("RFC 6275 §11.7.1: one binding, at the primary care-of address")
def test_one_binding_without_options_of_rfc_5648():
    simulation, node, agent = plain_pair()
    assert places(agent) == {NO_BID: CELLULAR}
    for packet in updates(simulation):
        assert not packet.message.overwrite
        assert packet.message.option(BindingIdentifier) is None
    assert {path.local for path in node.home_binding(HOME_ADDRESS).paths} == {CELLULAR}
    (binding,) = node.bindings(simulation.now)
    assert (binding["interface"], binding["default"]) == ("cellular", True)
    agree(node, agent)


@requirement("RFC 6275 §11.7.1: a Binding Update whenever the primary care-of address changes, and only then")
def test_the_binding_follows_the_preferred_interface():
    simulation, node, agent = plain_pair()
    node.detach("cellular", simulation.now)
    simulation.run(1)
    assert places(agent) == {NO_BID: WLAN}
    node.attach("cellular", CELLULAR, ROUTER, simulation.now)
    simulation.run(1)
    assert places(agent) == {NO_BID: CELLULAR}
    before = len(updates(simulation))
    node.detach("wlan", simulation.now)
    simulation.run(1)
    assert len(updates(simulation)) == before
    agree(node, agent)


def test_another_interface_is_preferred_on_demand():
    simulation, node, agent = plain_pair()
    node.prefer("wlan", simulation.now)
    simulation.run(1)
    assert places(agent) == {NO_BID: WLAN}
    node.detach("wlan", simulation.now)
    simulation.run(1)
    assert places(agent) == {NO_BID: CELLULAR}
    node.attach("wlan", WLAN, ROUTER, simulation.now)
    simulation.run(1)
    assert places(agent) == {NO_BID: WLAN}
    node.prefer(None, simulation.now)
    simulation.run(1)
    assert places(agent) == {NO_BID: CELLULAR}
    with pytest.raises(FlowError, match="no interface satellite"):
        node.prefer("satellite", simulation.now)


def test_flow_bindings_and_a_preferred_interface_exclude_each_other():
    simulation, node, agent = plain_pair()
    with pytest.raises(FlowError, match="need multiple care-of addresses"):
        node.add_flow(ANY, simulation.now)
    simulation, node, agent = attached_pair()
    with pytest.raises(FlowError, match="only without multiple care-of addresses"):
        node.prefer("wlan", simulation.now)


@requirement("RFC 6275 §11.7.2: a Binding Update to a correspondent node")
def test_a_correspondent_node_gets_the_one_binding_too():
    simulation, node, agent = plain_pair()
    correspondent = CorrespondentNode(CorrespondentNodeConfiguration(), simulation.now)
    simulation.add("cn", correspondent, CORRESPONDENT)
    node.optimise(CORRESPONDENT, simulation.now)
    simulation.run(2)
    (wanted,) = correspondent.optimisations().values()
    assert {path.bid: path.remote for path in wanted.paths} == {NO_BID: CELLULAR}
    node.detach("cellular", simulation.now)
    simulation.run(2)
    (wanted,) = correspondent.optimisations().values()
    assert {path.bid: path.remote for path in wanted.paths} == {NO_BID: WLAN}
    assert not [p for p in updates(simulation) if p.message.option(BindingIdentifier)]


NO_BIDS = Policy(multiple_care_of_addresses=False)
PROHIBITED = "RFC 5648 §5.7: after MCOA PROHIBITED, no more than one binding is registered with that node"


@requirement(PROHIBITED)
def test_a_home_agent_that_takes_one_binding():
    simulation, node, agent = attached_pair(policy=NO_BIDS)
    assert places(agent) == {NO_BID: CELLULAR}
    agree(node, agent)
    with_bids = [p for p in updates(simulation) if p.message.option(BindingIdentifier)]
    with pytest.raises(FlowError, match="need multiple care-of addresses"):
        node.add_flow(ANY, simulation.now)
    node.detach("cellular", simulation.now)
    simulation.run(100)
    assert places(agent) == {NO_BID: WLAN}
    assert [p for p in updates(simulation) if p.message.option(BindingIdentifier)] == with_bids
    (binding,) = node.bindings(simulation.now)
    assert (binding["bid"], binding["interface"], binding["default"]) == (NO_BID, "wlan", True)
    node.deregister(simulation.now)
    simulation.run(1)
    assert node.deregistered and agent.forwarding() == {}


def test_the_next_home_agent_is_asked_for_several_bindings():
    simulation, node, agent = attached_pair(policy=NO_BIDS)
    assert places(agent) == {NO_BID: CELLULAR}
    agent.policy = Policy()
    node._register_with(HOME_AGENT, simulation.now)
    simulation.run(1)
    assert places(agent) == {1: WLAN, 2: CELLULAR}
    agree(node, agent)


@requirement(PROHIBITED)
@pytest.mark.parametrize("flow_updates", ["together", "each"])
def test_flow_bindings_wait_meanwhile(flow_updates):
    simulation, node, agent = pair(policy=NO_BIDS)
    node = MobileNode(replace(node.configuration, flows=(ANY,), flow_updates=flow_updates), simulation.now)
    simulation.add("mn", node, WLAN, CELLULAR)
    node.attach("wlan", WLAN, ROUTER, simulation.now)
    node.attach("cellular", CELLULAR, ROUTER, simulation.now)
    simulation.run(100)
    node.detach("wlan", simulation.now)
    simulation.run(1)
    assert [(item["flow"], item["state"]) for item in node.flows()] == [(ANY, "waiting")]
    assert places(agent) == {NO_BID: CELLULAR} and agent.flows() == []


@requirement(PROHIBITED)
def test_a_home_agent_that_comes_to_take_one_binding():
    """It has several, and has been told of flow bindings; so has a correspondent node."""
    simulation, node, correspondent = trio()
    agent = simulation.roles["ha"]
    node.add_flow(ANY, simulation.now)
    node.optimise(CORRESPONDENT, simulation.now)
    simulation.run(2)
    assert len(correspondent.cache.get(HOME_ADDRESS).flows) == 1
    agent.policy = NO_BIDS
    node.detach("wlan", simulation.now)
    simulation.run(5)
    assert places(agent) == {NO_BID: CELLULAR} and agent.flows() == []
    entry = correspondent.cache.get(HOME_ADDRESS)
    assert {bid: b.care_of_address for bid, b in entry.bindings.items()} == {NO_BID: CELLULAR}
    assert entry.flows == {} and node.optimisations()[HOME_ADDRESS, CORRESPONDENT].default_bid == NO_BID


@requirement(PROHIBITED)
def test_a_correspondent_node_that_takes_one_binding():
    simulation, node, correspondent = trio(policy=NO_BIDS)
    node.add_flow(ANY, simulation.now)
    node.optimise(CORRESPONDENT, simulation.now)
    simulation.run(3)

    def bound():
        entry = correspondent.cache.get(HOME_ADDRESS)
        return {bid: binding.care_of_address for bid, binding in entry.bindings.items()}

    assert bound() == {NO_BID: CELLULAR}
    node.detach("cellular", simulation.now)
    simulation.run(100)
    assert bound() == {NO_BID: WLAN} and correspondent.cache.get(HOME_ADDRESS).flows == {}
    # the home agent has all of them
    assert set(places(simulation.roles["ha"])) == {1, 2} and len(simulation.roles["ha"].flows()) == 1


@requirement("RFC 5648 §5.7: after MCOA NON-MCOA BINDING EXISTS, the O flag")
def test_a_home_agent_that_has_a_binding_without_a_bid():
    simulation, node, agent = attached_pair()
    agent.cache.get(HOME_ADDRESS).bindings.clear()
    made = Binding(NO_BID, WLAN, 0, 60, simulation.now + 60)
    agent.cache.get(HOME_ADDRESS).bindings[NO_BID] = made
    node.registration.refresh(simulation.now, [1])
    simulation.run(1)
    assert updates(simulation)[-1].message.overwrite
    assert places(agent) == {1: WLAN, 2: CELLULAR}
    agree(node, agent)
