"""The stratified bootstrap: intervals by drawing runs again, with replacement, task by task.

For each replicate every task's runs are drawn anew, independently of other tasks, and the
statistic is computed again; the interval is read off the replicates (Efron and Tibshirani 1993,
chapters 13 and 14; for several tasks Agarwal et al. 2021, section 4.1).

Draws come from `seed` alone, a number or a key, never from NumPy's global generator.
"""

import statistics
from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from fastrl import door
from fastrl.statistics import resampling
from fastrl.statistics.aggregates import Scores, as_scores, iqm, plain
from fastrl.statistics.intervals import Interval, check_confidence
from fastrl.statistics.resampling import Design

Method = Literal["percentile", "basic", "bc", "bca"]
METHODS = ("percentile", "basic", "bc", "bca")
REPLICATES, CURVE_REPLICATES = 50_000, 2_000  # of a number, of a curve
_CHUNK = 2**19  # numbers that are resampled at a time: they stay in the processor's cache

Statistic = Callable[..., Any]


def bootstrap(
    statistic: Statistic,
    *samples: Scores,
    replicates: int | None = None,
    confidence: float = 0.95,
    method: Method = "percentile",
    seed: Any = 0,
    paired: bool = False,
    resample_tasks: bool = False,
    batched: bool = True,
) -> Interval:
    """`statistic(*samples)` and its interval; each sample is scores `[N, M]` as in `iqm`.

    Runs are drawn task by task.  Several samples are drawn independently, or, if `paired`, the
    same runs of all: for algorithms that were run with common seeds.  `resample_tasks` draws
    the tasks too, which tells about other suites of tasks and not only about other seeds.

    `statistic` gets replicates in front, `[R, N, M]` (mappings: `[R, N_m]`), and gives `[R]`, or
    `[R, K]` for a curve; with `batched=False` it is called once for each.  By default there are
    50,000 replicates of a number and 2,000 of a curve.

    `method`: "percentile"; "basic" (reflected); "bc", bias-corrected; "bca", accelerated too, by
    a jackknife over the runs of every task, where `statistic` has to take mappings if there are
    several tasks.  `seed` is an integer, a JAX key or a NumPy generator.

    Raises ValueError for arguments that do not fit.
    """
    checked = [as_scores(s, f"samples[{i}]") for i, s in enumerate(samples)]
    design = Design(checked, paired, resample_tasks)
    return _interval(statistic, design, replicates, confidence, method, seed, batched)


def sample_efficiency(
    curves: Any,
    statistic: Statistic = iqm,
    *,
    replicates: int = CURVE_REPLICATES,
    confidence: float = 0.95,
    method: Method = "percentile",
    seed: Any = 0,
) -> Interval:
    """`statistic` at every evaluation point of learning curves `[N, M, P]`: an interval of `[P]`.

    `[N, P]` is one task.  A replicate draws whole curves, so its points belong together.
    Raises ValueError for other shapes, NaN, or "bca" over several tasks.
    """
    array = np.asarray(curves, np.float64)
    array = array[:, None] if array.ndim == 2 else array
    if array.ndim != 3 or 0 in array.shape or np.isnan(array).any():
        raise ValueError(
            f"curves have shape {np.shape(curves)}: needs [N, M, P] or [N, P], at least one of "
            "each and no NaN"
        )
    if method == "bca" and array.shape[1] > 1:
        raise ValueError("method='bca' of curves needs a single task: choose 'bc'")

    def pointwise(drawn: np.ndarray) -> np.ndarray:
        return np.moveaxis(np.asarray(statistic(np.moveaxis(drawn, -1, 0))), 0, -1)

    return _interval(pointwise, Design([array]), replicates, confidence, method, seed, True)


def _interval(
    statistic: Statistic, design: Design, replicates: int | None, confidence: float,
    method: Method, seed: Any, batched: bool,
) -> Interval:  # fmt: skip
    door.choice("method", method, METHODS)
    check_confidence(confidence)
    resampling.check(design, jackknife=method == "bca")
    estimate = np.asarray(statistic(*design.samples), np.float64)
    if replicates is None:
        replicates = CURVE_REPLICATES if estimate.ndim else REPLICATES
    count = door.integer("replicates", replicates, 1)
    random = resampling.generator(seed)
    drawn = _replicates(statistic, design, count, random, batched, estimate.shape)
    tail = (1.0 - confidence) / 2.0
    shares = np.stack([np.full(estimate.shape, tail), np.full(estimate.shape, 1.0 - tail)])
    if method in ("bc", "bca"):
        speed = _acceleration(statistic, design) if method == "bca" else 0.0
        shares = _corrected(shares, drawn, estimate, speed)
    low, high = _quantiles(drawn, shares)
    if method == "basic":
        low, high = 2.0 * estimate - high, 2.0 * estimate - low
    return Interval(plain(estimate), plain(low), plain(high))


def _replicates(
    statistic: Statistic, design: Design, count: int, random: np.random.Generator, batched: bool,
    shape: tuple[int, ...],
) -> np.ndarray:  # fmt: skip
    """The statistic of `count` replicates: `[count, *shape]`."""
    step = max(1, _CHUNK // design.size)
    parts = []
    for start in range(0, count, step):
        here = min(step, count - start)
        drawn = resampling.draw(design, here, random)
        if batched:
            parts.append(np.asarray(statistic(*drawn), np.float64))
        else:
            one_by_one = (resampling.pick(drawn, i) for i in range(here))
            parts.append(np.array([statistic(*one) for one in one_by_one], np.float64))
        if parts[-1].shape != (here, *shape):
            raise ValueError(
                f"the statistic of {here} replicates has shape {parts[-1].shape}, not "
                f"{(here, *shape)}: it must keep axes in front, or pass batched=False"
            )
    return np.concatenate(parts)


def _quantiles(drawn: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """The quantiles `shares` `[2, ...]` of replicates `[R, ...]`, entry by entry: `[2, ...]`."""
    flat, wanted = drawn.reshape(len(drawn), -1), shares.reshape(2, -1)
    found = [np.quantile(x, w) for x, w in zip(flat.T, wanted.T, strict=True)]
    return np.stack(found, axis=-1).reshape(shares.shape)


def _corrected(
    shares: np.ndarray, drawn: np.ndarray, estimate: np.ndarray, acceleration: Any
) -> np.ndarray:
    """Shares of the replicates' quantiles that undo bias and skew (Efron 1987).

    `Phi(z0 + (z0 + z) / (1 - a (z0 + z)))`, with `z0 = Phi^-1` of the share of replicates
    below the estimate, equal ones counted half.
    """
    below = ((drawn < estimate).mean(0) + (drawn <= estimate).mean(0)) / 2.0
    half = 0.5 / len(drawn)  # all on one side: as if one half more were on the other
    bias = _normal_quantile(np.clip(below, half, 1.0 - half))
    moved = bias + _normal_quantile(shares)
    return _normal_share(bias + moved / (1.0 - acceleration * moved))


def _acceleration(statistic: Statistic, design: Design) -> np.ndarray:
    """The skewness of the statistic's influence, by a jackknife over every task's runs."""
    cubes = squares = np.float64(0.0)
    for left in resampling.leave_one_out(design):
        values = np.stack([np.asarray(statistic(*one), np.float64) for one in left])
        count = len(values)
        influence = (count - 1) * (values.mean(0) - values)
        cubes = cubes + (influence**3).sum(0) / count**3
        squares = squares + (influence**2).sum(0) / count**2
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(squares > 0.0, cubes / (6.0 * squares**1.5), 0.0)


def _normal_quantile(share: np.ndarray) -> np.ndarray:
    return np.vectorize(statistics.NormalDist().inv_cdf, otypes=[float])(share)


def _normal_share(z: np.ndarray) -> np.ndarray:
    return np.vectorize(statistics.NormalDist().cdf, otypes=[float])(z)
