"""RFC 6089 as a second dialect: between the roles, and the receiver's rules one by one."""

from collections import Counter

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

from testbed.mobility.binding import FlowBinding
from testbed.mobility.forwarding import Action
from testbed.mobility.home_agent import HomeAgent, HomeAgentConfiguration
from testbed.mobility.listed_flows import FlowError
from testbed.mobility.mobile_node import MobileNode
from testbed.mobility.mobile_node_configuration import MobileNodeConfiguration
from testbed.mobility.policy import Policy
from testbed.wire.checksum import checksum
from testbed.wire.codec import Codec
from testbed.wire.flow import FlowIdentification
from testbed.wire.flow import RFC6089FlowStatus as Status
from testbed.wire.message import BindingAcknowledgement, BindingUpdate
from testbed.wire.option import BindingIdentifier, FlowSummary
from testbed.wire.packet import Packet, build_packet, parse_packet
from testbed.wire.selector import IPv6TrafficSelector

requirement = pytest.mark.requirement
SSH, WEB = IPv6TrafficSelector(source_port=(22, 22)), IPv6TrafficSelector(source_port=(443, 443))
CODEC = Codec("rfc6089")


def make(policy=None):
    """A mobile node with two interfaces and its home agent, registered."""
    simulation = Simulation()
    simulation.codec = CODEC
    agent = HomeAgent(
        HomeAgentConfiguration(
            HOME_AGENT,
            (HOME_PREFIX,),
            policy=policy or Policy(),
            associations={HOME_ADDRESS: KEY},
            dialect="rfc6089",
        ),
        simulation.now,
    )
    node = MobileNode(
        MobileNodeConfiguration(HOME_ADDRESS, HOME_AGENT, INTERFACES, association=KEY, dialect="rfc6089"),
        simulation.now,
    )
    simulation.add("ha", agent, HOME_AGENT)
    simulation.add("mn", node, WLAN, CELLULAR)
    node.attach("wlan", WLAN, ROUTER, simulation.now)
    node.attach("cellular", CELLULAR, ROUTER, simulation.now)
    simulation.run(1)
    return simulation, node, agent


def flow(fid=1, priority=10, bids=(1,), action=Action.FORWARD, selector=SSH):
    return FlowBinding(fid, priority, action, bids, selector)


def updates(simulation):
    return [p.message for p in simulation.packets if isinstance(p.message, BindingUpdate)]


def same_flows(node, agent):
    """Both have the same flow bindings, and try them in the same order."""
    listed = {flow.fid: flow for flow in node.registration.flows.registered()}
    assert listed == agent.cache.get(HOME_ADDRESS).flows
    assert node.home_binding(HOME_ADDRESS).rules == agent.home_binding(HOME_ADDRESS).rules


@requirement("RFC 6089 §5.2.2.1: a new flow: Flow Identification with FID, FID-PRI, selector and BIDs")
@requirement("RFC 6089 §5.2.3: what is kept is in a Flow Summary, in every Binding Update")
@requirement("RFC 6089 §5.2.4: what is left out is removed")
def test_a_life_of_flow_bindings():
    simulation, node, agent = make()
    node.add_flow(flow(1), simulation.now)
    node.add_flow(flow(2, selector=WEB), simulation.now)
    simulation.run(1)
    same_flows(node, agent)
    entry = agent.cache.get(HOME_ADDRESS)
    assert set(entry.flows) == {1, 2}
    node.replace_flow(flow(1, bids=(2,)), simulation.now)
    simulation.run(1)
    last = updates(simulation)[-1]
    (told,) = last.all_options(FlowIdentification)
    assert (told.fid, told.binding_reference, told.selector) == (1, (2,), None)
    assert last.option(FlowSummary).fids == (2,)
    same_flows(node, agent)
    assert entry.flows[1].bids == (2,) and entry.flows[1].selector == SSH
    node.remove_flow(2, simulation.now)
    simulation.run(1)
    last = updates(simulation)[-1]
    assert last.all_options(FlowIdentification) == () and last.option(FlowSummary).fids == (1,)
    assert set(entry.flows) == {1}
    same_flows(node, agent)
    simulation.run(300)  # refreshed many times
    assert set(agent.cache.get(HOME_ADDRESS).flows) == {1}
    assert updates(simulation)[-1].option(FlowSummary).fids == (1,)


@requirement("RFC 6089 §5.3.5: each Flow Identification option comes back with its status")
@requirement("RFC 6089 §4.2: status fields are zero in Binding Updates")
def test_answers_are_copies():
    simulation, node, agent = make()
    node.add_flow(flow(1), simulation.now)
    simulation.run(1)
    asked = updates(simulation)[-1].option(FlowIdentification)
    answers = [p.message for p in simulation.packets if isinstance(p.message, BindingAcknowledgement)]
    assert answers[-1].option(FlowIdentification) == asked and asked.status == 0


@requirement("RFC 6089 §4.2: FID-PRI is unique to each flow of a mobile node, and not 0")
def test_priorities_are_different():
    simulation, node, agent = make()
    for fid in range(1, 40):
        node.add_flow(flow(fid, priority=(0, 10, 255)[fid % 3]), simulation.now)
        simulation.run(0.4)
    simulation.run(5)
    flows = agent.cache.get(HOME_ADDRESS).flows
    assert len(flows) == 39
    priorities = Counter(f.priority for f in flows.values())
    assert 0 not in priorities and set(priorities.values()) == {1}
    for fid, kept in flows.items():
        assert kept.priority >> 8 == (0, 10, 255)[fid % 3]
    node.replace_flow(flow(1, priority=0), simulation.now)
    simulation.run(1)
    assert flows[1].priority < 256


def test_a_flow_stays_as_it_is_until_its_removal_is_acknowledged():
    simulation, node, agent = make()
    node.add_flow(flow(1), simulation.now)
    simulation.run(1)
    before = node.home_binding(HOME_ADDRESS)
    node.remove_flow(1, simulation.now)
    assert node.home_binding(HOME_ADDRESS) == before
    simulation.run(1)
    assert node.home_binding(HOME_ADDRESS).rules == ()


def test_a_refused_change_leaves_a_flow_its_priority():
    """Its FID-PRI is the one that the receiver has, and no other flow binding is given that."""
    simulation, node, agent = make(Policy(port_selectors=False))
    node.add_flow(flow(1, selector=None), simulation.now)
    simulation.run(1)
    node.replace_flow(flow(1, priority=20), simulation.now)
    simulation.run(1)
    assert simulation.events("flow-changed")[-1]["status"]
    node.add_flow(flow(2, selector=None), simulation.now)
    simulation.run(1)
    assert [f.priority for f in agent.cache.get(HOME_ADDRESS).flows.values()] == [2561, 2562]
    same_flows(node, agent)


@requirement("RFC 6089 §4.3: flow bindings of the same priority are tried in the same order at both ends")
def test_both_ends_try_flows_in_the_same_order():
    simulation, node, agent = make()
    for fid in (9, 5, 7):
        node.add_flow(flow(fid), simulation.now)
        simulation.run(1)
    assert [rule.fid for rule in agent.home_binding(HOME_ADDRESS).rules] == [9, 5, 7]
    same_flows(node, agent)


@requirement("RFC 6089 §5.3.6: packets are copied to each BID of a flow binding")
def test_n_cast_is_several_bids():
    simulation, node, agent = make()
    node.add_flow(flow(1, bids=(1, 2), action=Action.N_CAST), simulation.now)
    simulation.run(1)
    (rule,) = agent.home_binding(HOME_ADDRESS).rules
    assert (rule.action, rule.bids) == (Action.N_CAST, (1, 2))
    assert node.home_binding(HOME_ADDRESS).rules[0].action is Action.N_CAST


def test_what_rfc_6089_cannot_say_is_refused_at_once():
    simulation, node, agent = make()
    with pytest.raises(FlowError, match="RFC 6089 has no flow bindings that discard"):
        node.add_flow(flow(1, action=Action.DISCARD), simulation.now)
    with pytest.raises(FlowError, match="name one, or ask for n-cast"):
        node.add_flow(flow(1, bids=(1, 2)), simulation.now)
    assert not node.registration.flows


@requirement("RFC 6089 §5.2.2.1: exactly one traffic selector: a wild card is one without fields")
def test_wild_card():
    simulation, node, agent = make()
    node.add_flow(flow(1, selector=None), simulation.now)
    simulation.run(1)
    assert updates(simulation)[-1].option(FlowIdentification).selector == IPv6TrafficSelector()
    assert agent.cache.get(HOME_ADDRESS).flows[1].selector == IPv6TrafficSelector()
    same_flows(node, agent)


@requirement("RFC 6089 §5.2.2.2: changing the care-of address of a BID moves its flows, untouched")
def test_movement():
    simulation, node, agent = make()
    node.add_flow(flow(1), simulation.now)
    node.add_flow(flow(2, bids=(2,), selector=WEB), simulation.now)
    simulation.run(1)
    node.detach("wlan", simulation.now)
    simulation.run(1)
    assert updates(simulation)[-1].option(FlowSummary).fids == (1, 2)
    paths = {path.bid: path.remote for path in agent.home_binding(HOME_ADDRESS).paths}
    assert paths == {1: CELLULAR, 2: CELLULAR}
    same_flows(node, agent)
    node.attach("wlan", WLAN, ROUTER, simulation.now)
    simulation.run(1)
    same_flows(node, agent)


def test_losses_and_restart_of_the_home_agent():
    simulation, node, agent = make()
    lose = Counter()

    def every_third_is_lost(packet):
        lose["all"] += 1
        return [] if lose["all"] % 3 == 0 else [0.01]

    simulation.fate = every_third_is_lost
    for fid in (1, 2, 3):
        node.add_flow(flow(fid), simulation.now)
    node.remove_flow(2, simulation.now)
    simulation.run(120)
    same_flows(node, agent)
    assert set(agent.cache.get(HOME_ADDRESS).flows) == {1, 3}
    gone = HomeAgent(agent.configuration, simulation.now)  # remembers nothing
    simulation.add("ha", gone, HOME_AGENT)
    simulation.run(120)
    agree_on_bindings = {b.bid for b in gone.cache.get(HOME_ADDRESS).bindings.values()}
    assert agree_on_bindings == {1, 2}
    same_flows(node, gone)


def test_flows_all_gone_after_deregistration():
    simulation, node, agent = make()
    node.add_flow(flow(1), simulation.now)
    simulation.run(1)
    node.deregister(simulation.now)
    simulation.run(2)
    assert node.deregistered and agent.forwarding() == {}


def test_who_does_not_know_the_options_skips_them():
    """RFC 6275 §6.2.1: the binding is made, the flows are not."""
    options = (BindingIdentifier(1), fi(), FlowSummary((2,)))
    octets = build_packet(Packet(WLAN, HOME_AGENT, BindingUpdate(9, 60, options=options)), CODEC)
    message = parse_packet(octets, Codec("draft")).message
    assert message.all_options(FlowIdentification) == () and message.option(BindingIdentifier).bid == 1


class Bench:
    """A home agent with BIDs 1 and 2, asked one thing after the other."""

    def __init__(self, policy=None):
        self.agent = HomeAgent(
            HomeAgentConfiguration(
                HOME_AGENT,
                (HOME_PREFIX,),
                policy=policy or Policy(),
                accept_unauthenticated=True,
                dialect="rfc6089",
            ),
            0.0,
        )
        self.sequence = 0
        self.bids = tuple(
            BindingIdentifier(bid, priority=10 * bid, care_of_address=address)
            for bid, address in ((1, WLAN), (2, CELLULAR))
        )
        self.ask(*self.bids)

    def ask(self, *options, lifetime_s=60):
        self.sequence += 1
        update = BindingUpdate(self.sequence, lifetime_s, True, True, options=options)
        octets = build_packet(Packet(WLAN, HOME_AGENT, update, home_address=HOME_ADDRESS), CODEC)
        self.agent.receive(parse_packet(octets, CODEC), "eth0", 0.0)
        (transmission,) = self.agent.transmissions()
        message = transmission.packet.message
        return {o.fid: o.status for o in message.all_options(FlowIdentification)}, message

    def statuses(self, *options):
        return list(self.ask(self.bids[0], *options)[0].values())

    @property
    def flows(self):
        return self.agent.cache.get(HOME_ADDRESS).flows


def fi(fid=1, priority=100, bids=(1,), selector=SSH):
    return FlowIdentification(fid, priority, binding_reference=bids, selector=selector)


@requirement("RFC 6089 §5.3.2.1: a new FID needs a traffic selector and a binding reference: else 130")
def test_new_flow_needs_all():
    bench = Bench()
    for option in (
        fi(selector=None),
        fi(bids=None),
        fi(fid=0),
        fi(priority=0),
        FlowIdentification(1, 1),
    ):
        assert bench.statuses(option) == [Status.MALFORMED]
    assert bench.flows == {}
    assert bench.statuses(fi()) == [Status.SUCCESS]


@requirement("RFC 6089 §5.3.2.1: a BID that is not registered: 131")
def test_unknown_bid():
    bench = Bench()
    assert bench.statuses(fi(bids=(1, 7))) == [Status.BID_NOT_FOUND]
    assert bench.flows == {}


@requirement("RFC 6089 §5.3.1: BID options count before flow options of the same message")
def test_bid_of_the_same_message():
    bench = Bench()
    new = BindingIdentifier(7, priority=3, care_of_address=WLAN + 1)
    answers, _ = bench.ask(fi(bids=(7,)), new)
    assert answers == {1: Status.SUCCESS}


@requirement("RFC 6089 §5.3.2: the same FID twice: all of these are rejected")
def test_same_fid_twice():
    bench = Bench()
    update = (bench.bids[0], fi(1), fi(1, selector=WEB), fi(2, 200))
    _, message = bench.ask(*update)
    assert [(o.fid, o.status) for o in message.all_options(FlowIdentification)] == [
        (1, Status.MALFORMED),
        (1, Status.MALFORMED),
        (2, Status.SUCCESS),
    ]
    assert set(bench.flows) == {2}


@requirement("RFC 6089 §5.3.2.2: a known FID: what is given replaces, what is not stays")
def test_known_fid():
    bench = Bench()
    bench.statuses(fi(priority=100))
    assert bench.statuses(fi(priority=50, bids=None, selector=None)) == [Status.SUCCESS]
    assert bench.flows[1] == FlowBinding(1, 50, Action.FORWARD, (1,), SSH)
    assert bench.statuses(fi(priority=50, bids=(2, 1), selector=None)) == [Status.SUCCESS]
    assert bench.flows[1] == FlowBinding(1, 50, Action.N_CAST, (2, 1), SSH)
    assert bench.statuses(fi(priority=50, bids=None, selector=WEB)) == [Status.SUCCESS]
    assert bench.flows[1] == FlowBinding(1, 50, Action.N_CAST, (2, 1), WEB)


@requirement("RFC 6089 §4.2: two FIDs with the same FID-PRI: the later one is rejected")
def test_priority_in_use():
    bench = Bench()
    assert bench.statuses(fi(1, 100), fi(2, 100, selector=WEB)) == [0, Status.REASON_UNSPECIFIED]
    assert bench.statuses(FlowSummary((1,)), fi(2, 100)) == [Status.REASON_UNSPECIFIED]
    # what is left out or gets another priority makes room
    assert bench.statuses(fi(2, 100)) == [Status.SUCCESS]
    assert set(bench.flows) == {2}
    assert bench.statuses(fi(2, 200), fi(3, 100)) == [0, 0]
    assert bench.statuses(fi(3, 200), fi(2, 100)) == [0, 0]


@requirement("RFC 6089 §5.3.3: a FID of a Flow Summary that is not there: 132, in an option of its own")
def test_unknown_fid_in_a_summary():
    bench = Bench()
    bench.statuses(fi(1))
    answers, _ = bench.ask(bench.bids[0], FlowSummary((1, 9, 9)), FlowSummary((8, 1)))
    assert answers == {9: Status.FID_NOT_FOUND, 8: Status.FID_NOT_FOUND}
    assert set(bench.flows) == {1}


@requirement("RFC 6089 §5.3.4: what a valid Binding Update does not refer to is removed")
def test_omission():
    bench = Bench()
    assert bench.statuses(fi(1, 100), fi(2, 200, bids=(2,))) == [0, 0]
    bench.ask(bench.bids[0], FlowSummary((2,)))
    assert set(bench.flows) == {2}  # whichever BID the message was about
    bench.ask(bench.bids[0])
    assert bench.flows == {}


@requirement("RFC 6089 §4.3, §5.3.1: without BIDs an entry is inactive, and active again with one of them")
def test_inactive_entries():
    bench = Bench()
    bench.statuses(fi(1, 100, bids=(2,)), fi(2, 200, bids=(1, 2), selector=WEB))
    bench.ask(BindingIdentifier(2), FlowSummary((1, 2)), lifetime_s=0)
    assert set(bench.flows) == {1, 2}
    rules = bench.agent.home_binding(HOME_ADDRESS).rules
    assert [(rule.fid, rule.bids) for rule in rules] == [(2, (1,))]
    bench.ask(bench.bids[1], FlowSummary((1, 2)))
    rules = bench.agent.home_binding(HOME_ADDRESS).rules
    assert [(rule.fid, rule.bids) for rule in rules] == [(1, (2,)), (2, (1, 2))]


@requirement("RFC 6089 §5.2.3: inactive flow bindings have to be refreshed, too")
def test_inactive_entries_are_not_kept_by_themselves():
    bench = Bench()
    bench.statuses(fi(1, 100, bids=(2,)))
    bench.ask(BindingIdentifier(2), FlowSummary((1,)), lifetime_s=0)
    assert set(bench.flows) == {1}
    bench.ask(bench.bids[0])
    assert bench.flows == {}


@requirement("RFC 6089 §5.2.5, §5.3.3: a de-registration of everything deletes all, whatever a summary says")
def test_deregistration():
    bench = Bench()
    bench.statuses(fi(1))
    bench.ask(FlowSummary((1,)), lifetime_s=0)
    assert bench.agent.forwarding() == {}
    bench.ask(*bench.bids)
    assert bench.flows == {}


@requirement("RFC 6089 §5.3.2.1: traffic selector format not supported: 133")
def test_unknown_selector_format():
    bench = Bench()
    update = BindingUpdate(50, 60, True, True, options=(bench.bids[0], fi(1)))
    octets = bytearray(build_packet(Packet(WLAN, HOME_AGENT, update, home_address=HOME_ADDRESS), CODEC))
    at = octets.rindex(bytes((3, 8, 2, 0)))
    octets[at + 2] = 99
    octets[68:70] = bytes(2)
    octets[68:70] = checksum(bytes(octets[64:]), HOME_ADDRESS, HOME_AGENT, 135).to_bytes(2, "big")
    bench.agent.receive(parse_packet(bytes(octets), CODEC), "eth0", 0.0)
    (transmission,) = bench.agent.transmissions()
    assert transmission.packet.message.option(FlowIdentification).status == 133


@requirement("RFC 6089 §5.3.5: policy: administratively prohibited, 128")
@pytest.mark.parametrize(
    ("policy", "option"),
    [
        (Policy(flow_bindings=False), fi()),
        (Policy(port_selectors=False), fi()),
        (Policy(n_cast=False), fi(bids=(1, 2))),
    ],
)
def test_policy(policy, option):
    bench = Bench(policy)
    assert bench.statuses(option) == [Status.ADMINISTRATIVELY_PROHIBITED]
    assert bench.flows == {}
    assert Bench(Policy(max_flows=1)).statuses(fi(1), fi(2, 200)) == [0, Status.REASON_UNSPECIFIED]


def test_a_refusal_as_a_whole_is_told_in_this_dialect():
    bench = Bench()
    answers, message = bench.ask(BindingIdentifier(0), fi(1))
    assert message.status == 164 and answers == {1: Status.REASON_UNSPECIFIED}


def test_a_kernel_that_refuses():
    simulation, node, agent = make()
    simulation.failing.add("ha")
    node.add_flow(flow(1), simulation.now)
    simulation.run(0.5)
    answers = [p.message for p in simulation.packets if isinstance(p.message, BindingAcknowledgement)]
    assert answers[-1].status == 130 and answers[-1].option(FlowIdentification).status == 129
    assert agent.cache.get(HOME_ADDRESS).flows == {}
