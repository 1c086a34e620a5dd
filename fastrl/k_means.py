"""Groups of numbers."""

import numpy as np


def k_means(x: np.ndarray, k: int) -> np.ndarray:
    """Groups 0 .. k - 1 of the numbers `x` `[S]`, ascending, with the least sum of squares.

    In one dimension the best groups are intervals, which dynamic programming finds (Wang and
    Song 2011): the cost of the first j numbers in i groups is the least over where the last
    group begins.  Takes `k S^2` operations in NumPy.
    """
    order = np.argsort(x, kind="stable")
    y = np.asarray(x, np.float64)[order]
    sums, squares = (np.concatenate([[0.0], np.cumsum(v)]) for v in (y, y**2))
    size = len(y)
    begin, end = np.meshgrid(np.arange(size), np.arange(1, size + 1), indexing="ij")
    length = np.maximum(end - begin, 1)
    total = sums[end] - sums[begin]
    within = np.where(end > begin, squares[end] - squares[begin] - total**2 / length, np.inf)
    least = np.full(size + 1, np.inf)
    least[0] = 0.0
    choices = np.zeros((k, size + 1), int)
    for i in range(k):
        tried = least[:-1, None] + within  # [begin, end - 1]
        choices[i, 1:] = tried.argmin(0)
        least = np.concatenate([[np.inf], tried.min(0)])
    labels, last = np.zeros(size, int), size
    for i in reversed(range(k)):
        first = choices[i, last]
        labels[first:last] = i
        last = first
    unsorted = np.empty(size, int)
    unsorted[order] = labels
    return unsorted
