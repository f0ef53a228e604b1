"""Hierarchical Mobile IPv6 (RFC 5380; draft §9): anchor points, regional addresses, movement."""

from dataclasses import replace
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
    as_received,
)

from testbed.mobility.anchor_point import AnchorPoint, AnchorPointConfiguration
from testbed.mobility.authentication import SecurityAssociation, Signer
from testbed.mobility.binding import FlowBinding
from testbed.mobility.forwarding import Action
from testbed.mobility.hierarchical_node import HierarchicalMobileNode
from testbed.mobility.home_agent import HomeAgent, HomeAgentConfiguration
from testbed.mobility.mobile_node_configuration import MobileNodeConfiguration
from testbed.wire.codec import Codec
from testbed.wire.flow import FlowIdentification, FlowStatus, Pro
from testbed.wire.icmpv6 import MobilePrefixSolicitation
from testbed.wire.message import BindingAcknowledgement, BindingRefreshRequest, BindingUpdate, Status
from testbed.wire.option import BindingIdentifier
from testbed.wire.packet import Packet
from testbed.wire.router_advertisement import MobilityAnchorPoint
from testbed.wire.selector import IPv6TrafficSelector

requirement = pytest.mark.requirement
FIRST, SECOND = IPv6Address("2001:db8:500::1"), IPv6Address("2001:db8:600::1")
REGIONS = {FIRST: IPv6Network("2001:db8:500::/64"), SECOND: IPv6Network("2001:db8:600::/64")}
LOCAL_KEY = SecurityAssociation(2000, bytes(range(16, 32)))
RCOA = IPv6Address("2001:db8:500::a")  # the MAP's prefix, the identifier of the preferred on-link address
OTHER_RCOA = IPv6Address("2001:db8:600::a")
ELSEWHERE = IPv6Address("2001:db8:203::a")
FLOW = FlowBinding(1, 10, Action.FORWARD, (1,))


class World(Simulation):
    """A hierarchical mobile node, its home agent, two anchor points."""

    def __init__(self, prefixes=(), **anchor):
        super().__init__()
        table = {HOME_ADDRESS: prefixes} if prefixes else {}
        configuration = HomeAgentConfiguration(
            HOME_AGENT, (HOME_PREFIX,), prefix_table=table, associations={HOME_ADDRESS: KEY}
        )
        self.agent = HomeAgent(configuration, self.now)
        self.add("ha", self.agent, HOME_AGENT)
        self.anchors = []
        for name, address in (("map1", FIRST), ("map2", SECOND)):
            configuration = AnchorPointConfiguration(
                address, (REGIONS[address],), keys=(LOCAL_KEY,), **anchor
            )
            self.anchors.append(AnchorPoint(configuration, self.now))
            self.add(name, self.anchors[-1], address)
        configuration = MobileNodeConfiguration(
            HOME_ADDRESS, HOME_AGENT, INTERFACES, 60, association=KEY, prefixes=prefixes
        )
        self.node = HierarchicalMobileNode(configuration, self.now, local_association=LOCAL_KEY)
        self.add("mn", self.node, WLAN, CELLULAR, ELSEWHERE, RCOA, OTHER_RCOA)

    def advertise(self, *options, interfaces=("wlan", "cellular")):
        for name in interfaces:
            self.node.anchors_advertised(name, options, self.now)

    def attach(self, **addresses):
        for name, address in addresses.items():
            self.node.attach(name, address, ROUTER if address else None, self.now)

    def sent(self, destination):
        return [
            packet
            for packet in self.packets
            if packet.destination == destination and isinstance(packet.message, BindingUpdate)
        ]


def settled(**more):
    """A world whose mobile node is in the domain of the first anchor point, and registered."""
    world = World(**more)
    world.advertise(MobilityAnchorPoint(FIRST, distance=2))
    world.attach(wlan=WLAN, cellular=CELLULAR)
    world.run(3)
    return world


@pytest.fixture
def world():
    return settled()


def at_home(world):
    return {b["care_of_address"] for b in world.agent.bindings(world.now)}


def at(anchor, world):
    return {b["bid"]: b["care_of_address"] for b in anchor.bindings(world.now)}


def travel(world, anchor, address=ELSEWHERE):
    """To another domain, with wlan alone."""
    world.node.move({"wlan": None, "cellular": None}, world.now)
    world.advertise(MobilityAnchorPoint(anchor, distance=2), interfaces=["wlan"])
    world.attach(wlan=address)


@requirement("RFC 5380 §4, §6.1: local Binding Update with M and A set, H clear, the RCoA as home address")
@requirement("RFC 5380 §6.1: the RCoA is registered with the home agent, after the MAP has accepted")
def test_registration_with_map_and_home_agent(world):
    local, home = world.sent(FIRST), world.sent(HOME_AGENT)
    message = local[0].message
    assert message.map_registration and message.acknowledge and not message.home_registration
    assert local[0].home_address == RCOA and local[0].source in (WLAN, CELLULAR)
    assert {p.source for p in home} == {RCOA} and {p.home_address for p in home} == {HOME_ADDRESS}
    assert at(world.anchors[0], world) == {1: str(WLAN), 2: str(CELLULAR)}
    assert at_home(world) == {str(RCOA)}
    answers = [p for p in world.packets if isinstance(p.message, BindingAcknowledgement)]
    assert {p.routing_address for p in answers if p.source == FIRST} == {RCOA}
    granted = answers[0].message.lifetime_s
    assert all(p.message.lifetime_s <= granted for p in home)


@requirement("RFC 5380 §6.1: no longer with the home agent than with the MAP")
def test_the_home_registration_lasts_no_longer_than_the_local_one():
    world = World(max_lifetime_s=20)
    world.advertise(MobilityAnchorPoint(FIRST, distance=2))
    world.attach(wlan=WLAN)
    world.run(100)
    assert len(world.sent(HOME_AGENT)) > 4
    assert all(packet.message.lifetime_s <= 20 for packet in world.sent(HOME_AGENT))
    assert at_home(world) == {str(RCOA)} and not world.events("binding-expired")


@requirement("RFC 6275 §11.4.2: prefixes of the home link are asked for from the RCoA, too")
def test_prefixes_of_the_home_link(world):
    world.node.home_prefixes.solicit(world.now)
    world.run(1)
    (asked,) = [packet for packet in world.packets if isinstance(packet.message, MobilePrefixSolicitation)]
    assert (asked.source, asked.destination, asked.home_address) == (RCOA, HOME_AGENT, HOME_ADDRESS)
    assert [information.prefix for information in world.node.home_prefixes.prefixes] == [HOME_PREFIX]


@requirement("draft §9: flow bindings sent to the MAP are associated with the regional care-of address")
def test_flow_bindings_are_at_the_map(world):
    world.node.add_flow(FLOW, world.now)
    world.run(1)
    ((address, flow),) = world.anchors[0].flows()
    assert (address, flow) == (RCOA, FLOW)
    assert world.agent.flows() == []
    wanted = world.anchors[0].home_binding(RCOA)
    assert wanted.regional and [rule.bids for rule in wanted.rules] == [(1,)]
    answers = [p.message for p in world.packets if p.source == FIRST]
    assert [o.status for o in answers[-1].options if hasattr(o, "fid")] == [0]


@requirement("RFC 5380 §6.1: tunnel to the home agent inside the tunnel to the MAP")
def test_the_uplink_is_a_tunnel_within_a_tunnel(world):
    world.node.add_flow(FLOW, world.now)
    world.run(1)
    wanted = world.node.home_binding(HOME_ADDRESS)
    assert {(path.local, path.remote) for path in wanted.paths} == {(RCOA, HOME_AGENT)}
    outer = {(path.bid, path.via.local, path.via.remote) for path in wanted.paths}
    assert outer == {(1, WLAN, FIRST), (2, CELLULAR, FIRST)}
    assert wanted.default_bid == 2 and [rule.bids for rule in wanted.rules] == [(1,)]
    regional = world.node.home_binding(RCOA)
    assert {(path.local, path.remote) for path in regional.paths} == {(WLAN, FIRST), (CELLULAR, FIRST)}
    assert set(world.node.forwarding()) == {HOME_ADDRESS, RCOA}


@requirement("RFC 5380 §6.1: movement inside a domain is told to the MAP alone")
def test_movement_inside_a_domain(world):
    world.node.add_flow(FLOW, world.now)
    world.run(1)
    told = len(world.sent(HOME_AGENT))
    world.node.move({"wlan": None}, world.now)
    world.run(1)
    assert at(world.anchors[0], world) == {1: str(CELLULAR), 2: str(CELLULAR)}
    world.advertise(MobilityAnchorPoint(FIRST, distance=2), interfaces=["wlan"])
    world.attach(wlan=ELSEWHERE)
    world.run(2)
    assert at(world.anchors[0], world) == {1: str(ELSEWHERE), 2: str(CELLULAR)}
    assert len(world.sent(HOME_AGENT)) == told
    assert [flow.fid for _, flow in world.anchors[0].flows()] == [1]


@requirement("RFC 5380 §7.1: where no MAP is advertised, ordinary Mobile IPv6")
def test_a_network_without_map(world):
    world.node.add_flow(FLOW, world.now)
    world.run(1)
    world.advertise()
    world.run(4)
    assert world.node.local is None
    assert at_home(world) == {str(WLAN), str(CELLULAR)}
    assert [flow.fid for _, flow in world.agent.flows()] == [1]
    assert world.anchors[0].forwarding() == {}
    wanted = world.node.home_binding(HOME_ADDRESS)
    assert {path.via for path in wanted.paths} == {None}
    world.advertise(MobilityAnchorPoint(FIRST, distance=2))
    world.run(4)
    assert at_home(world) == {str(RCOA)} and world.agent.flows() == []
    assert [flow.fid for _, flow in world.anchors[0].flows()] == [1]


@requirement("RFC 5380 §9.1: the furthest MAP; §7.1: not one with preference 0 or lifetime 0")
@pytest.mark.parametrize(
    ("first", "second", "chosen"),
    [
        ({"distance": 2}, {"distance": 3}, SECOND),
        ({"distance": 3}, {"distance": 2}, FIRST),
        ({"distance": 3, "preference": 0}, {"distance": 2}, SECOND),
        ({"distance": 3, "valid_lifetime_s": 0}, {"distance": 2}, SECOND),
        ({"distance": 2, "preference": 3}, {"distance": 2, "preference": 9}, SECOND),
    ],
)
def test_the_choice_of_a_map(first, second, chosen):
    world = World()
    world.advertise(MobilityAnchorPoint(FIRST, **first), MobilityAnchorPoint(SECOND, **second))
    world.attach(wlan=WLAN, cellular=CELLULAR)
    world.run(3)
    assert world.node.local.peer == chosen


@requirement("RFC 5380 §9: lazy in releasing existing bindings")
def test_a_better_map_is_no_reason_to_change(world):
    world.advertise(MobilityAnchorPoint(FIRST, 2, 0), MobilityAnchorPoint(SECOND, 9, 15))
    world.run(3)
    assert world.node.local.peer == FIRST


@requirement("RFC 5380 §7.1: a MAP option with lifetime zero: the MAP has failed")
def test_a_map_that_fails(world):
    world.advertise(MobilityAnchorPoint(FIRST, 2, valid_lifetime_s=0), MobilityAnchorPoint(SECOND, 1))
    world.run(4)
    assert world.node.local.peer == SECOND and at_home(world) == {str(OTHER_RCOA)}


@requirement("RFC 5380 §6.2: status 129 for an on-link address outside of the domain")
def test_the_map_takes_addresses_of_its_domain_only():
    world = World(local_prefixes=(IPv6Network("2001:db8:202::/64"),))
    world.advertise(MobilityAnchorPoint(FIRST))
    world.attach(cellular=CELLULAR)
    world.attach(wlan=WLAN)
    world.run(3)
    assert at(world.anchors[0], world) == {2: str(CELLULAR)}
    refused = world.events("binding-refused")
    assert [(event["bid"], event["status"]) for event in refused] == [(1, 129)]
    anchor = open_anchor(local_prefixes=(IPv6Network("2001:db8:202::/64"),))
    assert ask(anchor, 0.0, bid=None) == [Status.ADMINISTRATIVELY_PROHIBITED]
    assert ask(anchor, 0.0, bid=None, source=CELLULAR) == [0]


def answers(anchor, now, *options, sequence=1, source=WLAN, regional=RCOA, bid=1, **flags):
    flags = {"acknowledge": True, "map_registration": True, **flags}
    identifiers = (BindingIdentifier(bid, priority=bid, care_of_address=source),) if bid else ()
    update = BindingUpdate(sequence, 60, options=(*identifiers, *options), **flags)
    anchor.receive(Packet(source, FIRST, update, home_address=regional), "eth0", now)
    anchor.changes()
    return [transmission.packet.message for transmission in anchor.transmissions()]


def ask(*arguments, **keywords):
    return [answer.status for answer in answers(*arguments, **keywords)]


def open_anchor(**fields):
    fields["accept_unauthenticated"] = True
    configuration = AnchorPointConfiguration(FIRST, (REGIONS[FIRST],), **fields)
    return AnchorPoint(configuration, 0.0)


@requirement("RFC 5380 §4: a MAP registration has M and A set")
@pytest.mark.parametrize(
    "flags", [{"map_registration": False}, {"acknowledge": False}, {"home_registration": True}]
)
def test_what_is_no_local_binding_update_is_dropped(flags):
    anchor = open_anchor()
    assert ask(anchor, 0.0, **flags) == [] and anchor.forwarding() == {}


def test_what_the_map_refuses():
    anchor = open_anchor()
    assert ask(anchor, 0.0, regional=OTHER_RCOA) == [Status.NOT_HOME_SUBNET]
    assert ask(anchor, 0.0, source=REGIONS[FIRST][77]) == [Status.INVALID_CARE_OF_ADDRESS]
    assert ask(anchor, 0.0, mobile_router=True) == [Status.MOBILE_ROUTER_OPERATION_NOT_PERMITTED]
    assert ask(anchor, 0.0) == [0]


SSH = IPv6TrafficSelector(source_port=(22, 22))
ADD = FlowIdentification(1, 10, binding_reference=(1,), selector=SSH)


@requirement("draft §9: a MAP checks flow options as a home agent does, and each comes back with its status")
@requirement("draft §4.8: a MAP acknowledges, with a copy of each flow option")
@pytest.mark.parametrize(
    "option, status",
    [
        (replace(ADD, fid=2), FlowStatus.SUCCESS),
        (replace(ADD, selector=None), FlowStatus.FID_IN_USE),
        (replace(ADD, fid=2, action=3, binding_reference=None), FlowStatus.POORLY_FORMED),
        (replace(ADD, fid=2, binding_reference=(9,)), FlowStatus.POORLY_FORMED),
        (replace(ADD, fid=2, pro=Pro.REPLACE), FlowStatus.POORLY_FORMED),
        (replace(ADD, pro=Pro.REPLACE, action=2), FlowStatus.SUCCESS),
        (FlowIdentification(2, 1, pro=Pro.REFRESH), FlowStatus.POORLY_FORMED),
        (FlowIdentification(1, 1, pro=Pro.REFRESH), FlowStatus.SUCCESS),
        (FlowIdentification(2, 1, pro=Pro.REMOVE), FlowStatus.FID_NOT_FOUND),
        (FlowIdentification(1, 1, pro=Pro.REMOVE), FlowStatus.SUCCESS),
    ],
)
def test_flow_options_at_a_map(option, status):
    anchor = open_anchor()
    answers(anchor, 0.0, ADD)
    before = dict(anchor.cache.get(RCOA).flows)
    # about another BID, lest what it leaves out be lost
    (answer,) = answers(anchor, 1.0, option, sequence=2, source=CELLULAR, bid=2)
    assert answer.status == 0 and answer.all_options(FlowIdentification) == (option.answer(status),)
    changed = anchor.cache.get(RCOA).flows != before
    assert changed == (status == FlowStatus.SUCCESS and option.pro != Pro.REFRESH)


@requirement("draft §9: the lifetime of a flow binding at a MAP is that of the Binding Update")
def test_flow_bindings_end_with_the_lifetime_at_a_map():
    anchor = open_anchor()
    answers(anchor, 0.0, ADD)
    answers(anchor, 20.0, sequence=2, source=CELLULAR, bid=2)
    anchor.handle_timer(59.9)
    assert [flow.fid for _, flow in anchor.flows()] == [1]
    anchor.handle_timer(60.1)
    assert anchor.flows() == [] and set(at(anchor, World())) == {2}


@requirement("draft §4.3: a MAP maintains a default binding, by the BID priority")
def test_default_binding_at_a_map():
    anchor = open_anchor()
    answers(anchor, 0.0, source=CELLULAR, bid=2)
    assert anchor.home_binding(RCOA).default_bid == 2
    answers(anchor, 0.0, sequence=2)
    assert anchor.home_binding(RCOA).default_bid == 1


@requirement("RFC 5380 §12: nothing unauthenticated; nobody takes the regional address of another")
def test_the_map_knows_whom_an_address_belongs_to(world):
    anchor = world.anchors[0]
    assert ask(anchor, world.now, sequence=1000) == []  # dropped
    thief = SecurityAssociation(3000, bytes(range(32, 48)))
    anchor.verifier._keys[3000] = thief
    before = anchor.forwarding()
    node = world.node
    node._local_signer.association = thief
    node.registration.lifetime_s = 60
    node.local.refresh(world.now)
    world.run(0.1)
    refused = [e["status"] for e in world.events("registration-refused")]
    assert refused == [Status.DUPLICATE_ADDRESS_DETECTION_FAILED]
    assert anchor.forwarding() == before


@requirement("RFC 4285 §6: who is refused an address does not make its owner's time stamps look old")
def test_the_time_stamps_of_a_thief(world):
    anchor, codec = world.anchors[0], Codec()
    thief = SecurityAssociation(3000, bytes(range(32, 48)))
    anchor.verifier._keys[3000] = thief
    ahead = Signer(thief, lambda now: now + thief.window_s - 1, codec)  # newer than all of the owner's
    for sequence in (1000, 1001):
        update = BindingUpdate(sequence, 60, acknowledge=True, map_registration=True)
        update = ahead.sign(update, ELSEWHERE, RCOA, world.now)
        packet = Packet(ELSEWHERE, FIRST, update, home_address=RCOA)
        anchor.receive(as_received(packet), "eth0", world.now)
        (answer,) = [transmission.packet.message for transmission in anchor.transmissions()]
        assert answer.status == Status.DUPLICATE_ADDRESS_DETECTION_FAILED
    world.node.local.refresh(world.now)
    world.run(0.1)
    answers = [p.message for p in world.packets if isinstance(p.message, BindingAcknowledgement)]
    assert (answers[-1].status, answers[-1].sequence) == (0, world.node.local.sequence)


def test_lifetimes_run_out_everywhere(world):
    world.cut |= {WLAN, CELLULAR, RCOA}
    world.run(70)
    assert world.anchors[0].forwarding() == {} and world.agent.forwarding() == {}
    assert world.node.forwarding() == {}
    world.cut.clear()
    world.run(40)
    assert at_home(world) == {str(RCOA)}
    assert at(world.anchors[0], world) == {1: str(WLAN), 2: str(CELLULAR)}


def test_bindings_are_refreshed_for_long(world):
    world.node.add_flow(FLOW, world.now)
    for _ in range(10):
        world.run(60)
        world.advertise(MobilityAnchorPoint(FIRST, distance=2))
    assert at_home(world) == {str(RCOA)} and len(world.anchors[0].flows()) == 1
    assert not world.events("binding-expired")


@requirement("RFC 6275 §11.7.4: a Binding Refresh Request of the MAP is answered by a Binding Update")
def test_the_map_asks_for_a_refresh(world):
    seen = len(world.sent(FIRST))
    request = BindingRefreshRequest(options=(BindingIdentifier(2),))
    world.node.receive(Packet(FIRST, WLAN, request, routing_address=RCOA), "wlan", world.now)
    world.run(0.1)
    (update,) = world.sent(FIRST)[seen:]
    assert [option.bid for option in update.message.all_options(BindingIdentifier)] == [2]
    assert not world.events("message-dropped")


def test_leaving(world):
    world.node.deregister(world.now)
    world.run(5)
    assert world.node.deregistered
    assert world.anchors[0].forwarding() == {} and world.agent.forwarding() == {}
    assert world.node.forwarding() == {}


def test_returning_home(world):
    world.addresses[HOME_ADDRESS] = "mn"
    world.attach(wlan=HOME_PREFIX[0xAAAA])
    world.run(3)
    assert world.node.is_home and world.agent.forwarding() == {}


def test_a_restart_of_the_map_keeps_who_owns_what(world):
    configuration = AnchorPointConfiguration(FIRST, (REGIONS[FIRST],), keys=(LOCAL_KEY,))
    reborn = AnchorPoint(replace(configuration), world.now)
    reborn.restore(world.anchors[0].snapshot(world.now), world.now, world.now)
    assert reborn.forwarding() == world.anchors[0].forwarding()
    assert reborn.cache.get(RCOA).owner == 2000


@requirement("RFC 5380 §8: packets go on to arrive while the first MAP and the home agent are told")
def test_there_is_a_way_to_the_home_agent_when_the_first_map_comes_in_sight():
    world = World()
    world.advertise()
    world.attach(wlan=WLAN, cellular=CELLULAR)
    world.run(3)
    world.advertise(MobilityAnchorPoint(FIRST))
    for _ in range(100):
        world.run(0.01)
        assert world.node.home_binding(HOME_ADDRESS).default_bid is not None
    assert at_home(world) == {str(RCOA)}


@requirement("RFC 5380 §10: from a MAP that does not answer to another one, or on without")
@pytest.mark.parametrize("others", [(), (MobilityAnchorPoint(SECOND, 1),)])
def test_a_map_that_does_not_answer(others):
    world = World()
    world.cut.add(FIRST)
    world.advertise(MobilityAnchorPoint(FIRST, 3), *others)
    world.attach(wlan=WLAN, cellular=CELLULAR)
    world.run(16)
    assert at_home(world) == ({str(OTHER_RCOA)} if others else {str(WLAN), str(CELLULAR)})
    assert world.events("anchor-point-unserving") == [{"anchor_point": str(FIRST)}]
    world.cut.clear()
    world.run(60)  # one that is used is not left for one that has failed before
    assert at_home(world) == {str(OTHER_RCOA) if others else str(RCOA)}


@requirement("RFC 5380 §6.1: a MAP that refuses (fault code in the Binding Acknowledgement) is not used")
def test_a_map_that_refuses():
    world = World()
    world.anchors[0].verifier._keys.clear()
    world.advertise(MobilityAnchorPoint(FIRST, 3))
    world.attach(wlan=WLAN, cellular=CELLULAR)
    world.run(16)
    assert world.node.local is None and at_home(world) == {str(WLAN), str(CELLULAR)}


@requirement("RFC 5380 §7.1: a MAP with a valid lifetime of zero MUST NOT be selected, whoever advertises it")
def test_a_map_that_one_router_says_has_failed(world):
    world.advertise(MobilityAnchorPoint(FIRST, 2, valid_lifetime_s=0), interfaces=["wlan"])
    seen = len(world.sent(FIRST))
    world.run(4)
    assert world.node.local is None and at_home(world) == {str(WLAN), str(CELLULAR)}
    assert len(world.sent(FIRST)) == seen  # its bindings can be assumed to be lost


@requirement("RFC 5380 §5: the Valid Lifetime bounds the use of the MAP's address and of the RCoA")
def test_the_valid_lifetime_of_a_map_option():
    world = World()
    world.advertise(MobilityAnchorPoint(FIRST, 2, valid_lifetime_s=30))
    world.attach(wlan=WLAN, cellular=CELLULAR)
    world.run(3)
    assert {p.message.lifetime_s for p in (*world.sent(FIRST), *world.sent(HOME_AGENT))} <= {24, 28}
    world.run(40)
    assert world.node.local is None and at_home(world) == {str(WLAN), str(CELLULAR)}


@requirement("RFC 5380 §7.1: a MAP with preference zero: existing bindings are refreshed, none made")
def test_a_map_that_is_not_to_be_used_any_more(world):
    world.advertise(MobilityAnchorPoint(FIRST, 2, preference=0))
    world.run(100)
    assert at_home(world) == {str(RCOA)}
    world.advertise()
    world.run(3)
    world.advertise(MobilityAnchorPoint(FIRST, 2, preference=0))
    world.run(3)
    assert at_home(world) == {str(WLAN), str(CELLULAR)} and world.anchors[0].forwarding() == {}


@requirement("RFC 5380 §9: at home there is no use for a MAP; it is left")
def test_the_map_is_left_at_home(world):
    world.node.add_flow(FLOW, world.now)
    world.run(1)
    world.addresses[HOME_ADDRESS] = "mn"
    world.attach(wlan=HOME_PREFIX[0xAAAA])
    world.run(3)
    assert world.node.is_home and world.anchors[0].forwarding() == {} and world.node.forwarding() == {}
    del world.addresses[HOME_ADDRESS]
    world.attach(wlan=WLAN)
    world.run(4)
    assert at_home(world) == {str(RCOA)} and [flow.fid for _, flow in world.anchors[0].flows()] == [1]


@requirement("RFC 5380 §6.1: acknowledgements without a type 2 routing header with the RCoA are ignored")
@pytest.mark.parametrize("routing_address", [None, HOME_ADDRESS, OTHER_RCOA])
def test_an_acknowledgement_that_is_not_for_the_regional_address(routing_address):
    world = World()
    world.cut.add(FIRST)
    world.advertise(MobilityAnchorPoint(FIRST))
    world.attach(wlan=WLAN)
    world.run(0.1)
    answer = BindingAcknowledgement(0, world.node.local.sequence, 60)
    world.node.receive(Packet(FIRST, WLAN, answer, routing_address=routing_address), "wlan", world.now)
    assert not world.node.local.known_to_peer
    (reason,) = [event.fields["reason"] for event in world.node.events() if event.name == "message-dropped"]
    assert "type 2 routing header" in reason


@requirement("RFC 5380 §6.1: lifetimes at the home agent are no larger than the one that the MAP has granted")
def test_the_lifetime_that_the_map_has_granted():
    world = World(max_lifetime_s=20)
    world.advertise(MobilityAnchorPoint(FIRST))
    world.attach(wlan=WLAN, cellular=CELLULAR)
    world.run(60)
    assert at_home(world) == {str(RCOA)}
    assert max(p.message.lifetime_s for p in world.sent(HOME_AGENT)) <= 20


@requirement("RFC 5380 §3.1, §6.1: an RCoA is never the care-of address in a Binding Update to another MAP")
def test_no_map_behind_a_map(world):
    travel(world, SECOND)
    world.run(4)
    travel(world, FIRST, WLAN)
    world.run(4)
    told = [*world.sent(FIRST), *world.sent(SECOND)]
    named = {o.care_of_address for p in told for o in p.message.all_options(BindingIdentifier)}
    assert len(told) > 3 and {p.source for p in told} | named <= {WLAN, CELLULAR, ELSEWHERE, None}


@requirement("RFC 5380 §7.1: with the R flag, the RCoA is in the place of the home address as well")
def test_an_option_with_the_r_flag():
    world = World()
    world.advertise(MobilityAnchorPoint(FIRST, allocated=True))
    world.attach(wlan=WLAN)
    world.run(3)
    assert {p.home_address for p in world.sent(FIRST)} == {RCOA} and at_home(world) == {str(RCOA)}


@requirement("RFC 3963 §5.5: traffic of the mobile network goes through the bi-directional tunnel")
def test_mobile_network_behind_an_anchor_point():
    network = IPv6Network("2001:db8:1000::/64")
    world = settled(prefixes=(network,))
    for bound in world.node.home_binding(HOME_ADDRESS), world.agent.home_binding(HOME_ADDRESS):
        assert bound.prefixes == (network,)
    (local,) = {path.via.remote for path in world.node.home_binding(HOME_ADDRESS).paths}
    assert local == FIRST and world.node.home_binding(RCOA).prefixes == ()
