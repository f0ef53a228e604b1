"""A mobile node optimising the route to a correspondent node: proofs, registrations, losses, attacks."""

from dataclasses import replace

import pytest
from simulation import (
    CELLULAR,
    CORRESPONDENT,
    HOME_ADDRESS,
    ROUTER,
    WLAN,
    trio,
)

from testbed.mobility.binding import FlowBinding
from testbed.mobility.correspondent_node import ANY_OF_OURS, CorrespondentNode
from testbed.mobility.correspondent_registration import MAX_RO_FAILURE
from testbed.mobility.forwarding import Action, Side
from testbed.mobility.policy import Policy
from testbed.mobility.registration import MAX_UPDATE_RATE
from testbed.mobility.route_optimisation import MAX_REMEMBERED
from testbed.wire.flow import FlowIdentification, Pro
from testbed.wire.message import (
    BindingAcknowledgement,
    BindingError,
    BindingRefreshRequest,
    BindingUpdate,
    CareOfTest,
    CareOfTestInit,
    HomeTest,
    HomeTestInit,
    Status,
)
from testbed.wire.option import BindingIdentifier, NonceIndices
from testbed.wire.packet import Packet
from testbed.wire.selector import IPv6TrafficSelector

SSH = IPv6TrafficSelector(source_port=(22, 22), next_header=(6, 6))
WEB = IPv6TrafficSelector(source_port=(443, 443), next_header=(6, 6))

requirement = pytest.mark.requirement


def flow(fid=1, bids=(1,), action=Action.FORWARD, priority=10, selector=SSH):
    return FlowBinding(fid, priority, action, bids, selector)


def sent(simulation, kind, since=0):
    """The messages of a kind to or from the correspondent node."""
    return [
        packet
        for packet in simulation.packets[since:]
        if isinstance(packet.message, kind) and CORRESPONDENT in (packet.destination, packet.source)
    ]


def optimised(*arguments, flows=(), **keywords):
    """The route is optimised, both care-of addresses and the flows are registered."""
    simulation, node, correspondent = trio(*arguments, **keywords)
    for wanted in flows:
        node.add_flow(wanted, simulation.now)
    simulation.run(2)
    node.optimise(CORRESPONDENT, simulation.now)
    simulation.run(2)
    return simulation, node, correspondent


def agree(node, correspondent):
    """List and cache say the same, and so do the datapaths at both ends."""
    registration = node.optimiser.correspondents.get(CORRESPONDENT)
    entry = correspondent.cache.get(HOME_ADDRESS)
    listed = {b.bid: b.registered for b in registration.bindings.values() if b.registered}
    assert listed == {b.bid: b.care_of_address for b in entry.bindings.values()}
    flows = {fid: item.registered for fid, item in registration.flows.items() if item.registered}
    assert flows == entry.flows
    ours = node.optimisations()[HOME_ADDRESS, CORRESPONDENT]
    theirs = correspondent.optimisations()[HOME_ADDRESS, ANY_OF_OURS]
    assert ours.default_bid == theirs.default_bid
    assert [rule for rule in ours.rules if rule.action is not Action.N_CAST] == list(theirs.rules)
    assert (ours.side, theirs.side) == (Side.MOBILE, Side.CORRESPONDENT)
    assert {(p.bid, p.local) for p in ours.paths} == {(p.bid, p.remote) for p in theirs.paths}


@requirement("RFC 6275 §11.6.1: tests come from the home address and from the care-of addresses")
@requirement("RFC 6275 §11.6.1: both are sent in parallel")
@requirement("RFC 5648 §5.2: one care-of test for each care-of address")
def test_tests():
    simulation, node, correspondent = trio()
    node.optimise(CORRESPONDENT, simulation.now)
    simulation.settle()
    assert [packet.source for packet in sent(simulation, HomeTestInit)] == [HOME_ADDRESS]
    tests = sent(simulation, CareOfTestInit)
    assert {packet.source for packet in tests} == {WLAN, CELLULAR}
    assert all(packet.home_address is None for packet in tests)
    assert {packet.message.option(BindingIdentifier).bid for packet in tests} == {1, 2}
    cookies = [packet.message.care_of_init_cookie for packet in tests]
    assert len(set(cookies)) == 2


@requirement("RFC 5648 §4.2: a Care-of Test whose Binding Identifier has a status of 128 or more is no token")
def test_a_care_of_test_that_refuses():
    simulation, node, correspondent = trio()
    del simulation.roles["cn"]
    node.optimise(CORRESPONDENT, simulation.now)
    simulation.settle()
    (init,) = [packet for packet in sent(simulation, CareOfTestInit) if packet.source == WLAN]
    cookie = init.message.care_of_init_cookie
    for status, taken in ((164, False), (0, True)):
        answer = CareOfTest(7, cookie, bytes(8), (BindingIdentifier(1, status),))
        node.receive(Packet(CORRESPONDENT, WLAN, answer), "wlan", simulation.now)
        token = node.optimiser.correspondents[CORRESPONDENT]._care_of_token(WLAN, simulation.now)
        assert (token is not None) == taken


@requirement("RFC 6275 §11.7.2: a Binding Update with Nonce Indices and Binding Authorization Data")
@requirement("RFC 5648 §5.2: one BID a Binding Update to a correspondent node, each with its own tokens")
@requirement("draft §6.3: a flow is bound to the care-of address whose keygen token made the key")
@requirement("draft §6.1.2: flow bindings at a correspondent node after return routability")
@requirement("draft §7: several bindings and flow bindings at a correspondent node")
@requirement("draft §4.4: the same FID at several receivers")
def test_registration():
    simulation, node, correspondent = optimised(flows=[flow(1), flow(2, (2, 1), selector=WEB)])
    updates = sent(simulation, BindingUpdate)
    assert len(updates) == 2
    care_of_tests = {packet.destination: packet.message for packet in sent(simulation, CareOfTest)}
    for packet in updates:
        update = packet.message
        (identifier,) = update.all_options(BindingIdentifier)
        assert identifier.care_of_address == packet.source and packet.home_address == HOME_ADDRESS
        test = care_of_tests[packet.source]
        assert update.option(NonceIndices).care_of_nonce_index == test.care_of_nonce_index
        assert not update.home_registration
        for option in update.all_options(FlowIdentification):
            assert option.binding_reference == (identifier.bid,) and option.pro == Pro.ADD
    agree(node, correspondent)
    rules = correspondent.optimisations()[HOME_ADDRESS, ANY_OF_OURS].rules
    assert {rule.fid: rule.bids for rule in rules} == {1: (1,), 2: (2,)}
    assert set(simulation.roles["ha"].cache.get(HOME_ADDRESS).flows) == {1, 2}


@requirement("RFC 6275 §11.7.2: after the home agent's acknowledgement only")
def test_home_agent_comes_first():
    simulation, node, correspondent = trio(lambda packet: [])
    node.optimise(CORRESPONDENT, simulation.now)
    simulation.run(5)
    assert not sent(simulation, HomeTestInit) and not sent(simulation, CareOfTestInit)
    simulation.fate = lambda packet: [0.01]
    simulation.run(60)
    agree(node, correspondent)


@requirement("RFC 6275 §11.7.2: lifetime not longer than the remaining home registration")
def test_lifetime():
    simulation, node, correspondent = optimised(lifetime_s=600)
    assert all(420 >= packet.message.lifetime_s > 400 for packet in sent(simulation, BindingUpdate))
    simulation, node, correspondent = optimised(lifetime_s=60)
    for packet in sent(simulation, BindingUpdate):
        assert packet.message.lifetime_s <= 60


@requirement("RFC 6275 §11.8: test messages are repeated with back-off and fresh cookies")
@requirement("RFC 6275 §5.2.9: after MAX_RO_FAILURE attempts packets go through the home agent")
def test_lost_tests():
    simulation, node, correspondent = trio()
    simulation.cut.add(CORRESPONDENT)
    node.optimise(CORRESPONDENT, simulation.now)
    start, times, seen = simulation.now, [], 0
    for _ in range(1300):
        simulation.run(0.1)
        tests = sent(simulation, HomeTestInit)
        times += [simulation.now - start] * (len(tests) - seen)
        seen = len(tests)
    assert times[:8] == pytest.approx([0, 1, 3, 7, 15, 31, 63, 95], abs=0.2)
    cookies = [packet.message.home_init_cookie for packet in tests]
    assert len(set(cookies)) == len(cookies)
    assert simulation.events("return-routability-failed")
    assert node.optimisations() == {}
    simulation.cut.clear()
    simulation.run(70)
    agree(node, correspondent)


@requirement("RFC 6275 §11.8: at most MAX_UPDATE_RATE messages of a type within a second")
def test_rate_of_tests():
    simulation, node, correspondent = trio()
    node.optimise(CORRESPONDENT, simulation.now)
    for step in range(20):
        node.attach("wlan", WLAN + step, ROUTER, simulation.now)
        simulation.addresses[WLAN + step] = "mn"
        before = len(sent(simulation, CareOfTestInit))
        simulation.run(0.05)
        assert len(sent(simulation, CareOfTestInit)) - before <= MAX_UPDATE_RATE
    assert len(sent(simulation, CareOfTestInit)) <= MAX_UPDATE_RATE + 1
    simulation.run(10)
    agree(node, correspondent)


@requirement("RFC 6275 §11.6.2: Home Test and Care-of Test with a wrong cookie are ignored")
@requirement("RFC 6275 §11.6.2: a test that is not waited for is ignored")
def test_wrong_cookies():
    simulation, node, correspondent = trio()
    simulation.cut.add(CORRESPONDENT)
    node.optimise(CORRESPONDENT, simulation.now)
    simulation.settle()
    home = sent(simulation, HomeTestInit)[0].message.home_init_cookie
    care_of = {p.source: p.message.care_of_init_cookie for p in sent(simulation, CareOfTestInit)}
    for packet in (
        Packet(CORRESPONDENT, HOME_ADDRESS, HomeTest(1, bytes(8), bytes(8))),
        Packet(CORRESPONDENT, WLAN, HomeTest(1, home, bytes(8))),
        Packet(CORRESPONDENT, WLAN, HomeTest(1, home, bytes(8)), routing_address=HOME_ADDRESS),
        Packet(CORRESPONDENT + 1, HOME_ADDRESS, HomeTest(1, home, bytes(8))),
        Packet(CORRESPONDENT, WLAN, CareOfTest(1, care_of[CELLULAR], bytes(8))),
        Packet(CORRESPONDENT, WLAN + 7, CareOfTest(1, care_of[WLAN], bytes(8))),
    ):
        node.receive(packet, "wlan", simulation.now)
        simulation.settle()
        assert not sent(simulation, BindingUpdate)
    assert len(simulation.events("message-dropped")) >= 6
    simulation.cut.clear()
    simulation.run(5)
    agree(node, correspondent)
    again = sent(simulation, HomeTest)[-1]
    node.receive(again, "wlan", simulation.now)
    assert simulation.events("message-dropped")


@requirement("RFC 6275 §11.7.3: an acknowledgement without valid authenticator is ignored")
def test_forged_acknowledgement():
    simulation, node, correspondent = trio()
    simulation.fate = lambda packet: [] if isinstance(packet.message, BindingAcknowledgement) else [0.01]
    node.optimise(CORRESPONDENT, simulation.now)
    simulation.run(0.5)
    sequence = sent(simulation, BindingUpdate)[-1].message.sequence
    for status, number in ((0, sequence), (Status.SEQUENCE_NUMBER_OUT_OF_WINDOW, sequence + 9)):
        forged = BindingAcknowledgement(status, number % 65536, 60)
        packet = Packet(CORRESPONDENT, CELLULAR, forged, routing_address=HOME_ADDRESS)
        node.receive(packet, "cellular", simulation.now)
        simulation.settle()
    assert node.optimisations() == {}
    assert sent(simulation, BindingUpdate)[-1].message.sequence == sequence


@requirement("RFC 6275 §11.7.1: refreshed well before the lifetime is over, tokens renewed when too old")
@requirement("RFC 6275 §5.2.7: tokens are used for MAX_TOKEN_LIFETIME at most")
def test_refresh():
    simulation, node, correspondent = optimised(lifetime_s=2000, flows=[flow()])
    gone = []
    for _ in range(150):
        simulation.run(10)
        gone.append(len(correspondent.cache.get(HOME_ADDRESS).bindings) < 2)
    assert not any(gone)
    agree(node, correspondent)
    updates = sent(simulation, BindingUpdate)
    assert len(updates) <= 2 * (1500 // (0.8 * 400) + 2)
    refreshes = [option for p in updates[2:] for option in p.message.all_options(FlowIdentification)]
    assert refreshes and all(option.pro == Pro.REFRESH for option in refreshes)
    assert len(sent(simulation, HomeTestInit)) > 3
    assert not simulation.events("nonces-expired")


@requirement("draft §6.1.2: refreshes concern flow bindings of the care-of address in the message only")
def test_refreshes_are_about_one_care_of_address():
    simulation, node, correspondent = optimised(flows=[flow(1), flow(2, (2,), selector=WEB)])
    simulation.run(300)
    assert len(sent(simulation, BindingUpdate)) > 6
    for packet in sent(simulation, BindingUpdate):
        for option in packet.message.all_options(FlowIdentification):
            assert option.fid == packet.message.option(BindingIdentifier).bid
    agree(node, correspondent)


@requirement("draft §6.2: one message moves the flows of a lost care-of address, at a correspondent node too")
@requirement("RFC 6275 §11.7.2: movement is told to the nodes in the Binding Update List")
def test_movement():
    simulation, node, correspondent = optimised(flows=[flow(1), flow(3)])
    before = len(simulation.packets)
    node.detach("wlan", simulation.now)
    simulation.settle()
    wanted = simulation.optimised["mn", HOME_ADDRESS, CORRESPONDENT]
    assert {path.local for path in wanted.paths} == {CELLULAR}  # does not wait for an acknowledgement
    simulation.run(1)
    (packet,) = sent(simulation, BindingUpdate, before)
    assert packet.source == CELLULAR
    assert packet.message.option(BindingIdentifier).care_of_address == CELLULAR
    assert {o.pro for o in packet.message.all_options(FlowIdentification)} == {Pro.REFRESH}
    agree(node, correspondent)
    node.attach("wlan", WLAN + 1, ROUTER, simulation.now)
    simulation.addresses[WLAN + 1] = "mn"
    simulation.run(1)
    agree(node, correspondent)
    assert correspondent.cache.get(HOME_ADDRESS).bindings[1].care_of_address == WLAN + 1
    # the home token was still good
    assert len(sent(simulation, HomeTestInit)) == 1


@requirement("draft §6.1.2: flow bindings at a correspondent node are modified and deleted by their FIDs")
def test_flows_change_while_optimised():
    simulation, node, correspondent = optimised()
    entry = correspondent.cache.get(HOME_ADDRESS)
    node.add_flow(flow(5), simulation.now)
    simulation.run(1)
    assert entry.flows[5].bids == (1,)
    node.replace_flow(flow(5, (2,)), simulation.now)
    simulation.run(1)
    option = sent(simulation, BindingUpdate)[-1].message.option(FlowIdentification)
    assert (option.pro, option.selector) == (Pro.REPLACE, None)
    assert sent(simulation, BindingUpdate)[-1].source == CELLULAR
    assert entry.flows[5].bids == (2,) and entry.flows[5].selector == SSH
    node.remove_flow(5, simulation.now)
    simulation.run(1)
    assert sent(simulation, BindingUpdate)[-1].source == CELLULAR  # of the care-of address in the message
    assert not entry.flows
    agree(node, correspondent)


@requirement("draft §6.3: n-cast is not asked of a correspondent node")
def test_n_cast_stays_with_the_home_agent():
    simulation, node, correspondent = optimised(flows=[flow(1), flow(2, (1, 2), Action.N_CAST, 5, WEB)])
    assert set(correspondent.cache.get(HOME_ADDRESS).flows) == {1}
    rules = node.optimisations()[HOME_ADDRESS, CORRESPONDENT].rules
    assert [(rule.fid, rule.action, rule.bids) for rule in rules] == [
        (2, Action.N_CAST, ()),
        (1, Action.FORWARD, (1,)),
    ]
    agree(node, correspondent)


def test_flows_of_other_nodes_are_not_told():
    elsewhere = IPv6TrafficSelector(source_address=(CORRESPONDENT + 1, CORRESPONDENT + 9))
    here = IPv6TrafficSelector(source_address=(CORRESPONDENT, CORRESPONDENT))
    simulation, node, correspondent = optimised(flows=[flow(1, selector=elsewhere), flow(2, selector=here)])
    assert set(correspondent.cache.get(HOME_ADDRESS).flows) == {2}


def test_what_a_correspondent_refuses_is_not_asked_again():
    policy = Policy(discard=False)
    flows = [flow(1, action=Action.DISCARD), flow(2)]
    simulation, node, correspondent = optimised(policy=policy, flows=flows)
    simulation.run(200)
    assert set(correspondent.cache.get(HOME_ADDRESS).flows) == {2}
    adds = [
        option
        for packet in sent(simulation, BindingUpdate)
        for option in packet.message.all_options(FlowIdentification)
        if option.pro == Pro.ADD
    ]
    assert len(adds) == 2
    assert len(node.flows()) == 2  # the home agent has both


@requirement("RFC 6275 §11.3.6: Binding Error, status 1, from a node in the list: register anew")
def test_correspondent_restarts():
    simulation, node, correspondent = optimised(flows=[flow()])
    reborn = CorrespondentNode(correspondent.configuration, simulation.now)
    simulation.add("cn", reborn, CORRESPONDENT)
    reborn.unverified_home_address(WLAN, CORRESPONDENT, HOME_ADDRESS, simulation.now)
    simulation.run(0.015)
    assert simulation.events("binding-error-received")
    assert node.optimisations() == {}
    simulation.run(10)
    agree(node, reborn)
    assert reborn.cache.get(HOME_ADDRESS).flows


@requirement("RFC 6275 §5.2.7: after statuses 136 to 138 the return routability procedure is repeated")
def test_forgotten_nonces():
    simulation, node, correspondent = optimised(flows=[flow()])
    correspondent._nonces._generations.clear()
    node.add_flow(flow(2, selector=WEB), simulation.now)
    simulation.run(5)
    assert simulation.events("nonces-expired")
    agree(node, correspondent)
    assert set(correspondent.cache.get(HOME_ADDRESS).flows) == {1, 2}


@requirement("RFC 6275 §11.3.6: a Binding Error from an unknown node is ignored")
def test_unknown_nodes_are_ignored():
    simulation, node, correspondent = optimised()
    for message in (BindingError(1, HOME_ADDRESS), BindingRefreshRequest()):
        node.receive(Packet(CORRESPONDENT + 1, WLAN, message, routing_address=HOME_ADDRESS), "wlan", 0.0)
        assert "home agent" in simulation.roles["mn"].events()[-1].fields["reason"]
    agree(node, correspondent)


@requirement("RFC 6275 §11.7.4: a Binding Refresh Request of a correspondent node is answered")
def test_binding_refresh_request():
    simulation, node, correspondent = optimised()
    before = len(simulation.packets)
    request = BindingRefreshRequest(options=(BindingIdentifier(1),))
    node.receive(Packet(CORRESPONDENT, WLAN, request, routing_address=HOME_ADDRESS), "wlan", simulation.now)
    simulation.run(1)
    (packet,) = sent(simulation, BindingUpdate, before)
    assert packet.message.option(BindingIdentifier).bid == 1


@requirement("RFC 6275 §11.7.2: deletion with lifetime zero, authorised by the home token")
def test_stop_optimising():
    simulation, node, correspondent = optimised(flows=[flow()])
    assert node.stop_optimising(CORRESPONDENT, simulation.now)
    simulation.settle()
    assert simulation.optimised["mn", HOME_ADDRESS, CORRESPONDENT] is None
    simulation.run(1)
    update = sent(simulation, BindingUpdate)[-1].message
    assert update.lifetime_s == 0 and update.option(NonceIndices).care_of_nonce_index == 0
    assert correspondent.optimisations() == {} and node.optimiser.correspondents == {}
    assert not node.stop_optimising(CORRESPONDENT, simulation.now)
    node.optimise(CORRESPONDENT, simulation.now)
    simulation.run(3)
    agree(node, correspondent)


def test_deregistration_leaves_correspondents_first():
    simulation, node, correspondent = optimised(lifetime_s=1000)
    simulation.run(250)  # the home token has become too old
    node.deregister(simulation.now)
    simulation.run(1)
    assert node.deregistered
    assert correspondent.optimisations() == {} and simulation.roles["ha"].forwarding() == {}


def test_deregistration_does_not_wait_forever():
    simulation, node, correspondent = optimised(lifetime_s=1000)
    simulation.cut.add(CORRESPONDENT)
    node.deregister(simulation.now)
    simulation.run(3)
    assert node.deregistered and node.optimisations() == {}


@requirement("RFC 6275 §11.8: unanswered Binding Updates are repeated; one cut-off path holds up no other")
def test_one_path_is_cut():
    simulation, node, correspondent = trio()
    simulation.cut.add(CELLULAR)
    node.optimise(CORRESPONDENT, simulation.now)
    simulation.run(10)
    assert {b.bid for b in correspondent.cache.get(HOME_ADDRESS).bindings.values()} == {1}
    simulation.cut.clear()
    simulation.run(40)
    agree(node, correspondent)
    simulation.cut.add(CELLULAR)
    node.add_flow(flow(1, (2,)), simulation.now)
    node.add_flow(flow(2, (1,), selector=WEB), simulation.now)
    simulation.run(10)
    assert set(correspondent.cache.get(HOME_ADDRESS).flows) >= {2}


def refuse(correspondent, *care_of_addresses):
    """Have it take these care-of addresses no more, all others again."""
    accepted, refused = Status.BINDING_UPDATE_ACCEPTED, Status.ADMINISTRATIVELY_PROHIBITED
    correspondent._care_of_status = lambda address: refused if address in care_of_addresses else accepted


def registered(correspondent):
    entry = correspondent.cache.get(HOME_ADDRESS)
    return set(entry.bindings) if entry else set()


def test_a_refused_care_of_address_holds_up_no_other():
    """It is asked for again when the others are refreshed, and flows go to those meanwhile."""
    simulation, node, correspondent = optimised(
        policy=Policy(max_bindings=1), flows=[flow(1, (1, 2)), flow(2, (1,), selector=WEB)], lifetime_s=100
    )
    for _ in range(60):
        simulation.run(5)
        assert registered(correspondent) == {2}
        assert correspondent.cache.get(HOME_ADDRESS).flows[1].bids == (2,)
        agree(node, correspondent)
    refused = simulation.events("binding-refused")
    refusals = [event for event in refused if event["peer"] == str(CORRESPONDENT)]
    assert 2 <= len(refusals) <= 8 and not simulation.events("binding-expired")
    correspondent.policy = replace(correspondent.policy, max_bindings=2)
    simulation.run(100)
    assert registered(correspondent) == {1, 2}
    flows = correspondent.cache.get(HOME_ADDRESS).flows
    assert {fid: found.bids for fid, found in flows.items()} == {1: (1,), 2: (1,)}


def test_what_is_to_be_said_of_others_does_not_wait_behind_a_refusal():
    def fate(packet):  # the home agent has answered long before
        return [0.1 if CORRESPONDENT in (packet.source, packet.destination) else 0.001]

    simulation, node, correspondent = optimised(fate, lifetime_s=400)
    refuse(correspondent, CELLULAR)
    seen = len(simulation.packets)
    node.add_flow(flow(1, (2,)), simulation.now)
    node.add_flow(flow(2, (1,), selector=WEB), simulation.now)
    simulation.run(0.5)
    told = [packet.message.option(BindingIdentifier).bid for packet in sent(simulation, BindingUpdate, seen)]
    assert told == [2, 1]
    assert set(correspondent.cache.get(HOME_ADDRESS).flows) == {2}


def test_a_care_of_address_that_is_refused_later_lets_no_other_run_out():
    """The other one is refreshed in its own time, which comes later, without being asked to."""

    def fate(packet):
        return [] if isinstance(packet.message, BindingRefreshRequest) else [0.01]

    simulation, node, correspondent = trio(fate, lifetime_s=400)
    node.detach("wlan", simulation.now)
    node.optimise(CORRESPONDENT, simulation.now)
    simulation.run(100)
    node.attach("wlan", WLAN, ROUTER, simulation.now)
    simulation.run(5)
    assert registered(correspondent) == {1, 2}
    refuse(correspondent, CELLULAR)
    seen = len(simulation.history)
    while len(registered(correspondent)) == 2:
        simulation.run(10)
    simulation.run(200)
    expired = [event for _, name, event in simulation.history[seen:] if event.name == "binding-expired"]
    assert [event.fields["bid"] for event in expired] == [2]
    assert registered(correspondent) == {1}
    agree(node, correspondent)
    refuse(correspondent)
    simulation.run(400)
    assert registered(correspondent) == {1, 2}
    agree(node, correspondent)


def test_after_all_care_of_addresses_were_refused_they_are_asked_for_again():
    simulation, node, correspondent = optimised(lifetime_s=40)
    refuse(correspondent, WLAN, CELLULAR)
    simulation.run(100)
    assert registered(correspondent) == set() and node.optimisations() == {}
    refuse(correspondent)
    simulation.run(60)
    assert registered(correspondent) == {1, 2}
    agree(node, correspondent)


def test_refused_care_of_addresses_are_asked_for_again_of_who_has_lost_all():
    simulation, node, correspondent = optimised(lifetime_s=400)
    refuse(correspondent, WLAN, CELLULAR)
    node.add_flow(flow(1, (1,)), simulation.now)
    node.add_flow(flow(2, (2,), selector=WEB), simulation.now)
    simulation.run(5)
    assert {b.refused for b in node.optimiser.correspondents[CORRESPONDENT].bindings.values()} == {129}
    reborn = CorrespondentNode(correspondent.configuration, simulation.now)
    simulation.add("cn", reborn, CORRESPONDENT)
    reborn.unverified_home_address(WLAN, CORRESPONDENT, HOME_ADDRESS, simulation.now)
    simulation.run(5)
    assert registered(reborn) == {1, 2}
    agree(node, reborn)


def test_silent_correspondent_is_given_up():
    simulation, node, correspondent = optimised()
    simulation.cut.add(CORRESPONDENT)
    node.add_flow(flow(), simulation.now)
    simulation.run(1 + 2 + 4 + 1)
    assert len(simulation.events("binding-update-unanswered")) >= MAX_RO_FAILURE - 1
    assert node.optimisations() == {}
    simulation.cut.clear()
    simulation.run(100)
    agree(node, correspondent)


def test_replayed_updates_change_nothing():
    simulation, node, correspondent = optimised(flows=[flow()])
    old = sent(simulation, BindingUpdate)
    node.detach("wlan", simulation.now)
    simulation.run(1)
    wanted = correspondent.optimisations()
    for packet in old:
        simulation._fly(packet)
        simulation._fly(replace(packet, source=WLAN + 1))
    simulation.run(1)
    assert correspondent.optimisations() == wanted
    agree(node, correspondent)


def test_restart_keeps_correspondents():
    simulation, node, correspondent = optimised()
    saved = node.snapshot(simulation.now)
    reborn = type(node)(node.configuration, simulation.now)
    reborn.restore(saved, simulation.now, simulation.now)
    assert set(reborn.optimiser.correspondents) == {CORRESPONDENT}
    simulation.add("mn", reborn, WLAN, CELLULAR)
    reborn.attach("wlan", WLAN, ROUTER, simulation.now)
    reborn.attach("cellular", CELLULAR, ROUTER, simulation.now)
    simulation.run(20)
    agree(reborn, correspondent)


def test_numbers_of_nodes_that_were_left_are_remembered_so_far():
    """RFC 6275 §11.7.2: greater than the previous one, to the same node; but not without end."""
    simulation, node, _ = optimised()
    for number in range(1, MAX_REMEMBERED + 50):
        node.optimise(CORRESPONDENT + number, simulation.now)
        node.stop_optimising(CORRESPONDENT + number, simulation.now)
        node.transmissions(), node.events()
    remembered = node.optimiser._sequences
    assert len(remembered) == MAX_REMEMBERED
    latest = CORRESPONDENT + MAX_REMEMBERED + 49
    node.optimise(latest, simulation.now)
    assert latest not in remembered and len(remembered) == MAX_REMEMBERED - 1
