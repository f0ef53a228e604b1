"""Messages that IPsec protects, as the roles see them: what they take, and what has to be inside of ESP."""

from dataclasses import replace
from ipaddress import IPv6Address, IPv6Network

import pytest
from simulation import (
    CELLULAR,
    HOME_ADDRESS,
    HOME_AGENT,
    HOME_PREFIX,
    INTERFACES,
    KEY,
    ROUTER,
    WLAN,
    Simulation,
    as_received,
)

from testbed.mobility.anchor_point import AnchorPoint, AnchorPointConfiguration
from testbed.mobility.authentication import Signer
from testbed.mobility.hierarchical_node import HierarchicalMobileNode
from testbed.mobility.home_agent import HomeAgent, HomeAgentConfiguration
from testbed.mobility.mobile_node import MobileNode
from testbed.mobility.mobile_node_configuration import MobileNodeConfiguration
from testbed.wire.codec import Codec
from testbed.wire.icmpv6 import MobilePrefixAdvertisement, MobilePrefixSolicitation
from testbed.wire.message import BindingAcknowledgement, BindingRefreshRequest, BindingUpdate
from testbed.wire.option import AlternateCareOfAddress, BindingIdentifier
from testbed.wire.packet import Packet
from testbed.wire.router_advertisement import MobilityAnchorPoint

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
    updates = [p.message for p in simulation.packets if isinstance(p.message, BindingUpdate)]
    options = [(u.option(BindingIdentifier), u.option(AlternateCareOfAddress)) for u in updates]
    assert all((identifier is None) != (alternate is None) for identifier, alternate in options)
    assert options[0][0] is not None and options[-1][1] is not None


def test_returning_home():
    simulation, node, agent = pair()
    attach(simulation, node)
    simulation.addresses[HOME_ADDRESS] = "mn"
    node.attach("wlan", HOME_PREFIX[0xAAAA], ROUTER, simulation.now)
    simulation.run(3)
    (last,) = [p for p in simulation.packets if p.source == HOME_ADDRESS]
    assert last.message.lifetime_s == 0 and last.message.option(AlternateCareOfAddress) is None
    assert node.is_home and agent.bindings(simulation.now) == []


@requirement("RFC 4285 §5, RFC 6275 §5.1: each home address by its own kind of protection, and no other")
def test_both_kinds_of_protection():
    other = HOME_ADDRESS + 1
    configuration = HomeAgentConfiguration(
        HOME_AGENT, (HOME_PREFIX,), associations={other: KEY}, by_ipsec=frozenset({HOME_ADDRESS})
    )
    agent = HomeAgent(configuration, 0.0)
    signer = Signer(KEY, lambda now: now, Codec())

    def reason(home_address, protected):
        options = (AlternateCareOfAddress(WLAN),) if protected else ()
        update = BindingUpdate(1, 60, acknowledge=True, home_registration=True, options=options)
        packet = Packet(WLAN, HOME_AGENT, signer.sign(update, WLAN, home_address, 0.0), home_address)
        agent.receive(replace(as_received(packet), protected=protected), "core", 0.0)
        return next(iter(dropped(agent)), None)

    assert reason(HOME_ADDRESS, protected=False) == "not protected by ESP (RFC 6275 §5.1)"
    assert reason(other, protected=False) is None
    assert reason(HOME_ADDRESS, protected=True) is None
    assert {b["home_address"] for b in agent.bindings(0.0)} == {str(HOME_ADDRESS), str(other)}


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


MAP, REGION = IPv6Address("2001:db8:500::1"), IPv6Network("2001:db8:500::/64")
REGIONAL = REGION[0x100]


@requirement("RFC 5380 §12.1: Binding Updates to the MAP are protected by ESP in transport mode")
def test_anchor_point():
    simulation = Simulation()
    home = HomeAgentConfiguration(HOME_AGENT, (HOME_PREFIX,), associations={HOME_ADDRESS: KEY})
    simulation.add("ha", HomeAgent(home, simulation.now), HOME_AGENT)
    anchor = AnchorPoint(AnchorPointConfiguration(MAP, (REGION,), by_ipsec=frozenset({REGIONAL})), 0.0)
    simulation.add("map", anchor, MAP)
    mobile = MobileNodeConfiguration(HOME_ADDRESS, HOME_AGENT, INTERFACES, association=KEY)
    node = HierarchicalMobileNode(mobile, simulation.now, by_ipsec={MAP: REGIONAL})
    simulation.add("mn", node, WLAN, CELLULAR, REGIONAL)
    for interface in ("wlan", "cellular"):
        node.anchors_advertised(interface, [MobilityAnchorPoint(MAP, distance=2)], simulation.now)
    attach(simulation, node)
    assert anchor.bindings(simulation.now) == [] and not node.registered  # nothing is protected
    simulation.protecting = True
    simulation.run(60)
    bound = {binding["home_address"] for binding in anchor.bindings(simulation.now)}
    assert bound == {str(REGIONAL)} and node.registered
    simulation.settle()
    for message in (BindingRefreshRequest(), BindingAcknowledgement(0, 1, 60)):
        node.receive(Packet(MAP, WLAN, message, None, REGIONAL), "wlan", simulation.now)
        assert dropped(node) == ["not protected by ESP (RFC 6275 §5.1)"] and node.transmissions() == []
