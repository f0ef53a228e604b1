"""How fast the home agent is told of movements that follow each other closely: no sockets, no sleep."""

import pytest
from simulation import CELLULAR, HOME_ADDRESS, KEY, ROUTER, WLAN, agree, attached_pair

from testbed.mobility.binding import FlowBinding
from testbed.mobility.forwarding import Action
from testbed.wire.message import BindingUpdate
from testbed.wire.packet import Packet
from testbed.wire.selector import IPv6TrafficSelector

SLOW_S, FAST_S = 0.04, 0.01
requirement = pytest.mark.requirement


def by_network(packet: Packet) -> list[float]:
    """The cellular network is slower than wlan."""
    return [SLOW_S if CELLULAR in (packet.source, packet.destination) else FAST_S]


def updates(simulation):
    return [packet for packet in simulation.packets if isinstance(packet.message, BindingUpdate)]


def flow(fid):
    selector = IPv6TrafficSelector(source_port=(fid, fid), next_header=(17, 17))
    return FlowBinding(fid, fid, Action.FORWARD, (1,), selector)


@requirement("RFC 6275 §11.7.1: each movement is told at once, whatever is under way")
@pytest.mark.parametrize("key", [KEY, None])
def test_a_link_that_comes_back_at_once_is_told_before_the_answer_to_its_loss(key):
    simulation, node, agent = attached_pair(by_network, key=key)
    node.add_flow(flow(1), simulation.now)
    simulation.run(2)
    before = len(updates(simulation))
    node.detach("wlan", simulation.now)
    simulation.run(0.005)
    node.attach("wlan", WLAN, ROUTER, simulation.now)
    simulation.run(0)
    assert [packet.source for packet in updates(simulation)[before:]] == [CELLULAR, WLAN]
    simulation.run(FAST_S)
    # the news of the loss are still under way, and come too late
    assert {path.bid: path.remote for path in agent.home_binding(HOME_ADDRESS).paths} == {
        1: WLAN,
        2: CELLULAR,
    }
    simulation.run(5)
    assert len(updates(simulation)) == before + 2
    agree(node, agent)
    assert agent.cache.get(HOME_ADDRESS).flows


@requirement("RFC 6275 §11.8: at most MAX_UPDATE_RATE messages within a second; one of them is for movement")
def test_flow_bindings_leave_room_for_a_movement():
    simulation, node, agent = attached_pair()
    simulation.run(5)
    before = len(updates(simulation))
    for fid in range(1, 6):
        node.add_flow(flow(fid), simulation.now)
        simulation.run(0.03)
    assert len(updates(simulation)) == before + 2
    node.detach("wlan", simulation.now)
    simulation.run(0)
    assert len(updates(simulation)) == before + 3
    simulation.run(FAST_S)
    assert {path.remote for path in agent.home_binding(HOME_ADDRESS).paths} == {CELLULAR}
    simulation.run(5)
    agree(node, agent)
    assert set(agent.cache.get(HOME_ADDRESS).flows) == set(range(1, 6))


@requirement("RFC 6275 §11.8: a Binding Update is sent again until it is acknowledged")
def test_the_return_is_told_again_where_its_message_is_lost():
    """What the home agent was told in between has to be taken back, though our list is as it was before."""
    simulation, node, agent = attached_pair()
    node.detach("wlan", simulation.now)
    simulation.run(0.005)
    node.attach("wlan", WLAN, ROUTER, simulation.now)
    simulation.fate = lambda packet: []
    simulation.run(0.1)
    paths = agent.home_binding(HOME_ADDRESS).paths
    assert {path.bid: path.remote for path in paths} == {1: CELLULAR, 2: CELLULAR}
    simulation.fate = lambda packet: [FAST_S]
    simulation.run(5)
    agree(node, agent)
    paths = agent.home_binding(HOME_ADDRESS).paths
    assert {path.bid: path.remote for path in paths} == {1: WLAN, 2: CELLULAR}
