"""The product over patches is the convolution of flax, with its parameters and gradient."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fastrl import convolution, initializers
from fastrl.kernels import prng


@pytest.mark.parametrize("shape", [(5, 4, 2), (3, 6, 5, 3), (2, 2, 3, 3, 1)])
def test_it_is_the_convolution_of_flax(shape):
    """A transposed kernel, patches in another order, or other initial weights."""
    x = jax.random.normal(prng.key(0), shape)
    init = nn.initializers.lecun_normal()
    ours = convolution.Convolution(4, init)
    theirs = nn.Conv(4, (3, 3), padding="VALID", kernel_init=init)
    params = ours.init(prng.key(1), x)
    jax.tree.map(np.testing.assert_array_equal, params, theirs.init(prng.key(1), x))
    params = jax.tree.map(lambda p: p + 0.1, params)

    def outcome(module):
        return jax.value_and_grad(lambda p, x: (module.apply(p, x) ** 2).sum(), (0, 1))(params, x)

    got: Any = ours.apply(params, x)
    want: Any = theirs.apply(params, x)
    np.testing.assert_allclose(got, want, atol=1e-5)
    for a, b in zip(*map(jax.tree.leaves, (outcome(ours), outcome(theirs))), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


class Normalised(nn.Module):
    """Two layers by flax, or by `convolutions`."""

    flax: bool

    @nn.compact
    def __call__(self, x):
        if not self.flax:
            return convolution.convolutions(x, (4, 3), nn.relu, layer_norm=True)
        for size in (4, 3):
            init = initializers.orthogonal(np.sqrt(2))
            x = nn.Conv(size, (3, 3), padding="VALID", kernel_init=init)(x)
            x = nn.relu(nn.LayerNorm()(x))
        return x.reshape(*x.shape[:-3], -1)


def test_normalised_it_is_the_one_of_flax():
    """A mean that is not taken from the bias, or a checkpoint of flax's layers without effect."""
    x = jax.random.normal(prng.key(0), (2, 6, 7, 3))
    ours, theirs = Normalised(False), Normalised(True)
    params = ours.init(prng.key(1), x)
    jax.tree.map(np.testing.assert_array_equal, params, theirs.init(prng.key(1), x))
    params = jax.tree.map(lambda p: p + 0.1 * jnp.cos(jnp.arange(p.size)).reshape(p.shape), params)

    def outcome(module):
        return jax.value_and_grad(lambda p: (module.apply(p, x) ** 2).sum())(params)

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3),
        outcome(ours), outcome(theirs),
    )  # fmt: skip


def test_elsewhere_it_is_that_of_xla():
    """The branch that a GPU takes."""
    x = jax.random.normal(prng.key(0), (2, 3, 6, 5, 3))
    kernel = jax.random.normal(prng.key(1), (3, 3, 3, 4))
    over_patches = convolution.patches(x) @ jnp.reshape(kernel, (-1, 4))
    np.testing.assert_allclose(convolution._convolved(x, kernel), over_patches, atol=1e-4)
