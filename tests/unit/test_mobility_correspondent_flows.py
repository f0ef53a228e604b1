"""What a correspondent node makes of flow bindings (draft §7, §8.1)."""


import pytest
from peer import CELLULAR, HOME, SSH, WLAN, Peer, add

from testbed.mobility.correspondent_node import ANY_OF_OURS
from testbed.mobility.forwarding import Action
from testbed.wire.flow import FlowIdentification, FlowStatus, Pro
from testbed.wire.option import UnknownOption
from testbed.wire.selector import IPv6TrafficSelector

WEB = IPv6TrafficSelector(source_port=(443, 443), next_header=(6, 6))

requirement = pytest.mark.requirement


@requirement("draft §7.1: a correspondent node adds a valid flow binding")
@requirement("draft §7.1: the acknowledgement has a copy of the 8 octets of each flow option")
def test_add():
    peer = Peer()
    assert peer.flow(**add()) == 0
    assert peer.rules[1].bids == (1,) and peer.rules[1].selector == SSH


@requirement("draft §4.3: a correspondent node maintains a default binding, by the BID priority")
def test_default_binding():
    peer = Peer()
    for bid, care_of_address in ((1, WLAN), (2, CELLULAR)):
        peer.register(care_of_address, bid=bid)

    def default():
        return peer.node.optimisations()[HOME, ANY_OF_OURS].default_bid

    assert default() == 1
    peer.register(WLAN, bid=1, lifetime_s=0)
    assert default() == 2


@requirement("draft §7.1: a correspondent node checks the flow description")
def test_flow_descriptions_that_are_wrong():
    peer = Peer()
    good = bytes((10, 0, 1, 1, 0, 0, 1, 4, 0, 1))  # with a Binding Reference; a description is to follow
    assert peer.register(options=(UnknownOption(18, good),)).option(FlowIdentification).status == 0
    peer.flow(1, 10, pro=Pro.REMOVE)
    for description, status in (
        (bytes((3, 8, 2, 0, 0, 0)), FlowStatus.POORLY_FORMED),  # longer than the option
        (bytes((3, 4, 77, 0)), FlowStatus.CLASSIFIER_LANGUAGE_NOT_SUPPORTED),
    ):
        answer = peer.register(options=(UnknownOption(18, good + description),))
        assert answer.option(FlowIdentification).status == status
        assert peer.rules == {}


@requirement("draft §4.5, §7.1: a correspondent node modifies a flow binding as requested")
def test_replace():
    peer = Peer()
    peer.flow(**add())
    assert peer.flow(**add(priority=7, selector=WEB, action=2, pro=Pro.REPLACE)) == 0
    rule = peer.rules[1]
    assert (rule.priority, rule.selector, rule.action) == (7, WEB, Action.DISCARD) and len(peer.rules) == 1


@requirement("draft §7.1: an Add with a FID in use is rejected by a correspondent node")
def test_add_in_use():
    peer = Peer()
    peer.flow(**add())
    assert peer.flow(**add(priority=3)) == FlowStatus.FID_IN_USE
    assert peer.rules[1].priority == 10


@requirement("draft §7.1: a correspondent node rejects n-cast, in Add and in modify")
@pytest.mark.parametrize("bids", [None, (1,), (1, 2), (2,)])
def test_n_cast(bids):
    peer = Peer()
    peer.register(CELLULAR, bid=2)
    assert peer.flow(**add(bids=bids, action=3)) == FlowStatus.N_CAST_NOT_SUPPORTED
    assert peer.rules == {}
    assert peer.flow(**add()) == 0
    assert peer.flow(**add(bids=bids, action=3, pro=Pro.REPLACE)) == FlowStatus.N_CAST_NOT_SUPPORTED
    assert peer.flow(**add(2, bids=bids, action=3)) == FlowStatus.N_CAST_NOT_SUPPORTED


@requirement("draft §7.1: modify of an unknown FID is rejected by a correspondent node")
@requirement("draft §7.1: refresh of an unknown FID is rejected by a correspondent node")
@pytest.mark.parametrize("pro", [Pro.REPLACE, Pro.REFRESH, Pro.REMOVE])
def test_unknown_fid(pro):
    peer = Peer()
    assert peer.flow(7, 10, pro=pro) == FlowStatus.FID_NOT_FOUND
    assert peer.rules == {}


@requirement("draft §7.1: a BID reference points to the care-of address of the packet or an authorised one")
def test_binding_reference():
    peer = Peer()
    assert peer.flow(**add(bids=(1,))) == 0
    assert peer.flow(**add(bids=(2,), pro=Pro.REPLACE)) == FlowStatus.POORLY_FORMED
    options = FlowIdentification(1, 10, pro=Pro.REFRESH), FlowIdentification(**add(2, bids=(1, 2)))
    answer = peer.register(options=options)
    assert [o.status for o in answer.all_options(FlowIdentification)] == [0, FlowStatus.POORLY_FORMED]
    assert peer.rules[1].bids == (1,) and set(peer.rules) == {1}
    peer.register(CELLULAR, bid=2)
    assert peer.flow(**add(bids=(2,), pro=Pro.REPLACE)) == 0
    assert peer.rules[1].bids == (2,)


@requirement("draft §4.4: without Binding Reference the flow goes to the care-of address of the message")
def test_no_binding_reference():
    peer = Peer()
    peer.register(CELLULAR, bid=2)
    assert peer.flow(**add(bids=None)) == 0
    assert peer.rules[1].bids == (1,)
    assert peer.flow(**add(2, bids=None), care_of=CELLULAR, bid=2) == 0
    assert peer.rules[2].bids == (2,)


@requirement("draft §7.1: refresh keeps an existing flow binding, no further checks")
def test_refresh():
    peer = Peer()
    peer.flow(**add())
    before = peer.rules
    assert peer.flow(1, 99, action=3, pro=Pro.REFRESH) == 0
    assert peer.rules == before


@requirement("draft §4.7: what a Binding Update leaves out is lost, at the care-of address that it renews")
def test_left_out():
    peer = Peer()
    peer.flow(**add(1))
    peer.flow(**add(2, bids=(2,)), care_of=CELLULAR, bid=2)
    assert set(peer.rules) == {1, 2}
    peer.register(CELLULAR, bid=2)
    assert set(peer.rules) == {1}


@requirement("draft §6.1.2: deletes concern the care-of address of the message only")
def test_remove():
    peer = Peer()
    peer.register(CELLULAR, bid=2)
    peer.flow(**add())
    removal = FlowIdentification(1, 10, pro=Pro.REMOVE)
    answer = peer.register(CELLULAR, bid=2, options=(removal,))
    assert answer.option(FlowIdentification).status == FlowStatus.ADMINISTRATIVELY_PROHIBITED
    assert set(peer.rules) == {1}
    assert peer.flow(1, 10, pro=Pro.REMOVE) == 0
    assert peer.rules == {}


def test_each_option_is_judged_by_itself():
    peer = Peer()
    options = (
        FlowIdentification(**add(1)),
        FlowIdentification(**add(2, action=3)),
        FlowIdentification(**add(3, bids=(9,))),
        FlowIdentification(**add(4, action=2)),
    )
    answer = peer.register(options=options)
    assert [option.status for option in answer.all_options(FlowIdentification)] == [0, 139, 129, 0]
    assert set(peer.rules) == {1, 4}


def test_flow_without_bid_in_the_message():
    peer = Peer()
    answer = peer.register(bid=None, options=(FlowIdentification(**add()),))
    assert answer.status == 0
    assert answer.option(FlowIdentification).status == FlowStatus.POORLY_FORMED
