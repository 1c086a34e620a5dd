"""Distributions against SciPy and against their own samples."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from fastrl import distributions as fd
from fastrl.kernels import prng
from fastrl.spaces import Box, Discrete, MultiDiscrete

DRAWS = 20_000


def test_categorical_samples_have_their_probabilities():
    """An off-by-one in the inversion shifts every action; the chi-square test sees 1 %."""
    logits = jnp.array([0.3, -1.0, 2.0, 0.0, -3.0])
    policy = fd.categorical(jnp.broadcast_to(logits, (DRAWS, 5)))
    counts = np.bincount(policy.sample(prng.key(0)), minlength=5)
    assert scipy.stats.chisquare(counts, DRAWS * np.asarray(jax.nn.softmax(logits))).pvalue > 1e-3


@pytest.mark.parametrize("mask", [[1, 0, 1, 0], [0, 0, 0, 1], [1, 0, 0, 0], [0, 1, 1, 0]])
def test_masked_actions_have_no_probability(mask):
    """Not drawn at either edge of the distribution function, none in entropy or gradient."""
    mask = jnp.array(mask, bool)
    logits = jnp.array([0.5, 4.0, -0.5, 1.0])
    policy = fd.categorical(jnp.broadcast_to(logits, (DRAWS, 4)), mask[None])
    drawn = np.asarray(policy.sample(prng.key(1)))
    assert set(drawn) == set(np.flatnonzero(mask))
    p = np.asarray(jax.nn.softmax(logits[mask]))
    one = fd.categorical(logits, mask)
    np.testing.assert_allclose(one.entropy(), -(p * np.log(p)).sum(), atol=1e-6)
    assert one.mode() == np.flatnonzero(mask)[p.argmax()]
    grad = jax.grad(lambda x: fd.categorical(x, mask).entropy())(logits)
    assert np.isfinite(grad).all()
    assert (np.asarray(grad)[~np.asarray(mask)] == 0).all()


def test_categorical_never_draws_beyond_the_last_likely_action():
    """Uniforms next to 1 must not fall off the end, whatever the sum of rounded probabilities."""
    policy = fd.categorical(jnp.full((1_000_000, 3), jnp.array([0.1, 0.2, -200.0])))
    assert int(policy.sample(prng.key(2)).max()) == 1


def test_log_prob_and_entropy_equal_scipy():
    rng = np.random.default_rng(0)
    mean, log_std, action = rng.normal(size=(3, 7, 2))
    normal = fd.DiagonalNormal(jnp.asarray(mean), jnp.asarray(log_std))
    reference: Any = scipy.stats.norm(mean, np.exp(log_std))
    np.testing.assert_allclose(normal.log_prob(action), reference.logpdf(action).sum(-1), atol=1e-4)
    np.testing.assert_allclose(normal.entropy(), reference.entropy().sum(-1), atol=1e-5)
    logits = rng.normal(size=(7, 4)).astype(np.float32)
    action = rng.integers(0, 4, 7)
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    policy = fd.categorical(jnp.asarray(logits))
    np.testing.assert_allclose(
        policy.log_prob(jnp.asarray(action)), np.log(p[np.arange(7), action]), atol=1e-5
    )
    np.testing.assert_allclose(policy.entropy(), -(p * np.log(p)).sum(-1), atol=1e-5)


def test_a_product_is_its_independent_parts():
    logits = jnp.asarray(np.random.default_rng(1).normal(size=(DRAWS, 5)), jnp.float32)
    space = MultiDiscrete((2, 3))
    policy = fd.from_outputs(space, logits)
    action = policy.sample(prng.key(3))
    assert action.shape == (DRAWS, 2)
    assert action.dtype == jnp.int32
    first, second = fd.categorical(logits[:, :2]), fd.categorical(logits[:, 2:])
    np.testing.assert_allclose(
        policy.log_prob(action),
        first.log_prob(action[:, 0]) + second.log_prob(action[:, 1]),
        atol=1e-5,
    )
    np.testing.assert_allclose(policy.entropy(), first.entropy() + second.entropy(), atol=1e-5)
    same = fd.from_outputs(MultiDiscrete((4, 4)), jnp.zeros((DRAWS, 8))).sample(prng.key(4))
    assert abs(np.corrcoef(same[:, 0], same[:, 1])[0, 1]) < 0.03  # one key for both would give 1


def test_normal_samples_have_their_moments():
    policy = fd.DiagonalNormal(jnp.full((DRAWS, 1), 3.0), jnp.full((DRAWS, 1), np.log(0.5)))
    z = (np.asarray(policy.sample(prng.key(5)))[:, 0] - 3.0) / 0.5
    assert scipy.stats.kstest(z, "norm").pvalue > 1e-3


def test_continuous_actions_are_clipped_and_scaled_to_their_box():
    box = Box((-1.0, 0.0), (3.0, 10.0), (2,))
    action = jnp.array([[-5.0, 0.0], [1.0, 0.5]])
    np.testing.assert_allclose(fd.to_environment(box, action), [[-1.0, 5.0], [3.0, 7.5]])
    open_box = Box(-np.inf, np.inf, (2,))
    np.testing.assert_array_equal(fd.to_environment(open_box, action), action)


@pytest.mark.parametrize(
    ("space", "words"),
    [
        (Box(0, 9, (2,), np.dtype(np.int32)), "Box of floats"),
        ({"a": Discrete(2)}, "put several actions into one"),
    ],
)
def test_spaces_without_a_distribution_are_named(space, words):
    with pytest.raises(ValueError, match=words):
        fd.num_outputs(space)


def test_a_mask_of_another_size_is_named():
    with pytest.raises(ValueError, match="3 entries"):
        fd.from_outputs(Discrete(4), jnp.zeros(4), mask=jnp.ones(3, bool))


def test_a_box_with_an_open_side_keeps_its_bound():
    """Unclipped, half of the actions of a zero-mean policy would be illegal."""
    action = fd.to_environment(Box(0.0, np.inf, (2,)), jnp.array([[-3.0, 2.0]]))
    np.testing.assert_array_equal(action, [[0.0, 2.0]])
