"""Scores of several runs on several tasks as one number, or as a profile.

Scores are `[N, M]`, runs by tasks; `[N]` is one task.  Tasks with different numbers of runs are
a mapping from task to `[N_m]`.  Axes in front, such as the replicates of a bootstrap, stay:
`[..., N, M]` gives `[...]`, a mapping of `[..., N_m]` too.

Scores of different tasks are comparable only once they are normalised, by anchors that were
fixed before: see `normalize`.  Every function raises ValueError for NaN: a run that diverged
deserves a score, and leaving it out makes an algorithm look better the more often it fails.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Scores = Any  # array-like [N, M] or [N], or a mapping of array-likes [N_m]
Number = Any  # a float, or an array where there are axes in front


def mean(scores: Scores) -> Number:
    """The mean over tasks of the mean over runs."""
    return plain(_task_means(as_scores(scores)).mean(-1))


def median(scores: Scores) -> Number:
    """The median over tasks of the mean over runs."""
    return plain(np.median(_task_means(as_scores(scores)), axis=-1))


def iqm(scores: Scores) -> Number:
    """The interquartile mean: of all runs on all tasks, the mean of the middle half.

    Of `K` scores `floor(K / 4)` are dropped at each end, whole ones and no fractions; below
    four scores it is their mean.
    """
    ordered = np.sort(_pooled(as_scores(scores)), axis=-1)
    count = ordered.shape[-1]
    return plain(ordered[..., count // 4 : count - count // 4].mean(-1))


def optimality_gap(scores: Scores, target: float = 1.0) -> Number:
    """By how much runs fall short of `target`: `target - mean(min(x, target))`, all runs pooled."""
    return plain(target - np.minimum(_pooled(as_scores(scores)), target).mean(-1))


def probability_of_improvement(x: Scores, y: Scores) -> Number:
    """How likely a run of `x` beats one of `y` on the same task: the mean over tasks.

    On a task it is `U / (N_x N_y)`, `U` the number of pairs with `x > y` and half those that
    are equal (Mann and Whitney).
    """
    x, y = as_scores(x, "x"), as_scores(y, "y")
    _check_tasks(x, y)
    if isinstance(x, Mapping):
        return plain(np.mean([_superiority(x[task], y[task], -1) for task in x], axis=0))
    return plain(_superiority(x, y, -2).mean(-1))


def profile(scores: Scores, thresholds: Any) -> np.ndarray:
    """The share of all runs on all tasks with a score above each threshold: `[..., K]`."""
    pooled = _pooled(as_scores(scores))
    return np.stack([(pooled > t).mean(-1) for t in _thresholds(thresholds)], axis=-1)


def average_profile(scores: Scores, thresholds: Any) -> np.ndarray:
    """The share of tasks whose mean over runs is above each threshold: `[..., K]`."""
    means = _task_means(as_scores(scores))
    return np.stack([(means > t).mean(-1) for t in _thresholds(thresholds)], axis=-1)


def normalize(scores: Scores, low: Any, high: Any) -> Any:
    """`(scores - low) / (high - low)`: 0 at the anchor `low` of a task (`[M]`), 1 at `high`.

    Anchors are published numbers, of a random policy and a human say, never the least and most
    of the data.  For a mapping they are mappings too.  Raises ValueError where both are equal.
    """
    scores = as_scores(scores)
    if isinstance(scores, Mapping):
        return {task: normalize(x, low[task], high[task])[..., 0] for task, x in scores.items()}
    low, high = np.asarray(low, np.float64), np.asarray(high, np.float64)
    if np.any(low == high):
        raise ValueError(f"low={low.tolist()} equals high={high.tolist()}: anchors must differ")
    return (scores - low) / (high - low)


def as_scores(scores: Scores, name: str = "scores") -> Any:
    """`scores` in float64: an array `[..., N, M]`, or a dict of `[..., N_m]`.

    Raises ValueError where there is no run or no task, or for NaN.
    """
    if isinstance(scores, Mapping):
        if not scores:
            raise ValueError(f"{name} is empty: needs at least one task")
        return {
            task: _checked(scores[task], f"{name}[{task!r}]", 1)
            for task in sorted(scores, key=str)  # one order, for pairs of samples
        }
    array = np.asarray(scores, np.float64)
    return _checked(array[:, None] if array.ndim == 1 else array, name, 2)


def plain(value: np.ndarray | np.floating) -> Number:
    """A float in the place of an array without axes."""
    return float(value) if np.ndim(value) == 0 else value


def _checked(values: Any, name: str, least: int) -> np.ndarray:
    array = np.asarray(values, np.float64)
    if array.ndim < least or 0 in array.shape:
        raise ValueError(f"{name} has shape {array.shape}: needs [N, M], at least one run of each")
    if np.isnan(array.min()):  # which NaN goes through
        raise ValueError(
            f"{name} holds NaN: give a run that diverged the score that it deserves, such as the "
            "worst possible one"
        )
    return array


def _pooled(scores: Any) -> np.ndarray:
    """All runs on all tasks: `[..., K]`."""
    if isinstance(scores, Mapping):
        return np.concatenate(list(scores.values()), axis=-1)
    by_task = np.swapaxes(scores, -1, -2)  # in this order a resampled array is contiguous
    return by_task.reshape(*by_task.shape[:-2], -1)


def _task_means(scores: Any) -> np.ndarray:
    """The mean over runs: `[..., M]`."""
    if isinstance(scores, Mapping):
        return np.stack([x.mean(-1) for x in scores.values()], axis=-1)
    return scores.mean(-2)


def _check_tasks(x: Any, y: Any) -> None:
    """Raises ValueError unless both are scores on the same tasks."""
    if isinstance(x, Mapping) != isinstance(y, Mapping):
        raise ValueError("one of x and y is a mapping and the other an array: needs two of a kind")
    tasks = [sorted(map(str, s)) if isinstance(s, Mapping) else s.shape[-1] for s in (x, y)]
    if tasks[0] != tasks[1]:
        raise ValueError(f"x has the tasks {tasks[0]} and y {tasks[1]}: needs the same")


def _superiority(x: np.ndarray, y: np.ndarray, axis: int) -> np.ndarray:
    """The share of pairs along `axis` with `x > y`, ties as half ones.

    The loop is over pairs of runs, few as they are: each is one pass over all replicates.
    """
    x, y = (np.ascontiguousarray(np.moveaxis(a, axis, 0)) for a in (x, y))
    lead = np.zeros(np.broadcast_shapes(x.shape[1:], y.shape[1:]), np.int32)  # wins - losses
    for one in x:
        for other in y:
            lead += one > other
            lead -= one < other
    return 0.5 + 0.5 * lead / (len(x) * len(y))


def _thresholds(thresholds: Any) -> Sequence[float]:
    array = np.asarray(thresholds, np.float64)
    if array.ndim != 1 or not array.size:
        raise ValueError(f"thresholds have shape {array.shape}: needs [K], at least one")
    return array.tolist()
