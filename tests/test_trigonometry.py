"""Sine and cosine together, against NumPy in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fastrl.kernels.trigonometry import sin_cos


@pytest.mark.parametrize(("reach", "error"), [(4.0, 1e-7), (1e3, 1e-7), (1e4, 1e-6)])
def test_both_equal_float64(reach, error):
    """Fails if a part of pi/2, a coefficient or the choice of the quadrant is off."""
    x = np.random.default_rng(0).uniform(-reach, reach, 100_000).astype(np.float32)
    x = np.append(x, np.arange(-8, 9) * np.float32(np.pi / 4)).astype(np.float32)
    sin, cos = jax.jit(sin_cos)(x)
    np.testing.assert_allclose(sin, np.sin(x.astype(np.float64)), rtol=0, atol=error)
    np.testing.assert_allclose(cos, np.cos(x.astype(np.float64)), rtol=0, atol=error)


def test_derivatives_are_cosine_and_minus_sine():
    """Fails if gradients go through the polynomials or quadrants instead."""
    x = jnp.linspace(-7.0, 7.0, 101)
    d_sin = jax.vmap(jax.grad(lambda x: sin_cos(x)[0]))(x)
    d_cos = jax.vmap(jax.grad(lambda x: sin_cos(x)[1]))(x)
    np.testing.assert_allclose(d_sin, np.cos(np.float64(x)), atol=2e-7)
    np.testing.assert_allclose(d_cos, -np.sin(np.float64(x)), atol=2e-7)
    second = jax.vmap(jax.grad(jax.grad(lambda x: sin_cos(x)[0])))(x)
    np.testing.assert_allclose(second, -np.sin(np.float64(x)), atol=2e-7)


def test_what_is_not_finite_gives_nan():
    """Fails if a broken angle looks like a good one."""
    both = np.array(sin_cos(jnp.array([np.nan, np.inf, -np.inf])))
    assert np.isnan(both).all()
