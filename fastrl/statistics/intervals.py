"""Intervals and summaries of few runs that need no resampling."""

import math
from typing import Any, NamedTuple

import numpy as np

from fastrl import door
from fastrl.statistics.aggregates import as_scores, plain


class Interval(NamedTuple):
    """An estimate and the bounds of its interval: floats, or arrays for curves."""

    estimate: Any
    low: Any
    high: Any


def t_interval(values: Any, confidence: float = 0.95) -> Interval:
    """The mean over runs `[N, ...]` and its interval by Student's t: right for normal values.

    Raises ValueError for fewer than two runs.
    """
    check_confidence(confidence)
    array = _runs(values, "values", least=2)
    mean = array.mean(0)
    error = array.std(0, ddof=1) / math.sqrt(len(array))
    half = t_quantile((1.0 + confidence) / 2.0, len(array) - 1) * error
    return Interval(plain(mean), plain(mean - half), plain(mean + half))


def paired_difference(x: Any, y: Any, confidence: float = 0.95) -> Interval:
    """The mean of `x - y`, both `[N]` or `[N, M]` run with the same seeds, by Student's t.

    Common seeds (the same start states, the same levels) cancel what they share, and the
    interval is narrower than that of two independent groups.  Over several tasks the
    difference of a seed is its mean over tasks.
    """
    x, y = as_scores(x, "x"), as_scores(y, "y")
    if np.shape(x) != np.shape(y) or not isinstance(x, np.ndarray):
        raise ValueError(f"x has shape {np.shape(x)} and y {np.shape(y)}: needs pairs")
    return t_interval((x - y).mean(-1), confidence)


def percentile_band(values: Any, low: float = 5.0, high: float = 95.0) -> Interval:
    """The median over runs `[N, ...]` and the percentiles between which runs lie.

    This is the spread of runs: it does not shrink with more of them, as intervals of a mean do.
    """
    array = _runs(values, "values", least=1)
    if not 0.0 <= low <= high <= 100.0:
        raise ValueError(f"low={low}, high={high}: needs percentiles, 0 <= low <= high <= 100")
    bottom, middle, top = np.percentile(array, [low, 50.0, high], axis=0)
    return Interval(plain(middle), plain(bottom), plain(top))


def worst(values: Any, count: int = 1) -> np.ndarray:
    """The `count` lowest of the runs `[N, ...]`, from the worst up: `[count, ...]`."""
    array = _runs(values, "values", least=1)
    return np.sort(array, axis=0)[: door.integer("count", count, 1, len(array))]


def t_quantile(share: float, degrees: int) -> float:
    """The quantile of Student's t with `degrees` of freedom, by bisection of its distribution.

    For whole degrees that is a finite sum (Abramowitz and Stegun 1964, 26.7.3 and 26.7.4).
    """
    if share < 0.5:
        return -t_quantile(1.0 - share, degrees)
    low, high = 0.0, 1.0
    while _t_share(high, degrees) < share:
        high *= 2.0
    for _ in range(80):
        middle = (low + high) / 2.0
        low, high = (middle, high) if _t_share(middle, degrees) < share else (low, middle)
    return (low + high) / 2.0


def check_confidence(confidence: float) -> None:
    """Raises ValueError unless `confidence` is between 0 and 1."""
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence={confidence!r}: needs a number between 0 and 1, such as 0.95")


def _t_share(t: float, degrees: int) -> float:
    """The share of Student's t below `t`."""
    angle = math.atan2(t, math.sqrt(degrees))
    odd = degrees % 2
    each = np.arange(1, (degrees - odd) // 2)  # terms, each a factor times the one before
    factors = 2 * each / (2 * each + 1) if odd else (2 * each - 1) / (2 * each)
    series = 1.0 + np.cumprod(factors * math.cos(angle) ** 2).sum()
    if degrees == 1:
        inside = 2.0 / math.pi * angle
    elif odd:
        inside = 2.0 / math.pi * (angle + math.sin(angle) * math.cos(angle) * series)
    else:
        inside = math.sin(angle) * series
    return 0.5 + inside / 2.0


def _runs(values: Any, name: str, least: int) -> np.ndarray:
    array = np.asarray(values, np.float64)
    if array.ndim < 1 or len(array) < least:
        raise ValueError(f"{name} has shape {array.shape}: needs [N, ...], at least {least} runs")
    if np.isnan(array).any():
        raise ValueError(f"{name} holds NaN: give a run that diverged the score that it deserves")
    return array
