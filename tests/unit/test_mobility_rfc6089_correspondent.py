"""RFC 6089 at correspondent nodes: the receiver's rules."""

import pytest
from peer import CELLULAR, WLAN, Peer

from testbed.wire.flow import FlowBindingAction, FlowIdentification
from testbed.wire.flow import RFC6089FlowStatus as Status
from testbed.wire.option import FlowSummary
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
