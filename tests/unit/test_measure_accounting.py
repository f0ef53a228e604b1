"""Counting packets against a reference that takes them one by one, and the figures derived from the counts.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.measure.accounting import (
    Received,
    Sent,
    account,
    delay_variation_ms,
    delays_ms,
    longest_gap,
    quantiles,
    recovery_s,
)

MS = 1_000_000


def sent(keys, spacing_ms=20):
    keys = np.array(keys, np.uint64)
    return Sent(keys, np.arange(len(keys)) * spacing_ms * MS, np.full(len(keys), 100))


def received(keys, times_ms=None):
    keys = np.array(keys, np.uint64)
    times = np.arange(len(keys)) * MS if times_ms is None else np.array(times_ms, np.int64) * MS
    return Received(keys, times, np.full(len(keys), 100))


def naive(sent_keys, received_keys):
    """RFC 4737 §3.3 and §4.2, RFC 5560 and RFC 7680, one packet at a time."""
    rank = {key: number for number, key in enumerate(sent_keys)}
    seen, duplicates, reordered, unknown, extent = [], 0, 0, 0, 0
    next_expected = 0
    for key in received_keys:
        if key not in rank:
            unknown += 1
        elif rank[key] in seen:
            duplicates += 1
        else:
            if rank[key] >= next_expected:
                next_expected = rank[key] + 1
            else:
                reordered += 1
                earliest = next(index for index, other in enumerate(seen) if other > rank[key])
                extent = max(extent, len(seen) - earliest)
            seen.append(rank[key])
    return len(seen), len(sent_keys) - len(seen), duplicates, reordered, unknown, extent


@given(st.lists(st.integers(0, 2**64 - 1), unique=True, max_size=30).flatmap(
    lambda keys: st.tuples(st.just(keys), st.lists(
        st.one_of(st.sampled_from(keys), st.integers(0, 50)) if keys else st.integers(0, 50), max_size=60))))
def test_counts_agree_with_a_naive_reference(case):
    keys, arrived = case
    counts = account(sent(keys), received(arrived))
    assert (counts.received, counts.lost, counts.duplicates, counts.reordered, counts.unknown,
            counts.extent) == naive(keys, arrived)
    assert counts.sent == counts.received + counts.lost
    assert len(counts.order) == len(counts.received_ns) == counts.received


def test_arrivals_are_taken_in_order_of_time():
    counts = account(sent([7, 8, 9]), received([9, 7, 8], [30, 10, 20]))
    assert counts.reordered == 0 and list(counts.order) == [0, 1, 2]


@pytest.mark.requirement("RFC 4737 §3.3: a packet is reordered if one sent later arrived before it")
def test_one_overtaking_packet_makes_those_it_overtook_reordered():
    counts = account(sent(range(5)), received([0, 4, 1, 2, 3]))
    assert counts.reordered == 3 and counts.extent == 3


@pytest.mark.requirement("RFC 5560: further copies of a packet that arrived are duplicates, not arrivals")
def test_a_copy_over_another_path_is_neither_received_twice_nor_reordered():
    counts = account(sent(range(3)), received([0, 1, 0, 2, 1, 2]))
    assert (counts.received, counts.duplicates, counts.reordered) == (3, 3, 0)


def test_delay_is_that_of_the_first_copy():
    counts = account(sent([0, 1], spacing_ms=10), received([0, 1, 0], [5, 22, 300]))
    assert list(delays_ms(counts)) == [5.0, 12.0]


@pytest.mark.requirement("RFC 3393 §2.4: delay variation is of packets sent one after the other")
def test_delay_variation_skips_pairs_with_a_loss():
    counts = account(sent(range(4), spacing_ms=10), received([0, 1, 3], [5, 17, 40]))
    assert list(delay_variation_ms(counts)) == [2.0]


def test_quantiles_are_measured_values():
    assert quantiles(np.array([4.0, 1.0, 2.0, 3.0])) == {"p50": 2.0, "p95": 4.0, "max": 4.0}
    assert quantiles(np.array([])) is None


@given(st.lists(st.integers(1, 999), max_size=20))
def test_the_longest_gap_counts_the_edges(times):
    gap, start = longest_gap(np.array(times, np.int64) * MS, 0, 1000 * MS)
    edges = sorted({0, *times, 1000})
    expected = max(after - before for before, after in zip(edges, edges[1:], strict=False))
    assert gap == expected and (start // MS) in edges


def test_a_window_keeps_what_was_sent_in_it():
    assert list(sent(range(5), spacing_ms=10).between(10 * MS, 30 * MS).key) == [1, 2]


def test_recovery_is_when_the_earlier_rate_is_back():
    times = np.concatenate((np.arange(0, 3000, 10), np.arange(3600, 6000, 10))) * MS
    octets = np.full(len(times), 100)
    assert recovery_s(times, octets, 3000 * MS, end_ns=6000 * MS) == pytest.approx(1.1, abs=0.11)
    assert recovery_s(times, octets, 3000 * MS, end_ns=3900 * MS) is None
    assert recovery_s(times, octets, -1, end_ns=6000 * MS) is None
