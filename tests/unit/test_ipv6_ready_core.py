"""IPv6 Ready cases of mobile nodes that are about time and order, in the core, where time can be chosen."""

import pytest
from simulation import CORRESPONDENT, HOME_ADDRESS, HOME_AGENT, trio

from testbed.wire.message import BindingError, CareOfTest, HomeTest
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
