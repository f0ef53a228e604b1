"""Counting packets: what was sent against what arrived. All times are ns of one clock, all arrays numpy.

Classes: `Sent`, `Received`, `Accounting`. Functions: `account`, `delays_ms`, `quantiles`, `longest_gap`,
`delay_variation_ms`, `recovery_s`. docs/metrics.md has the definitions and their RFCs.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Sent:
    """Packets in the order in which they were sent. `key` identifies one transmission and is unique."""

    key: np.ndarray
    time_ns: np.ndarray
    octets: np.ndarray

    def between(self, start_ns: int, end_ns: int) -> "Sent":
        """Those sent in [start_ns, end_ns)."""
        chosen = (self.time_ns >= start_ns) & (self.time_ns < end_ns)
        return Sent(self.key[chosen], self.time_ns[chosen], self.octets[chosen])


@dataclass(frozen=True, slots=True)
class Received:
    """Packets in the order in which they arrived, copies included. `octets` is what the application gets."""

    key: np.ndarray
    time_ns: np.ndarray
    octets: np.ndarray


@dataclass(frozen=True, slots=True)
class Accounting:
    """The fate of what was sent, and for each sent packet that arrived its first copy, in order of arrival.

    `unknown` arrived without having been sent (outside the window, or a log is incomplete). `order` is the
    rank in the order of sending. `extent` is the largest "reordering extent" (RFC 4737).
    """

    sent: int
    received: int
    lost: int
    duplicates: int
    reordered: int
    unknown: int
    extent: int
    order: np.ndarray
    sent_ns: np.ndarray
    received_ns: np.ndarray
    octets: np.ndarray


def account(sent: Sent, received: Received) -> Accounting:
    """Match arrivals to what was sent.

    `received` counts packets that arrived at least once, so sent = received + lost (RFC 7680, waiting for
    as long as the receiver listened). Every further copy is a duplicate (RFC 5560). A packet is reordered
    if one sent after it arrived before it, first copies alone considered (RFC 4737 §3.3).
    """
    by_key = np.argsort(sent.key, kind="stable")
    keys = sent.key[by_key]
    if len(keys) and len(received.key):
        place = np.minimum(np.searchsorted(keys, received.key), len(keys) - 1)
        known = keys[place] == received.key
        order = by_key[place]
    else:
        known = np.zeros(len(received.key), bool)
        order = np.zeros(len(received.key), np.intp)
    arrivals = np.flatnonzero(known)
    arrivals = arrivals[np.argsort(received.time_ns[arrivals], kind="stable")]
    _, firsts = np.unique(order[arrivals], return_index=True)
    firsts = arrivals[np.sort(firsts)]
    order = order[firsts]
    late = order < np.maximum.accumulate(order) if len(order) else np.zeros(0, bool)
    return Accounting(
        sent=len(keys), received=len(firsts), lost=len(keys) - len(firsts),
        duplicates=len(arrivals) - len(firsts),
        reordered=int(late.sum()), unknown=len(received.key) - len(arrivals), extent=_extent(order, late),
        order=order, sent_ns=sent.time_ns[order], received_ns=received.time_ns[firsts],
        octets=received.octets[firsts])


def _extent(order: np.ndarray, late: np.ndarray) -> int:
    """The largest distance, in arrivals, from a reordered packet back to the earliest that should have
    followed it.
    """
    if not late.any():
        return 0
    highest = np.maximum.accumulate(order)
    positions = np.flatnonzero(late)
    return int((positions - np.searchsorted(highest, order[positions], side="right")).max())


def delays_ms(accounting: Accounting) -> np.ndarray:
    """One-way delay (RFC 7679) of each packet that arrived, in order of arrival, milliseconds."""
    return (accounting.received_ns - accounting.sent_ns) / 1e6


def delay_variation_ms(accounting: Accounting) -> np.ndarray:
    """Packet delay variation between packets sent one after the other (RFC 3393, RFC 5481 "IPDV"), ms.

    Pairs of which one was lost have none.
    """
    by_order = np.argsort(accounting.order)
    order, delay = accounting.order[by_order], delays_ms(accounting)[by_order]
    return np.diff(delay)[np.diff(order) == 1]


def quantiles(values: np.ndarray) -> dict[str, float] | None:
    """p50, p95 and max, all of them values that were measured (nearest rank); None without values."""
    if not len(values):
        return None
    median, high = np.quantile(values, [0.5, 0.95], method="inverted_cdf")
    return {"p50": float(median), "p95": float(high), "max": float(np.max(values))}


def longest_gap(times_ns: np.ndarray, start_ns: int, end_ns: int) -> tuple[float, int]:
    """The longest time in [start_ns, end_ns] without an arrival, in ms, and when it began.

    The ends count as arrivals: a flow that never comes back has been interrupted until the end.
    """
    inside = np.sort(times_ns[(times_ns > start_ns) & (times_ns < end_ns)])
    edges = np.concatenate(([start_ns], inside, [end_ns]))
    gaps = np.diff(edges)
    longest = int(np.argmax(gaps))
    return float(gaps[longest] / 1e6), int(edges[longest])


def recovery_s(times_ns: np.ndarray, octets: np.ndarray, event_ns: int, *, before_s: float = 2.0,
               share: float = 0.9, window_s: float = 0.5, end_ns: int | None = None) -> float | None:
    """Seconds from the event until a flow has `share` of its earlier rate again, over `window_s`.

    The earlier rate is the mean of the `before_s` before the event. The answer is the end of the first
    window that starts after the event, on a grid of 0.1 s, with that rate; None if there is none before
    `end_ns`, or if nothing arrived before.
    """
    earlier = octets[(times_ns >= event_ns - before_s * 1e9) & (times_ns < event_ns)].sum() / before_s
    end_ns = int(times_ns.max()) if end_ns is None and len(times_ns) else end_ns
    if not earlier or end_ns is None:
        return None
    by_time = np.argsort(times_ns, kind="stable")
    times, total = times_ns[by_time], np.concatenate(([0], np.cumsum(octets[by_time])))
    starts = np.arange(event_ns, end_ns - window_s * 1e9 + 1, 1e8)
    moved = (total[np.searchsorted(times, starts + window_s * 1e9)] - total[np.searchsorted(times, starts)])
    enough = np.flatnonzero(moved >= share * earlier * window_s)
    return float((starts[enough[0]] - event_ns) / 1e9 + window_s) if len(enough) else None
