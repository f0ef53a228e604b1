"""IPv6 Ready cases of mobile nodes that are about time and order, in the core, where time can be chosen."""

import math

import pytest
from simulation import (
    CELLULAR,
    CORRESPONDENT,
    HOME_ADDRESS,
    HOME_AGENT,
    HOME_PREFIX,
    WLAN,
    attached_pair,
    trio,
)

from testbed.mobility.home_link import HomePrefix
from testbed.wire.icmp_error import (
    DESTINATION_UNREACHABLE,
    PARAMETER_PROBLEM,
    UNRECOGNIZED_NEXT_HEADER,
    IcmpError,
)
from testbed.wire.message import (
    BindingError,
    BindingUpdate,
    CareOfTest,
    CareOfTestInit,
    HomeTest,
    HomeTestInit,
)
from testbed.wire.packet import Packet

requirement = pytest.mark.requirement


def optimise(fate, seconds=5.0):
    """The route to a correspondent node, where `fate` has the delays of packets."""
    simulation, node, correspondent = trio()
    simulation.fate = fate
    node.optimise(CORRESPONDENT, simulation.now)
    simulation.run(seconds)
    return simulation, node, correspondent


def agreed(node, correspondent):
    registration = node.optimiser.correspondents[CORRESPONDENT]
    entry = correspondent.cache.get(HOME_ADDRESS)
    listed = {b.bid: b.registered for b in registration.bindings.values() if b.registered}
    return bool(listed) and listed == {b.bid: b.care_of_address for b in entry.bindings.values()}


@requirement("IPv6-Ready MN-2-1-3-2-001: Home Test after Care-of Test")
@requirement("IPv6-Ready MN-2-1-4-2-006: Care-of Test after Home Test")
@requirement("IPv6-Ready MN-2-1-3-2-002: delayed Home Test")
@requirement("IPv6-Ready MN-2-1-4-2-002: delayed Care-of Test")
@pytest.mark.parametrize("late", [HomeTest, CareOfTest])
@pytest.mark.parametrize("delay", [0.3, 0.9])
def test_tests_come_in_any_order(late, delay):
    def fate(packet):
        return [delay if isinstance(packet.message, late) else 0.01]

    _, node, correspondent = optimise(fate)
    assert agreed(node, correspondent)


@requirement("IPv6-Ready MN-2-1-3-2-008: Home Test twice")
@requirement("IPv6-Ready MN-2-1-4-2-007: Care-of Test twice")
@pytest.mark.parametrize("twice", [HomeTest, CareOfTest])
def test_tests_that_come_twice(twice):
    def fate(packet):
        return [0.01, 0.02] if isinstance(packet.message, twice) else [0.01]

    _, node, correspondent = optimise(fate)
    assert agreed(node, correspondent)


@requirement("IPv6-Ready MN-3-3-1-2-009: Binding Error, status 2, while tests are under way")
def test_binding_error_for_unknown_types():
    """The packets go through the home agent, before and after; its registration stays."""
    simulation, node, _ = trio()
    simulation.cut.add(CORRESPONDENT)
    node.optimise(CORRESPONDENT, simulation.now)
    simulation.settle()
    before = node.home_binding(HOME_ADDRESS)
    care_of_address = before.paths[0].local
    error = Packet(CORRESPONDENT, care_of_address, BindingError(2, HOME_ADDRESS))
    node.receive(error, "wlan", simulation.now)
    simulation.run(2)
    assert node.registered and node.home_binding(HOME_ADDRESS) == before
    assert node.optimisations() == {} and before.paths[0].remote == HOME_AGENT


@requirement("IPv6-Ready MN-2-1-1-2-017: Home Test Init when the lifetime of the home prefix decreases")
@requirement("IPv6-Ready MN-2-1-2-2-017: Care-of Test Init when the lifetime of the home prefix decreases")
@requirement("IPv6-Ready MN-3-1-2-2-001: Binding Update when the lifetime of the home prefix decreases")
@requirement("RFC 6275 §11.4.2: correspondent nodes that would store a binding for longer are told")
@pytest.mark.parametrize(("passed_s", "tested"), [(100, False), (250, True)])
def test_home_prefix_ends_earlier(passed_s, tested):
    """Tokens are good for 210 s; bindings would be renewed after 336 s."""
    simulation, node, correspondent = trio(lifetime_s=1000)
    home_agent = simulation.roles["ha"]
    home_agent._advertiser._interval_s = (1.0, 1.0)
    node.optimise(CORRESPONDENT, simulation.now)
    simulation.run(passed_s)
    assert agreed(node, correspondent)
    count = len(simulation.packets)
    end = simulation.now + 60
    home_agent.change_prefix(HomePrefix(HOME_PREFIX, end, end), simulation.now)
    simulation.run(5)
    sent = [packet.message for packet in simulation.packets[count:] if packet.destination == CORRESPONDENT]
    kinds = {type(message) for message in sent}
    assert kinds == ({HomeTestInit, CareOfTestInit, BindingUpdate} if tested else {BindingUpdate})
    assert all(0 < m.lifetime_s <= 60 for m in sent if isinstance(m, BindingUpdate))
    assert all(b.expires <= end for b in correspondent.cache.get(HOME_ADDRESS).bindings.values())


@requirement("IPv6-Ready MN-2-1-1-1-006: no more than the care-of address's valid lifetime is asked for")
@requirement("RFC 6275 §11.7.1, §11.7.2: lifetimes are within the valid lifetime of the care-of address")
def test_care_of_address_ends_earlier():
    simulation, node, correspondent = trio(lifetime_s=1000)
    until = {WLAN: simulation.now + 90, CELLULAR: math.inf}
    node._valid_until = until.__getitem__
    node.registration.refresh(simulation.now)
    node.optimise(CORRESPONDENT, simulation.now)
    simulation.run(5)
    assert node.registration.bindings[1].expires <= until[WLAN]
    entry = correspondent.cache.get(HOME_ADDRESS)
    assert entry.bindings[1].lifetime_s in (84, 88) and entry.bindings[2].lifetime_s in (84, 88)


def unknown_there(node, packet, now):
    """What a kernel without Mobile IPv6 says of a message."""
    error = IcmpError(packet.destination, PARAMETER_PROBLEM, UNRECOGNIZED_NEXT_HEADER, b"")
    node.receive_error(packet, error, now)


@requirement("IPv6-Ready MN-4-2-2-2-002: Parameter Problem, code 1, for a Home Test Init")
@requirement("RFC 6275 §11.3.5: no Binding Updates to nodes that do not know the Mobility Header, for a time")
def test_correspondents_without_mobile_ipv6():
    simulation, node, _ = trio()
    simulation.cut.add(CORRESPONDENT)
    node.optimise(CORRESPONDENT, simulation.now)
    simulation.settle()
    (init,) = [p for p in simulation.packets if isinstance(p.message, HomeTestInit)]
    unknown_there(node, init, simulation.now)
    count = len(simulation.packets)
    simulation.run(59)
    assert [p for p in simulation.packets[count:] if p.destination == CORRESPONDENT] == []
    simulation.run(2)
    assert [p for p in simulation.packets[count:] if isinstance(p.message, HomeTestInit)]
    unknown_there(node, init, simulation.now)
    count = len(simulation.packets)
    node.optimise(CORRESPONDENT, simulation.now)  # its user knows better
    simulation.settle()
    assert [p for p in simulation.packets[count:] if isinstance(p.message, HomeTestInit)]


@requirement("IPv6-Ready MN-6-2-2-1-001: Parameter Problem, code 1, for a Binding Update to the home agent")
def test_home_agent_without_mobile_ipv6():
    simulation, node, agent = attached_pair()
    update = next(p for p in simulation.packets if isinstance(p.message, BindingUpdate))
    unknown_there(node, update, simulation.now)
    count = len(simulation.packets)
    node.registration.refresh(simulation.now)
    simulation.run(50)
    assert [p for p in simulation.packets[count:] if p.destination == HOME_AGENT] == []
    assert node.registered  # what the home agent has is used as long as it lasts
    simulation.run(20)
    assert len(agent.cache.get(HOME_ADDRESS).bindings) == 2 and node.registered


@requirement("RFC 6275 §11.3.5: a Home Address option that is not known is logged; no other error matters")
def test_other_errors():
    simulation, node, correspondent = optimise(lambda packet: [0.01])
    update = next(p for p in simulation.packets if isinstance(p.message, BindingUpdate) and
                  p.destination == CORRESPONDENT)  # fmt: skip
    elsewhere = IcmpError(HOME_AGENT, PARAMETER_PROBLEM, UNRECOGNIZED_NEXT_HEADER, b"")
    option = IcmpError(CORRESPONDENT, PARAMETER_PROBLEM, 2, b"")
    for error in (elsewhere, option, IcmpError(CORRESPONDENT, DESTINATION_UNREACHABLE, 0, b"")):
        node.receive_error(update, error, simulation.now)
    simulation.run(5)
    assert agreed(node, correspondent) and len(simulation.events("icmp-error-received")) == 3
