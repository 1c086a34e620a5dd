"""A 3x3 convolution as one matrix product over patches.

XLA's convolution of a batch of small pictures takes about twice as long on a CPU, forwards and in
its gradient, as writing out the patches and multiplying them with the kernel.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from fastrl.types import Array

SIDE = 3


class Conv(nn.Module):
    """`nn.Conv(features, (3, 3), padding="VALID")`: `[..., H, W, C] -> [..., H - 2, W - 2, F]`.

    The parameters have the same names, shapes and initial values.  On a CPU a product over patches,
    elsewhere XLA's convolution.
    """

    features: int
    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, x: Array) -> Array:
        shape = (SIDE, SIDE, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        if jax.default_backend() == "cpu":
            y = patches(x) @ kernel.reshape(-1, self.features)
        else:
            y = _convolved(x, kernel)
        return y + bias.reshape((1,) * (y.ndim - 1) + bias.shape)


def patches(x: Array) -> Array:
    """The 3x3 neighbourhood of every inner cell: `[..., H, W, C] -> [..., H - 2, W - 2, 9 C]`.

    By row, column and channel, as a kernel `[3, 3, C, F]` is flattened.
    """
    height, width = (size - SIDE + 1 for size in x.shape[-3:-1])
    cells = [(i, j) for i in range(SIDE) for j in range(SIDE)]
    return jnp.concatenate(
        [x[..., i : i + height, j : j + width, :] for i, j in cells], axis=-1
    )  # fmt: skip


def _convolved(x: Array, kernel: Array) -> Array:
    """XLA's own, which takes one axis of batch."""
    images = x.reshape(-1, *x.shape[-3:])
    y = jax.lax.conv_general_dilated(
        images, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return y.reshape(*x.shape[:-3], *y.shape[1:])
