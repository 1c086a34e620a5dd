"""A small battery of tests of randomness: `p_values(words)` of uint32 words.

After Knuth (The Art of Computer Programming, volume 2, section 3.3.2) and Marsaglia's
Diehard.  Each p-value is two-sided where too even is as bad as too uneven.
"""

import numpy as np
from scipy import stats


def p_values(words: np.ndarray) -> dict[str, float]:
    """p-values by test for `[n]` words, n a multiple of 4096; about 2**20 make sense."""
    tests = (bits, byte_values, serial_pairs, lagged_bits, weights, gaps, collisions, spacings)
    return {
        f"{test.__name__} {name}": p
        for test in (*tests, ranks)
        for name, p in test(np.asarray(words, np.uint32)).items()
    }


def chi_square(counts: np.ndarray, expected: np.ndarray | float) -> float:
    """Two-sided p of `counts` under `expected`, which have the same sum."""
    expected = np.broadcast_to(expected, counts.shape)
    statistic = ((counts - expected) ** 2 / expected).sum()
    return two_sided(float(stats.chi2.cdf(statistic, counts.size - 1)))


def two_sided(cdf: float) -> float:
    return float(2 * min(cdf, 1 - cdf))


def _smallest(z: np.ndarray) -> float:
    """p of the largest of many normal scores (Bonferroni)."""
    return float(min(1.0, 2 * stats.norm.sf(np.abs(z).max()) * z.size))


def _bit_scores(words: np.ndarray) -> np.ndarray:
    ones = [int(((words >> np.uint32(i)) & np.uint32(1)).sum(dtype=np.int64)) for i in range(32)]
    return (np.array(ones) - words.size / 2) / np.sqrt(words.size / 4)


def bits(w: np.ndarray) -> dict[str, float]:
    """Every bit is set half the time."""
    return {"": _smallest(_bit_scores(w))}


def byte_values(w: np.ndarray) -> dict[str, float]:
    """Every byte has every value equally often."""
    lanes = {i: np.bincount((w >> np.uint32(8 * i)) & np.uint32(255)) for i in range(4)}
    return {str(i): chi_square(counts, w.size / 256) for i, counts in lanes.items()}


def serial_pairs(w: np.ndarray) -> dict[str, float]:
    """Successive words are independent, in their highest and in their lowest six bits."""
    out = {}
    for name, x in (("high", w >> np.uint32(26)), ("low", w & np.uint32(63))):
        for lag in (1, 2, 64):
            blocks = x.reshape(-1, 2, lag).astype(np.int64)
            counts = np.bincount((blocks[:, 0] * 64 + blocks[:, 1]).ravel(), minlength=4096)
            out[f"{name} {lag}"] = chi_square(counts, counts.sum() / 4096)
    return out


def lagged_bits(w: np.ndarray) -> dict[str, float]:
    """Every bit is independent of itself, and of its neighbours, `lag` words ago."""
    lags = (1, 2, 3, 4, 7, 32, 1024)
    same = {f"{lag}": _smallest(_bit_scores(w[lag:] ^ w[:-lag])) for lag in lags}
    shifted = w[1:] ^ ((w[:-1] << np.uint32(1)) | (w[:-1] >> np.uint32(31)))
    return {**same, "1 shifted": _smallest(_bit_scores(shifted))}


def weights(w: np.ndarray) -> dict[str, float]:
    """The number of bits set in a word is binomial."""
    counts = np.bincount(np.bitwise_count(w), minlength=33)
    expected = stats.binom.pmf(np.arange(33), 32, 0.5) * w.size
    merged = [np.concatenate([[c[:8].sum()], c[8:25], [c[25:].sum()]]) for c in (counts, expected)]
    return {"": chi_square(*merged)}


def gaps(w: np.ndarray) -> dict[str, float]:
    """The steps between words in a sixteenth of the range are geometric."""
    out = {}
    for name, x in (("high", w >> np.uint32(28)), ("low", w & np.uint32(15))):
        gap = np.diff(np.flatnonzero(x == 0))
        counts = np.bincount(np.minimum(gap, 101), minlength=102)[1:]
        expected = stats.geom.pmf(np.arange(1, 102), 1 / 16)
        expected[-1] = stats.geom.sf(100, 1 / 16)
        out[name] = chi_square(counts, expected * gap.size)
    return out


def _poisson(count: int, mean: float) -> float:
    tails = stats.poisson.cdf(count, mean), stats.poisson.sf(count - 1, mean)
    return float(min(1.0, 2 * min(tails)))


def collisions(w: np.ndarray) -> dict[str, float]:
    """Words repeat as often as chance has it: a bijection of a counter never would."""
    repeated = int((np.diff(np.sort(w)) == 0).sum())
    return {"": _poisson(repeated, w.size**2 / 2**33)}


def spacings(w: np.ndarray) -> dict[str, float]:
    """Of 4,096 birthdays among 2**32 days, about four spacings repeat (Marsaglia)."""
    days = np.sort(w.reshape(-1, 4096), axis=1)
    between = np.sort(np.diff(days, axis=1), axis=1)
    repeated = int((np.diff(between, axis=1) == 0).sum())
    return {"": _poisson(repeated, len(days) * 4096**3 / 2**34)}


def ranks(w: np.ndarray) -> dict[str, float]:
    """32 words as a matrix over {0, 1} have full rank in 29 % of cases, 31 in 58 %."""
    m = w[: w.size // 32 * 32].reshape(-1, 32).copy()
    rank = np.zeros(len(m), np.int64)
    used = np.zeros(m.shape, bool)
    row = np.arange(len(m))
    for bit in range(32):
        has = (((m >> np.uint32(bit)) & np.uint32(1)) == 1) & ~used
        found, pivot = has.any(1), has.argmax(1)
        rank += found
        value = np.where(found, m[row, pivot], np.uint32(0))
        used[row[found], pivot[found]] = True
        clear = (((m >> np.uint32(bit)) & np.uint32(1)) == 1) & ~used
        m ^= np.where(clear, value[:, None], np.uint32(0))
    counts = np.bincount(np.maximum(rank, 29) - 29, minlength=4)
    lost = np.arange(3)
    factors = np.cumprod([1, *(1 - 0.5 ** np.arange(1, 3.0))])
    p = np.prod(1 - 0.5 ** np.arange(1, 33.0)) * 0.5 ** (lost**2) / factors**2
    return {"": chi_square(counts[::-1], np.append(p, 1 - p.sum()) * len(m))}
