"""Initialisers of networks."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fastrl
from fastrl import initializers


@pytest.mark.parametrize("shape", [(4, 64), (64, 4), (64, 64), (3, 3, 4, 16), (5, 1)])
def test_orthonormal(shape: tuple[int, ...]) -> None:
    """Else a layer would not keep the length of what passes through it."""
    kernel = initializers.orthogonal(2.0)(fastrl.key(1), shape)
    matrix = np.asarray(kernel, np.float64).reshape(-1, shape[-1]) / 2.0
    small = matrix.T @ matrix if matrix.shape[0] >= matrix.shape[1] else matrix @ matrix.T
    assert kernel.shape == shape
    assert kernel.dtype == jnp.float32
    np.testing.assert_allclose(small, np.eye(len(small)), atol=1e-4)


def test_equals_flax() -> None:
    """Else it would draw from another distribution than the one that the paper analyses."""
    shape, key = (32, 8), fastrl.key(3)
    expected = nn.initializers.orthogonal(1.5)(key, shape)
    np.testing.assert_allclose(initializers.orthogonal(1.5)(key, shape), expected, atol=1e-5)


def test_vmapped_keys_differ() -> None:
    """Else all seeds of a sweep would start at the same parameters."""
    kernels = jax.vmap(lambda k: initializers.orthogonal()(k, (6, 3)))(
        jax.random.split(fastrl.key(0), 2)
    )
    assert not np.allclose(kernels[0], kernels[1])
