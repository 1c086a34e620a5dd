"""Small 3x3 convolutions as one matrix product over patches.

XLA's own take two to ten times as long on a CPU, most of it for the gradient.  Parameters have the
names and shapes of `flax.linen.Conv` and `flax.linen.LayerNorm`.
"""

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fastrl import initializers
from fastrl.products import dot_general
from fastrl.types import Array

SIDE = 3


def convolutions(
    x: Array,
    sizes: Sequence[int],
    activation: Callable[[Array], Array],
    layer_norm: bool,
    name: str = "Conv",
) -> Array:
    """Layers of so many features, `[..., H, W, C]` to a vector `[..., D]`, within a module.

    With `layer_norm` features are normalised before every activation.  Their mean is taken from
    the kernel, which is small, so that no pass over the outputs is needed for it.
    """
    for i, size in enumerate(sizes):
        x = Convolution(size, centred=layer_norm, name=f"{name}_{i}")(x)
        x = activation(LayerNorm()(x) if layer_norm else x)
    return x.reshape(*x.shape[:-3], -1)


class Convolution(nn.Module):
    """A 3x3 layer without padding: `[..., H, W, C] -> [..., H - 2, W - 2, F]`.

    On a CPU a product over patches, elsewhere XLA's convolution.  `centred`: less the mean over
    features.
    """

    features: int
    kernel_init: nn.initializers.Initializer = initializers.orthogonal(np.sqrt(2))
    centred: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        shape = (SIDE, SIDE, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        if self.centred:
            kernel, bias = kernel - kernel.mean(-1, keepdims=True), bias - bias.mean()
        if jax.default_backend() == "cpu":
            y = dot_general(patches(x), kernel.reshape(-1, self.features))
        else:
            y = _convolved(x, kernel)
        return y + bias.reshape((1,) * (y.ndim - 1) + bias.shape)


class LayerNorm(nn.Module):
    """`flax.linen.LayerNorm` of what has mean 0 over the last axis."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        shape = (1,) * (x.ndim - 1) + x.shape[-1:]
        scale = self.param("scale", nn.initializers.ones, shape[-1:]).reshape(shape)
        bias = self.param("bias", nn.initializers.zeros, shape[-1:]).reshape(shape)
        variance = jnp.square(x).mean(-1, keepdims=True)
        return x * jax.lax.rsqrt(variance + 1e-6) * scale + bias


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
