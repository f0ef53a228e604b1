"""Messages that IPsec protects, as the roles see them: what they take, and what has to be inside of ESP."""

import pytest
from simulation import CELLULAR, HOME_ADDRESS, HOME_AGENT, HOME_PREFIX, INTERFACES, ROUTER, WLAN, Simulation

from testbed.mobility.home_agent import HomeAgent, HomeAgentConfiguration
from testbed.mobility.mobile_node import MobileNode
from testbed.mobility.mobile_node_configuration import MobileNodeConfiguration
from testbed.wire.icmpv6 import MobilePrefixAdvertisement, MobilePrefixSolicitation
from testbed.wire.message import BindingRefreshRequest, BindingUpdate
from testbed.wire.option import AlternateCareOfAddress, BindingIdentifier
from testbed.wire.packet import Packet

requirement = pytest.mark.requirement


def pair(**configuration):
    simulation = Simulation()
    simulation.protecting = True
    home = HomeAgentConfiguration(HOME_AGENT, (HOME_PREFIX,), by_ipsec=frozenset({HOME_ADDRESS}))
    agent = HomeAgent(home, simulation.now)
    mobile = MobileNodeConfiguration(HOME_ADDRESS, HOME_AGENT, INTERFACES, ipsec=True, **configuration)
    node = MobileNode(mobile, simulation.now)
    simulation.add("ha", agent, HOME_AGENT)
    simulation.add("mn", node, WLAN, CELLULAR)
    return simulation, node, agent


def attach(simulation, node):
    node.attach("wlan", WLAN, ROUTER, simulation.now)
    node.attach("cellular", CELLULAR, ROUTER, simulation.now)
    simulation.run(3)


def dropped(role):
    return [event.fields["reason"] for event in role.events() if event.name == "message-dropped"]


@requirement("RFC 5648 §5.2: no Alternate Care-of Address option beside Binding Identifier options")
def test_registration():
    simulation, node, agent = pair()
    attach(simulation, node)
    assert len(agent.bindings(simulation.now)) == 2 and node.registered
    node.deregister(simulation.now)
    simulation.run(3)
    assert node.deregistered and agent.bindings(simulation.now) == []


@requirement("RFC 6275 §5.1: what IPsec does not protect is not taken, on neither side")
def test_without_protection():
    simulation, node, agent = pair()
    simulation.protecting = False
    attach(simulation, node)
    assert agent.bindings(simulation.now) == [] and not node.registered
    simulation.protecting = True
    simulation.run(60)
    assert node.registered
    simulation.settle()
    for message in (BindingRefreshRequest(), MobilePrefixAdvertisement(1, ())):
        node.receive(Packet(HOME_AGENT, WLAN, message, None, HOME_ADDRESS), "wlan", simulation.now)
        assert dropped(node) == ["not protected by ESP (RFC 6275 §5.1)"] and node.transmissions() == []
    solicitation = Packet(WLAN, HOME_AGENT, MobilePrefixSolicitation(1), HOME_ADDRESS)
    agent.receive(solicitation, "core", simulation.now)
    assert dropped(agent) == ["not protected by ESP (RFC 6275 §5.1)"] and agent.transmissions() == []


@requirement("RFC 3776 §4.3: an Alternate Care-of Address option is in Binding Updates sent while away")
def test_care_of_address():
    simulation, node, agent = pair(multiple_care_of_addresses=False)
    node.attach("wlan", WLAN, ROUTER, simulation.now)
    (sent,) = node.transmissions()
    assert sent.packet.message.option(AlternateCareOfAddress) == AlternateCareOfAddress(WLAN)
    assert sent.packet.message.option(BindingIdentifier) is None


def update(agent, source, home_address, *options, lifetime_s=60):
    """The reason for which the home agent drops such a Binding Update; None if it answers."""
    message = BindingUpdate(1, lifetime_s, acknowledge=True, home_registration=True, options=options)
    agent.receive(Packet(source, HOME_AGENT, message, home_address, protected=True), "core", 0.0)
    assert bool(agent.transmissions()) == bool(agent.changes())
    return next(iter(dropped(agent)), None)


@requirement("RFC 3776 §4.3: the source address of the IPv6 header is not protected, and not believed")
def test_source_address():
    _, _, agent = pair()
    agent.events()
    assert "no option with the care-of address" in update(agent, WLAN, HOME_ADDRESS)
    # a captured message, sent on as if the mobile node were at home
    for option in (BindingIdentifier(1, care_of_address=WLAN), AlternateCareOfAddress(WLAN)):
        assert "says elsewhere" in update(agent, HOME_ADDRESS, None, option)
    assert update(agent, CELLULAR, HOME_ADDRESS, AlternateCareOfAddress(WLAN)) is None
    assert [binding["care_of_address"] for binding in agent.bindings(0.0)] == [str(WLAN)]
