"""Regional care-of addresses at correspondent nodes (RFC 5380 §6.1, §6.1.1, §12.2; draft §9)."""

from collections import Counter

import pytest
from simulation import (
    CELLULAR,
    CORRESPONDENT,
    HOME_ADDRESS,
    HOME_AGENT,
    HOME_PREFIX,
    INTERFACES,
    KEY,
    ROUTER,
    WLAN,
    Simulation,
)
from test_mobility_hierarchical import (
    ELSEWHERE,
    FIRST,
    FLOW,
    LOCAL_KEY,
    OTHER_RCOA,
    RCOA,
    SECOND,
    World,
    travel,
)

from testbed.mobility.correspondent_node import CorrespondentNode, CorrespondentNodeConfiguration
from testbed.mobility.hierarchical_node import HierarchicalMobileNode
from testbed.mobility.home_agent import HomeAgent, HomeAgentConfiguration
from testbed.mobility.mobile_node import MobileNode
from testbed.mobility.mobile_node_configuration import MobileNodeConfiguration
from testbed.wire.message import BindingUpdate, CareOfTestInit, HomeTestInit
from testbed.wire.option import BindingIdentifier
from testbed.wire.router_advertisement import MobilityAnchorPoint

requirement = pytest.mark.requirement
CONFIGURATION = MobileNodeConfiguration(HOME_ADDRESS, HOME_AGENT, INTERFACES, 60, association=KEY)


class Routes(World):
    """A hierarchical mobile node that optimises the route to a correspondent node."""

    def __init__(self, regional=True):
        super().__init__()
        self.correspondent = CorrespondentNode(CorrespondentNodeConfiguration(), self.now)
        self.add("cn", self.correspondent, CORRESPONDENT)
        self.node = HierarchicalMobileNode(
            CONFIGURATION, self.now, local_association=LOCAL_KEY, regional_routes=regional
        )
        self.add("mn", self.node, WLAN, CELLULAR, ELSEWHERE, RCOA, OTHER_RCOA)

    def begin(self):
        self.attach(wlan=WLAN, cellular=CELLULAR)
        self.run(3)
        self.node.add_flow(FLOW, self.now)
        self.node.optimise(CORRESPONDENT, self.now)
        self.run(3)
        return self

    def bound(self):
        return {b["bid"]: b["care_of_address"] for b in self.correspondent.bindings(self.now)}

    def route(self):
        return self.node.optimisations().get((HOME_ADDRESS, CORRESPONDENT))

    def since(self, packets, destination):
        return [packet for packet in self.packets[packets:] if packet.destination == destination]


@pytest.fixture
def routes():
    routes = Routes()
    routes.advertise(MobilityAnchorPoint(FIRST, distance=2))
    return routes.begin()


@requirement("RFC 5380 §6.1: the binding of home address and RCoA is sent to correspondent nodes")
@requirement("RFC 5380 §12.2: Care-of Test Init from the RCoA, Home Test Init from the home address")
def test_the_correspondent_node_gets_the_regional_address(routes):
    assert routes.bound() == {2: str(RCOA)} and routes.correspondent.flows() == []
    sent = [packet for packet in routes.packets if packet.destination == CORRESPONDENT]
    sources = {type(packet.message): packet.source for packet in sent}
    assert sources == {HomeTestInit: HOME_ADDRESS, CareOfTestInit: RCOA, BindingUpdate: RCOA}
    assert {packet.home_address for packet in routes.sent(CORRESPONDENT)} == {HOME_ADDRESS}


@requirement("RFC 5380 §6.1: no longer with correspondent nodes than with the MAP")
def test_a_binding_at_a_correspondent_node_lasts_no_longer_than_that_at_the_map(routes):
    routes.run(200)
    local = routes.node.local
    assert max(p.message.lifetime_s for p in routes.sent(CORRESPONDENT)) <= 60
    expires = routes.correspondent.cache.get(HOME_ADDRESS).bindings[2].expires
    assert expires <= max(binding.expires for binding in local.bindings.values())


@requirement("RFC 5380 §6.1.1: packets to the CN have the RCoA as source")
@requirement("draft §9: flow bindings at the MAP also choose for packets of optimised routes")
def test_the_route_is_in_the_tunnel_to_the_anchor_point(routes):
    route = routes.route()
    assert {(p.bid, p.local, p.via.local, p.via.remote, p.interface) for p in route.paths} == {
        (1, RCOA, WLAN, FIRST, "wlan"), (2, RCOA, CELLULAR, FIRST, "cellular")}
    assert route.default_bid == 2 and [(rule.fid, rule.bids) for rule in route.rules] == [(1, (1,))]


@requirement("RFC 5380 §6.1: movement inside a domain is told to the MAP, not to correspondent nodes")
def test_movement_inside_the_domain(routes):
    before = len(routes.packets)
    routes.attach(wlan=ELSEWHERE)
    routes.run(3)
    assert routes.since(before, FIRST) != []
    assert routes.since(before, CORRESPONDENT) == routes.since(before, HOME_AGENT) == []
    assert {path.via.local for path in routes.route().paths} == {ELSEWHERE, CELLULAR}


@requirement("RFC 5380 §3: a change of the MAP is told to correspondent nodes")
def test_the_former_anchor_point_serves_until_the_correspondent_node_knows(routes):
    routes.cut.add(CORRESPONDENT)
    travel(routes, SECOND)
    routes.run(4)
    assert {b["care_of_address"] for b in routes.agent.bindings(routes.now)} == {str(OTHER_RCOA)}
    assert [known.peer for known in routes.node.former] == [FIRST]
    assert {path.via.remote for path in routes.route().paths} == {FIRST}
    routes.cut.clear()
    routes.run(5)
    assert routes.bound() == {2: str(OTHER_RCOA)}
    assert {path.via.remote for path in routes.route().paths} == {SECOND}
    assert routes.node.former == [] and routes.anchors[0].forwarding() == {}


@requirement("RFC 5380 §7.1: where no MAP is advertised, correspondent nodes get on-link addresses")
def test_out_of_the_domain_and_back(routes):
    routes.advertise()
    routes.run(4)
    assert routes.bound() == {1: str(WLAN), 2: str(CELLULAR)}
    assert [flow.fid for _, flow in routes.correspondent.flows()] == [1]
    routes.advertise(MobilityAnchorPoint(FIRST, distance=2))
    routes.run(4)
    assert routes.bound() == {2: str(RCOA)} and routes.correspondent.flows() == []


@requirement("RFC 5380 §6.1: correspondent nodes may be told on-link care-of addresses")
def test_on_link_addresses_at_the_correspondent_node():
    routes = Routes(regional=False)
    routes.advertise(MobilityAnchorPoint(FIRST, distance=2))
    routes.begin()
    assert routes.bound() == {1: str(WLAN), 2: str(CELLULAR)}
    assert [flow.fid for _, flow in routes.correspondent.flows()] == [1]
    assert {path.via for path in routes.route().paths} == {None}


def test_a_map_that_fails_takes_the_route_along(routes):
    routes.cut.add(FIRST)
    routes.run(70)
    assert routes.route() is None  # what the MAP has bound has run out
    routes.run(130)
    assert routes.bound() == {1: str(WLAN), 2: str(CELLULAR)}
    assert {path.via for path in routes.route().paths} == {None}


def test_leaving(routes):
    routes.node.deregister(routes.now)
    routes.run(5)
    assert routes.node.deregistered and routes.bound() == {}
    assert routes.anchors[0].forwarding() == {} and routes.agent.forwarding() == {}


def ordinary():
    """A mobile node without an anchor point, with the same correspondent node."""
    simulation = Simulation()
    agent = HomeAgentConfiguration(HOME_AGENT, (HOME_PREFIX,), associations={HOME_ADDRESS: KEY})
    simulation.add("ha", HomeAgent(agent, simulation.now), HOME_AGENT)
    simulation.add("cn", CorrespondentNode(CorrespondentNodeConfiguration(), simulation.now), CORRESPONDENT)
    node = MobileNode(CONFIGURATION, simulation.now)
    simulation.add("mn", node, WLAN)
    node.attach("wlan", WLAN, ROUTER, simulation.now)
    simulation.run(1)
    node.optimise(CORRESPONDENT, simulation.now)
    return simulation


@requirement("RFC 6275 §11.7.2: not beyond the home registration, which is renewed first")
def test_correspondent_nodes_are_told_after_the_home_agent():
    simulation = ordinary()
    simulation.run(600)
    told = [p for p in simulation.packets if isinstance(p.message, BindingUpdate)]
    lifetimes = [p.message.lifetime_s for p in told if p.destination == CORRESPONDENT]
    assert min(lifetimes) >= 52, lifetimes  # not what is left of the home registration
    count = Counter(p.destination for p in told)
    bids = {o.bid for p in told for o in p.message.all_options(BindingIdentifier)}
    assert count[CORRESPONDENT] <= len(bids) * (count[HOME_AGENT] + 1)


@requirement("RFC 5380 §6.1: not beyond the binding with the MAP, which is renewed first")
def test_the_home_agent_is_told_after_the_anchor_point(routes):
    routes.run(10)
    seen = len(routes.packets)
    for _ in range(10):
        routes.run(60)
        routes.advertise(MobilityAnchorPoint(FIRST, distance=2))
    updates = [p for p in routes.since(seen, HOME_AGENT) if isinstance(p.message, BindingUpdate)]
    assert min(p.message.lifetime_s for p in updates) >= 52
