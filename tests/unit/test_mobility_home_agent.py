"""What a home agent answers to Binding Updates that a well-behaved mobile node would not send."""

from ipaddress import IPv4Address, IPv6Address

import pytest
from simulation import CELLULAR, HOME_ADDRESS, HOME_AGENT, HOME_PREFIX, WLAN

from testbed.mobility.binding import FlowBinding
from testbed.mobility.forwarding import Action
from testbed.mobility.home_agent import HomeAgent, HomeAgentConfiguration
from testbed.mobility.policy import Policy
from testbed.wire.flow import FlowIdentification, FlowStatus, Pro
from testbed.wire.message import (
    BindingAcknowledgement,
    BindingError,
    BindingUpdate,
    Status,
    UnknownMessage,
)
from testbed.wire.option import (
    AlternateCareOfAddress,
    BindingIdentifier,
    BindingRefreshAdvice,
    MalformedOption,
    NonceIndices,
)
from testbed.wire.packet import Packet
from testbed.wire.selector import IPv6TrafficSelector

requirement = pytest.mark.requirement
BID1 = BindingIdentifier(1, priority=20, care_of_address=WLAN)
BID2 = BindingIdentifier(2, priority=10, care_of_address=CELLULAR)
SSH = IPv6TrafficSelector(source_port=(22, 22))
WEB = IPv6TrafficSelector(source_port=(443, 443))


class Bench:
    """A home agent that is asked one thing after the other."""

    def __init__(self, **configuration):
        configuration = {"accept_unauthenticated": True, **configuration}
        self.agent = HomeAgent(HomeAgentConfiguration(HOME_AGENT, (HOME_PREFIX,), **configuration), 0.0)
        self.sequence = 100
        self.now = 0.0

    def send(self, message, source=WLAN, home_address=HOME_ADDRESS):
        self.agent.receive(Packet(source, HOME_AGENT, message, home_address=home_address), "eth0", self.now)
        self.changed = self.agent.changes()
        return [transmission.packet for transmission in self.agent.transmissions()]

    def ask(
        self, *options, source=WLAN, home_address=HOME_ADDRESS, lifetime_s=60, **flags
    ) -> BindingAcknowledgement:
        """Send a Binding Update with the next sequence number; its acknowledgement."""
        self.sequence += 1
        flags = {"acknowledge": True, "home_registration": True, **flags}
        update = BindingUpdate(flags.pop("sequence", self.sequence), lifetime_s, options=options, **flags)
        (packet,) = self.send(update, source, home_address)
        return packet.message

    def flow(self, *options, carrier=BID1, source=WLAN) -> list[int]:
        """The statuses of flow options, sent beside a Binding Identifier."""
        answer = self.ask(carrier, *options, source=source)
        assert answer.status == Status.BINDING_UPDATE_ACCEPTED
        returned = answer.all_options(FlowIdentification)
        assert [option.fid for option in returned] == [option.fid for option in options]
        return [option.status for option in returned]

    @property
    def flows(self):
        return self.agent.cache.get(HOME_ADDRESS).flows

    @property
    def bindings(self):
        entry = self.agent.cache.get(HOME_ADDRESS)
        return {bid: binding.care_of_address for bid, binding in entry.bindings.items()} if entry else {}


@pytest.fixture
def bench():
    bench = Bench()
    assert bench.ask(BID1, BID2).status == Status.BINDING_UPDATE_ACCEPTED
    return bench


def add(fid=1, reference=(1,), selector=SSH, action=Action.FORWARD, pro=Pro.ADD, priority=1, **fields):
    return FlowIdentification(
        fid, priority, int(action), pro=pro, binding_reference=reference, selector=selector, **fields
    )


@requirement("draft §8.1: Add with a FID that exists MUST be rejected")
def test_add_fid_in_use(bench):
    assert bench.flow(add(), add(selector=None)) == [FlowStatus.SUCCESS, FlowStatus.FID_IN_USE]
    assert bench.flows[1].selector == SSH


@requirement("draft §8.1: n-cast without Binding Reference MUST be rejected as poorly formed")
@requirement("draft §3.1: n-cast needs one or more Binding References")
def test_n_cast_without_reference(bench):
    assert bench.flow(add(reference=None, action=Action.N_CAST)) == [FlowStatus.POORLY_FORMED]
    assert not bench.flows


@requirement("draft §8.1: n-cast goes to the care-of addresses that the BIDs point to")
def test_n_cast(bench):
    assert bench.flow(add(reference=(1, 2), action=Action.N_CAST)) == [FlowStatus.SUCCESS]
    assert bench.agent.home_binding(HOME_ADDRESS).rules[0].bids == (1, 2)


@requirement("draft §8.1: n-cast with one BID that points elsewhere is bicast to both care-of addresses")
def test_n_cast_with_one_other_bid(bench):
    assert bench.flow(add(reference=(2,), action=Action.N_CAST), source=WLAN) == [FlowStatus.SUCCESS]
    assert set(bench.flows[1].bids) == {1, 2}


@requirement("draft §8.1: n-cast with one BID that points to the address of the message may be rejected")
@requirement("draft §6.1.1: a single BID of an n-cast points to another care-of address")
def test_n_cast_with_own_bid(bench):
    assert bench.flow(add(reference=(1,), action=Action.N_CAST), source=WLAN) == [FlowStatus.POORLY_FORMED]


@requirement("draft §3.2: a BID in a Binding Reference MUST be known to the receiver")
def test_unknown_bid_in_reference(bench):
    assert bench.flow(add(reference=(1, 9))) == [FlowStatus.POORLY_FORMED]


@requirement("draft §3.2: the Binding Identifier need not be in the same message")
def test_reference_to_bid_registered_before(bench):
    assert bench.flow(add(reference=(2,)), carrier=BID1) == [FlowStatus.SUCCESS]
    assert bench.flows[1].bids == (2,)


@requirement("draft §4.4: without Binding Reference the flow goes to the source address of the message")
def test_no_reference_means_source_address(bench):
    assert bench.flow(add(reference=None), source=CELLULAR, carrier=BID1) == [FlowStatus.SUCCESS]
    assert bench.flows[1].bids == (2,)


@requirement("draft §6.1.3: the alternate care-of address is the one that flow options are about")
def test_alternate_care_of_address(bench):
    answer = bench.ask(AlternateCareOfAddress(CELLULAR), BID1, add(reference=None), source=WLAN)
    assert answer.option(FlowIdentification).status == FlowStatus.SUCCESS
    assert bench.flows[1].bids == (2,)


@requirement("draft §4.4: Add without flow description is a wild card")
def test_wild_card(bench):
    assert bench.flow(add(selector=None)) == [FlowStatus.SUCCESS]
    assert bench.agent.home_binding(HOME_ADDRESS).rules[0].selector is None


@requirement("draft §3.1: Action 2 discards")
def test_discard(bench):
    assert bench.flow(add(action=Action.DISCARD)) == [FlowStatus.SUCCESS]
    rule = bench.agent.home_binding(HOME_ADDRESS).rules[0]
    assert rule.action is Action.DISCARD and rule.bids == ()


@requirement("draft §3.1, §5: Action 0 of the example means forward")
def test_action_zero_is_forward(bench):
    option = FlowIdentification(1, 1, 0, pro=Pro.ADD, binding_reference=(1,), selector=SSH)
    assert bench.flow(option) == [FlowStatus.SUCCESS]
    assert bench.flows[1].action is Action.FORWARD


@requirement("draft §3.1: unknown Action or PRO is poorly formed")
@pytest.mark.parametrize("option", [add(action=9), add(pro=7)])
def test_unknown_action_or_pro(bench, option):
    assert bench.flow(option) == [FlowStatus.POORLY_FORMED]


@requirement("draft §3.1: status 129 poorly formed, 137 classifier language not supported")
def test_malformed_option_and_unknown_format(bench):
    bad = FlowIdentification(3, 1, malformed="selector is truncated")
    foreign = FlowIdentification(4, 1, binding_reference=(1,), unknown_selector_format=77)
    assert bench.flow(bad, foreign) == [
        FlowStatus.POORLY_FORMED,
        FlowStatus.CLASSIFIER_LANGUAGE_NOT_SUPPORTED,
    ]
    assert not bench.flows


@requirement("draft §3.1: multiple options may be in one Binding Update")
@requirement("draft §3.1: the status of one option says nothing of the others")
def test_each_option_by_itself(bench):
    statuses = bench.flow(add(1), add(2, reference=(9,)), add(3))
    assert statuses == [FlowStatus.SUCCESS, FlowStatus.POORLY_FORMED, FlowStatus.SUCCESS]
    assert set(bench.flows) == {1, 3}


@requirement("draft §3.1: the Status field is ignored in a Binding Update")
def test_status_in_a_binding_update_is_ignored(bench):
    assert bench.flow(add(status=FlowStatus.FID_IN_USE)) == [FlowStatus.SUCCESS]
    assert set(bench.flows) == {1}


@requirement("draft §4.2, §3.1: overlapping flows are tried by PRI, lower first")
def test_priority_decides(bench):
    bench.flow(add(1, priority=9), add(2, priority=3), add(3, priority=3))
    assert [rule.fid for rule in bench.agent.home_binding(HOME_ADDRESS).rules] == [2, 3, 1]


@requirement("draft §3.1: no per-packet load balancing: all of a flow goes to one care-of address at a time")
def test_a_flow_is_not_spread(bench):
    assert bench.flow(add(reference=(2, 1))) == [FlowStatus.SUCCESS]
    assert [rule.bids for rule in bench.agent.home_binding(HOME_ADDRESS).rules] == [(2,)]
    bench.ask(BID2, lifetime_s=0)
    assert [rule.bids for rule in bench.agent.home_binding(HOME_ADDRESS).rules] == [(1,)]


@requirement("draft §4.3: a default binding MUST be maintained, whichever bindings come and go")
def test_there_is_always_a_default_binding(bench):
    assert bench.agent.home_binding(HOME_ADDRESS).default_bid == 2
    bench.ask(BID2, lifetime_s=0)
    assert bench.agent.home_binding(HOME_ADDRESS).default_bid == 1
    bench.ask(BindingIdentifier(3, priority=5, care_of_address=CELLULAR))
    assert bench.agent.home_binding(HOME_ADDRESS).default_bid == 3
    bench.ask(BindingIdentifier(3, priority=50, care_of_address=CELLULAR))
    assert bench.agent.home_binding(HOME_ADDRESS).default_bid == 1


@requirement("draft §8.1: Replace of an unknown FID MUST be rejected as poorly formed")
@requirement("draft §8.1: Refresh of an unknown FID MUST be rejected as poorly formed")
@requirement("draft §8.3.1: Remove of an unknown FID is answered with FID not found")
def test_unknown_fid(bench):
    options = (add(5, pro=Pro.REPLACE), add(6, pro=Pro.REFRESH), add(7, pro=Pro.REMOVE))
    assert bench.flow(*options) == [
        FlowStatus.POORLY_FORMED,
        FlowStatus.POORLY_FORMED,
        FlowStatus.FID_NOT_FOUND,
    ]


@requirement("draft §8.1: Replace is checked as Add is; a refused one changes nothing")
def test_refused_replace_changes_nothing(bench):
    bench.flow(add())
    before = bench.flows[1]
    assert bench.flow(add(pro=Pro.REPLACE, reference=(9,))) == [FlowStatus.POORLY_FORMED]
    assert bench.flows[1] == before


@requirement("draft §4.5: a Replace with a description: the definition is removed, a new one has its FID")
def test_replace_with_a_description(bench):
    bench.flow(add(action=Action.DISCARD))
    option = add(pro=Pro.REPLACE, selector=WEB, priority=7, reference=(2,))
    assert bench.flow(option) == [FlowStatus.SUCCESS]
    assert bench.flows == {1: FlowBinding(1, 7, Action.FORWARD, (2,), WEB)}


@requirement("draft §4.7: Refresh keeps the flow binding as it is")
def test_refresh_changes_nothing(bench):
    bench.flow(add())
    before = bench.flows[1]
    option = FlowIdentification(1, 99, int(Action.DISCARD), pro=Pro.REFRESH)
    assert bench.flow(option) == [FlowStatus.SUCCESS]
    assert bench.flows[1] == before


@requirement("draft §4.7: what is attached to a renewed binding and left out is lost")
def test_left_out_is_lost(bench):
    bench.flow(add(1, reference=(1,)), add(2, reference=(2,)), carrier=BID1)
    assert set(bench.flows) == {1, 2}
    bench.ask(BID1)
    assert set(bench.flows) == {2}


@requirement("draft §8.2: each option of the Binding Update is copied, only its status changes")
def test_options_are_copied(bench):
    answer = bench.ask(BID1, add(fid=258, priority=7, action=Action.N_CAST, reference=(1, 2)))
    option = answer.option(FlowIdentification)
    assert option == FlowIdentification(258, 7, int(Action.N_CAST), FlowStatus.SUCCESS, Pro.ADD)


@requirement("draft §8.2: the status of the Binding Acknowledgement says nothing of the flow bindings")
def test_message_status_is_apart(bench):
    answer = bench.ask(BID1, add(reference=(9,)))
    assert answer.status == Status.BINDING_UPDATE_ACCEPTED


@requirement("draft §4.8: a refused Binding Update gets its flow options back as well, as refused")
def test_refused_update_returns_flow_options():
    bench = Bench()
    answer = bench.ask(BID1, add(), home_address=IPv6Address("2001:db8:999::1"))
    assert answer.status == Status.NOT_HOME_SUBNET
    assert answer.option(FlowIdentification).status == FlowStatus.REASON_UNSPECIFIED
    bench.ask(BID1)
    answer = bench.ask(BID1, add(fid=7), sequence=bench.sequence)  # status 135
    assert answer.status == Status.SEQUENCE_NUMBER_OUT_OF_WINDOW
    assert answer.all_options(FlowIdentification) == (add(fid=7).answer(FlowStatus.REASON_UNSPECIFIED),)
    assert [option.bid for option in answer.all_options(BindingIdentifier)] == [1]
    assert not bench.flows


@requirement("RFC 6275 §9.5.1: a care-of address is unicast routable")
@pytest.mark.parametrize("address", ["ff02::1", "ff0e::1", "fe80::1", "::1", "::"])
def test_care_of_address_that_is_not_routable(address):
    bench = Bench()
    answer = bench.ask(AlternateCareOfAddress(IPv6Address(address)))
    assert answer.status == Status.REASON_UNSPECIFIED
    assert not bench.bindings


@requirement("RFC 5648 §6.2: without its own care-of address, a BID takes the alternate care-of address")
def test_alternate_care_of_address_of_a_bid():
    bench = Bench()
    answer = bench.ask(BindingIdentifier(1), AlternateCareOfAddress(CELLULAR), source=WLAN)
    assert answer.status == Status.BINDING_UPDATE_ACCEPTED and bench.bindings == {1: CELLULAR}


@requirement("draft §4.3: a new priority of a BID changes the default binding")
def test_a_new_priority(bench):
    assert bench.agent.home_binding(HOME_ADDRESS).default_bid == 2
    bench.ask(BindingIdentifier(1, priority=5, care_of_address=WLAN))
    assert bench.changed[HOME_ADDRESS].default_bid == 1
    bench.ask(BindingIdentifier(1, priority=5, care_of_address=WLAN))
    assert not bench.changed  # nothing is new to the kernel


def test_flow_bindings_change_where_there_is_room_for_no_more():
    bench = Bench(policy=Policy(max_flows=1))
    bench.ask(BID1)
    assert bench.flow(add(), add(fid=2)) == [FlowStatus.SUCCESS, FlowStatus.REASON_UNSPECIFIED]
    assert bench.flow(add(pro=Pro.REPLACE, selector=WEB)) == [FlowStatus.SUCCESS]
    assert bench.flows[1].selector == WEB


@requirement("RFC 5648 §6.2: the O flag replaces all bindings; their flow bindings go with them")
def test_overwriting(bench):
    assert bench.flow(add(fid=1), add(fid=2, reference=(2,))) == [FlowStatus.SUCCESS] * 2
    web = add(fid=1, selector=WEB)
    refresh = add(fid=2, reference=None, selector=None, pro=Pro.REFRESH)
    answer = bench.ask(BID1, web, refresh, overwrite=True)
    statuses = [option.status for option in answer.all_options(FlowIdentification)]
    assert statuses == [FlowStatus.SUCCESS, FlowStatus.POORLY_FORMED]
    assert bench.bindings == {1: WLAN}
    assert {fid: flow.selector for fid, flow in bench.flows.items()} == {1: WEB}


@requirement(
    "draft §4.1: flow bindings are used with multiple care-of addresses; without BID they are refused"
)
def test_flow_without_bid():
    bench = Bench()
    answer = bench.ask(add(reference=None))
    assert answer.status == Status.BINDING_UPDATE_ACCEPTED
    assert answer.option(FlowIdentification).status == FlowStatus.POORLY_FORMED


@requirement("RFC 5648 §6.2: a malformed Binding Identifier refuses the message with MCOA MALFORMED")
@pytest.mark.parametrize(
    "options",
    [
        (MalformedOption(35, b"\0\1\0", "length 3"),),
        (BindingIdentifier(0, care_of_address=WLAN),),
        (BID1, BID1),
        (BindingIdentifier(1, care_of_address=IPv4Address("192.0.2.1")),),
        (BindingIdentifier(1, care_of_address=IPv6Address("ff02::1")),),
        (BindingIdentifier(1, care_of_address=IPv6Address("fe80::1")),),
        (BindingIdentifier(1, care_of_address=HOME_ADDRESS),),
    ],
)
def test_malformed_binding_identifier(options):
    bench = Bench()
    assert bench.ask(*options).status == Status.MCOA_MALFORMED
    assert not bench.bindings


@requirement(
    "RFC 5648 §6.2: a BID without care-of address that is not known is refused with MCOA UNKNOWN COA"
)
def test_unknown_care_of_address():
    assert Bench().ask(BindingIdentifier(1)).status == Status.MCOA_UNKNOWN_COA


@requirement("RFC 5648 §6.2: a known BID needs no care-of address")
def test_known_bid_without_care_of_address(bench):
    assert bench.ask(BindingIdentifier(1)).status == Status.BINDING_UPDATE_ACCEPTED
    assert bench.bindings[1] == WLAN


@requirement("RFC 5648 §6.2: one refused BID among others: MCOA NOTCOMPLETE, the status in its option")
def test_bulk_registration_in_part():
    bench = Bench()
    answer = bench.ask(BID1, BindingIdentifier(2))
    assert answer.status == Status.MCOA_NOTCOMPLETE
    statuses = {option.bid: option.status for option in answer.all_options(BindingIdentifier)}
    assert statuses == {1: 0, 2: Status.MCOA_UNKNOWN_COA}
    assert set(bench.bindings) == {1}


@requirement("RFC 5648 §6.2: the O flag replaces all bindings")
def test_overwrite(bench):
    bench.flow(add(reference=(2,)))
    bench.ask(BID1, overwrite=True)
    assert set(bench.bindings) == {1} and not bench.flows


@requirement("RFC 5648 §6.2: a binding without BID stands against a BID unless O is set")
def test_plain_binding_exists():
    bench = Bench()
    bench.ask()
    assert bench.ask(BID1).status == Status.MCOA_NON_MCOA_BINDING_EXISTS
    assert bench.ask(BID1, overwrite=True).status == Status.BINDING_UPDATE_ACCEPTED
    assert set(bench.bindings) == {1}


@requirement("RFC 5648 §6.2: a Binding Update without BID replaces all bindings")
def test_plain_binding_replaces(bench):
    bench.ask(source=CELLULAR)
    assert bench.bindings == {0: CELLULAR}


@requirement("RFC 5648 §6.2: a known BID with another care-of address is updated")
def test_bid_moves(bench):
    bench.flow(add())
    bench.ask(BindingIdentifier(1, priority=20, care_of_address=CELLULAR), add(pro=Pro.REFRESH))
    assert bench.bindings[1] == CELLULAR and set(bench.flows) == {1}


@requirement("RFC 5648 §5.4, §6.2: named BIDs are de-registered; flows attached to nothing else go with them")
def test_deregister_one_bid(bench):
    bench.flow(add(1, reference=(1,)), add(2, reference=(1, 2), action=Action.N_CAST))
    answer = bench.ask(BindingIdentifier(1), lifetime_s=0, source=CELLULAR)
    assert (answer.status, answer.lifetime_s) == (Status.BINDING_UPDATE_ACCEPTED, 0)
    assert set(bench.bindings) == {2} and set(bench.flows) == {2}


@requirement("RFC 5648 §6.2, RFC 6275 §10.3.2: nothing to de-register: status 133")
def test_deregister_unknown(bench):
    assert bench.ask(BindingIdentifier(9), lifetime_s=0).status == Status.NOT_HOME_AGENT_FOR_THIS_MOBILE_NODE
    assert Bench().ask(lifetime_s=0).status == Status.NOT_HOME_AGENT_FOR_THIS_MOBILE_NODE
    assert set(bench.bindings) == {1, 2}


@requirement("RFC 5648 §4.4: policy statuses 166 and 168")
def test_mcoa_policy():
    assert Bench(policy=Policy(multiple_care_of_addresses=False)).ask(BID1).status == Status.MCOA_PROHIBITED
    bench = Bench(policy=Policy(bulk_registration=False))
    assert bench.ask(BID1, BID2).status == Status.MCOA_BULK_REGISTRATION_PROHIBITED


@requirement("RFC 6275 §9.5.1: sequence numbers are compared modulo 2^16")
@pytest.mark.parametrize(
    ("sequence", "newer"), [(15, 0), (0, 0), (32783, 0), (65535, 0), (16, 1), (32782, 1)]
)
def test_sequence_window(sequence, newer):
    bench = Bench()
    bench.ask(BID1, sequence=15)
    answer = bench.ask(BID2, sequence=sequence, source=CELLULAR)
    if newer:
        assert answer.status == Status.BINDING_UPDATE_ACCEPTED
    else:
        assert (answer.status, answer.sequence) == (Status.SEQUENCE_NUMBER_OUT_OF_WINDOW, 15)
        assert set(bench.bindings) == {1}


@requirement("RFC 6275 §9.5.1: without an entry for the home address, any sequence number is accepted")
@pytest.mark.parametrize("sequence", [0, 1, 32768, 65535])
def test_first_sequence_number(sequence):
    bench = Bench()
    assert bench.ask(BID1, sequence=sequence).status == Status.BINDING_UPDATE_ACCEPTED


@requirement("RFC 6275 §10.3.1: a home agent MUST answer, whether the A bit is set or not")
@requirement("RFC 5648 §6.2: all Binding Identifier options come back in the acknowledgement")
def test_answers_whether_asked_or_not():
    answer = Bench().ask(BID1, BID2, acknowledge=False)
    options = answer.all_options(BindingIdentifier)
    assert [(option.bid, option.priority, option.status) for option in options] == [(1, 20, 0), (2, 10, 0)]


@requirement("RFC 6275 §10.3.1: the lifetime MUST NOT be greater than the one asked for")
def test_lifetime_is_not_greater_than_asked():
    bench = Bench(max_lifetime_s=100)
    assert [bench.ask(BID1, lifetime_s=asked).lifetime_s for asked in (8, 100, 4000)] == [8, 100, 100]


@requirement("RFC 6275 §10.3.2: the answer to a de-registration: status 0, its number, lifetime 0, no advice")
@requirement("RFC 5648 §6.2: a de-registration without BID MUST delete all bindings")
def test_deregistration_of_all(bench):
    bench.flow(add())
    answer = bench.ask(lifetime_s=0)
    assert (answer.status, answer.sequence, answer.lifetime_s) == (0, bench.sequence, 0)
    assert answer.option(BindingRefreshAdvice) is None
    assert bench.bindings == {} and not bench.flows and bench.agent.forwarding() == {}


def test_who_comes_back_is_not_forgotten_with_the_deregistration():
    bench = Bench()
    bench.ask(BID1)
    bench.ask(lifetime_s=0)
    bench.now += 5
    bench.ask(BID1)
    bench.now += 6
    bench.agent.handle_timer(bench.now)
    assert set(bench.bindings) == {1}


def test_a_changed_flag_is_told_to_the_datapath(bench):
    bench.ask(BID1)
    assert bench.changed == {}  # as before
    bench.ask(BID1, link_local_compatibility=True)
    assert bench.changed[HOME_ADDRESS].link_local
    bench.ask(BID1)
    assert not bench.changed[HOME_ADDRESS].link_local


@requirement("RFC 6275 §10.3.1: a home address that is not on the home link: status 132")
def test_not_home_subnet():
    assert Bench().ask(BID1, home_address=IPv6Address("2001:db8:200::1")).status == Status.NOT_HOME_SUBNET


def test_the_home_agent_is_nobodys_home_address():
    assert Bench().ask(BID1, home_address=HOME_AGENT).status == Status.NOT_HOME_SUBNET


@requirement("RFC 6275 §10.3.1: insufficient resources: status 130")
def test_too_many_mobile_nodes():
    bench = Bench(policy=Policy(max_mobile_nodes=1))
    bench.ask(BID1)
    assert bench.ask(BID1, home_address=HOME_ADDRESS + 1).status == Status.INSUFFICIENT_RESOURCES


@requirement("RFC 6275 §9.5.1: dropped in silence: no unicast home address, no H bit, Nonce Indices with H")
def test_dropped_in_silence():
    bench = Bench()
    update = BindingUpdate(1, 60, acknowledge=True, home_registration=True, options=(BID1,))
    assert bench.send(update, home_address=IPv6Address("ff02::1")) == []
    assert bench.send(update, source=IPv6Address("fe80::1")) == []
    assert bench.send(BindingUpdate(1, 60, acknowledge=True, options=(BID1,))) == []
    with_nonces = BindingUpdate(1, 60, home_registration=True, options=(NonceIndices(1, 1),))
    assert bench.send(with_nonces) == []
    assert len([event for event in bench.agent.events() if event.name == "message-dropped"]) == 4
    assert not bench.bindings


@requirement("RFC 6275 §9.2: an unknown Mobility Header type is answered with Binding Error status 2")
def test_unknown_message_type():
    bench = Bench()
    (packet,) = bench.send(UnknownMessage(99, b""))
    assert packet.message == BindingError(2, HOME_ADDRESS) and packet.destination == WLAN
    for _ in range(100):
        bench.send(UnknownMessage(99, b""))
    assert bench.send(UnknownMessage(99, b"")) == []  # rate limited
    bench.now += 2
    assert bench.send(UnknownMessage(99, b"")) != []


@requirement("RFC 6275 §9.5.4: at home, without Home Address option, no routing header")
def test_acknowledgement_at_home(bench):
    bench.sequence += 1
    update = BindingUpdate(bench.sequence, 0, acknowledge=True, home_registration=True)
    (packet,) = bench.send(update, source=HOME_ADDRESS, home_address=None)
    assert packet.routing_address is None and packet.destination == HOME_ADDRESS
    assert not bench.bindings


@requirement("RFC 6275 §6.1.7, §9.5.1: a care-of address equal to the home address de-registers")
def test_care_of_address_is_home_address(bench):
    answer = bench.ask(AlternateCareOfAddress(HOME_ADDRESS))
    assert (answer.status, answer.lifetime_s) == (Status.BINDING_UPDATE_ACCEPTED, 0)
    assert not bench.bindings


@requirement("RFC 3775 §6.1.7: no care-of address that leads back to the home address through other bindings")
def test_circular_reference():
    """Three mobile nodes, each at the home address of the next: the tunnels would lead into each other."""
    bench = Bench()
    homes = [HOME_ADDRESS + number for number in range(3)]
    assert bench.ask(source=homes[1], home_address=homes[0]).status == Status.BINDING_UPDATE_ACCEPTED
    assert bench.ask(source=homes[2], home_address=homes[1]).status == Status.BINDING_UPDATE_ACCEPTED
    assert bench.ask(source=homes[0], home_address=homes[2]).status == Status.INVALID_CARE_OF_ADDRESS
    assert bench.agent.home_binding(homes[2]) is None
    assert bench.ask(source=WLAN, home_address=homes[1]).status == Status.BINDING_UPDATE_ACCEPTED
    assert bench.ask(source=homes[0], home_address=homes[2]).status == Status.BINDING_UPDATE_ACCEPTED
