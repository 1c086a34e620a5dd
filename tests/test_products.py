"""Products with a gradient of their own are products in every mode of differentiation."""

import jax
import jax.numpy as jnp
import numpy as np

from fastrl import products
from fastrl.kernels import prng


def test_it_is_a_product_in_every_mode():
    """A turned matrix in a gradient, a tangent left out, no second derivative, or no members."""
    x_key, kernel_key, v_key = jax.random.split(prng.key(0), 3)
    x = jax.random.normal(x_key, (3, 2, 5))
    kernels = jax.random.normal(kernel_key, (4, 5, 6))  # of four members
    v = jax.random.normal(v_key, (5, 6))

    def outcomes(product):
        def loss(x, kernel):
            return jnp.sin(product(x, kernel)).sum()

        def curvature(kernel):  # forward over reverse
            return jax.jvp(lambda k: jax.grad(loss, 1)(x, k), (kernel,), (v,))

        both = jax.vmap(jax.value_and_grad(loss, (0, 1)), (None, 0))(x, kernels)
        return both, jax.vmap(curvature)(kernels)

    plain = outcomes(lambda x, kernel: x @ kernel)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4),
        outcomes(products.dot_general), plain,
    )  # fmt: skip
