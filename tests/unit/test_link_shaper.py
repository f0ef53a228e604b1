"""The decisions of the wire, without any device: times are given, in nanoseconds."""

from dataclasses import asdict
from math import sqrt

import pytest

from testbed.emulation.link_parameters import LinkParameters
from testbed.emulation.wire_direction import LOST, QUEUE_FULL, Shaper

MS = 1_000_000
FRAME = 1250  # octets: 10,000 bits, 1 ms at 10 Mbit/s


def shaper(label="", **parameters):
    return Shaper(asdict(LinkParameters(**parameters)), label)


def test_delay_alone():
    delayed = shaper(delay_ms=10)
    assert [delayed.schedule(now, FRAME) for now in (0, 5, 7 * MS)] == [10 * MS, 10 * MS + 5, 17 * MS]


def test_frames_are_sent_one_after_the_other_and_then_delayed():
    slow = shaper(bandwidth_mbit=10, delay_ms=5)
    assert [slow.schedule(0, FRAME) for _ in range(3)] == [6 * MS, 7 * MS, 8 * MS]
    # The link has been idle since 3 ms: no credit is saved up.
    assert slow.schedule(10 * MS, FRAME) == 16 * MS
    assert slow.schedule(10 * MS, 2 * FRAME) == 18 * MS


def test_rate_is_exact_in_the_long_run():
    link = shaper(bandwidth_mbit=50, queue_packets=100_000)
    for _ in range(50_000):
        last = link.schedule(0, 1514)
    assert 50_000 * 1514 * 8 / (last / 1e9) == pytest.approx(50e6, rel=1e-5)


def test_queue_drops_the_newest_and_holds_the_one_being_sent():
    link = shaper(bandwidth_mbit=10, queue_packets=3)
    assert [link.schedule(0, FRAME) for _ in range(5)] == [1 * MS, 2 * MS, 3 * MS, QUEUE_FULL, QUEUE_FULL]
    assert link.schedule(1 * MS, FRAME) == 4 * MS  # the first has been sent
    assert link.schedule(1 * MS, FRAME) == QUEUE_FULL


def test_packets_under_way_do_not_fill_the_queue():
    link = shaper(bandwidth_mbit=10, delay_ms=1000, queue_packets=1)
    assert [link.schedule(now * MS, FRAME) for now in range(5)] == [(1001 + now) * MS for now in range(5)]


def test_loss_takes_its_time_on_the_link():
    link = shaper(bandwidth_mbit=10, loss_percent=100)
    assert link.schedule(0, FRAME) == LOST
    link.change(asdict(LinkParameters(bandwidth_mbit=10)))
    assert link.schedule(0, FRAME) == 2 * MS


def test_loss_has_the_probability_asked_for():
    lossy = shaper(loss_percent=20, seed=1)
    packets = 50_000
    lost = sum(lossy.schedule(now, FRAME) == LOST for now in range(packets))
    assert abs(lost - 0.2 * packets) < 4 * sqrt(packets * 0.2 * 0.8)


def test_jitter_is_even_and_keeps_the_order():
    link = shaper(delay_ms=20, jitter_ms=5, seed=4)
    apart = [link.schedule(i * 10 * MS, FRAME) - i * 10 * MS for i in range(10_000)]
    assert 15 * MS <= min(apart) < 15.01 * MS and 24.99 * MS < max(apart) <= 25 * MS
    assert sum(apart) / len(apart) == pytest.approx(20 * MS, abs=0.2 * MS)
    dense = [link.schedule(10**12 + i, FRAME) for i in range(1000)]
    assert dense == sorted(dense)


def test_same_seed_same_decisions():
    def decisions(seed, label="direction 0", **more):
        link = shaper(label, delay_ms=20, loss_percent=30, seed=seed, **more)
        return [link.schedule(i * 100 * MS, FRAME) for i in range(200)]

    assert decisions(7, jitter_ms=5) == decisions(7, jitter_ms=5)
    assert decisions(7) != decisions(8)
    assert decisions(None) != decisions(None)
    assert decisions(7) != decisions(7, "direction 1")
    # What is lost does not depend on the jitter.
    assert [at == LOST for at in decisions(7)] == [at == LOST for at in decisions(7, jitter_ms=5)]


def test_change_goes_on_with_the_same_sequence_unless_the_seed_is_another():
    def lost(*seeds):
        link = shaper(loss_percent=50, seed=seeds[0])
        decisions = []
        for seed in seeds:
            link.change(asdict(LinkParameters(loss_percent=50, seed=seed)))
            decisions += [link.schedule(i, FRAME) == LOST for i in range(50)]
        return decisions

    assert lost(1, 1) == lost(1, 1) and lost(1, 1)[:50] != lost(1, 1)[50:]
    assert lost(1, 2)[50:] == lost(2)


def test_shorter_delay_does_not_overtake():
    link = shaper(delay_ms=100)
    assert link.schedule(0, FRAME) == 100 * MS
    link.change(asdict(LinkParameters(delay_ms=1)))
    assert link.schedule(0, FRAME) == 100 * MS
    assert link.schedule(200 * MS, FRAME) == 201 * MS


def test_cut_forgets_the_queue():
    link = shaper(bandwidth_mbit=10, queue_packets=2)
    assert [link.schedule(0, FRAME) for _ in range(3)][-1] == QUEUE_FULL
    link.clear()
    assert link.schedule(0, FRAME) == MS
