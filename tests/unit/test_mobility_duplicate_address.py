"""Duplicate address detection by the home agent before the first binding (RFC 6275 §10.3.1)."""

import pytest
from simulation import (
    CELLULAR,
    HOME_ADDRESS,
    HOME_AGENT,
    HOME_PREFIX,
    INTERFACES,
    ROUTER,
    WLAN,
    Simulation,
    agree,
    pair,
)

from testbed.mobility.authentication import SecurityAssociation
from testbed.mobility.home_agent import HomeAgent, HomeAgentConfiguration
from testbed.mobility.mobile_node import MobileNode
from testbed.mobility.mobile_node_configuration import MobileNodeConfiguration
from testbed.mobility.policy import Policy
from testbed.wire.message import BindingUpdate, Status
from testbed.wire.option import BindingIdentifier
from testbed.wire.packet import Packet

requirement = pytest.mark.requirement
INTERFACES_ATTACHED = (("wlan", WLAN), ("cellular", CELLULAR))


def attached(**home_agent):
    """A mobile node that has sent its first Binding Update to a home agent which looks for duplicates."""
    simulation, node, agent = pair(duplicate_address_detection=True, **home_agent)
    for name, address in INTERFACES_ATTACHED:
        node.attach(name, address, ROUTER, simulation.now)
    simulation.run(0.5)
    return simulation, node, agent


def home_agent(**more):
    configuration = HomeAgentConfiguration(
        HOME_AGENT, (HOME_PREFIX,), accept_unauthenticated=True, duplicate_address_detection=True, **more
    )
    return HomeAgent(configuration, 0.0)


def statuses(simulation):
    return [event["status"] for event in simulation.events("binding-acknowledgement-sent")]


@requirement("RFC 6275 §10.3.1: duplicate address detection before the first Binding Acknowledgement")
def test_the_first_binding_waits_for_the_result():
    simulation, node, agent = attached()
    assert agent.probes() == [HOME_ADDRESS] and agent.probes() == []
    assert statuses(simulation) == [] and agent.forwarding() == {}
    agent.dad_result(HOME_ADDRESS, True, simulation.now)
    simulation.run(0.5)
    assert node.registered and statuses(simulation)[0] == 0
    agree(node, agent)


@requirement("RFC 6275 §10.3.1: status 134, the complete Binding Update is refused")
def test_somebody_else_has_the_address():
    simulation, node, agent = attached()
    agent.dad_result(HOME_ADDRESS, False, simulation.now)
    simulation.run(0.5)
    assert statuses(simulation) == [Status.DUPLICATE_ADDRESS_DETECTION_FAILED]
    assert simulation.events("registration-refused")[0]["status"] == 134
    assert simulation.events("duplicate-address") == [{"home_address": str(HOME_ADDRESS)}]
    assert not node.registered and agent.forwarding() == {}
    agent.probes()
    simulation.run(40)  # it asks again at the slowest rate, and the address is looked for again
    assert agent.probes() == [HOME_ADDRESS]
    agent.dad_result(HOME_ADDRESS, True, simulation.now)
    simulation.run(1)
    agree(node, agent)


def test_what_is_sent_again_meanwhile_is_answered_once():
    simulation, node, agent = attached()
    simulation.run(2)
    received = simulation.events("binding-update-received")
    assert len(received) > 1
    assert agent.probes() == [HOME_ADDRESS]
    agent.dad_result(HOME_ADDRESS, True, simulation.now)
    assert len(simulation.events("binding-acknowledgement-sent")) == 0
    simulation.run(0.5)
    acknowledged = simulation.events("binding-acknowledgement-sent")
    assert acknowledged[0]["sequence"] == received[-1]["sequence"]
    agree(node, agent)


@requirement("RFC 6275 §10.3.1: a home address that has a binding is the home agent's already")
def test_later_updates_do_not_wait():
    simulation, node, agent = attached()
    agent.probes()
    agent.dad_result(HOME_ADDRESS, True, simulation.now)
    simulation.run(1)
    node.detach("wlan", simulation.now)
    simulation.run(0.5)
    assert agent.probes() == []
    agree(node, agent)
    node.deregister(simulation.now)
    simulation.run(1)
    assert agent.forwarding() == {}


def test_a_refusal_does_not_wait():
    simulation, _, agent = attached(policy=Policy(max_mobile_nodes=0))
    assert set(statuses(simulation)) == {Status.INSUFFICIENT_RESOURCES} and agent.probes() == []


def test_a_mobile_node_that_gives_up_is_forgotten():
    simulation, node, agent = attached()
    node.deregister(simulation.now)
    simulation.run(0.5)
    assert statuses(simulation) == [Status.NOT_HOME_AGENT_FOR_THIS_MOBILE_NODE]
    agent.dad_result(HOME_ADDRESS, True, simulation.now)
    simulation.run(1)
    assert agent.forwarding() == {} and len(statuses(simulation)) == 1


def test_an_older_message_does_not_replace_the_one_that_waits():
    agent = home_agent()

    def send(sequence, care_of_address):
        option = BindingIdentifier(1, priority=1, care_of_address=care_of_address)
        update = BindingUpdate(sequence, 60, acknowledge=True, home_registration=True, options=(option,))
        agent.receive(Packet(care_of_address, HOME_AGENT, update, home_address=HOME_ADDRESS), "eth0", 0.0)

    send(7, CELLULAR)
    send(6, WLAN)
    agent.dad_result(HOME_ADDRESS, True, 1.0)
    assert [path.remote for path in agent.home_binding(HOME_ADDRESS).paths] == [CELLULAR]


def test_floods_are_limited():
    policy = Policy(max_mobile_nodes=10)
    agent = home_agent(policy=policy)
    option = BindingIdentifier(1, priority=1, care_of_address=WLAN)
    update = BindingUpdate(1, 60, acknowledge=True, home_registration=True, options=(option,))
    for number in range(20):
        packet = Packet(WLAN, HOME_AGENT, update, home_address=HOME_PREFIX[0x1000 + number])
        agent.receive(packet, "eth0", 0.0)
    assert len(agent.probes()) == 10
    assert [t.packet.message.status for t in agent.transmissions()] == [Status.INSUFFICIENT_RESOURCES] * 10


def test_authenticated_updates_are_judged_once():
    simulation = Simulation()
    key = SecurityAssociation(1000, bytes(range(16)))
    configuration = HomeAgentConfiguration(
        HOME_AGENT,
        (HOME_PREFIX,),
        associations={HOME_ADDRESS: key},
        accept_unauthenticated=False,
        duplicate_address_detection=True,
    )
    agent = HomeAgent(configuration, simulation.now)
    node = MobileNode(
        MobileNodeConfiguration(HOME_ADDRESS, HOME_AGENT, INTERFACES, association=key), simulation.now
    )
    simulation.add("ha", agent, HOME_AGENT)
    simulation.add("mn", node, WLAN, CELLULAR)
    for name, address in INTERFACES_ATTACHED:
        node.attach(name, address, ROUTER, simulation.now)
    simulation.run(2)
    agent.dad_result(HOME_ADDRESS, True, simulation.now)
    simulation.run(1)
    agree(node, agent)
