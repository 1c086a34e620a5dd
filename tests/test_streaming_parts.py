"""Networks and statistics of streams: sparse weights, LayerNorm, normalisers, the time feature."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fastrl.streaming import networks, statistics
from fastrl.streaming.networks import Shape

CONV = Shape((10, 10, 4), (128,), (3,), features=16)
MLP = Shape((20,), (32, 32), (2,))


def test_sparse_init_leaves_exact_counts():
    """Zeros drawn with replacement, a fan-in that forgets the patch, masks shared by units."""
    network = networks.networks([CONV])[0]
    params, other = (jax.jit(network.init)(jax.random.key(i)) for i in range(2))
    layers, theirs = params.hidden + params.heads, other.hidden + other.heads
    assert [x.kernel.shape for x in layers] == [(36, 16), (1024, 128), (128, 3)]
    for layer, same in zip(layers, theirs, strict=True):
        fan_in, left = len(layer.kernel), np.asarray(layer.kernel)
        np.testing.assert_array_equal((left != 0).sum(0), fan_in - math.ceil(0.9 * fan_in))
        assert np.abs(left).max() < 1 / math.sqrt(fan_in)
        assert not layer.bias.any()
        assert ((left != 0) != (np.asarray(same.kernel) != 0)).any()
        assert len(np.unique(left != 0, axis=1)[0]) > 1
    assert networks.num_zeros([(9, 1), (10, 1), (19, 1), (28, 1), (256, 1)], "sparse", 0.9) == [
        9, 9, 18, 26, 231,
    ]  # fmt: skip


def test_the_budget_of_the_agent_is_shared_by_size():
    """A budget per layer or per network, a layer beyond full, a dead first layer."""
    layers = [(5, 32), (1024, 128), (32, 1)]
    sparsity = networks.erk_sparsities(layers, 0.95)
    sizes = np.array([a * b for a, b in layers])
    left = sizes * (1 - np.array(sparsity))
    np.testing.assert_allclose(left.sum(), 0.05 * sizes.sum(), rtol=1e-9)
    assert sparsity[0] == sparsity[2] == 0.0  # e (5 + 32) and e (32 + 1) are more than they have
    assert networks.num_zeros(layers, "erk", 0.95)[0] == 0
    assert networks.num_zeros(MLP.layers, "erk", 0.999)[0] == 19  # at least one weight stays
    shared = networks.networks([MLP, Shape((5,), (4,), (1,))], "erk", 0.95)
    assert len(shared) == 2


def test_gradient_at_zero():
    """LeakyReLU with slope 1 at 0, as `jax.nn` has it, or a LayerNorm of another epsilon."""
    assert float(jax.grad(networks.leaky_relu)(0.0)) == np.float32(0.01)
    network = networks.networks([Shape((5,), (32, 32), (2,))])[0]
    params = jax.jit(network.init)(jax.random.key(0))
    x = jnp.array([0.3, -1.0, 2.0, 0.0, -0.5])
    assert not params.hidden[0].kernel.any()  # 5 inputs: nothing is left of them
    np.testing.assert_array_equal(network.apply(params, x)[0], 0.0)
    gradient = jax.jit(jax.grad(lambda p: network.apply(p, x)[0][1]))(params)
    assert all(bool(jnp.isfinite(g).all()) for g in jax.tree.leaves(gradient))
    assert gradient.hidden[0].kernel.any()
    y = np.linspace(-3.0, 40.0, 24).reshape(2, 3, 4)
    expected = (y - y.mean()) / np.sqrt(y.var() + 1e-5)
    np.testing.assert_allclose(networks.layer_norm(jnp.float32(y)), expected, atol=1e-6)


def test_the_convolution_is_one():
    """Patches in another order than the kernel's, or a norm per position."""
    network = networks.networks([CONV], "dense")[0]
    params = jax.jit(network.init)(jax.random.key(1))
    x = jax.random.normal(jax.random.key(2), CONV.input)
    kernel = params.hidden[0].kernel.reshape(3, 3, 4, 16)
    y = jax.lax.conv_general_dilated(
        x[None], kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )[0]
    y = networks.leaky_relu((y - y.mean()) / jnp.sqrt(y.var() + 1e-5)).reshape(-1)
    for layer in params.hidden[1:]:
        y = y @ layer.kernel
        y = networks.leaky_relu((y - y.mean()) / jnp.sqrt(y.var() + 1e-5))
    np.testing.assert_allclose(network.apply(params, x)[0], y @ params.heads[0].kernel, atol=1e-4)


def _all(state, xs):
    def body(state, x):
        state = statistics.update(state, x)
        return state, statistics.normalize(state, x)

    return jax.jit(lambda: jax.lax.scan(body, state, xs))()


def test_normaliser_golden_numbers():
    """The first output is not 0, a biased variance, statistics without the value itself."""
    _, y = _all(statistics.init(), jnp.array([1.0, 2.0, 4.0]))
    np.testing.assert_allclose(y, [0.0, 0.70710678, 1.09108945], atol=1e-6)


def test_normaliser_against_the_batch_and_beyond_2_to_24():
    """float32 counters stop at 2^24 and lose increments before."""
    xs = np.random.default_rng(0).normal(100.0, 2.0, 100_000).astype(np.float32)
    state, _ = _all(statistics.init(), jnp.asarray(xs))
    assert int(state.count) == len(xs)
    exact = np.float64(xs)
    np.testing.assert_allclose(float(state.mean) + float(state.mean_error), exact.mean(), rtol=1e-7)
    np.testing.assert_allclose(statistics.sample_variance(state), exact.var(ddof=1), rtol=1e-5)
    late = state._replace(count=jnp.int32(20_000_000), variance=jnp.float32(4.0))
    late, _ = _all(late, jnp.asarray(xs + 8.0))
    n, k = 2e7, len(xs)
    before = float(state.mean) + float(state.mean_error)
    mean = (n * before + k * (exact + 8.0).mean()) / (n + k)
    np.testing.assert_allclose(
        float(late.mean) - before + float(late.mean_error), mean - before, rtol=1e-3
    )
    total = n * (4.0 + before**2) + ((exact + 8.0) ** 2).sum()
    moved = total / (n + k) - mean**2 - 4.0
    got = (float(late.variance) - 4.0) + float(late.variance_error)
    np.testing.assert_allclose(got, moved, rtol=1e-2)
    end = statistics.update(state._replace(count=jnp.int32(2**31 - 1)), jnp.float32(1.0))
    assert int(end.count) == 2**31 - 1


@pytest.mark.parametrize("how", ["cut", "cleared", "cut_terminated"])
def test_reward_scale(how):
    """The leak of 2024 is missing or is in other versions; golden numbers of the official code."""
    scale, discounted, scaled = statistics.init_reward_scale(), [], []
    for i, reward in enumerate(range(1, 8)):
        end = jnp.bool_(i % 3 == 2)
        ends = (jnp.bool_(False), end) if how == "cut_terminated" else (end, jnp.bool_(False))
        scale, r = statistics.scale_reward(scale, jnp.float32(reward), *ends, 0.5, how)
        discounted.append(float(scale.trace))
        scaled.append(float(r))
    if how == "cut":
        assert discounted == [1, 2.5, 3, 5.5, 7.75, 6, 10]
        golden = [1, 1.8856, 2.8823, 2.1381, 1.8715, 2.3698, 2.2139]
        np.testing.assert_allclose(scaled, golden, atol=1e-4)
    elif how == "cleared":
        assert discounted == [1, 2.5, 0, 4, 7, 0, 7]
    else:
        np.testing.assert_allclose(discounted, np.cumsum([2.0**i * (i + 1) for i in range(7)])
                                   / 2.0 ** np.arange(7))  # fmt: skip


def test_second_moment_of_rewards():
    """The variance about 0 is that about the mean."""
    scale, u, p = statistics.init_reward_scale(), 0.0, 0.0
    for n, reward in enumerate([3.0, 5.0, 4.0, 6.0], 1):
        no = jnp.bool_(False)
        scale, r = statistics.scale_reward(
            scale, jnp.float32(reward), no, no, 0.9, second_moment=True
        )
        u = 0.9 * u + reward
        p += u**2 * (1 - 1 / n)
        np.testing.assert_allclose(r, reward / math.sqrt((p / (n - 1) if n > 1 else 1) + 1e-8),
                                   rtol=1e-6)  # fmt: skip


def test_time_feature_lags_by_one():
    """The first two observations carry -0.5, as in the official code."""
    got = [float(statistics.time_feature(jnp.int32(t), 10.0)) for t in (0, 1, 2, 11)]
    np.testing.assert_allclose(got, [-0.5, -0.5, -0.4, 0.5], atol=1e-6)
