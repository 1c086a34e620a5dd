"""Running statistics of one stream: observations, rewards, the time feature.

Every observation and reward is counted once, by Welford's method, over the whole life of the
stream (Elsayed, Vasan and Mahmood 2024, arXiv:2410.14606, algorithms 4 to 6).  With n the count
and d = x - mean before x is counted,

    mean <- mean + d / n;   variance <- variance + (d (x - mean) - variance) / n

and the sample variance is `variance n / (n - 1)`.  A stream may run for more than 2^24 steps, where
float32 loses such increments: the count is an integer and both sums carry what rounding took from
them (compensated summation, Neumaier 1974).  Unlike `fastrl.normalize`, which is for batches,
nothing is clipped.
"""

from typing import Literal, NamedTuple

import jax.numpy as jnp

from fastrl.types import Array, Scalar

EPSILON = 1e-8  # added to variances before the root
MOST = 2**31 - 1  # the count stays there: from then on old values are forgotten, slowly

RewardTrace = Literal["cut", "cut_terminated", "cleared"]


class Statistics(NamedTuple):
    """Of everything seen, per entry: `mean + mean_error` and `variance + variance_error`."""

    count: Array  # type: ignore[override]  # int32 []
    mean: Array
    mean_error: Array
    variance: Array  # biased (divided by the count)
    variance_error: Array


def init(shape: tuple[int, ...] = ()) -> Statistics:
    """Statistics of nothing yet."""
    return Statistics(jnp.int32(0), *(jnp.zeros(shape, jnp.float32) for _ in range(4)))


def update(statistics: Statistics, x: Array, *, centred: bool = True) -> Statistics:
    """With one more `x` counted; with `centred=False` of deviations from 0, not from the mean."""
    old = statistics
    count = jnp.where(old.count < MOST, old.count + 1, old.count)
    share = 1.0 / count.astype(jnp.float32)
    before = (x - old.mean) - old.mean_error
    if centred:
        mean = _add(old.mean, old.mean_error, before * share)
        after = (x - mean[0]) - mean[1]
    else:
        mean, before = (old.mean, old.mean_error), x
        after = x - x * share
    increment = (before * after - old.variance - old.variance_error) * share
    return Statistics(count, *mean, *_add(old.variance, old.variance_error, increment))


def sample_variance(statistics: Statistics) -> Array:
    """The unbiased variance; 1 before there are two values."""
    n = statistics.count.astype(jnp.float32)
    unbiased = statistics.variance * (n / jnp.maximum(n - 1.0, 1.0))
    return jnp.where(statistics.count < 2, 1.0, unbiased)


def normalize(statistics: Statistics, x: Array) -> Array:
    """`(x - mean) / sqrt(variance + 1e-8)`, of the shape of the statistics."""
    centred = (x - statistics.mean) - statistics.mean_error
    return centred / jnp.sqrt(sample_variance(statistics) + EPSILON)


class RewardScale(NamedTuple):
    """The discounted sum of rewards so far, and its statistics."""

    trace: Array  # float32 []: u
    statistics: Statistics


def init_reward_scale() -> RewardScale:
    """The scale before the first reward."""
    return RewardScale(jnp.float32(0.0), init())


def scale_reward(
    scale: RewardScale, reward: Array, terminated: Array, truncated: Array, gamma: Scalar,
    how: RewardTrace = "cut", *, second_moment: bool = False,
) -> tuple[RewardScale, Array]:  # fmt: skip
    """The scale with one more reward, and the reward in units of it: `r / sqrt(var[u] + 1e-8)`.

    `how` says what an end of the episode does to u:

    - "cut": u <- gamma u (1 - end) + r.  At the last step u becomes r, which is *not* cleared:
      the next episode starts from it, as in the official code of 2024
    - "cut_terminated": the same with terminations only, as in Intentional updates
    - "cleared": u <- gamma u + r, and 0 after the last step, as in the version of 2026

    `second_moment` takes the variance about 0, as the paper has it, not about the mean.
    """
    ended = terminated if how == "cut_terminated" else terminated | truncated
    before = scale.trace
    if how != "cleared":
        before = jnp.where(ended, 0.0, before)
    trace = gamma * before + reward
    statistics = update(scale.statistics, trace, centred=not second_moment)
    scaled = reward / deviation(statistics)
    if how == "cleared":
        trace = jnp.where(ended, 0.0, trace)
    return RewardScale(trace, statistics), scaled


def deviation(statistics: Statistics) -> Array:
    """What rewards are divided by."""
    return jnp.sqrt(sample_variance(statistics) + EPSILON)


def time_feature(steps: Array, time_limit: Scalar) -> Array:
    """How far an episode is, from -0.5 on; `steps` int32 have been taken.

    It lags by one step, as in the official code, which reads it before it counts: the first
    observation and the one after the first step both carry -0.5.
    """
    return -0.5 + jnp.maximum(steps - 1, 0).astype(jnp.float32) / time_limit


def _add(total: Array, error: Array, x: Array) -> tuple[Array, Array]:
    """`total + error + x` as a float and what rounding took from it."""
    x = x + error
    new = total + x
    shift = new - total
    return new, (total - (new - shift)) + (x - shift)
