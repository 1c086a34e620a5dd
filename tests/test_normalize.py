"""Running statistics and reward scaling against float64 NumPy over everything at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from fastrl import normalize, sharding
from fastrl.spaces import Box, Discrete


def _numpy_discounted(rewards, done, gamma):
    """R_t of a whole run, written as the plain loop over every environment."""
    out = np.zeros(rewards.shape)
    for n in range(rewards.shape[1]):
        running = 0.0
        for t in range(rewards.shape[0]):
            running = gamma * running + rewards[t, n]
            out[t, n] = running
            if done[t, n]:
                running = 0.0
    return out


@pytest.mark.parametrize("offset", [0.0, 1e3])
def test_batches_merge_to_the_statistics_of_all(offset):
    """Wrong weights in the merge, or cancellation where the mean is large beside the spread."""
    rng = np.random.default_rng(0)
    data = rng.normal(offset, rng.uniform(0.5, 2.0, 3), (40, 8, 3)).astype(np.float32)
    statistics = normalize.init(Box(-np.inf, np.inf, (3,)))
    for batch in (data[:5], data[5:6], data[6:]):  # of unequal sizes
        statistics = normalize.update(statistics, jnp.asarray(batch))
    exact = data.astype(np.float64).reshape(-1, 3)
    assert statistics.count == 320
    np.testing.assert_allclose(statistics.mean, exact.mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(statistics.variance, exact.var(0), rtol=2e-4)


def test_one_value_at_a_time_equals_one_batch():
    """A learner that sees single transitions would get other statistics than a batched one."""
    data = jnp.asarray(np.random.default_rng(1).normal(3.0, 2.0, (50, 2)), jnp.float32)
    start = normalize.init(jnp.zeros(2))
    singly, _ = jax.lax.scan(lambda s, x: (normalize.update(s, x), ()), start, data)
    at_once = normalize.update(start, data)
    for a, b in zip(singly, at_once, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


def test_first_batch_is_not_mixed_with_the_initial_values():
    """The starting variance of 1 would linger as if it had been observed."""
    statistics = normalize.update(normalize.init(jnp.zeros(())), jnp.full((4, 4), 7.0))
    assert statistics.mean == 7.0
    assert statistics.variance == 0.0


def test_normalize_before_any_data_is_the_clipped_identity():
    statistics = normalize.init(jnp.zeros(3))
    x = jnp.array([-20.0, 0.5, 3.0])
    np.testing.assert_allclose(normalize.normalize(statistics, x), [-10.0, 0.5, 3.0], rtol=1e-6)
    np.testing.assert_allclose(normalize.normalize(statistics, x, clip=1.0), [-1.0, 0.5, 1.0])


def test_pytrees_keep_their_integer_leaves():
    """Pixels or masks would be shifted, or would change their type under the network."""
    space = {
        "pixels": Box(0, 255, (2, 2), np.dtype(np.uint8)),
        "speed": Box(-1, 1, (2,)),
        "kind": Discrete(3),
    }
    rng = np.random.default_rng(2)
    batch = {
        "pixels": jnp.asarray(rng.integers(0, 255, (6, 4, 2, 2)), jnp.uint8),
        "speed": jnp.asarray(rng.normal(5.0, 3.0, (6, 4, 2)), jnp.float32),
        "kind": jnp.asarray(rng.integers(0, 3, (6, 4)), jnp.int32),
    }
    statistics = normalize.update(normalize.init(space), batch)
    out = normalize.normalize(statistics, batch)
    for name in ("pixels", "kind"):
        assert out[name] is batch[name]
        assert statistics.mean[name].shape == ()
    np.testing.assert_allclose(out["speed"].mean((0, 1)), 0.0, atol=1e-5)
    np.testing.assert_allclose(out["speed"].std((0, 1)), 1.0, rtol=1e-5)
    back = normalize.denormalize(statistics, out)
    np.testing.assert_allclose(back["speed"], batch["speed"], rtol=1e-5, atol=1e-5)


def test_only_integer_leaves_count_nothing():
    statistics = normalize.init(Discrete(4))
    assert normalize.update(statistics, jnp.zeros((3, 2), jnp.int32)) is statistics


def test_leaves_with_other_leading_axes_are_refused():
    statistics = normalize.init((jnp.zeros(2), jnp.zeros(3)))
    with pytest.raises(AssertionError, match="shape"):
        normalize.update(statistics, (jnp.zeros((4, 5, 2)), jnp.zeros((5, 3))))


@pytest.mark.parametrize("gamma", [0.0, 0.9, 0.99])
def test_rewards_are_divided_by_the_deviation_of_the_discounted_return(gamma):
    """An accumulator that runs through an end, loses its value between batches or uses `gamma`
    once too often would give another variance than the loop over the whole history.
    """
    rng = np.random.default_rng(3)
    rewards = rng.normal(1.0, 4.0, (60, 5)).astype(np.float32)
    done = rng.random((60, 5)) < 0.1
    done[19] = [True, False, True, False, True]  # ends on the seam of two batches
    scale = normalize.init_return_scale(5)
    for part in (slice(0, 20), slice(20, 40), slice(40, 60)):
        scale, scaled = jax.jit(normalize.scale_rewards)(scale, rewards[part], done[part], gamma)
        variance = _numpy_discounted(rewards, done, gamma)[: part.stop].var()
        expected = np.clip(rewards[part] / np.sqrt(variance + 1e-8), -10, 10)
        np.testing.assert_allclose(scaled, expected, rtol=1e-4)


def test_scaled_rewards_are_clipped():
    rewards = jnp.zeros((400, 1)).at[-1].set(100.0)
    _, scaled = normalize.scale_rewards(
        normalize.init_return_scale(1), rewards, jnp.zeros((400, 1), bool), 0.0
    )
    assert scaled.max() == 10.0


def test_discount_is_traced_and_may_differ_by_member():
    """A sweep over gamma must neither recompile nor share one variance."""
    rng = np.random.default_rng(4)
    rewards = jnp.asarray(rng.normal(size=(30, 2)), jnp.float32)
    done = jnp.asarray(rng.random((30, 2)) < 0.2)
    gammas = jnp.array([0.5, 0.99])
    start = normalize.init_return_scale(2)
    together = jax.vmap(normalize.scale_rewards, (None, None, None, 0))(
        start, rewards, done, gammas
    )
    for i, gamma in enumerate(gammas):
        alone = normalize.scale_rewards(start, rewards, done, gamma)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a[i], b, rtol=1e-5), together, alone)  # noqa: B023


def test_sharded_environments_give_the_statistics_of_all():
    """Means per device would make a run depend on the number of devices."""
    rng = np.random.default_rng(5)
    rewards = jnp.asarray(rng.normal(size=(16, 8)), jnp.float32)
    done = jnp.asarray(rng.random((16, 8)) < 0.2)
    by_env = NamedSharding(sharding.mesh(4), PartitionSpec(None, sharding.AXIS))
    start = normalize.init_return_scale(8)
    alone = jax.jit(normalize.scale_rewards)(start, rewards, done, 0.9)
    arguments = jax.device_put((rewards, done), by_env)
    spread = jax.jit(normalize.scale_rewards)(start, *arguments, 0.9)
    for a, b in zip(jax.tree.leaves(alone), jax.tree.leaves(spread), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def test_reward_shape_must_match():
    with pytest.raises(AssertionError, match="shape"):
        normalize.scale_rewards(
            normalize.init_return_scale(3), jnp.zeros((4, 2)), jnp.zeros((4, 2), bool), 0.9
        )


@pytest.mark.parametrize("mean", [0.0, -300.0])
def test_standardised_also_far_from_zero(mean):
    """A mean of squares less a square of the mean has no digits left there."""
    x = np.float32(mean + np.random.default_rng(6).normal(scale=0.5, size=(8, 50)))
    y = x.astype(np.float64)
    got = jax.jit(normalize.standardised)(x)
    np.testing.assert_allclose(got, (y - y.mean()) / y.std(), rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(normalize.standardised(jnp.full(5, 3.0)), np.zeros(5))
