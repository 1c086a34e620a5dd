"""Small 3x3 convolutions as one matrix product over patches.

XLA's own take two to ten times as long on a CPU, most of it for the gradient.  Parameters have the
names and shapes of `flax.linen.Conv`.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fastrl.types import Array

SIDE = 3


class Convolution(nn.Module):
    """A 3x3 layer without padding: `[..., H, W, C] -> [..., H - 2, W - 2, F]`.

    On a CPU a product over patches, elsewhere XLA's convolution.
    """

    features: int
    kernel_init: nn.initializers.Initializer = nn.initializers.orthogonal(np.sqrt(2))

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
    """The 3x3 surroundings of every inner cell: `[..., H, W, C] -> [..., H - 2, W - 2, 9 C]`.

    By row, column and channel, as a kernel `[3, 3, C, F]` is flattened.
    """
    height, width = x.shape[-3] - SIDE + 1, x.shape[-2] - SIDE + 1
    cells = [(i, j) for i in range(SIDE) for j in range(SIDE)]
    return jnp.concatenate([x[..., i : i + height, j : j + width, :] for i, j in cells], axis=-1)


def _convolved(x: Array, kernel: Array) -> Array:
    """XLA's own, which takes one axis of batch."""
    images = x.reshape(-1, *x.shape[-3:])
    y = jax.lax.conv_general_dilated(
        images, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return y.reshape(*x.shape[:-3], *y.shape[1:])
