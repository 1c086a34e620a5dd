"""Running statistics of observations and of discounted returns, as pure functions of state.

The statistics live in the algorithm's state: one estimate over all environments and devices,
saved with the agent and used when it acts.  Batches are merged by the parallel form of
Welford's method (Chan, Golub and LeVeque 1979): with `w = n_batch / n_total` and
`d = mean_batch - mean`,

    mean     <- mean + w d
    variance <- (1 - w) variance + w variance_batch + w (1 - w) d^2

Moments of a batch are taken in two passes with a correction of the first, so float32 holds
for means that are large beside the spread.  All means are over the whole batch, so a run on
several devices gets the numbers of a run on one.
"""

import math
from typing import NamedTuple, Protocol

import chex
import jax
import jax.numpy as jnp

from fastrl import spaces
from fastrl.types import Array, PyTree

EPSILON = 1e-8  # added to variances before the root


class RunningStatistics(NamedTuple):
    """Mean and variance of everything seen, per entry; `mean` and `variance` are pytrees alike.

    Integer and bool leaves (pixels, one-hot flags, action masks) are not normalised: they keep
    a scalar mean 0 and variance 1.
    """

    count: Array  # type: ignore[override]  # float32 [], values seen per entry
    mean: PyTree  # float32
    variance: PyTree  # float32, biased (divided by the count)


def init(example: PyTree) -> RunningStatistics:
    """Statistics of nothing yet, for a space or for one unbatched observation (pytrees too).

    `normalize` with them only clips.
    """

    def zeros(leaf: PyTree) -> Array:
        if not hasattr(leaf, "dtype"):
            leaf = jnp.asarray(leaf)
        return jnp.zeros(leaf.shape if _is_float(leaf) else (), jnp.float32)

    mean = spaces.tree_map(zeros, example)
    return RunningStatistics(jnp.float32(0.0), mean, jax.tree.map(jnp.ones_like, mean))


def update(statistics: RunningStatistics, batch: PyTree) -> RunningStatistics:
    """The statistics of everything seen and of `batch`, leaves `[..., *]` (such as `[T, N, *]`).

    Any leading axes, also none; the same ones for all leaves.
    """
    leaves, treedef = jax.tree.flatten(batch)
    means = treedef.flatten_up_to(statistics.mean)
    variances = treedef.flatten_up_to(statistics.variance)
    floats = [i for i, leaf in enumerate(leaves) if _is_float(leaf)]
    if not floats:
        return statistics
    first = floats[0]
    lead = leaves[first].shape[: leaves[first].ndim - means[first].ndim]
    count = statistics.count + math.prod(lead)
    weight = math.prod(lead) / count
    for i in floats:
        chex.assert_shape(leaves[i], (*lead, *means[i].shape))
        mean, variance = _moments(leaves[i], tuple(range(len(lead))))
        delta = mean - means[i]
        between = weight * (1 - weight) * jnp.square(delta)
        variances[i] = (1 - weight) * variances[i] + weight * variance + between
        means[i] = means[i] + weight * delta
    return RunningStatistics(count, treedef.unflatten(means), treedef.unflatten(variances))


def normalize(statistics: RunningStatistics, x: PyTree, clip: float | Array = 10.0) -> PyTree:
    """`(x - mean) / sqrt(variance + 1e-8)`, clipped to `[-clip, clip]`; leaves `[..., *]`.

    Integer and bool leaves come back as they are, float leaves keep their type.
    """

    def one(x: Array, mean: Array, variance: Array) -> Array:
        if not _is_float(x):
            return x
        mean, scale = _to_shape(x.shape, mean, jax.lax.rsqrt(variance + EPSILON))
        scaled = (x - mean) * scale
        return jnp.clip(scaled, -clip, clip).astype(x.dtype)

    return jax.tree.map(one, x, statistics.mean, statistics.variance)


def denormalize(statistics: RunningStatistics, x: PyTree) -> PyTree:
    """The inverse of `normalize` where nothing was clipped; leaves `[..., *]`."""

    def one(x: Array, mean: Array, variance: Array) -> Array:
        if not _is_float(x):
            return x
        mean, scale = _to_shape(x.shape, mean, jnp.sqrt(variance + EPSILON))
        return (x * scale + mean).astype(x.dtype)

    return jax.tree.map(one, x, statistics.mean, statistics.variance)


class ReturnScale(NamedTuple):
    """Running statistics of the discounted return that every environment has gathered so far."""

    discounted: Array  # float32 [N]: R_t, 0 where an episode has just ended
    statistics: RunningStatistics  # of R_t, over all times and environments


def init_return_scale(num_envs: int) -> ReturnScale:
    """The scale before the first reward."""
    return ReturnScale(jnp.zeros(num_envs, jnp.float32), init(jnp.float32(0.0)))


def scale_rewards(
    scale: ReturnScale,
    rewards: Array,
    done: Array,
    gamma: float | Array,
    clip: float | Array = 10.0,
) -> tuple[ReturnScale, Array]:
    """Rewards divided by the running standard deviation of the discounted return.

        R_t = gamma (1 - done_{t-1}) R_{t-1} + r_t
        r_t <- clip(r_t / sqrt(Var[R] + 1e-8), -clip, clip)

    `rewards` and `done` (terminated or truncated) are `[T, N]`; `gamma` is the agent's own
    discount, the variance is taken after these rewards are counted, and no mean is
    subtracted, so the best policy stays the best.  Returns the new scale and `[T, N]`.
    """
    chex.assert_equal_shape([rewards, done])
    chex.assert_shape(rewards, (None, *scale.discounted.shape))

    def step(before: Array, now: tuple[Array, Array]) -> tuple[Array, Array]:
        reward, end = now
        discounted = gamma * before + reward
        return jnp.where(end, 0.0, discounted), discounted

    rewards = rewards.astype(jnp.float32)
    after, discounted = jax.lax.scan(step, scale.discounted, (rewards, done))
    statistics = update(scale.statistics, discounted)
    scaled = rewards * jax.lax.rsqrt(statistics.variance + EPSILON)
    return ReturnScale(after, statistics), jnp.clip(scaled, -clip, clip)


def _is_float(x: PyTree) -> bool:
    return jnp.issubdtype(x.dtype, jnp.floating)


def _moments(batch: Array, axes: tuple[int, ...]) -> tuple[Array, Array]:
    """Mean and biased variance over `axes`, each corrected by the error of a first mean."""
    batch = batch.astype(jnp.float32)
    first = batch.mean(axes)
    deviation = batch - jnp.broadcast_to(first, batch.shape)  # `axes` lead
    error = deviation.mean(axes)
    return first + error, jnp.square(deviation).mean(axes) - jnp.square(error)


def _to_shape(shape: tuple[int, ...], *arrays: Array) -> list[Array]:
    """Broadcast in so many words: strict sessions forbid it to happen by itself."""
    return [jnp.broadcast_to(x, shape) for x in arrays]


class _Normalises(Protocol):
    """A config that says whether observations are normalised."""

    @property
    def normalize_observation(self) -> bool: ...


class _Counts(Protocol):
    """A state with statistics of observations."""

    @property
    def observations(self) -> RunningStatistics: ...


def seen(config: _Normalises, state: _Counts, observation: PyTree) -> PyTree:
    """The observation as the networks of a learner see it."""
    if not config.normalize_observation:
        return observation
    return normalize(state.observations, observation)


def standardised(x: Array) -> Array:
    """`x` `[...]` with mean 0 and deviation 1; all 0 where nothing varies.

    Both come from one pass over `x`, less one of its entries, so that a mean far from 0 costs no
    digits.
    """
    beside = x - x.ravel()[0]
    mean, square = jnp.stack([beside, beside**2]).reshape(2, -1).mean(1)
    return (beside - mean) / (jnp.sqrt(jnp.maximum(square - mean**2, 0.0)) + 1e-8)
