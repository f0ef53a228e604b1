"""At home and abroad at once (RFC 5648 §5.6, §6.2, §6.3; draft §6.4)."""

import random
from ipaddress import IPv6Address

import pytest
from simulation import (
    CELLULAR,
    CORRESPONDENT,
    HARDWARE,
    HOME_ADDRESS,
    HOME_AGENT,
    HOME_PREFIX,
    ROUTER,
    WLAN,
    agree,
    attached_pair,
    pair,
)

from testbed.mobility.binding import FlowBinding
from testbed.mobility.correspondent_node import CorrespondentNode, CorrespondentNodeConfiguration
from testbed.mobility.forwarding import Action, OnLink
from testbed.mobility.home_agent import HomeAgent
from testbed.mobility.home_link import HomePrefix
from testbed.mobility.listed_flows import FlowError
from testbed.mobility.policy import Policy
from testbed.wire.message import (
    BindingAcknowledgement,
    BindingRefreshRequest,
    BindingUpdate,
    Status,
)
from testbed.wire.option import BindingIdentifier, LinkLayerAddress
from testbed.wire.packet import Packet

requirement = pytest.mark.requirement
AT_HOME = HOME_PREFIX[0xAAAA]
PROHIBITED = Status.MCOA_SIMULTANEOUS_HOME_AND_FOREIGN_PROHIBITED


def both(**keywords):
    return attached_pair(returning_home="simultaneous", **keywords)


def go_home(simulation, node, interface="wlan"):
    simulation.addresses[HOME_ADDRESS] = "mn"
    node.attach(interface, AT_HOME, ROUTER, simulation.now)
    simulation.run(2)


def leave_home(simulation, node):
    node.detach("wlan", simulation.now)
    simulation.addresses.pop(HOME_ADDRESS, None)
    simulation.run(2)


def flow(fid, *bids, action=Action.FORWARD):
    return FlowBinding(fid, 10, action, bids)


def packets(simulation, kind):
    return [packet for packet in simulation.packets if isinstance(packet.message, kind)]


def identifiers(packet):
    return {option.bid: option for option in packet.message.all_options(BindingIdentifier)}


def paths(role):
    wanted = role.home_binding(HOME_ADDRESS)
    return {path.bid: path for path in wanted.paths}


@requirement("RFC 5648 §5.6.3: H flag, non-zero lifetime, and the home address as care-of address")
@requirement("RFC 5648 §5.6.3: the Mobility Header Link-Layer Address option, option code 2")
def test_the_home_binding_is_registered():
    simulation, node, agent = both()
    go_home(simulation, node)
    update = packets(simulation, BindingUpdate)[-1]
    option = identifiers(update)[1]
    assert option.home and option.care_of_address == HOME_ADDRESS and update.message.lifetime_s > 0
    assert update.message.option(LinkLayerAddress) == LinkLayerAddress(2, HARDWARE)
    assert (update.source, update.home_address) == (HOME_ADDRESS, None)
    answer = packets(simulation, BindingAcknowledgement)[-1]
    assert answer.message.status == 0 and identifiers(answer)[1].status == 0
    agree(node, agent)
    assert {b["bid"]: b["on_home_link"] for b in agent.bindings(simulation.now)} == {1: True, 2: False}
    assert {b["bid"]: b["on_home_link"] for b in node.bindings(simulation.now)} == {1: True, 2: False}


@requirement("RFC 5648 §5.6.2: packets go directly to the home address on the link, or by a tunnel")
def test_the_ways_of_both_sides():
    simulation, node, agent = both()
    node.add_flow(flow(1, 1), simulation.now)
    node.add_flow(flow(2, 2), simulation.now)
    go_home(simulation, node)
    here, there = paths(agent), paths(node)
    assert here[1].on_link == OnLink(True, HARDWARE) and here[1].remote == HOME_ADDRESS
    assert here[2].on_link is None and here[2].remote == CELLULAR
    assert there[1].on_link == OnLink(True, prefix=HOME_PREFIX)
    assert (there[1].interface, there[1].gateway, there[1].local) == ("wlan", ROUTER, HOME_ADDRESS)
    assert there[2].on_link is None and there[2].local == CELLULAR
    rules = {rule.fid: rule.bids for rule in agent.home_binding(HOME_ADDRESS).rules}
    assert rules == {1: (1,), 2: (2,)}
    assert {rule.fid: rule.bids for rule in node.home_binding(HOME_ADDRESS).rules} == rules


@requirement("draft §6.4: flow bindings are abolished only by a node that wishes to return home completely")
def test_flows_move_between_home_and_foreign_links():
    simulation, node, agent = both()
    node.add_flow(flow(1, 2), simulation.now)
    go_home(simulation, node)
    for bid in (1, 2, 1):
        node.replace_flow(flow(1, bid), simulation.now)
        simulation.run(1)
        assert agent.home_binding(HOME_ADDRESS).rules[0].bids == (bid,)
        assert identifiers(packets(simulation, BindingUpdate)[-1])[1].home
        agree(node, agent)
    assert paths(agent)[1].on_link is not None


@requirement("RFC 5648 §5.6.3: no answer to Neighbour Solicitations before the Binding Acknowledgement")
@requirement("RFC 5648 §5.6.4: Binding Update Accepted: it operates Neighbour Discovery for the home address")
def test_neighbour_discovery_with_permission():
    simulation, node, agent = both()
    simulation.fate = lambda packet: []
    go_home(simulation, node)
    assert node.home_interface == "wlan" and node.presence is None and not node.is_home
    assert agent.home_binding(HOME_ADDRESS).defended
    simulation.fate = lambda packet: [0.01]
    simulation.run(5)
    assert node.presence == "wlan" and node.is_home
    assert not agent.home_binding(HOME_ADDRESS).defended


@requirement("RFC 5648 §6.3: with other routers on the home link, status 5 in the answer")
@requirement("RFC 5648 §5.6.4: MCOA RETURNHOME WO/NDP: no Neighbour Discovery for the home address")
def test_no_neighbour_discovery_where_there_are_other_routers():
    simulation, node, agent = both(other_routers=True)
    go_home(simulation, node)
    answer = packets(simulation, BindingAcknowledgement)[-1]
    assert answer.message.status == identifiers(answer)[1].status == Status.MCOA_RETURNHOME_WO_NDP
    assert identifiers(answer).get(2) is None or identifiers(answer)[2].status == 0
    assert node.presence is None and not node.is_home and node.registered
    assert agent.home_binding(HOME_ADDRESS).defended
    assert paths(agent)[1].on_link == OnLink(False, HARDWARE)
    assert paths(node)[1].on_link == OnLink(False)
    simulation.run(200)  # refreshed, the same again
    assert node.presence is None and paths(agent)[1].on_link == OnLink(False, HARDWARE)


@requirement("RFC 5648 §6.3: status 5 is in the option alone where the acknowledgement has more to say")
@pytest.mark.parametrize("more, status", [("prefix", 1), ("refusal", Status.MCOA_NOTCOMPLETE)])
def test_no_neighbour_discovery_and_other_news(more, status):
    _, _, agent = attached_pair(other_routers=True, key=None)
    options = [BindingIdentifier(1, 0, True, 1, HOME_ADDRESS), LinkLayerAddress(2, HARDWARE)]
    if more == "prefix":
        agent.change_prefix(HomePrefix(HOME_PREFIX, 1500.0, 1020.0), 1001.0)
    else:
        options.append(BindingIdentifier(2, 0, False, 2, IPv6Address("ff02::1")))
    sequence = (agent.cache.get(HOME_ADDRESS).sequence + 1) % 65536
    agent.transmissions()
    update = BindingUpdate(sequence, 60, True, True, options=tuple(options))
    agent.receive(Packet(HOME_ADDRESS, HOME_AGENT, update), "home0", 1001.0)
    answer = agent.transmissions()[-1].packet.message
    assert answer.status == status
    assert answer.option(BindingIdentifier).status == Status.MCOA_RETURNHOME_WO_NDP


@requirement("RFC 5648 §6.3: the home agent learns the link-layer address from the option")
def test_without_link_layer_address_there_is_no_way():
    simulation, node, agent = both(other_routers=True)
    go_home(simulation, node, "cellular")  # which has none
    assert simulation.events("registration-refused")[-1]["status"] == Status.REASON_UNSPECIFIED
    assert node.is_home and agent.forwarding() == {}


def test_a_link_layer_address_that_is_none():
    _, _, agent = attached_pair(other_routers=True, key=None)
    none = [LinkLayerAddress(2, address) for address in (b"", bytes(6), b"\x01\0\0\0\0\1", bytes(8))]
    for link_layer_address in (*none, LinkLayerAddress(1, HARDWARE)):  # the last one is not the mobile node's
        option = BindingIdentifier(1, 0, True, 1, HOME_ADDRESS)
        update = BindingUpdate(40000, 60, True, True, options=(option, link_layer_address))
        agent.cache.get(HOME_ADDRESS).sequence = 39999
        agent.receive(Packet(HOME_ADDRESS, HOME_AGENT, update), "home0", 1001.0)
        (sent,) = agent.transmissions()
        assert sent.packet.message.status == Status.REASON_UNSPECIFIED and sent.link_layer_address == b""


@requirement("RFC 5648 §5.6.3: the link-layer address is required to send the Binding Acknowledgement")
def test_the_answer_goes_to_the_link_layer_address():
    _, _, agent = attached_pair(key=None)
    option = BindingIdentifier(1, 0, True, 1, HOME_ADDRESS)
    update = BindingUpdate(40000, 60, True, True, options=(option, LinkLayerAddress(2, HARDWARE)))
    agent.cache.get(HOME_ADDRESS).sequence = 39999
    agent.transmissions()
    agent.receive(Packet(HOME_ADDRESS, HOME_AGENT, update), "home0", 1001.0)
    (sent,) = agent.transmissions()
    assert sent.packet.destination == HOME_ADDRESS and sent.packet.routing_address is None
    assert sent.link_layer_address == HARDWARE


@requirement("RFC 5648 §5.6.5: a node that leaves the home link sends a Binding Update without the H flag")
def test_leaving_home():
    simulation, node, agent = both()
    node.add_flow(flow(1, 1), simulation.now)
    go_home(simulation, node)
    leave_home(simulation, node)
    update = packets(simulation, BindingUpdate)[-1]
    assert not any(option.home for option in identifiers(update).values())
    assert update.source == CELLULAR and update.home_address == HOME_ADDRESS
    assert all(path.on_link is None for path in paths(agent).values())
    assert agent.home_binding(HOME_ADDRESS).defended
    assert agent.home_binding(HOME_ADDRESS).rules[0].bids == (1,)  # by the other interface, as ever
    assert node.presence is None and not node.is_home
    agree(node, agent)
    node.attach("wlan", WLAN, ROUTER, simulation.now)
    simulation.run(2)
    assert paths(agent)[1].remote == WLAN
    agree(node, agent)


@requirement("RFC 5648 §5.6.5: a Binding Update without any H flag ends the forwarding to the home link")
def test_any_binding_update_without_the_flag_ends_it():
    simulation, node, agent = both(key=None)
    node.add_flow(flow(1, 1), simulation.now)
    go_home(simulation, node)
    update = BindingUpdate(
        (node.registration.sequence + 1) % 65536, 60, True, True,
        options=(BindingIdentifier(2, 0, False, 10, CELLULAR),),
    )
    agent.receive(Packet(CELLULAR, HOME_AGENT, update, HOME_ADDRESS), "core", simulation.now)
    assert list(paths(agent)) == [2]
    assert agent.home_binding(HOME_ADDRESS).rules == ()
    assert agent.events()[-2].fields["flows_lost"] == [1]


@requirement("RFC 5648 §5.4, §5.6.3: with lifetime zero, the BID of the home binding is de-registered")
def test_the_home_binding_is_removed_by_its_bid():
    simulation, node, agent = both(key=None)
    go_home(simulation, node)
    option = BindingIdentifier(1, 0, True, 1, HOME_ADDRESS)
    sequence = (agent.cache.get(HOME_ADDRESS).sequence + 1) % 65536
    update = BindingUpdate(sequence, 0, True, True, options=(option, LinkLayerAddress(2, HARDWARE)))
    agent.receive(Packet(HOME_ADDRESS, HOME_AGENT, update), "home0", simulation.now)
    answer = agent.transmissions()[-1].packet.message
    assert (answer.status, answer.lifetime_s) == (0, 0)
    assert set(agent.cache.get(HOME_ADDRESS).bindings) == {2}


@requirement("RFC 5648 §5.6.3: only one home binding at a time")
def test_there_is_one_home_binding():
    simulation, node, agent = both()
    go_home(simulation, node)
    node.move({"wlan": (WLAN, ROUTER), "cellular": (AT_HOME + 1, ROUTER)}, simulation.now)
    simulation.run(2)
    assert paths(agent)[1].on_link is None and paths(agent)[2].on_link is not None
    agree(node, agent)
    node.attach("wlan", AT_HOME, ROUTER, simulation.now)  # both there: still the one
    simulation.run(2)
    assert [bid for bid, path in paths(agent).items() if path.on_link] == [2]
    agree(node, agent)


def test_two_home_bindings_in_one_message():
    _, _, agent = attached_pair(key=None)
    options = [BindingIdentifier(bid, 0, True, 1, HOME_ADDRESS) for bid in (7, 8)]
    agent.cache.get(HOME_ADDRESS).sequence = 39999
    agent.transmissions()
    update = BindingUpdate(40000, 60, True, True, options=tuple(options))
    agent.receive(Packet(HOME_ADDRESS, HOME_AGENT, update), "home0", 1001.0)
    message = agent.transmissions()[0].packet.message
    assert message.status == Status.MCOA_NOTCOMPLETE
    statuses = [option.status for option in message.all_options(BindingIdentifier)]
    assert statuses == [0, Status.MCOA_MALFORMED]


@requirement("RFC 5648 §6.2: with the H flag, the home address is stored as care-of address")
@pytest.mark.parametrize(("address", "status"), [(None, 0), (HOME_ADDRESS, 0), (CELLULAR, 164)])
def test_the_care_of_address_of_the_home_binding(address, status):
    _, _, agent = attached_pair(key=None)
    agent.cache.get(HOME_ADDRESS).sequence = 39999
    agent.transmissions()
    update = BindingUpdate(40000, 60, True, True, options=(BindingIdentifier(9, 0, True, 1, address),))
    agent.receive(Packet(HOME_ADDRESS, HOME_AGENT, update), "home0", 1001.0)
    assert agent.transmissions()[0].packet.message.status == status
    if status == 0:
        assert agent.cache.get(HOME_ADDRESS).bindings[9].care_of_address == HOME_ADDRESS


@requirement("RFC 5648 §4.4: MCOA SIMULTANEOUS HOME AND FOREIGN PROHIBITED (169)")
@requirement("RFC 5648 §5.5.1: a node that may not be at both links returns home completely")
def test_a_home_agent_that_prohibits_it():
    simulation, node, agent = both(policy=Policy(simultaneous_attachment=False))
    node.add_flow(flow(1, 2), simulation.now)
    go_home(simulation, node)
    answers = [identifiers(packet) for packet in packets(simulation, BindingAcknowledgement)]
    statuses = {option.status for options in answers for option in options.values()}
    whole = {packet.message.status for packet in packets(simulation, BindingAcknowledgement)}
    assert PROHIBITED in statuses | whole
    assert simulation.events("simultaneous-attachment-refused")
    assert node.is_home and node.presence == "wlan" and not node.registered
    assert agent.forwarding() == {} == node.forwarding()
    leave_home(simulation, node)
    node.attach("wlan", WLAN, ROUTER, simulation.now)
    simulation.run(2)
    agree(node, agent)
    assert node.registered and [listed["state"] for listed in node.flows()] == ["registered"]


def test_bulk_registration_is_needed_for_it():
    simulation, node, agent = both(policy=Policy(bulk_registration=False))
    simulation.run(5)
    agree(node, agent)
    go_home(simulation, node)
    simulation.run(5)
    assert node.is_home and agent.forwarding() == {}


@requirement("RFC 5648 §6.3: without Binding Identifier option in the answer, only the home link is used")
def test_a_home_agent_that_does_not_know_home_bindings():
    simulation, node, _ = both(key=None)
    simulation.roles.pop("ha")
    go_home(simulation, node)
    sequence = packets(simulation, BindingUpdate)[-1].message.sequence
    node.receive(
        Packet(HOME_AGENT, HOME_ADDRESS, BindingAcknowledgement(0, sequence, 60)), "wlan", simulation.now
    )
    simulation.settle()
    update = packets(simulation, BindingUpdate)[-1]
    assert update.message.lifetime_s == 0 and update.source == HOME_ADDRESS
    assert node.presence == "wlan"


def test_only_the_home_link_is_left():
    """The bindings of the others end: there is nothing else to bind them to."""
    simulation, node, agent = both()
    node.add_flow(flow(1, 1), simulation.now)
    node.add_flow(flow(2, 2), simulation.now)
    go_home(simulation, node)
    node.detach("cellular", simulation.now)
    simulation.run(2)
    assert list(paths(agent)) == [1] and paths(agent)[1].on_link is not None
    assert [rule.fid for rule in agent.home_binding(HOME_ADDRESS).rules] == [1]
    agree(node, agent)
    assert {listed["flow"].fid: listed["state"] for listed in node.flows()} == {1: "registered", 2: "waiting"}
    simulation.run(300)
    agree(node, agent)
    node.attach("cellular", CELLULAR, ROUTER, simulation.now)
    simulation.run(2)
    assert sorted(paths(agent)) == [1, 2]
    assert [listed["state"] for listed in node.flows()] == ["registered"] * 2
    agree(node, agent)


def test_the_home_link_is_lost_when_it_was_the_only_one():
    simulation, node, agent = both()
    go_home(simulation, node)
    node.detach("cellular", simulation.now)
    simulation.run(2)
    leave_home(simulation, node)
    assert node.home_binding(HOME_ADDRESS).paths == ()
    node.attach("cellular", CELLULAR, ROUTER, simulation.now)
    simulation.run(3)
    assert {path.remote for path in paths(agent).values()} == {CELLULAR}
    assert all(path.on_link is None for path in paths(agent).values())
    agree(node, agent)


@requirement("RFC 5648 §5.6.3: the home binding is refreshed as any other")
def test_the_home_binding_is_refreshed():
    simulation, node, agent = both()
    go_home(simulation, node)
    simulation.run(300)
    assert paths(agent)[1].on_link == OnLink(True, HARDWARE) and paths(agent)[2].remote == CELLULAR
    agree(node, agent)


def test_a_silent_node_is_asked_to_refresh_on_the_home_link():
    simulation, node, agent = both()
    go_home(simulation, node)
    node.detach("cellular", simulation.now)
    simulation.run(2)
    del simulation.roles["mn"]
    agent.handle_timer(simulation.now + 55)
    requests = [t for t in agent.transmissions() if isinstance(t.packet.message, BindingRefreshRequest)]
    assert requests[0].packet.destination == HOME_ADDRESS and requests[0].packet.routing_address is None
    assert requests[0].link_layer_address == HARDWARE


def test_starting_at_home():
    simulation, node, agent = pair(returning_home="simultaneous")
    simulation.addresses[HOME_ADDRESS] = "mn"
    node.move({"wlan": (AT_HOME, ROUTER), "cellular": (CELLULAR, ROUTER)}, simulation.now)
    simulation.run(2)
    assert paths(agent)[1].on_link is not None and paths(agent)[2].remote == CELLULAR
    agree(node, agent)


def test_the_end_of_a_node_at_both_links():
    simulation, node, agent = both(other_routers=True)
    go_home(simulation, node)
    node.deregister(simulation.now)
    simulation.run(3)
    assert node.deregistered and agent.forwarding() == {}
    assert node.presence == "wlan"  # nobody else answers for it any more


def test_state_survives_a_restart_of_the_home_agent():
    simulation, node, agent = both(other_routers=True)
    go_home(simulation, node)
    saved = agent.snapshot(simulation.now)
    again = HomeAgent(agent.configuration, simulation.now)
    again.restore(saved, simulation.now, simulation.now)
    assert again.home_binding(HOME_ADDRESS) == agent.home_binding(HOME_ADDRESS)


@requirement("RFC 5648 §4.3: the H flag is valid only in a Binding Update to the home agent")
def test_routes_are_not_optimised_meanwhile():
    simulation, node, _ = both()
    correspondent = CorrespondentNode(CorrespondentNodeConfiguration(), simulation.now)
    simulation.add("cn", correspondent, CORRESPONDENT)
    node.optimise(CORRESPONDENT, simulation.now)
    simulation.run(3)
    assert correspondent.cache.get(HOME_ADDRESS).bindings
    go_home(simulation, node)
    simulation.run(5)
    assert not correspondent.cache.get(HOME_ADDRESS).bindings and node.optimisations() == {}
    leave_home(simulation, node)
    simulation.run(5)
    assert correspondent.cache.get(HOME_ADDRESS).bindings
    to_correspondent = [p for p in packets(simulation, BindingUpdate) if p.destination == CORRESPONDENT]
    assert not any(option.home for packet in to_correspondent for option in identifiers(packet).values())



@pytest.mark.parametrize("seed", range(12))
def test_whatever_happens_both_sides_agree_in_the_end(seed):
    """Interfaces come and go at home and abroad, flow bindings change, messages get lost."""
    dice = random.Random(seed)
    simulation, node, agent = both(other_routers=bool(seed % 2))
    simulation.fate = lambda packet: [dice.uniform(0.001, 0.2)] if dice.random() < 0.7 else []
    places = {"wlan": [None, (WLAN, ROUTER), (AT_HOME, ROUTER)], "cellular": [None, (CELLULAR, ROUTER)]}
    if seed % 2 == 0:  # it has no link-layer address
        places["cellular"].append((AT_HOME + 1, ROUTER))
    for _ in range(40):
        if dice.random() < 0.6:
            interface = dice.choice(["wlan", "cellular"])
            node.move({interface: dice.choice(places[interface])}, simulation.now)
        else:
            change_flow(dice, node, simulation.now)
        at_home(simulation, node)
        simulation.run(dice.choice([0.0, 0.1, 1, 20]))
    simulation.fate = lambda packet: [0.01]
    node.move({"wlan": (AT_HOME, ROUTER), "cellular": (CELLULAR, ROUTER)}, simulation.now)
    at_home(simulation, node)
    simulation.run(200)
    assert paths(agent)[1].on_link is not None and paths(agent)[2].remote == CELLULAR
    agree(node, agent)
    assert {listed["state"] for listed in node.flows()} <= {"registered"}
    simulation.settle()
    node.move({"wlan": (WLAN, ROUTER)}, simulation.now)
    at_home(simulation, node)
    simulation.run(200)
    assert paths(agent)[1].remote == WLAN
    agree(node, agent)


def at_home(simulation, node):
    """What is sent to the home address arrives on the home link only."""
    simulation.addresses.pop(HOME_ADDRESS, None)
    if node.home_interface is not None:
        simulation.addresses[HOME_ADDRESS] = "mn"


def change_flow(dice, node, now):
    known = [listed["flow"].fid for listed in node.flows()]
    fid = dice.randrange(1, 5)
    bids = dice.choice([(1,), (2,), (1, 2), (2, 1)])
    try:
        if fid not in known:
            node.add_flow(flow(fid, *bids), now)
        elif dice.random() < 0.7:
            node.replace_flow(flow(fid, *bids), now)
        else:
            node.remove_flow(fid, now)
    except FlowError:
        pass  # it is on its way out
