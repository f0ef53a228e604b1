"""RFC 6089 between mobile nodes and correspondent nodes: the receiver's rules, then both together."""

import pytest
from peer import CELLULAR, WLAN, Peer
from simulation import CORRESPONDENT, HOME_ADDRESS, ROUTER, trio

from testbed.mobility.binding import FlowBinding
from testbed.mobility.correspondent_node import ANY_OF_OURS, CorrespondentNode
from testbed.mobility.forwarding import Action
from testbed.mobility.policy import Policy
from testbed.wire.flow import FlowBindingAction, FlowIdentification
from testbed.wire.flow import RFC6089FlowStatus as Status
from testbed.wire.message import BindingUpdate
from testbed.wire.option import BindingIdentifier, FlowSummary
from testbed.wire.selector import IPv6TrafficSelector

requirement = pytest.mark.requirement
SSH, WEB = IPv6TrafficSelector(source_port=(22, 22)), IPv6TrafficSelector(source_port=(443, 443))


def fi(fid=1, priority=100, bids=(1,), selector=SSH, **more):
    return FlowIdentification(fid, priority, binding_reference=bids, selector=selector, **more)



@pytest.fixture
def peer():
    """Both care-of addresses are registered."""
    peer = Peer(dialect="rfc6089")
    peer.register(WLAN, bid=1)
    peer.register(CELLULAR, bid=2)
    return peer


def statuses(peer, *options, care_of=WLAN, bid=1):
    answer = peer.register(care_of, bid=bid, options=options)
    return {option.fid: option.status for option in answer.all_options(FlowIdentification)}


@requirement("RFC 6089 §5.3: home agents and correspondent nodes add, change, keep and remove alike")
def test_a_life_of_flow_bindings(peer):
    assert statuses(peer, fi(1), fi(2, 200, selector=WEB)) == {1: 0, 2: 0}
    assert {fid: rule.bids for fid, rule in peer.rules.items()} == {1: (1,), 2: (1,)}
    assert statuses(peer, FlowSummary((2,)), fi(1, 100, (2,), None), care_of=CELLULAR, bid=2) == {1: 0}
    assert {fid: rule.bids for fid, rule in peer.rules.items()} == {1: (2,), 2: (1,)}
    assert peer.rules[1].selector == SSH
    assert statuses(peer, FlowSummary((1, 9))) == {9: Status.FID_NOT_FOUND}
    assert set(peer.rules) == {1}


@requirement("RFC 6089 §5.3.4: a message about one care-of address mentions the flows of all")
def test_what_is_left_out_is_removed_whatever_the_care_of_address(peer):
    assert statuses(peer, fi(1)) == {1: 0}
    peer.register(CELLULAR, bid=2)
    assert peer.rules == {}


@requirement("RFC 6089 §5.3.5: a correspondent node refuses several BIDs by policy, 128: it does not copy")
def test_no_copies(peer):
    assert statuses(peer, fi(1, bids=(1, 2)), fi(2, 200)) == {1: Status.ADMINISTRATIVELY_PROHIBITED, 2: 0}
    assert set(peer.rules) == {2}
    assert statuses(peer, fi(2, 200, (2, 1), None)) == {2: Status.ADMINISTRATIVELY_PROHIBITED}
    assert peer.rules[2].bids == (1,)


@requirement("RFC 6089 §5.3.2.1: a BID that no care-of test has authorised is not found, 131")
def test_only_authorised_care_of_addresses(peer):
    assert statuses(peer, fi(1, bids=(3,))) == {1: Status.BID_NOT_FOUND}
    assert peer.rules == {}


@requirement("RFC 6089 §4.2.1.3: no flow bindings without Binding Identifiers: BID 0 is none")
def test_flows_need_bids():
    peer = Peer(dialect="rfc6089")
    answer = peer.register(WLAN, bid=None, options=(fi(1, bids=(0,)), fi(2, 200, bids=None)))
    found = {option.fid: option.status for option in answer.all_options(FlowIdentification)}
    assert found == {1: Status.BID_NOT_FOUND, 2: Status.MALFORMED}
    assert peer.rules == {}


@requirement("RFC 6089 §5.3.2.1: what is malformed, 130, changes nothing at a correspondent node")
@pytest.mark.parametrize("option", [fi(bids=None), fi(selector=None), fi(fid=0), fi(priority=0)])
def test_malformed(peer, option):
    assert statuses(peer, option) == {option.fid: Status.MALFORMED}
    assert peer.rules == {}


@requirement("RFC 6089 §4.3: without its BID a flow binding is inactive at a correspondent node, too")
def test_inactive(peer):
    assert statuses(peer, fi(1, bids=(2,)), care_of=CELLULAR, bid=2) == {1: 0}
    peer.register(CELLULAR, bid=2, lifetime_s=0, options=(FlowSummary((1,)),))
    assert peer.bindings == {1: WLAN} and peer.rules == {}
    peer.register(CELLULAR, bid=2, options=(FlowSummary((1,)),))
    assert peer.rules[1].bids == (2,)


@requirement("RFC 6089 §5.3.3: a de-registration of everything deletes all flow bindings")
def test_deregistration(peer):
    statuses(peer, fi(1))
    peer.register(bid=None, lifetime_s=0, options=(FlowSummary((1,)),))
    assert peer.bindings == {} and peer.rules == {}


@requirement("RFC 7109 §6.2.1: a Flow Binding Action in a Binding Update changes nothing")
@pytest.mark.parametrize("action", FlowBindingAction)
def test_flow_binding_action(peer, action):
    asked = fi(1, flow_binding_action=int(action))
    answer = peer.register(options=(asked,))
    (found,) = answer.all_options(FlowIdentification)
    assert found == asked and found.status == 0
    assert peer.rules[1].bids == (1,)


def flow(fid=1, bids=(1,), action=Action.FORWARD, priority=10, selector=SSH):
    return FlowBinding(fid, priority, action, bids, selector)


def optimised(*flows, **keywords):
    simulation, node, correspondent = trio(dialect="rfc6089", **keywords)
    for wanted in flows:
        node.add_flow(wanted, simulation.now)
    simulation.run(2)
    node.optimise(CORRESPONDENT, simulation.now)
    simulation.run(2)
    return simulation, node, correspondent


def updates(simulation):
    return [
        packet
        for packet in simulation.packets
        if isinstance(packet.message, BindingUpdate) and packet.destination == CORRESPONDENT
    ]


def agree(node, correspondent):
    """List and cache say the same, and so do the datapaths at both ends."""
    registration = node.optimiser.correspondents[CORRESPONDENT]
    entry = correspondent.cache.get(HOME_ADDRESS)
    listed = {b.bid: b.registered for b in registration.bindings.values() if b.registered}
    assert listed == {b.bid: b.care_of_address for b in entry.bindings.values()}
    assert {flow.fid: flow for flow in registration.flows.registered()} == entry.flows
    ours = node.optimisations()[HOME_ADDRESS, CORRESPONDENT]
    theirs = correspondent.optimisations()[HOME_ADDRESS, ANY_OF_OURS]
    assert ours.default_bid == theirs.default_bid
    assert [rule for rule in ours.rules if rule.action is not Action.N_CAST] == list(theirs.rules)


@requirement("RFC 6089 §5.2.7: flow bindings at a correspondent node, after return routability")
@requirement("RFC 6089 §5.2.3: every Binding Update to a correspondent node mentions all flow bindings there")
def test_flows_of_several_care_of_addresses():
    simulation, node, correspondent = optimised(flow(1), flow(2, (2,), selector=WEB), flow(3, selector=None))
    agree(node, correspondent)
    assert {f.fid: f.bids for f in correspondent.cache.get(HOME_ADDRESS).flows.values()} == {
        1: (1,),
        2: (2,),
        3: (1,),
    }
    known = set()
    for packet in updates(simulation):
        told = packet.message.all_options(FlowIdentification)
        kept = {fid for option in packet.message.all_options(FlowSummary) for fid in option.fids}
        bid = packet.message.option(BindingIdentifier).bid
        assert {option.binding_reference for option in told} <= {(bid,)}
        assert all(option.selector is not None for option in told)
        assert kept == known
        known |= {option.fid for option in told}
    simulation.run(600)  # refreshed many times, each care-of address by itself
    agree(node, correspondent)
    assert len(correspondent.cache.get(HOME_ADDRESS).flows) == 3


def test_changes_and_removals():
    simulation, node, correspondent = optimised(flow(1), flow(2, selector=WEB))
    entry = correspondent.cache.get(HOME_ADDRESS)
    node.replace_flow(flow(1, (2,)), simulation.now)
    simulation.run(1)
    last = updates(simulation)[-1]
    assert last.source == CELLULAR and last.message.option(FlowIdentification).selector is None
    assert last.message.option(FlowSummary).fids == (2,)
    assert entry.flows[1].bids == (2,) and entry.flows[1].selector == SSH
    node.remove_flow(2, simulation.now)
    simulation.run(1)
    assert set(entry.flows) == {1}
    agree(node, correspondent)


@requirement("RFC 6089 §5.2.2.2: one message to a correspondent node moves all flows of a BID")
def test_movement():
    simulation, node, correspondent = optimised(flow(1), flow(2, (2,), selector=WEB))
    seen = len(updates(simulation))
    node.detach("wlan", simulation.now)
    simulation.run(1)
    (packet,) = updates(simulation)[seen:]
    assert packet.message.option(FlowSummary).fids == (1, 2)
    assert packet.message.all_options(FlowIdentification) == ()
    agree(node, correspondent)
    node.attach("wlan", WLAN, ROUTER, simulation.now)
    simulation.run(1)
    agree(node, correspondent)


def test_n_cast_stays_with_the_home_agent():
    simulation, node, correspondent = optimised(flow(1), flow(2, (1, 2), Action.N_CAST, 5, WEB))
    assert set(correspondent.cache.get(HOME_ADDRESS).flows) == {1}
    rules = node.optimisations()[HOME_ADDRESS, CORRESPONDENT].rules
    assert [(rule.fid, rule.action, rule.bids) for rule in rules] == [
        (2, Action.N_CAST, ()),
        (1, Action.FORWARD, (1,)),
    ]


def test_what_a_correspondent_refuses_is_not_asked_again():
    simulation, node, correspondent = optimised(
        flow(1), flow(2, selector=None), policy=Policy(port_selectors=False)
    )
    simulation.run(200)
    assert set(correspondent.cache.get(HOME_ADDRESS).flows) == {2}
    told = [o for p in updates(simulation) for o in p.message.all_options(FlowIdentification)]
    assert [option.fid for option in told] == [1, 2]
    assert {item["flow"].fid for item in node.flows()} == {1, 2}  # the home agent has both


@requirement("RFC 6089 §5.2.6: a correspondent node that knows no such options supports no flow bindings")
def test_a_correspondent_node_of_the_other_dialect():
    simulation, node, _ = trio(dialect="rfc6089")
    other = CorrespondentNode(Peer().node.configuration, simulation.now)
    simulation.add("cn", other, CORRESPONDENT)
    simulation.codecs["cn"] = other._codec
    node.add_flow(flow(1), simulation.now)
    node.optimise(CORRESPONDENT, simulation.now)
    simulation.run(5)
    assert simulation.events("flow-bindings-unsupported")
    assert len(other.cache.get(HOME_ADDRESS).bindings) == 2
    assert other.cache.get(HOME_ADDRESS).flows == {}
    assert node.optimisations()[HOME_ADDRESS, CORRESPONDENT].rules == ()
