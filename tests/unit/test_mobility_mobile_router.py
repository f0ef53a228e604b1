"""Mobile routers (RFC 3963): what the home agent takes, what the mobile router makes of its answers."""

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
)

from testbed.mobility.home_agent import HomeAgent, HomeAgentConfiguration
from testbed.mobility.mobile_node import MobileNode
from testbed.mobility.mobile_node_configuration import MobileNodeConfiguration
from testbed.mobility.policy import Policy
from testbed.wire.message import BindingAcknowledgement, BindingUpdate, Status
from testbed.wire.option import BindingIdentifier, MalformedOption, MobileNetworkPrefix
from testbed.wire.packet import Packet

requirement = pytest.mark.requirement
NETWORK, SECOND = IPv6Network("2001:db8:1000::/64"), IPv6Network("2001:db8:1000:1::/64")
OTHERS = IPv6Network("2001:db8:1001::/64")
OTHER_ROUTER = IPv6Address("2001:db8:100::101")
TABLE = {HOME_ADDRESS: (NETWORK, SECOND), OTHER_ROUTER: (OTHERS,)}


def refusals(simulation):
    return [event["status"] for event in simulation.events("registration-refused")]


def make(table=TABLE, policy=None, key=KEY, **router):
    """A mobile router with both interfaces attached, and its home agent, after a second."""
    simulation = Simulation()
    configuration = HomeAgentConfiguration(
        HOME_AGENT,
        (HOME_PREFIX,),
        policy=policy or Policy(),
        prefix_table=table,
        associations={HOME_ADDRESS: key} if key else {},
        accept_unauthenticated=key is None,
    )
    agent = HomeAgent(configuration, simulation.now)
    router = {"prefixes": (NETWORK,), "association": key, **router}
    node = MobileNode(
        MobileNodeConfiguration(HOME_ADDRESS, HOME_AGENT, INTERFACES, 60, **router), simulation.now
    )
    simulation.add("ha", agent, HOME_AGENT)
    simulation.add("mr", node, WLAN, CELLULAR)
    node.attach("wlan", WLAN, ROUTER, simulation.now)
    node.attach("cellular", CELLULAR, ROUTER, simulation.now)
    simulation.run(2)
    return simulation, node, agent


def ask(
    agent, *prefixes, home_address=HOME_ADDRESS, care_of_address=WLAN, sequence=1, lifetime_s=60, **flags
):
    """The status of one Binding Update with the R flag and these prefixes."""
    flags = {"home_registration": True, "mobile_router": True, **flags}
    identifier = BindingIdentifier(1, priority=10, care_of_address=care_of_address)
    options = (identifier, *map(MobileNetworkPrefix, prefixes))
    update = BindingUpdate(sequence, lifetime_s, acknowledge=True, options=options, **flags)
    agent.receive(Packet(care_of_address, HOME_AGENT, update, home_address=home_address), "eth0", 0.0)
    (transmission,) = agent.transmissions()
    return transmission.packet.message


def home_agent(policy=None, table=TABLE):
    configuration = HomeAgentConfiguration(
        HOME_AGENT,
        (HOME_PREFIX,),
        policy=policy or Policy(),
        prefix_table=table,
        accept_unauthenticated=True,
    )
    return HomeAgent(configuration, 0.0)


@requirement("RFC 3963 §5.2: explicit mode: R flag and all prefixes in every Binding Update")
@requirement("RFC 3963 §6.2: the home agent sets up forwarding for all prefixes of the options")
@requirement("RFC 3963 §6.6: an acknowledgement with status 0 has the R flag")
def test_a_mobile_router_registers_its_prefixes():
    simulation, node, agent = make(prefixes=(NETWORK, SECOND))
    assert agent.home_binding(HOME_ADDRESS).prefixes == (NETWORK, SECOND)
    assert node.home_binding(HOME_ADDRESS).prefixes == (NETWORK, SECOND)
    simulation.run(200)
    updates = [p.message for p in simulation.packets if isinstance(p.message, BindingUpdate)]
    answers = [p.message for p in simulation.packets if isinstance(p.message, BindingAcknowledgement)]
    assert len(updates) > 3
    for update in updates:
        assert update.mobile_router and update.home_registration
        assert [o.prefix for o in update.all_options(MobileNetworkPrefix)] == [NETWORK, SECOND]
    assert all(answer.mobile_router for answer in answers)


@requirement("RFC 3963 §5.2, §6.2: implicit mode: the home agent knows the prefixes")
def test_implicit_mode_takes_the_prefixes_of_the_table():
    simulation, node, agent = make(table={HOME_ADDRESS: (NETWORK,)}, explicit_prefixes=False)
    assert not any(
        p.message.option(MobileNetworkPrefix)
        for p in simulation.packets
        if isinstance(p.message, BindingUpdate)
    )
    assert agent.home_binding(HOME_ADDRESS).prefixes == node.home_binding(HOME_ADDRESS).prefixes == (NETWORK,)


@requirement("RFC 3963 §5.8: a de-registration carries no Mobile Network Prefix option")
@requirement("RFC 3963 §6.7: de-registration ends the forwarding to the mobile network")
def test_leaving_ends_the_forwarding():
    simulation, node, agent = make()
    node.deregister(simulation.now)
    simulation.run(1)
    assert agent.home_binding(HOME_ADDRESS) is None and node.home_binding(HOME_ADDRESS) is None
    last = [p.message for p in simulation.packets if isinstance(p.message, BindingUpdate)][-1]
    assert (last.lifetime_s, last.option(MobileNetworkPrefix)) == (0, None)


def test_a_mobile_network_ends_with_its_binding():
    simulation, node, agent = make()
    simulation.cut |= {WLAN, CELLULAR}
    simulation.run(61)
    assert agent.home_binding(HOME_ADDRESS) is None and node.home_binding(HOME_ADDRESS) is None


def test_prefixes_outlive_a_restart_of_the_home_agent():
    simulation, _, agent = make()
    reborn = home_agent()
    reborn.restore(agent.snapshot(simulation.now), simulation.now, simulation.now)
    assert reborn.forwarding() == agent.forwarding()
    assert ask(reborn, NETWORK, sequence=99, mobile_router=False).status == 139


@requirement("RFC 3963 §6.6: status 140 where mobile routers are not served")
def test_mobile_routers_by_policy():
    assert ask(home_agent(Policy(mobile_routers=False)), NETWORK).status == 140


@requirement("RFC 3963 §6.2: R without H is answered with status 140")
def test_a_mobile_router_registers_with_home_agents_only():
    agent = home_agent()
    assert ask(agent, NETWORK, home_registration=False).status == 140
    assert agent.forwarding() == {}


@requirement("RFC 3963 §6.2: status 141: all prefixes or none")
@pytest.mark.parametrize(
    "prefixes",
    [
        ("::/0",),
        ("2001:db8:100::/64",),
        ("2001:db8:100::/56",),
        ("fe80::/64",),
        ("::/96",),
        ("::1/128",),
        ("ff00::/8",),
        ("2001:db8:1000::/64", "2001:db8:1000::/68"),
        ("2001:db8:1000::/64", "2001:db8:100::1/128"),
    ],
)
def test_prefixes_that_cannot_be_are_invalid(prefixes):
    agent = home_agent(Policy(unlisted_prefixes=True), {})
    answer = ask(agent, *map(IPv6Network, prefixes))
    assert (answer.status, answer.mobile_router) == (Status.INVALID_PREFIX, False)
    assert agent.forwarding() == {}


@requirement("RFC 3963 §6.2: status 141 for a Mobile Network Prefix option that is malformed")
def test_a_prefix_option_that_is_malformed():
    agent = home_agent()
    malformed = MalformedOption(MobileNetworkPrefix.option_type, bytes(3), "it has length 3")
    update = BindingUpdate(1, 60, True, True, mobile_router=True, options=(malformed,))
    agent.receive(Packet(WLAN, HOME_AGENT, update, home_address=HOME_ADDRESS), "eth0", 0.0)
    (answer,) = [transmission.packet.message for transmission in agent.transmissions()]
    assert (answer.status, answer.mobile_router) == (Status.INVALID_PREFIX, False)
    assert agent.forwarding() == {}


@requirement("RFC 3963 §6.1.2: no mobile router claims the prefix of another one")
def test_a_prefix_has_one_mobile_router():
    agent = home_agent(Policy(unlisted_prefixes=True), {})
    assert ask(agent, NETWORK).status == 0
    assert ask(agent, IPv6Network("2001:db8:1000::/48"), home_address=OTHER_ROUTER).status == 141
    assert ask(home_agent(), OTHERS).status == 142


@requirement("RFC 3963 §6.6: status 142 for a prefix that is not this mobile router's")
def test_prefixes_outside_the_table_are_not_authorised():
    agent = home_agent()
    assert ask(agent, NETWORK, IPv6Network("2001:db8:2000::/64")).status == 142
    assert ask(agent, NETWORK, home_address=IPv6Address("2001:db8:100::1ff")).status == 142
    assert ask(agent, IPv6Network("2001:db8:1000::8000:0:0:0/65"), sequence=2).status == 0
    assert agent.home_binding(HOME_ADDRESS).prefixes == (IPv6Network("2001:db8:1000:0:8000::/65"),)


@requirement("RFC 3963 §6.6: status 143 where the home agent knows no prefix")
def test_implicit_mode_needs_a_table():
    assert ask(home_agent(table={})).status == Status.FORWARDING_SETUP_FAILED


@requirement("RFC 3963 §6.2: status 139 for another value of the R flag than before")
def test_a_host_does_not_become_a_router():
    agent = home_agent()
    assert ask(agent, NETWORK).status == 0
    assert ask(agent, sequence=2, mobile_router=False).status == 139
    assert agent.home_binding(HOME_ADDRESS).prefixes == (NETWORK,)
    assert ask(agent, sequence=3, lifetime_s=0, mobile_router=False).status == 0
    assert ask(agent, sequence=4, mobile_router=False).status == 0


@requirement("RFC 3963 §6.2: prefixes that a Binding Update leaves out are not forwarded any more")
def test_a_prefix_that_is_left_out_goes():
    agent = home_agent()
    ask(agent, NETWORK, SECOND)
    agent.changes()
    ask(agent, SECOND, sequence=2)
    assert agent.changes()[HOME_ADDRESS].prefixes == (SECOND,)


@requirement("RFC 2473 §4.1: no tunnel leads into itself")
def test_a_mobile_router_is_not_inside_its_own_network():
    agent = home_agent()
    assert ask(agent, NETWORK, care_of_address=NETWORK[9]).status == Status.INVALID_CARE_OF_ADDRESS
    # a mobile router may visit another one, but two cannot visit each other
    assert ask(agent, NETWORK, care_of_address=OTHERS[9]).status == 0
    answer = ask(agent, OTHERS, home_address=OTHER_ROUTER, care_of_address=NETWORK[9])
    assert answer.status == Status.INVALID_CARE_OF_ADDRESS
    assert ask(agent, OTHERS, home_address=OTHER_ROUTER, care_of_address=WLAN, sequence=2).status == 0


def test_a_datapath_that_fails_is_a_refusal():
    simulation = Simulation()
    agent = home_agent()
    simulation.add("ha", agent, HOME_AGENT)
    identifier = BindingIdentifier(1, priority=10, care_of_address=WLAN)
    for sequence, (explicit, status) in enumerate(((True, 141), (False, 143)), start=1):
        options = (identifier, MobileNetworkPrefix(NETWORK)) if explicit else (identifier,)
        update = BindingUpdate(
            sequence, 60, acknowledge=True, home_registration=True, mobile_router=True, options=options
        )
        agent.receive(Packet(WLAN, HOME_AGENT, update, home_address=HOME_ADDRESS), "eth0", 0.0)
        agent.changes()
        agent.datapath_failed(HOME_ADDRESS, "no room", 0.0)
        (transmission,) = agent.transmissions()
        message = transmission.packet.message
        assert (message.status, message.mobile_router) == (status, False)
        assert agent.forwarding() == {}


@requirement("RFC 3963 §5.4: a mobile router that is refused for good stops asking")
@pytest.mark.parametrize(
    ("table", "policy", "explicit", "status"),
    [
        (TABLE, Policy(mobile_routers=False), True, 140),
        ({HOME_ADDRESS: (OTHERS,)}, Policy(), True, 142),
        ({}, Policy(), False, 143),
    ],
)
def test_a_refusal_is_the_end(table, policy, explicit, status):
    simulation, node, agent = make(table, policy, explicit_prefixes=explicit)
    simulation.run(100)
    assert refusals(simulation) == [status]
    assert simulation.events("mobile-router-refused") == [{"peer": str(HOME_AGENT), "status": status}]
    assert not node.registered and node.home_binding(HOME_ADDRESS) is None
    sent = len(simulation.packets)
    node.detach("wlan", simulation.now)  # nor does movement make it ask again
    simulation.run(100)
    assert len(simulation.packets) == sent


@requirement("RFC 3963 §5.4.1, §5.4.2: the other mode may be tried")
def test_the_other_mode_is_tried_where_that_is_wanted():
    _, node, agent = make({HOME_ADDRESS: (OTHERS,)}, prefixes=(OTHERS,), explicit_prefixes=True)
    assert node.registered
    simulation, node, agent = make({HOME_ADDRESS: (SECOND,)}, prefix_fall_back=True)
    assert refusals(simulation) == [142]
    assert agent.home_binding(HOME_ADDRESS).prefixes == (SECOND,)
    simulation, node, agent = make(
        {}, Policy(unlisted_prefixes=True), prefix_fall_back=True, explicit_prefixes=False
    )
    assert refusals(simulation) == [143]
    assert agent.home_binding(HOME_ADDRESS).prefixes == (NETWORK,)


def test_each_mode_is_tried_once():
    simulation, node, _ = make({}, prefix_fall_back=True)
    simulation.run(100)
    assert refusals(simulation) == [142, 143]
    assert len(simulation.events("mobile-router-refused")) == 1


@requirement("RFC 3963 §5.3: an acceptance without the R flag: de-register")
def test_a_home_agent_without_support_is_left():
    simulation, node, agent = make(key=None)
    answer = BindingAcknowledgement(0, node.registration.sequence + 1, 60)
    node.registration.refresh(simulation.now)
    packet = Packet(HOME_AGENT, WLAN, answer, routing_address=HOME_ADDRESS)
    node.receive(packet, "eth0", simulation.now)
    assert node.home_binding(HOME_ADDRESS).prefixes == ()
    simulation.run(2)
    assert len(simulation.events("mobile-router-unsupported")) == 1
    assert node.deregistered and agent.forwarding() == {}
