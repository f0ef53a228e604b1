import math

import pytest

from testbed.emulation.link_parameters import LinkParameters


def test_defaults_are_a_plain_cable():
    assert not LinkParameters().shaped
    assert not LinkParameters(queue_packets=5, seed=3).shaped


@pytest.mark.parametrize("given, per_packet", [
    ({"bandwidth_mbit": 50}, True), ({"loss_percent": 0.1}, True), ({"delay_ms": 5, "jitter_ms": 1}, True),
    ({"delay_ms": 5}, False)])
def test_only_a_pure_delay_may_carry_large_frames(given, per_packet):
    parameters = LinkParameters(**given)
    assert parameters.shaped
    assert parameters.per_packet is per_packet


@pytest.mark.parametrize("field, value", [
    ("bandwidth_mbit", 0), ("bandwidth_mbit", -1), ("bandwidth_mbit", "50"), ("bandwidth_mbit", math.nan),
    ("bandwidth_mbit", math.inf), ("bandwidth_mbit", 1e9), ("delay_ms", -0.1), ("delay_ms", None),
    ("delay_ms", 1e6), ("jitter_ms", -1), ("jitter_ms", "1"), ("loss_percent", -1), ("loss_percent", 100.1),
    ("loss_percent", True), ("queue_packets", 0), ("queue_packets", 1.5), ("queue_packets", 10**7),
    ("seed", -1), ("seed", "x"), ("seed", 2**64)])
def test_error_names_the_field(field, value):
    with pytest.raises(ValueError, match=f"^{field}: "):
        LinkParameters(**{field: value})


def test_jitter_must_not_exceed_the_delay():
    with pytest.raises(ValueError, match="^jitter_ms: 6 is more than delay_ms"):
        LinkParameters(delay_ms=5, jitter_ms=6)
    assert LinkParameters(delay_ms=5, jitter_ms=5).jitter_ms == 5


def test_parameters_cannot_be_altered():
    with pytest.raises(AttributeError):
        LinkParameters().delay_ms = 3
