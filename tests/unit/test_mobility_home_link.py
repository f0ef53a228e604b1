"""Discovery of home agents and home prefixes (RFC 6275 §10.5, §10.6, §11.4; RFC 3963 §7)."""

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
    agree,
)

from testbed.mobility.home_agent import HomeAgent, HomeAgentConfiguration
from testbed.mobility.home_link import MAX_ADDRESSES, HomeAgentsList, HomePrefix
from testbed.mobility.mobile_node import MobileNode
from testbed.mobility.mobile_node_configuration import MobileNodeConfiguration
from testbed.mobility.policy import Policy
from testbed.wire.icmpv6 import (
    HomeAgentAddressDiscoveryReply,
    HomeAgentAddressDiscoveryRequest,
    MobilePrefixAdvertisement,
    MobilePrefixSolicitation,
    home_agents_anycast,
)
from testbed.wire.message import BindingAcknowledgement, BindingUpdate, Status
from testbed.wire.packet import Packet
from testbed.wire.router_advertisement import (
    INFINITE_S,
    HomeAgentInformation,
    PrefixInformation,
    RouterAdvertisement,
)

requirement = pytest.mark.requirement
SECOND_AGENT, THIRD_AGENT = HOME_PREFIX[2], HOME_PREFIX[3]
ANYCAST = home_agents_anycast(HOME_PREFIX)
ROUTER_2, ROUTER_3 = IPv6Address("fe80::2"), IPv6Address("fe80::3")


def advertisement(*addresses, home_agent=True, lifetime_s=1800, preference=None, agent_lifetime_s=900):
    options = tuple(PrefixInformation(address, router_address=True) for address in addresses)
    if preference is not None:
        options += (HomeAgentInformation(preference, agent_lifetime_s),)
    return RouterAdvertisement(lifetime_s, options, home_agent=home_agent)


def world(*agents, policies=(), **node):
    """A mobile node that knows only its home prefix, and these home agents (the first is the anycast one)."""
    simulation = Simulation()
    roles = []
    for number, address in enumerate(agents or (HOME_AGENT,)):
        policy = policies[number] if number < len(policies) else Policy()
        configuration = HomeAgentConfiguration(
            address, (HOME_PREFIX,), policy=policy, associations={HOME_ADDRESS: KEY}
        )
        roles.append(HomeAgent(configuration, simulation.now))
        simulation.add(f"ha{number}", roles[-1], address, *((ANYCAST,) if number == 0 else ()))
    configuration = MobileNodeConfiguration(
        HOME_ADDRESS, None, INTERFACES, association=KEY, home_prefix=HOME_PREFIX
    )
    mobile = MobileNode(replace(configuration, **node), simulation.now)
    simulation.add("mn", mobile, WLAN, CELLULAR)
    return simulation, mobile, *roles


def attach(simulation, node):
    node.attach("wlan", WLAN, ROUTER, simulation.now)
    node.attach("cellular", CELLULAR, ROUTER, simulation.now)
    simulation.run(2)


def sent(simulation, kind):
    return [packet for packet in simulation.packets if isinstance(packet.message, kind)]


@requirement("RFC 6275 §10.5.1: home agents list, from Router Advertisements with the H bit")
def test_the_list_of_home_agents():
    listed = HomeAgentsList(HOME_AGENT, preference=5)
    listed.heard(ROUTER_2, advertisement(SECOND_AGENT, preference=9), 0.0)
    listed.heard(ROUTER_3, advertisement(THIRD_AGENT), 0.0)
    assert listed.addresses(1.0) == (SECOND_AGENT, HOME_AGENT, THIRD_AGENT)
    assert listed.addresses(901.0) == (HOME_AGENT, THIRD_AGENT)  # by its home agent lifetime
    assert listed.addresses(1801.0) == (HOME_AGENT,)  # by its router lifetime


@requirement("RFC 6275 §10.5.1: an entry is deleted without H bit and with lifetime zero")
@pytest.mark.parametrize("end", [{"home_agent": False}, {"lifetime_s": 0}])
def test_a_home_agent_that_is_none_any_more(end):
    listed = HomeAgentsList(HOME_AGENT)
    listed.heard(ROUTER_2, advertisement(SECOND_AGENT), 0.0)
    assert set(listed.addresses(1.0)) == {HOME_AGENT, SECOND_AGENT}
    listed.heard(ROUTER_2, advertisement(SECOND_AGENT, **end), 1.0)
    assert listed.addresses(1.0) == (HOME_AGENT,)


@requirement("RFC 6275 §10.5.1: equal preference in random order; no more than fits 1280 octets")
def test_equals_are_in_random_order():
    orders = set()
    for _ in range(200):
        listed = HomeAgentsList(HOME_AGENT)
        listed.heard(ROUTER_2, advertisement(SECOND_AGENT, THIRD_AGENT), 0.0)
        orders.add(listed.addresses(1.0))
    assert len(orders) == 4  # its two addresses stay together
    listed.heard(ROUTER_3, advertisement(*(HOME_PREFIX[1000 + n] for n in range(200))), 0.0)
    assert len(listed.addresses(1.0)) == MAX_ADDRESSES


@requirement("RFC 6275 §11.4.1: a mobile node discovers its home agent, and registers with it")
@requirement("RFC 6275 §10.5: the reply goes straight to the source of the request")
def test_the_home_agent_is_discovered():
    simulation, node, agent = world()
    assert node.timer() is None and node.home_agent == IPv6Address(0)
    attach(simulation, node)
    (request,) = sent(simulation, HomeAgentAddressDiscoveryRequest)
    assert (request.source, request.destination) == (WLAN, ANYCAST)
    (reply,) = sent(simulation, HomeAgentAddressDiscoveryReply)
    assert (reply.source, reply.destination) == (HOME_AGENT, WLAN)
    assert node.home_agent == HOME_AGENT and node.registered
    agree(node, agent)


@requirement("RFC 6275 §11.4.1: a request is sent again after 3, 6, 12 and 24 s, DHAAD_RETRIES times")
def test_a_request_without_reply_is_sent_again():
    simulation, node, _ = world()
    simulation.fate = lambda packet: []
    start = simulation.now
    times = []
    original = simulation._fly
    simulation._fly = lambda packet: (times.append(simulation.now - start), original(packet))
    attach(simulation, node)
    simulation.run(300)
    assert [round(t) for t in times] == [0, 3, 9, 21, 45]
    assert len(simulation.events("home-agent-discovery-failed")) == 1
    simulation.fate = lambda packet: [0.01]
    node.detach("wlan", simulation.now)  # movement: a new attempt
    simulation.run(5)
    assert node.registered


@requirement("RFC 6275 §11.4.1: home agents are tried in the order of the list")
def test_the_next_home_agent_is_tried_where_one_does_not_answer():
    simulation, node, first, second = world(HOME_AGENT, SECOND_AGENT)
    first.home_agents.heard(ROUTER_2, advertisement(SECOND_AGENT, THIRD_AGENT, preference=7), simulation.now)
    first.home_agents._shuffle = lambda found: found.sort(key=str, reverse=True)
    attach(simulation, node)
    simulation.run(5)
    updates = [packet.destination for packet in sent(simulation, BindingUpdate)]
    assert updates[0] == THIRD_AGENT and updates[-1] == SECOND_AGENT and HOME_AGENT not in updates
    assert node.home_agent == SECOND_AGENT
    agree(node, second)


def test_the_next_home_agent_is_tried_where_one_refuses():
    policies = (Policy(), Policy(max_mobile_nodes=0))
    simulation, node, first, _ = world(HOME_AGENT, SECOND_AGENT, policies=policies)
    first.home_agents.heard(ROUTER_2, advertisement(SECOND_AGENT, preference=7), simulation.now)
    attach(simulation, node)
    simulation.run(5)
    assert node.home_agent == HOME_AGENT and node.registered


@requirement("RFC 6275 §11.4.1: discovery again, where no known home agent serves the node")
def test_a_home_agent_that_vanishes_is_replaced():
    simulation, node, first, second = world(HOME_AGENT, SECOND_AGENT)
    attach(simulation, node)
    assert node.home_agent == HOME_AGENT
    del simulation.roles["ha0"]
    simulation.addresses[ANYCAST] = "ha1"
    simulation.run(120)
    assert node.home_agent == SECOND_AGENT and node.registered
    agree(node, second)


def test_a_forged_reply_is_not_believed():
    simulation, node, _ = world()
    simulation.fate = lambda packet: []
    attach(simulation, node)
    (request,) = sent(simulation, HomeAgentAddressDiscoveryRequest)
    forged = HomeAgentAddressDiscoveryReply((request.message.identifier + 1) % 65536, (THIRD_AGENT,))
    node.receive(Packet(THIRD_AGENT, WLAN, forged), "wlan", simulation.now)
    assert node.home_agent == IPv6Address(0)


@requirement("RFC 3963 §7.2: a mobile router takes home agents that serve mobile routers only")
def test_discovery_by_a_mobile_router():
    network = (IPv6Network("2001:db8:1000::/64"),)
    policies = (Policy(unlisted_prefixes=True),)
    simulation, node, agent = world(policies=policies, prefixes=network)
    attach(simulation, node)
    assert sent(simulation, HomeAgentAddressDiscoveryRequest)[0].message.mobile_router
    assert agent.home_binding(HOME_ADDRESS).prefixes == network
    simulation, node, agent = world(policies=(Policy(mobile_routers=False),), prefixes=network)
    attach(simulation, node)
    assert not sent(simulation, HomeAgentAddressDiscoveryReply)[0].message.mobile_router
    assert node.home_agent == IPv6Address(0)


def test_requests_are_answered_at_a_limited_rate():
    simulation, _, agent = world()
    for number in range(1000):
        request = Packet(WLAN, ANYCAST, HomeAgentAddressDiscoveryRequest(number))
        agent.receive(request, "eth0", simulation.now)
    assert len(agent.transmissions()) <= 100


@pytest.mark.parametrize("source", ["::", "::1", "fe80::7", "ff0e::1"])
def test_requests_from_nowhere_are_not_answered(source):
    simulation, _, agent = world()
    request = Packet(IPv6Address(source), ANYCAST, HomeAgentAddressDiscoveryRequest(1))
    agent.receive(request, "eth0", simulation.now)
    assert agent.transmissions() == []


def registered_world(**more):
    simulation, node, agent = world(**more)
    attach(simulation, node)
    assert node.registered
    return simulation, node, agent


@requirement("RFC 6275 §10.3.1: status 1 where the home prefix is deprecated within the lifetime")
@requirement("RFC 6275 §11.4.2, §10.6.3: solicitation and advertisement of home prefixes")
def test_a_deprecated_prefix_is_told_and_asked_for():
    simulation, node, agent = registered_world()
    agent.change_prefix(HomePrefix(HOME_PREFIX, simulation.now + 500, simulation.now + 20), simulation.now)
    node.registration.refresh(simulation.now)
    simulation.run(1)
    statuses = [p.message.status for p in sent(simulation, BindingAcknowledgement)]
    assert statuses[-1] == Status.ACCEPTED_BUT_PREFIX_DISCOVERY_NECESSARY
    (solicitation,) = sent(simulation, MobilePrefixSolicitation)
    assert (solicitation.home_address, solicitation.destination) == (HOME_ADDRESS, HOME_AGENT)
    (answer,) = sent(simulation, MobilePrefixAdvertisement)
    assert answer.message.identifier == solicitation.message.identifier
    assert (answer.destination, answer.routing_address) == (solicitation.source, HOME_ADDRESS)
    (prefix,) = answer.message.prefixes
    assert (prefix.prefix, prefix.valid_lifetime_s, prefix.preferred_lifetime_s) == (HOME_PREFIX, 499, 19)
    assert node.home_prefixes.prefixes == answer.message.prefixes


@requirement("RFC 6275 §10.3.1, §10.6.4: no binding outlives the valid lifetime of the home prefix")
def test_bindings_end_with_the_prefix():
    simulation, node, agent = registered_world()
    start = simulation.now
    agent.change_prefix(HomePrefix(HOME_PREFIX, start + 30, start + 30), start)
    node.registration.refresh(start)
    simulation.run(1)
    lifetimes = [p.message.lifetime_s for p in sent(simulation, BindingAcknowledgement)]
    assert lifetimes[-1] == 28
    simulation.run(5)
    node.registration.refresh(simulation.now)
    simulation.run(1)
    asked = [p.message.lifetime_s for p in sent(simulation, BindingUpdate)]
    assert asked[-1] <= 28
    simulation.run(40)
    assert agent.forwarding() == {}
    assert simulation.events("registration-refused")[-1]["status"] == Status.NOT_HOME_SUBNET


@requirement("RFC 6275 §10.6.2: a change of the prefix is advertised, again until it is acknowledged")
def test_news_are_told_without_being_asked_for():
    simulation, node, agent = registered_world(lifetime_s=1000)
    agent._advertiser._interval_s = (5.0, 6.0)
    agent.change_prefix(HomePrefix(HOME_PREFIX, simulation.now + 9000, simulation.now + 8000), simulation.now)
    simulation.run(4)
    assert sent(simulation, MobilePrefixAdvertisement) == []
    simulation.run(4)
    unsolicited, solicited = sent(simulation, MobilePrefixAdvertisement)
    assert unsolicited.message.identifier == 0
    assert len(sent(simulation, MobilePrefixSolicitation)) == 1
    assert 8990 < node.home_prefixes.prefixes[0].valid_lifetime_s <= 9000
    count = len(simulation.packets)
    simulation.run(100)
    assert len(simulation.packets) == count  # acknowledged: no more of it


@requirement("RFC 6275 §10.6.2: PREFIX_ADV_RETRIES retransmissions, after 3, 6 and 12 s")
def test_news_that_nobody_acknowledges():
    simulation, node, agent = registered_world(lifetime_s=1000)
    agent._advertiser._interval_s = (5.0, 5.0)
    lost = MobilePrefixAdvertisement
    simulation.fate = lambda packet: [] if isinstance(packet.message, lost) else [0.01]
    start = simulation.now
    agent.change_prefix(HomePrefix(HOME_PREFIX, start + 9000, start + 8000), start)
    simulation.run(100)
    times = [now - start for now, _, event in simulation.history if event.name.endswith("advertisement-sent")]
    assert times == [5, 8, 14, 26]


def test_a_new_prefix_is_told_to_all():
    simulation, node, agent = registered_world(lifetime_s=1000)
    agent._advertiser._interval_s = (1.0, 1.0)
    added = IPv6Network("2001:db8:101::/64")
    agent.change_prefix(HomePrefix(added), simulation.now)
    simulation.run(4)
    assert [p.prefix for p in node.home_prefixes.prefixes] == [HOME_PREFIX, added]
    assert node.home_prefixes.prefixes[1].valid_lifetime_s == INFINITE_S


@requirement("RFC 6275 §6.8: no more than one Mobile Prefix Advertisement a second to a mobile node")
@requirement("RFC 6275 §9.3.1: a Home Address option without a binding is not accepted")
def test_solicitations_that_are_not_answered():
    simulation, node, agent = registered_world()
    ask = MobilePrefixSolicitation(5)

    def answers(packet):
        agent.receive(packet, "eth0", simulation.now)
        return len(agent.transmissions())

    assert answers(Packet(WLAN, HOME_AGENT, ask, home_address=HOME_ADDRESS)) == 1
    assert answers(Packet(WLAN, HOME_AGENT, ask, home_address=HOME_ADDRESS)) == 0
    simulation.now += 1
    assert answers(Packet(WLAN + 1, HOME_AGENT, ask, home_address=HOME_ADDRESS)) == 0
    assert answers(Packet(WLAN, HOME_AGENT, ask, home_address=HOME_ADDRESS + 1)) == 0
    assert answers(Packet(WLAN, HOME_AGENT, ask)) == 0
    assert answers(Packet(WLAN, HOME_AGENT, ask, home_address=HOME_ADDRESS)) == 1


@requirement("RFC 6275 §11.4.3: type 2 routing header with the home address; from the home agent")
def test_advertisements_that_are_not_believed():
    simulation, node, agent = registered_world()
    forged = MobilePrefixAdvertisement(0, (PrefixInformation(HOME_PREFIX[0], 64, 4, 4),))
    node.receive(Packet(HOME_AGENT, WLAN, forged), "wlan", simulation.now)
    node.receive(Packet(THIRD_AGENT, WLAN, forged, routing_address=HOME_ADDRESS), "wlan", simulation.now)
    assert node.transmissions() == []
    # one that was not asked for is believed only when the home agent says it again
    node.receive(Packet(HOME_AGENT, WLAN, forged, routing_address=HOME_ADDRESS), "wlan", simulation.now)
    simulation.run(1)
    assert node.home_prefixes.prefixes[0].valid_lifetime_s == INFINITE_S
    assert node.registration.lifetime_s == 60


def test_what_is_not_valid_any_more_is_not_advertised():
    simulation, node, agent = registered_world(lifetime_s=1000)
    agent._advertiser._interval_s = (1.0, 1.0)
    agent.change_prefix(HomePrefix(IPv6Network("2001:db8:101::/64"), simulation.now + 5), simulation.now)
    simulation.run(4)
    assert len(node.home_prefixes.prefixes) == 2
    simulation.run(4)
    node.home_prefixes.solicit(simulation.now)
    simulation.run(1)
    assert [p.prefix for p in node.home_prefixes.prefixes] == [HOME_PREFIX]


@requirement("RFC 6275 §11.4.2: the home prefix is asked for anew before its valid lifetime is over")
def test_prefixes_are_asked_for_in_time():
    simulation, node, agent = registered_world()
    agent._advertiser._interval_s = (1.0, 1.0)
    agent.change_prefix(HomePrefix(HOME_PREFIX, simulation.now + 500, simulation.now + 500), simulation.now)
    simulation.run(390)
    assert len(sent(simulation, MobilePrefixSolicitation)) == 1
    simulation.run(20)
    assert len(sent(simulation, MobilePrefixSolicitation)) == 2


@requirement("RFC 6275 §11.4.2: solicitations are sent again after 3, 6, ... up to 3600 s")
def test_solicitations_without_answer():
    simulation, node, agent = registered_world()
    lost = MobilePrefixAdvertisement
    simulation.fate = lambda packet: [] if isinstance(packet.message, lost) else [0.01]
    start = simulation.now
    node.home_prefixes.solicit(start)
    simulation.run(20_000)
    times = [t - start for t, _, event in simulation.history if event.name.endswith("solicitation-sent")]
    waits = [round(later - earlier) for earlier, later in zip(times, times[1:], strict=False)]
    assert waits[:11] == [3 * 2**n for n in range(11)] and set(waits[11:]) == {3600}


def test_what_is_to_be_told_is_forgotten_with_the_bindings():
    simulation, node, agent = registered_world()
    agent.change_prefix(HomePrefix(HOME_PREFIX, simulation.now + 9e4, simulation.now + 9e4), simulation.now)
    assert agent.timers.get(("prefixes", HOME_ADDRESS)) is not None
    del simulation.roles["mn"]
    simulation.run(100)
    assert agent.forwarding() == {} and agent.timer() is None
    assert agent._advertiser._unanswered == {}
