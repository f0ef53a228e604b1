"""The previous anchor point of a hierarchical mobile node (RFC 5380 §6.1, §8, §9): it forwards until the home
agent knows the new regional address, then it is left."""

import pytest
from simulation import CELLULAR, HOME_ADDRESS, HOME_AGENT, WLAN
from test_mobility_hierarchical import (
    ELSEWHERE,
    FIRST,
    FLOW,
    OTHER_RCOA,
    RCOA,
    SECOND,
    at,
    at_home,
    settled,
    travel,
)

from testbed.wire.message import BindingUpdate
from testbed.wire.router_advertisement import MobilityAnchorPoint

requirement = pytest.mark.requirement


@pytest.fixture
def world():
    return settled()


@requirement("RFC 5380 §6.1, §8: movement between domains: new RCoA, and the previous MAP forwards meanwhile")
def test_movement_between_domains(world):
    world.node.add_flow(FLOW, world.now)
    world.run(1)
    world.node.move({"wlan": None, "cellular": None}, world.now)
    world.run(0.5)
    seen = len(world.packets)
    world.advertise(MobilityAnchorPoint(SECOND, distance=2), interfaces=["wlan"])
    world.attach(wlan=ELSEWHERE)
    world.run(4)
    told = [p for p in world.packets[seen:] if isinstance(p.message, BindingUpdate)]
    assert FIRST in {p.destination for p in told if p.message.lifetime_s}
    assert at(world.anchors[1], world) == {1: str(ELSEWHERE), 2: str(ELSEWHERE)}
    assert at_home(world) == {str(OTHER_RCOA)}
    assert [(home, flow.fid) for home, flow in world.anchors[1].flows()] == [(OTHER_RCOA, 1)]
    assert world.anchors[0].forwarding() == {}  # left, once the home agent knew the new address
    assert set(world.node.forwarding()) == {HOME_ADDRESS, OTHER_RCOA}


@requirement("RFC 5380 §6.1: the previous MAP is told the new on-link address, and forwards to it")
def test_the_previous_map_forwards_while_the_home_agent_is_not_reached(world):
    world.cut.add(HOME_AGENT)
    travel(world, SECOND)
    world.run(8)
    for anchor in world.anchors:
        assert at(anchor, world) == {1: str(ELSEWHERE), 2: str(ELSEWHERE)}
    wanted = world.node.home_binding(HOME_ADDRESS)  # what the home agent still sends there is taken
    assert {(path.local, path.via.remote) for path in wanted.paths} == {(RCOA, FIRST)}
    world.cut.clear()
    world.run(20)
    assert at_home(world) == {str(OTHER_RCOA)} and world.anchors[0].forwarding() == {}


@requirement("RFC 5380 §8: packets go on to arrive while the new MAP and the home agent are told")
@pytest.mark.parametrize("anchor", [SECOND, None])
def test_there_is_a_way_to_the_home_agent_all_the_time(world, anchor):
    options = [MobilityAnchorPoint(anchor, distance=2)] if anchor else []
    world.advertise(*options)
    for _ in range(100):
        world.run(0.01)
        wanted = world.node.home_binding(HOME_ADDRESS)
        assert wanted is not None and wanted.default_bid is not None
    assert world.node.local is None or world.node.local.peer == SECOND
    world.run(3)
    assert at_home(world) == ({str(OTHER_RCOA)} if anchor else {str(WLAN), str(CELLULAR)})


def test_back_to_the_previous_map_before_the_home_agent_knew(world):
    world.cut.add(HOME_AGENT)
    travel(world, SECOND)
    world.run(3)
    travel(world, FIRST, WLAN)
    world.run(3)
    world.cut.clear()
    world.run(20)
    assert at_home(world) == {str(RCOA)} and world.anchors[1].forwarding() == {}
    assert set(at(world.anchors[0], world).values()) == {str(WLAN)}


@requirement("RFC 5380 §9: a binding that cannot be released expires")
def test_a_previous_map_that_does_not_answer(world):
    travel(world, SECOND)
    world.cut.add(FIRST)
    world.run(10)
    assert [known.peer for known in world.node.former] == [FIRST]
    world.run(60)
    assert world.node.former == [] and world.anchors[0].forwarding() == {}
    sent = len(world.sent(FIRST))
    world.run(100)
    assert len(world.sent(FIRST)) == sent
