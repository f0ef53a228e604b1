"""Statistics for few repetitions, without assumptions on distributions.

Functions: `interval` (bootstrap confidence interval of the median), `permutation_p`, `mann_whitney_p`,
`cliffs_delta`, `holm`. All are deterministic: random numbers have fixed seeds.
"""

import itertools
import math
from collections.abc import Sequence

import numpy as np

_RESAMPLES = 4000
#: So many ways to divide the values are all tried; beyond, a sample of them.
_EXACT = 20_000


def interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float] | None:
    """Confidence interval of the median: bootstrap percentiles (Efron 1979). None for fewer than three
    values."""
    if len(values) < 3:
        return None
    data = np.asarray(values, float)
    chosen = np.random.default_rng(1).integers(0, len(data), (_RESAMPLES, len(data)))
    medians = np.median(data[chosen], axis=1)
    low, high = np.quantile(medians, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def permutation_p(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Two-sided p-value of the difference of the means by permutation: exact where there are few ways to
    divide the values. None if a side has fewer than two."""
    if len(a) < 2 or len(b) < 2:
        return None
    values = np.asarray([*a, *b], float)
    size, total = len(a), values.sum()
    ways = math.comb(len(values), size)
    if ways <= _EXACT:
        chosen = np.array(list(itertools.combinations(range(len(values)), size)))
    else:
        generator = np.random.default_rng(1)
        chosen = np.argsort(generator.random((_EXACT, len(values))), axis=1)[:, :size]
    sums = values[chosen].sum(axis=1)
    centre = total * size / len(values)
    extreme = np.abs(sums - centre) >= abs(sum(a) - centre) - 1e-9 * max(abs(total), 1)
    return float(extreme.mean() if ways <= _EXACT else (extreme.sum() + 1) / (len(extreme) + 1))


def mann_whitney_p(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Two-sided p-value of the Mann-Whitney U test: exact by permuting ranks where there are few ways,
    else the normal approximation with ties. None if a side has fewer than two values."""
    if len(a) < 2 or len(b) < 2:
        return None
    ranks = _ranks(np.asarray([*a, *b], float))
    if math.comb(len(ranks), len(a)) <= _EXACT:
        return permutation_p(ranks[: len(a)].tolist(), ranks[len(a) :].tolist())
    m, n = len(a), len(b)
    u = ranks[:m].sum() - m * (m + 1) / 2
    _, counts = np.unique(ranks, return_counts=True)
    ties = (counts**3 - counts).sum() / ((m + n) * (m + n - 1))
    variance = m * n / 12 * (m + n + 1 - ties)
    if variance <= 0:
        return 1.0
    z = max(abs(u - m * n / 2) - 0.5, 0) / math.sqrt(variance)
    return math.erfc(z / math.sqrt(2))


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1; equal values share the mean of theirs."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts - 1) / 2)[place]


def cliffs_delta(a: Sequence[float], b: Sequence[float]) -> float:
    """Effect size (Cliff 1993), -1 to 1: how much more often a value of `b` is above one of `a` than
    below."""
    difference = np.sign(np.subtract.outer(np.asarray(b, float), np.asarray(a, float)))
    return float(difference.mean())


def effect_word(delta: float) -> str:
    """Cliff's delta in words, by the thresholds of Romano et al. (2006)."""
    size = abs(delta)
    return "negligible" if size < 0.147 else "small" if size < 0.33 else "medium" if size < 0.474 else "large"


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """p-values corrected for that many comparisons (Holm 1979); None stays."""
    order = sorted((p, index) for index, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, index) in enumerate(order):
        highest = max(highest, min(p * (len(order) - rank), 1.0))
        corrected[index] = highest
    return corrected
