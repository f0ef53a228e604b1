"""Mobile nodes that are correspondent nodes of one another, and begin to be of their own accord."""

from ipaddress import IPv6Address

import pytest
from simulation import (
    CELLULAR,
    CORRESPONDENT,
    HOME_ADDRESS,
    HOME_AGENT,
    HOME_PREFIX,
    ROUTER,
    WLAN,
    pair,
    trio,
)

from testbed.mobility.correspondent_node import (
    ANY_OF_OURS,
    CorrespondentNode,
    CorrespondentNodeConfiguration,
)
from testbed.mobility.forwarding import Side
from testbed.mobility.initiative import IDLE_S, LEFT_ALONE_S, MAX_NEW_PER_S, PATIENCE_S, Initiative
from testbed.mobility.mobile_correspondent import MobileCorrespondent
from testbed.mobility.mobile_node import MobileNode
from testbed.mobility.mobile_node_configuration import InterfaceConfiguration, MobileNodeConfiguration
from testbed.mobility.role import Transmission
from testbed.wire.message import (
    BindingAcknowledgement,
    BindingRefreshRequest,
    BindingUpdate,
    CareOfTest,
    HomeTest,
    Status,
)
from testbed.wire.packet import Packet

PEER_HOME, PEER = IPv6Address("2001:db8:100::200"), IPv6Address("2001:db8:203::b")
PEER_MOVED = IPv6Address("2001:db8:204::b")

requirement = pytest.mark.requirement


def both(mobile, now):
    return MobileCorrespondent(mobile, CorrespondentNode(CorrespondentNodeConfiguration(), now))


def two():
    """Two mobile nodes of one home agent, registered there."""
    simulation, node, _ = pair(key=None)
    mn = simulation.roles["mn"] = both(node, simulation.now)
    interfaces = (InterfaceConfiguration("wlan", 1, 10),)
    configuration = MobileNodeConfiguration(PEER_HOME, HOME_AGENT, interfaces, 60)
    peer = both(MobileNode(configuration, simulation.now), simulation.now)
    simulation.add("peer", peer, PEER, PEER_MOVED)
    node.attach("wlan", WLAN, ROUTER, simulation.now)
    node.attach("cellular", CELLULAR, ROUTER, simulation.now)
    peer.mobile.attach("wlan", PEER, ROUTER, simulation.now)
    simulation.run(1)
    assert mn.mobile.registered and peer.mobile.registered
    return simulation, mn, peer


def optimise(simulation, mn, peer):
    mn.mobile.optimise(PEER_HOME, simulation.now)
    peer.mobile.optimise(HOME_ADDRESS, simulation.now)
    simulation.run(3)


def cached(role, home_address):
    entry = role.correspondent.cache.get(home_address)
    return {b.bid: b.care_of_address for b in entry.bindings.values()} if entry else {}


@requirement("RFC 6275 §8.1, §8.5: a mobile node is a correspondent node of another mobile node")
def test_both_directions():
    simulation, mn, peer = two()
    optimise(simulation, mn, peer)
    assert cached(peer, HOME_ADDRESS) == {1: WLAN, 2: CELLULAR}
    assert cached(mn, PEER_HOME) == {1: PEER}
    wanted = mn.optimisations()
    assert wanted[HOME_ADDRESS, PEER_HOME].side is Side.MOBILE
    assert wanted[PEER_HOME, ANY_OF_OURS].side is Side.CORRESPONDENT
    assert {pair_[1:] for pair_ in simulation.optimised if pair_[0] == "mn"} == set(wanted)


@requirement("RFC 6275 §6.1: what a correspondent node answers comes from the home address, as it was asked")
def test_answers_have_the_home_address():
    simulation, mn, peer = two()
    mn.mobile.optimise(PEER_HOME, simulation.now)
    simulation.run(3)
    kinds = HomeTest, CareOfTest, BindingAcknowledgement
    answers = [p for p in simulation.packets if isinstance(p.message, kinds) and p.source != HOME_AGENT]
    assert {type(packet.message) for packet in answers} == set(kinds)
    assert {packet.source for packet in answers} == {PEER_HOME}


@requirement("RFC 6275 §11.3.1: a Binding Refresh Request of a mobile node by reverse tunnelling")
def test_refresh_requests_have_the_home_address():
    simulation, mn, peer = two()
    mn.mobile.optimise(PEER_HOME, simulation.now)
    simulation.run(3)
    told = BindingUpdate
    simulation.fate = lambda p: [] if isinstance(p.message, told) and p.destination == PEER_HOME else [0.01]
    simulation.run(56)  # nine tenths of a minute, which the home registration had
    requests = [p for p in simulation.packets if isinstance(p.message, BindingRefreshRequest)]
    assert {packet.source for packet in requests} == {PEER_HOME}
    assert {packet.routing_address for packet in requests} == {HOME_ADDRESS}
    assert {packet.destination for packet in requests} <= {WLAN, CELLULAR}
    seen = len(simulation.packets)
    simulation.fate = lambda packet: [0.01]
    simulation.run(10)
    updates = [p for p in simulation.packets[seen:] if isinstance(p.message, BindingUpdate)]
    assert PEER_HOME in {packet.destination for packet in updates}


def test_both_move_at_once():
    simulation, mn, peer = two()
    optimise(simulation, mn, peer)
    mn.mobile.detach("cellular", simulation.now)
    peer.mobile.attach("wlan", PEER_MOVED, ROUTER, simulation.now)
    simulation.run(5)
    assert set(cached(peer, HOME_ADDRESS).values()) == {WLAN}
    assert cached(mn, PEER_HOME) == {1: PEER_MOVED}
    assert mn.optimisations()[PEER_HOME, ANY_OF_OURS].paths[0].remote == PEER_MOVED


def test_refusal_where_the_kernel_does_not_do_it():
    simulation, mn, peer = two()
    simulation.failing.add("peer")
    mn.mobile.optimise(PEER_HOME, simulation.now)
    simulation.run(3)
    answers = [p.message for p in simulation.packets if p.source == PEER_HOME]
    statuses = {m.status for m in answers if isinstance(m, BindingAcknowledgement)}
    assert statuses == {Status.INSUFFICIENT_RESOURCES}
    assert cached(peer, HOME_ADDRESS) == {}


def test_what_is_held_back_keeps_its_order():
    simulation, mn, peer = two()
    answer = BindingAcknowledgement(0, 1, 60)
    kinds = BindingUpdate(1, 60), BindingRefreshRequest(), BindingUpdate(2, 60), answer
    mn.hold([Transmission(Packet(WLAN, PEER, message)) for message in kinds])
    messages = [transmission.packet.message for transmission in mn.transmissions()]
    assert [m for m in messages if m in kinds[::2]] == list(kinds[::2])
    assert [m for m in messages if m in kinds[1::2]] == list(kinds[1::2])


def test_restart():
    simulation, mn, peer = two()
    optimise(simulation, mn, peer)
    saved = peer.snapshot(simulation.now)
    again = both(MobileNode(peer.mobile.configuration, simulation.now), simulation.now)
    again.restore(saved, simulation.now, simulation.now)
    assert cached(again, HOME_ADDRESS) == cached(peer, HOME_ADDRESS)
    assert list(again.mobile.optimiser.correspondents) == [HOME_ADDRESS]
    # what a mobile node alone has saved will do
    again = both(MobileNode(peer.mobile.configuration, simulation.now), simulation.now)
    again.restore(peer.mobile.snapshot(simulation.now), simulation.now, simulation.now)
    assert cached(again, HOME_ADDRESS) == {}


def hear(simulation, initiative, *peers):
    initiative.heard(peers, simulation.now)
    simulation.settle()


def run(simulation, initiative, seconds, carried=None):
    """Let time pass, and have the initiative look each second."""
    for _ in range(int(seconds)):
        simulation.run(1)
        initiative.look(carried or {}, simulation.now)
    simulation.settle()


@requirement("RFC 6275 §11.7.2: a packet through the tunnel may begin a correspondent registration")
def test_begins_with_who_sends_through_the_tunnel():
    simulation, node, correspondent = trio()
    initiative = Initiative(node, 32)
    hear(simulation, initiative, HOME_AGENT, HOME_ADDRESS, IPv6Address("fe80::1"))
    assert node.optimiser.correspondents == {}
    hear(simulation, initiative, CORRESPONDENT)
    run(simulation, initiative, 2)
    assert len(correspondent.cache.get(HOME_ADDRESS).bindings) == 2


def test_not_before_it_is_registered():
    simulation, node, _ = pair()
    hear(simulation, Initiative(node, 32), CORRESPONDENT)
    assert node.optimiser.correspondents == {}


def test_limits():
    simulation, node, _ = trio()
    initiative = Initiative(node, 7)
    many = [CORRESPONDENT + n * 2**64 for n in range(1, 20)]
    hear(simulation, initiative, *many)
    assert len(node.optimiser.correspondents) == MAX_NEW_PER_S
    run(simulation, initiative, 1)
    hear(simulation, initiative, *many)
    assert len(node.optimiser.correspondents) == 7


def test_who_does_not_answer_is_left_alone_for_a_while():
    simulation, node, _ = trio()
    initiative = Initiative(node, 32)
    silent = CORRESPONDENT + 1
    hear(simulation, initiative, silent)
    run(simulation, initiative, PATIENCE_S - 1)
    assert list(node.optimiser.correspondents) == [silent]
    run(simulation, initiative, 12)
    assert node.optimiser.correspondents == {}
    hear(simulation, initiative, silent)
    assert node.optimiser.correspondents == {}
    run(simulation, initiative, LEFT_ALONE_S)
    hear(simulation, initiative, silent)
    assert list(node.optimiser.correspondents) == [silent]


def test_who_could_not_be_heard_is_not_left_alone():
    simulation, node, correspondent = trio()
    initiative = Initiative(node, 32)
    hear(simulation, initiative, CORRESPONDENT)
    simulation.now += PATIENCE_S + 1  # this machine stood still
    initiative.look({}, simulation.now)
    assert list(node.optimiser.correspondents) == [CORRESPONDENT]
    run(simulation, initiative, 3)
    assert len(correspondent.cache.get(HOME_ADDRESS).bindings) == 2


def test_not_all_who_are_left_alone_are_remembered(monkeypatch):
    monkeypatch.setattr("testbed.mobility.initiative.MAX_LEFT_ALONE", 3)
    simulation, node, _ = trio()
    initiative = Initiative(node, 32)
    hear(simulation, initiative, *(CORRESPONDENT + number * 2**64 for number in range(1, 6)))
    run(simulation, initiative, PATIENCE_S + 2)
    assert node.optimiser.correspondents == {} and len(initiative._left_alone) == 3


def test_who_knows_no_mobility_is_left_alone():
    simulation, node, _ = trio()
    initiative = Initiative(node, 32)
    host = CORRESPONDENT + 1
    hear(simulation, initiative, host)
    node.optimiser.unsupported(host, simulation.now)
    run(simulation, initiative, 10)
    assert node.optimiser.correspondents == {}
    hear(simulation, initiative, host)
    assert node.optimiser.correspondents == {}


def test_ends_with_who_is_not_talked_to():
    simulation, node, correspondent = trio()
    initiative = Initiative(node, 32)
    hear(simulation, initiative, CORRESPONDENT)
    run(simulation, initiative, 100, {CORRESPONDENT: 5})
    run(simulation, initiative, IDLE_S - 10, {CORRESPONDENT: 6})
    assert list(node.optimiser.correspondents) == [CORRESPONDENT]
    run(simulation, initiative, 20, {CORRESPONDENT: 6})
    assert node.optimiser.correspondents == {}
    assert not correspondent.cache.get(HOME_ADDRESS).bindings
    hear(simulation, initiative, CORRESPONDENT)  # talks again
    assert list(node.optimiser.correspondents) == [CORRESPONDENT]


def test_what_its_user_has_asked_for_stays():
    simulation, node, _ = trio()
    initiative = Initiative(node, 32)
    node.optimise(CORRESPONDENT + 1, simulation.now)
    hear(simulation, initiative, CORRESPONDENT + 1)
    run(simulation, initiative, 30)
    assert list(node.optimiser.correspondents) == [CORRESPONDENT + 1]


def test_what_was_begun_in_an_earlier_life_ends_as_well():
    simulation, node, _ = trio()
    hear(simulation, Initiative(node, 32), CORRESPONDENT)
    node.optimise(CORRESPONDENT + 1, simulation.now)
    again = MobileNode(node.configuration, simulation.now)
    again.restore(node.snapshot(simulation.now), simulation.now, simulation.now)
    simulation.add("mn", again)
    again.attach("wlan", WLAN, ROUTER, simulation.now)
    simulation.add("other", CorrespondentNode(CorrespondentNodeConfiguration(), 0.0), CORRESPONDENT + 1)
    run(simulation, Initiative(again, 32), IDLE_S + 10)
    assert list(again.optimiser.correspondents) == [CORRESPONDENT + 1]


def test_what_was_begun_before_it_was_at_home_ends_as_well():
    simulation, node, _ = trio()
    initiative = Initiative(node, 32)
    hear(simulation, initiative, CORRESPONDENT)
    simulation.addresses[HOME_ADDRESS] = "mn"
    node.attach("wlan", HOME_PREFIX[0xA], ROUTER, simulation.now)
    run(simulation, initiative, 20)
    del simulation.addresses[HOME_ADDRESS]
    node.attach("wlan", WLAN, ROUTER, simulation.now)
    run(simulation, initiative, 20)
    assert list(node.optimiser.correspondents) == [CORRESPONDENT]
    run(simulation, initiative, IDLE_S)
    assert node.optimiser.correspondents == {}


def test_what_its_user_asks_for_later_stays():
    simulation, node, _ = trio()
    initiative = Initiative(node, 32)
    hear(simulation, initiative, CORRESPONDENT)
    run(simulation, initiative, 3)
    node.optimise(CORRESPONDENT, simulation.now)
    run(simulation, initiative, IDLE_S + 10)
    assert list(node.optimiser.correspondents) == [CORRESPONDENT]
