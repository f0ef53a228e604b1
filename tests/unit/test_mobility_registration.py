"""A mobile node and its home agent through registration, movement, loss, restart: no sockets, no sleep."""

from dataclasses import replace

import pytest
from simulation import (
    CELLULAR,
    HOME_ADDRESS,
    HOME_AGENT,
    INTERFACES,
    KEY,
    ROUTER,
    WLAN,
    agree,
    as_received,
    attached_pair,
    pair,
)

from testbed.mobility.binding import FlowBinding
from testbed.mobility.forwarding import Action
from testbed.mobility.home_agent import HomeAgent
from testbed.mobility.listed_flows import FlowError
from testbed.mobility.mobile_node import MobileNode
from testbed.mobility.mobile_node_configuration import MobileNodeConfiguration
from testbed.mobility.policy import Policy
from testbed.wire.flow import FlowIdentification, FlowStatus, Pro
from testbed.wire.message import BindingAcknowledgement, BindingRefreshRequest, BindingUpdate, Status
from testbed.wire.option import BindingIdentifier
from testbed.wire.packet import Packet
from testbed.wire.selector import IPv6TrafficSelector

SSH = IPv6TrafficSelector(source_port=(22, 22), next_header=(6, 6))
requirement = pytest.mark.requirement


def flow(fid=1, bids=(1,), action=Action.FORWARD, priority=10, selector=SSH):
    return FlowBinding(fid, priority, action, bids, selector)


def updates(simulation):
    return [packet for packet in simulation.packets if isinstance(packet.message, BindingUpdate)]


def acknowledgements(simulation):
    return [packet for packet in simulation.packets if isinstance(packet.message, BindingAcknowledgement)]


@requirement("RFC 6275 §11.7.1: H and A bits set, Home Address option, care-of address as source")
@requirement("RFC 5648 §5.9: the first registration sets the O flag")
@requirement("RFC 5648 §5.1: the first registration of a BID carries its care-of address")
def test_first_binding_update():
    simulation, node, agent = pair()
    node.attach("wlan", WLAN, ROUTER, simulation.now)
    simulation.run(1)
    (packet,) = updates(simulation)
    update = packet.message
    assert (packet.source, packet.destination, packet.home_address) == (WLAN, HOME_AGENT, HOME_ADDRESS)
    assert update.home_registration and update.acknowledge and update.overwrite
    assert update.all_options(BindingIdentifier) == (BindingIdentifier(1, priority=20, care_of_address=WLAN),)
    assert node.registered
    agree(node, agent)


@requirement("RFC 6275 §9.5.4: the acknowledgement goes to the source address with a type 2 routing header")
@requirement("RFC 6275 §10.3.1: sequence number copied, granted lifetime stated")
def test_binding_acknowledgement():
    simulation, node, agent = attached_pair(max_lifetime_s=42)
    packet = acknowledgements(simulation)[0]
    assert (packet.destination, packet.routing_address) == (WLAN, HOME_ADDRESS)
    assert packet.message.sequence == updates(simulation)[0].message.sequence
    assert packet.message.lifetime_s == 40


@requirement("draft §4.3: the default binding is the one that the BID priority prefers")
@requirement("draft §4.3: the mobile node says which care-of address is the preferred one")
@requirement("draft §6.1: a default binding is always maintained")
def test_default_binding_by_priority():
    simulation, node, agent = attached_pair()
    told = updates(simulation)[-1].message.all_options(BindingIdentifier)
    assert {option.bid: option.priority for option in told} == {1: 20, 2: 10}
    assert agent.home_binding(HOME_ADDRESS).default_bid == 2
    assert node.home_binding(HOME_ADDRESS).default_bid == 2
    assert {path.bid: path.remote for path in agent.home_binding(HOME_ADDRESS).paths} == {
        1: WLAN,
        2: CELLULAR,
    }


@requirement("draft §4.4: add associates a flow with a care-of address")
@requirement("draft §6.1.1: PRO, FID, PRI and Action are valid in what the mobile node sends")
def test_add_flow():
    simulation, node, agent = attached_pair()
    node.add_flow(flow(7), simulation.now)
    simulation.run(1)
    option = updates(simulation)[-1].message.option(FlowIdentification)
    assert (option.fid, option.pro, option.action, option.priority) == (7, Pro.ADD, 1, 10)
    assert option.binding_reference == (1,) and option.selector == SSH
    assert [rule.bids for rule in agent.home_binding(HOME_ADDRESS).rules] == [(1,)]
    assert node.home_binding(HOME_ADDRESS).rules == agent.home_binding(HOME_ADDRESS).rules
    agree(node, agent)


@requirement("draft §5: ssh and https to CoA1, everything else to CoA2")
def test_usage_scenario():
    simulation, node, agent = pair()
    node.attach("cellular", CELLULAR, ROUTER, simulation.now)
    simulation.run(1)
    assert agent.home_binding(HOME_ADDRESS).default_bid == 2
    node.attach("wlan", WLAN, ROUTER, simulation.now)
    node.add_flow(flow(1, priority=1), simulation.now)
    https = IPv6TrafficSelector(source_port=(443, 443), next_header=(6, 6))
    node.add_flow(flow(2, priority=1, selector=https), simulation.now)
    simulation.run(2)
    wanted = agent.home_binding(HOME_ADDRESS)
    assert wanted.default_bid == 2
    assert [(rule.fid, rule.bids) for rule in wanted.rules] == [(1, (1,)), (2, (1,))]


@requirement("draft §6.1.1: no Refresh or Replace of a FID that the receiver may not have")
def test_what_may_not_have_arrived_is_added_again():
    simulation, node, agent = attached_pair()
    simulation.fate = lambda packet: []
    node.add_flow(flow(), simulation.now)
    simulation.run(2)
    node.replace_flow(flow(bids=(2,)), simulation.now)
    simulation.run(8)
    told = [o for packet in updates(simulation) for o in packet.message.all_options(FlowIdentification)]
    assert {option.pro for option in told} == {Pro.ADD}
    assert {option.binding_reference for option in told} == {(1,), (2,)}


@requirement("draft §4.5: replace keeps the FID and changes the care-of address")
@requirement("draft §6.2: no flow description where only the care-of address changes")
def test_replace_flow():
    simulation, node, agent = attached_pair()
    node.add_flow(flow(), simulation.now)
    simulation.run(1)
    node.replace_flow(flow(bids=(2,), selector=None), simulation.now)
    simulation.run(1)
    option = updates(simulation)[-1].message.option(FlowIdentification)
    assert option.pro == Pro.REPLACE and option.selector is None and option.binding_reference == (2,)
    (rule,) = agent.home_binding(HOME_ADDRESS).rules
    assert rule.bids == (2,) and rule.selector == SSH
    agree(node, agent)


@requirement("draft §4.6: remove by FID; the PRO field MUST be 15")
@requirement("draft §8.3.1: removing a flow binding modifies no other")
def test_remove_flow():
    simulation, node, agent = attached_pair()
    for fid in (1, 2, 3):
        node.add_flow(flow(fid), simulation.now)
    simulation.run(1)
    node.remove_flow(2, simulation.now)
    simulation.run(1)
    told = updates(simulation)[-1].message.all_options(FlowIdentification)
    assert [option.fid for option in told if option.pro == 15] == [2]
    assert [rule.fid for rule in agent.home_binding(HOME_ADDRESS).rules] == [1, 3]
    agree(node, agent)


@requirement("draft §4.7: a Binding Update carries the flow bindings again, as refresh, lest they be lost")
@requirement("RFC 6275 §11.7.1: a new Binding Update well before the lifetime is over")
def test_refresh_before_expiry():
    simulation, node, agent = attached_pair(lifetime_s=60)
    node.add_flow(flow(), simulation.now)
    simulation.run(1)
    before = len(updates(simulation))
    simulation.run(600)
    refreshes = updates(simulation)[before:]
    assert 11 <= len(refreshes) <= 14
    assert all(packet.message.option(FlowIdentification).pro == Pro.REFRESH for packet in refreshes)
    assert [len(packet.message.all_options(BindingIdentifier)) for packet in refreshes] == [2] * len(
        refreshes
    )
    agree(node, agent)
    assert agent.cache.get(HOME_ADDRESS).flows


@requirement("draft §6.2: one Binding Identifier update moves all the flows of a care-of address")
@requirement("draft §4.1: several flows follow the care-of address of their BID")
def test_lost_interface_moves_its_flows_and_back():
    simulation, node, agent = attached_pair()
    for fid in range(1, 6):
        node.add_flow(flow(fid), simulation.now)
    simulation.run(2)
    node.detach("wlan", simulation.now)
    # the uplink does not wait for the acknowledgement
    assert {path.local for path in node.home_binding(HOME_ADDRESS).paths} == {CELLULAR}
    simulation.run(1)
    update = updates(simulation)[-1]
    assert update.source == CELLULAR
    assert update.message.all_options(BindingIdentifier) == (
        BindingIdentifier(1, priority=20, care_of_address=CELLULAR),
    )
    assert {path.remote for path in agent.home_binding(HOME_ADDRESS).paths} == {CELLULAR}
    assert len(agent.home_binding(HOME_ADDRESS).rules) == 5
    agree(node, agent)
    node.attach("wlan", WLAN, ROUTER, simulation.now)
    # until acknowledged the home agent would not take what comes from there
    assert {path.local for path in node.home_binding(HOME_ADDRESS).paths} == {CELLULAR}
    simulation.run(1)
    assert updates(simulation)[-1].source == WLAN
    assert {path.bid: path.local for path in node.home_binding(HOME_ADDRESS).paths} == {1: WLAN, 2: CELLULAR}
    agree(node, agent)


@requirement("RFC 6275 §11.8: retransmission with exponential back-off and growing sequence numbers")
def test_retransmission_backs_off():
    simulation, node, agent = pair(lambda packet: [])
    node.attach("wlan", WLAN, ROUTER, simulation.now)
    times = []
    for _ in range(200):
        before = len(updates(simulation))
        simulation.run(1)
        times.extend([simulation.now] * (len(updates(simulation)) - before))
    gaps = [later - earlier for earlier, later in zip(times, times[1:], strict=False)]
    assert gaps[:6] == pytest.approx([1.5, 3, 6, 12, 24, 32], abs=1)
    assert gaps[6:] == pytest.approx([32] * len(gaps[6:]), abs=1)
    sequences = [packet.message.sequence for packet in updates(simulation)]
    assert sequences == [(65531 + step) % 65536 for step in range(len(sequences))]


@requirement("RFC 6275 §11.8: at most MAX_UPDATE_RATE messages within a second")
def test_update_rate_is_limited():
    simulation, node, agent = attached_pair()
    simulation.run(5)
    start = len(updates(simulation))
    for step in range(20):
        node.detach("wlan", simulation.now) if step % 2 == 0 else node.attach(
            "wlan", WLAN, ROUTER, simulation.now
        )
        simulation.run(0.02)
    assert len(updates(simulation)) - start <= 3
    simulation.run(5)
    agree(node, agent)


@requirement("RFC 6275 §11.7.3: status 135 corrects the sequence number")
def test_sequence_number_is_corrected():
    simulation, node, agent = attached_pair()
    reborn = MobileNode(node.configuration, simulation.now, sequence=40000)
    simulation.add("mn", reborn, WLAN, CELLULAR)
    reborn.attach("wlan", WLAN, ROUTER, simulation.now)
    simulation.run(1)
    assert reborn.registered
    assert set(agent.cache.get(HOME_ADDRESS).bindings) == {1}  # O: the old ones are gone
    agree(reborn, agent)


@requirement("draft §8.1: an Add with a FID in use is rejected; the mobile node mends it after a lost answer")
def test_lost_acknowledgement_of_an_add():
    lose = [False]
    simulation, node, agent = attached_pair(
        lambda packet: [] if lose[0] and isinstance(packet.message, BindingAcknowledgement) else [0.01]
    )
    lose[0] = True
    node.add_flow(flow(), simulation.now)
    simulation.run(0.5)
    assert agent.cache.get(HOME_ADDRESS).flows  # it arrived
    lose[0] = False
    simulation.run(5)
    agree(node, agent)
    assert node.registration.flows[1].operation is None
    assert simulation.events("flow-changed")[-1]["accepted"]


@requirement(
    "draft §8.1: refresh of an unknown FID is rejected as poorly formed; the mobile node adds it again"
)
def test_home_agent_restarts_without_memory():
    simulation, node, agent = attached_pair()
    node.add_flow(flow(), simulation.now)
    simulation.run(1)
    reborn = HomeAgent(agent.configuration, simulation.now)
    simulation.add("ha", reborn, HOME_AGENT)
    simulation.run(120)
    agree(node, reborn)
    assert reborn.cache.get(HOME_ADDRESS).flows


@requirement("RFC 6275 §10.3.1: bindings promised are kept for their lifetime, over a restart too")
def test_home_agent_restarts_with_its_memory():
    simulation, node, agent = attached_pair()
    node.add_flow(flow(), simulation.now)
    simulation.run(1)
    saved = agent.snapshot(simulation.now)
    reborn = HomeAgent(agent.configuration, simulation.now)
    reborn.restore(saved, simulation.now, simulation.now + 2)
    assert reborn.home_binding(HOME_ADDRESS) == agent.home_binding(HOME_ADDRESS)
    assert HOME_ADDRESS in reborn.changes()
    agree(node, reborn)
    gone = HomeAgent(agent.configuration, simulation.now)
    gone.restore(saved, simulation.now, simulation.now + 100)
    assert gone.forwarding() == {}


def test_mobile_node_restarts_with_its_memory():
    simulation, node, agent = attached_pair()
    node.add_flow(flow(), simulation.now)
    simulation.run(1)
    saved = node.snapshot(simulation.now)
    reborn = MobileNode(node.configuration, simulation.now)
    reborn.restore(saved, simulation.now, simulation.now)
    simulation.add("mn", reborn, WLAN, CELLULAR)
    reborn.attach("wlan", WLAN, ROUTER, simulation.now)
    reborn.attach("cellular", CELLULAR, ROUTER, simulation.now)
    simulation.run(2)
    agree(reborn, agent)
    assert set(agent.cache.get(HOME_ADDRESS).flows) == {1}


@requirement("RFC 6275 §10.3.1: a binding is deleted after its lifetime")
@requirement("draft §8.3: a home agent asks for a refresh before an entry expires")
def test_expiry_at_the_home_agent():
    simulation, node, agent = attached_pair(lifetime_s=40)
    node.add_flow(flow(), simulation.now)
    simulation.run(1)
    del simulation.roles["mn"]
    simulation.run(38)
    request = simulation.packets[-1]
    assert isinstance(request.message, BindingRefreshRequest) and request.routing_address == HOME_ADDRESS
    assert {option.bid for option in request.message.all_options(BindingIdentifier)} <= {1, 2}
    simulation.run(5)
    assert agent.forwarding() == {} and agent.cache.get(HOME_ADDRESS) is None


@requirement("RFC 6275 §11.7.4, RFC 5648 §5.8: a Binding Refresh Request is answered for its BIDs")
def test_binding_refresh_request_is_answered():
    simulation, node, agent = attached_pair()
    simulation.run(2)
    before = len(updates(simulation))
    request = BindingRefreshRequest(options=(BindingIdentifier(1, priority=20),))
    node.receive(Packet(HOME_AGENT, WLAN, request, routing_address=HOME_ADDRESS), "wlan", simulation.now)
    simulation.run(1)
    (update,) = updates(simulation)[before:]
    assert [option.bid for option in update.message.all_options(BindingIdentifier)] == [1]


@requirement("RFC 6275 §11.7.1, RFC 5648 §5.4: de-registration of all bindings by lifetime zero")
@requirement("RFC 6275 §10.3.2: the sequence number outlives the de-registration")
def test_deregistration():
    simulation, node, agent = attached_pair()
    node.add_flow(flow(), simulation.now)
    simulation.run(1)
    node.deregister(simulation.now)
    simulation.run(0.5)
    assert node.deregistered and not node.registered
    assert agent.forwarding() == {} and node.forwarding() == {}
    late = updates(simulation)[-2]
    agent.receive(as_received(late), "eth0", simulation.now)
    assert agent.transmissions()[-1].packet.message.status == Status.MIPV6_ID_MISMATCH
    simulation.run(20)
    assert agent.cache.get(HOME_ADDRESS) is None


def test_deregistration_is_retransmitted():
    lose = [False]
    simulation, node, agent = attached_pair(lambda packet: [] if lose[0] else [0.01])
    lose[0] = True
    node.deregister(simulation.now)
    simulation.run(2.5)
    assert not node.deregistered
    lose[0] = False
    simulation.run(10)
    assert node.deregistered and agent.forwarding() == {}


@requirement("draft §4.8, §6.1.4: no Flow Identification option in the answer means no support")
def test_peer_without_flow_bindings():
    def forget_flows(packet):
        return [0.01]

    simulation, node, agent = attached_pair(forget_flows, key=None)
    node.add_flow(flow(), simulation.now)
    simulation.settle()
    sequence = node.registration.sequence
    plain = BindingAcknowledgement(0, sequence, 60)
    node.receive(
        Packet(HOME_AGENT, CELLULAR, plain, routing_address=HOME_ADDRESS), "cellular", simulation.now
    )
    simulation.settle()
    assert simulation.events("flow-bindings-unsupported")
    assert not simulation.events("flow-changed")[-1]["accepted"]
    with pytest.raises(FlowError, match="does not support"):
        node.add_flow(flow(2), simulation.now)


@requirement(
    "draft §6.1.1: the mobile node does not add an existing FID, nor replace or remove an unknown one"
)
def test_mobile_node_checks_what_it_is_asked():
    simulation, node, agent = attached_pair()
    node.add_flow(flow(), simulation.now)
    with pytest.raises(FlowError, match="FID 1 is in use"):
        node.add_flow(flow(), simulation.now)
    with pytest.raises(FlowError, match="no flow binding with FID 9"):
        node.replace_flow(flow(9), simulation.now)
    with pytest.raises(FlowError, match="no flow binding with FID 9"):
        node.remove_flow(9, simulation.now)
    with pytest.raises(FlowError, match="no BID 5"):
        node.add_flow(flow(2, bids=(5,)), simulation.now)


def test_a_flow_waits_for_its_interface():
    simulation, node, agent = pair()
    node.attach("cellular", CELLULAR, ROUTER, simulation.now)
    node.add_flow(flow(), simulation.now)
    simulation.run(1)
    assert node.flows()[0]["state"] == "waiting"
    node.attach("wlan", WLAN, ROUTER, simulation.now)
    simulation.run(1)
    assert node.flows()[0]["state"] == "registered"
    agree(node, agent)


def test_more_flows_than_one_message_can_carry_at_once():
    simulation, node, agent = attached_pair()
    wide = IPv6TrafficSelector(
        source_address=(CELLULAR, CELLULAR),
        destination_address=(HOME_ADDRESS, HOME_ADDRESS),
        source_port=(1, 9),
    )
    for fid in range(60):
        node.add_flow(flow(fid, selector=wide), simulation.now)
    simulation.run(20)
    agree(node, agent)
    assert len(agent.cache.get(HOME_ADDRESS).flows) == 60
    simulation.run(200)
    agree(node, agent)


def test_a_bid_has_room_for_so_many_flows():
    simulation, node, agent = attached_pair()
    with pytest.raises(FlowError, match="flow bindings already"):
        for fid in range(1000):
            node.add_flow(flow(fid), simulation.now)


@requirement("draft §3.1: policy refusals are told by status and change nothing")
@pytest.mark.parametrize(
    ("policy", "wanted", "status"),
    [
        (Policy(flow_bindings=False), flow(), FlowStatus.ADMINISTRATIVELY_PROHIBITED),
        (Policy(port_selectors=False), flow(), FlowStatus.PORTS_NOT_SUPPORTED),
        (
            Policy(prefix_selectors=False),
            flow(selector=IPv6TrafficSelector(source_address=(WLAN, WLAN))),
            FlowStatus.PREFIX_NOT_SUPPORTED,
        ),
        (
            Policy(flow_label_selectors=False),
            flow(selector=IPv6TrafficSelector(flow_label=(1, 1))),
            FlowStatus.FLOW_LABEL_NOT_SUPPORTED,
        ),
        (
            Policy(spi_selectors=False),
            flow(selector=IPv6TrafficSelector(spi=(1, 1))),
            FlowStatus.SPI_NOT_SUPPORTED,
        ),
        (Policy(discard=False), flow(action=Action.DISCARD), FlowStatus.DISCARD_NOT_SUPPORTED),
        (Policy(n_cast=False), flow(action=Action.N_CAST, bids=(1, 2)), FlowStatus.N_CAST_NOT_SUPPORTED),
        (Policy(max_flows=0), flow(), FlowStatus.REASON_UNSPECIFIED),
    ],
)
def test_policy(policy, wanted, status):
    simulation, node, agent = attached_pair(policy=policy)
    node.add_flow(wanted, simulation.now)
    simulation.run(1)
    assert simulation.events("flow-changed")[-1]["status"] == status
    assert not agent.cache.get(HOME_ADDRESS).flows and not node.flows()
    agree(node, agent)


@requirement("RFC 5648 §5.7: after MCOA BULK REGISTRATION PROHIBITED, one BID a message")
def test_without_bulk_registration():
    simulation, node, agent = pair(policy=Policy(bulk_registration=False))
    node.attach("cellular", CELLULAR, ROUTER, simulation.now)
    simulation.run(1)
    node.detach("cellular", simulation.now)
    node.attach("wlan", WLAN, ROUTER, simulation.now)
    node.attach("cellular", CELLULAR, ROUTER, simulation.now)
    node.add_flow(flow(), simulation.now)
    simulation.run(10)
    agree(node, agent)
    assert set(agent.cache.get(HOME_ADDRESS).bindings) == {1, 2}
    simulation.run(300)
    agree(node, agent)
    assert set(agent.cache.get(HOME_ADDRESS).bindings) == {1, 2}
    assert agent.cache.get(HOME_ADDRESS).flows


def test_datapath_failure_is_refused_and_undone():
    simulation, node, agent = attached_pair()
    before = agent.home_binding(HOME_ADDRESS)
    simulation.failing.add("ha")
    node.add_flow(flow(), simulation.now)
    simulation.run(0.5)
    assert acknowledgements(simulation)[-1].message.status == Status.INSUFFICIENT_RESOURCES
    assert agent.home_binding(HOME_ADDRESS).rules == before.rules == ()


def test_a_flow_that_is_being_removed_does_not_come_back_with_a_restart():
    simulation, node, _ = attached_pair()
    node.add_flow(flow(), simulation.now)
    node.add_flow(flow(2), simulation.now)
    simulation.run(1)
    node.remove_flow(1, simulation.now)
    reborn = MobileNode(node.configuration, simulation.now)
    reborn.restore(node.snapshot(simulation.now), simulation.now, simulation.now)
    assert [item["flow"].fid for item in reborn.flows()] == [2]


def test_what_is_refused_for_the_datapath_cannot_be_played_back():
    simulation, node, agent = attached_pair(key=None)
    node.add_flow(flow(), simulation.now)
    simulation.failing.add("ha")
    simulation.run(0.1)
    refused = simulation.packets[-2]
    assert isinstance(refused.message, BindingUpdate)
    simulation.failing.clear()
    simulation._fly(refused)
    simulation.run(0.1)
    assert acknowledgements(simulation)[-1].message.status == Status.SEQUENCE_NUMBER_OUT_OF_WINDOW
    assert agent.flows() == []


def test_a_datapath_failure_that_nobody_asked_for_breaks_no_promise():
    """One binding expires while the kernel takes no changes: the other one stays, and so does what has
    been acknowledged; the change is tried again until it is made."""
    simulation, node, agent = attached_pair()
    node.detach("wlan", simulation.now)
    simulation.run(1)
    simulation.cut |= {WLAN, CELLULAR}
    wanted = agent.home_binding(HOME_ADDRESS)
    entry = agent.cache.get(HOME_ADDRESS)
    entry.bindings[1] = replace(entry.bindings[1], expires=simulation.now + 20)
    agent._schedule(HOME_ADDRESS)
    simulation.failing.add("ha")
    simulation.run(25)
    assert simulation.events("datapath-failed") and wanted.default_bid == 2
    assert {path.bid for path in agent.home_binding(HOME_ADDRESS).paths} == {2}
    tried = len(simulation.events("datapath-failed"))
    simulation.run(3)
    assert len(simulation.events("datapath-failed")) > tried
    simulation.failing.clear()
    simulation.run(2)
    tried = len(simulation.events("datapath-failed"))
    simulation.run(5)
    assert len(simulation.events("datapath-failed")) == tried


@requirement("draft §6.1.4: a flow option without its copy in the answer is not acknowledged")
def test_one_option_is_missing_in_the_answer():
    simulation, node, agent = attached_pair(key=None)
    node.add_flow(flow(1), simulation.now)
    simulation.settle()
    sequence = node.registration.sequence
    other = FlowIdentification(9, 10, 1, FlowStatus.SUCCESS, Pro.ADD)
    answer = BindingAcknowledgement(0, sequence, 60, options=(other,))
    node.receive(
        Packet(HOME_AGENT, CELLULAR, answer, routing_address=HOME_ADDRESS), "cellular", simulation.now
    )
    simulation.settle()
    assert not simulation.events("flow-changed")[-1]["accepted"]
    assert not node.home_binding(HOME_ADDRESS).rules


@requirement("draft §3.3: a FID identifies a flow binding of one home address; others may use it as well")
def test_two_mobile_nodes_may_use_the_same_fid():
    other_home, other_care_of = HOME_ADDRESS + 1, WLAN + 1
    simulation, node, agent = attached_pair(associations={HOME_ADDRESS: KEY, other_home: KEY})
    configuration = MobileNodeConfiguration(other_home, HOME_AGENT, INTERFACES, association=KEY)
    other = MobileNode(configuration, simulation.now)
    simulation.add("other", other, other_care_of)
    other.attach("wlan", other_care_of, ROUTER, simulation.now)
    for mobile in (node, other):
        mobile.add_flow(flow(1), simulation.now)
    simulation.run(1)
    assert len(agent.forwarding()) == 2
    assert [rule.fid for wanted in agent.forwarding().values() for rule in wanted.rules] == [1, 1]
