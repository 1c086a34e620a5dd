"""Learning curves as one number for each run: the area below, the time to a threshold."""

import math
from typing import Any, NamedTuple

import numpy as np

from fastrl import door
from fastrl.statistics.aggregates import plain


class TimeToThreshold(NamedTuple):
    """When runs reach a threshold; those that do not are censored, not left out."""

    times: np.ndarray  # [N]: the step at which it was reached, else the last one that was seen
    reached: np.ndarray  # bool [N]
    share: float  # of runs that reached it
    median: float  # by Kaplan and Meier's estimate; inf if half of the runs have not
    restricted_mean: float  # of the time, or of the horizon where that comes first


def area_under_curve(steps: Any, curves: Any) -> Any:
    """The mean height of curves `[..., P]` over the steps `[P]`, by trapezoids: `[...]`.

    That is the area divided by the range of steps, so it reads like a return.
    """
    x, y = _curves(steps, curves, least=2)
    if np.isnan(y).any():
        raise ValueError("curves hold NaN: an area needs a value at every step")
    return plain(((y[..., 1:] + y[..., :-1]) / 2.0 * np.diff(x)).sum(-1) / (x[-1] - x[0]))


def time_to_threshold(
    steps: Any, curves: Any, threshold: float, *, holds: int = 1
) -> TimeToThreshold:
    """The first of the steps `[P]` at which curves `[N, P]` are at `threshold` or above.

    It must hold at `holds` points in a row; the first of them counts.  A curve that ends early
    has NaN from there on.  A run that never gets there is censored at its last step: the mean
    over the others would favour an algorithm that succeeds seldom.
    """
    x, y = _curves(steps, np.atleast_2d(np.asarray(curves, np.float64)), least=1)
    if y.ndim != 2:
        raise ValueError(f"curves have shape {y.shape}: needs [N, P]")
    holds = door.integer("holds", holds, 1, len(x))
    above = np.lib.stride_tricks.sliding_window_view(y >= threshold, holds, axis=1).all(-1)
    reached = np.asarray(above.any(-1))
    seen = np.isfinite(y)
    if not seen.any(-1).all():
        raise ValueError("a curve holds nothing but NaN: nothing was seen of that run")
    last = y.shape[1] - 1 - seen[:, ::-1].argmax(-1)
    times = np.where(reached, x[above.argmax(-1)], x[last])
    median, mean = _kaplan_meier(times, reached)
    return TimeToThreshold(times, reached, float(reached.mean()), median, mean)


def _kaplan_meier(times: np.ndarray, reached: np.ndarray) -> tuple[float, float]:
    """Median and restricted mean (up to the last time) of right-censored times.

    The share still on the way falls at each time by `reached / at risk` of it (Kaplan and
    Meier 1958); the mean is the area below that share.
    """
    share, before, mean, median = 1.0, 0.0, 0.0, math.inf
    for time in np.unique(times):
        mean += share * (time - before)
        before = time
        at_risk = (times >= time).sum()
        share *= 1.0 - (reached & (times == time)).sum() / at_risk
        if share <= 0.5 + 1e-12 and median == math.inf:
            median = float(time)
    return median, float(mean)


def _curves(steps: Any, curves: Any, least: int) -> tuple[np.ndarray, np.ndarray]:
    """Both in float64, checked."""
    x, y = np.asarray(steps, np.float64), np.asarray(curves, np.float64)
    if x.ndim != 1 or len(x) < least or y.ndim < 1 or y.shape[-1] != len(x):
        raise ValueError(
            f"steps {x.shape} and curves {y.shape}: needs [P] and [..., P], P >= {least}"
        )
    if np.any(np.diff(x) <= 0):
        raise ValueError("steps must increase")
    return x, y
