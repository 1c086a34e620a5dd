"""Networks of one sample for streams: sparse weights, normalised layers, leaky units.

A hidden layer is linear (or a 3x3 convolution), then `layer_norm`, then `leaky_relu`; outputs have
neither (Elsayed, Vasan and Mahmood 2024, arXiv:2410.14606, section 3).  Parameters are plain
tuples of `Layer`; a batch is a `jax.vmap`.

With "orthogonal" weights and `unit_features` they are the networks of AVG (Vasan et al. 2024,
arXiv:2411.15370): what the last hidden layer puts out is divided by its length.
"""

import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from fastrl.convolution import SIDE, patches
from fastrl.types import Array, Key

EPSILON = 1e-5  # added to the variance of a layer
SLOPE = 0.01  # of a unit below zero, and at zero

Initializer = Literal["sparse", "erk", "dense", "orthogonal"]


class Layer(NamedTuple):
    """A convolution is a dense layer over patches, by row, column and channel."""

    kernel: Array  # [fan_in, units]
    bias: Array  # [units]


class Params(NamedTuple):
    """Of one network."""

    hidden: tuple[Layer, ...]
    heads: tuple[Layer, ...]


class Shape(NamedTuple):
    """What shapes a network."""

    input: tuple[int, ...]  # [D], or [H, W, C] with a convolution first
    hidden: tuple[int, ...]
    heads: tuple[int, ...]  # numbers that each head puts out
    features: int = 0  # of the convolution; 0 for none

    @property
    def layers(self) -> list[tuple[int, int]]:
        """(fan_in, units) of every layer, heads last."""
        found, width = [], math.prod(self.input)
        if self.features:
            height, breadth, channels = self.input
            found.append((SIDE * SIDE * channels, self.features))
            width = (height - SIDE + 1) * (breadth - SIDE + 1) * self.features
        for units in self.hidden:
            found.append((width, units))
            width = units
        return found + [(width, units) for units in self.heads]


class Network(NamedTuple):
    """A pair of functions of one sample."""

    init: Callable[[Key], Params]
    apply: Callable[[Params, Array], tuple[Array, ...]]  # (params, x) -> [units] of each head


def networks(
    shapes: Sequence[Shape],
    initializer: Initializer = "sparse",
    sparsity: float = 0.9,
    layer_norm: bool = True,
    unit_features: bool = False,
) -> list[Network]:
    """The networks of an agent, whose weights share one budget where `initializer` is "erk"."""
    zeros = iter(num_zeros([x for s in shapes for x in s.layers], initializer, sparsity))
    draws = [[_kernel(initializer, *layer, next(zeros)) for layer in s.layers] for s in shapes]
    return [
        _network(s, draw, layer_norm, unit_features) for s, draw in zip(shapes, draws, strict=True)
    ]


def num_zeros(
    layers: Sequence[tuple[int, int]], initializer: Initializer, sparsity: float
) -> list[int]:
    """How many of the incoming weights of each unit start at zero, layer by layer.

    "sparse": `ceil(sparsity fan_in)` of all layers alike, which leaves nothing of up to 9 inputs
    at 0.9.  "erk": see `erk_sparsities`; one weight of each unit stays.  Others: none.
    """
    if initializer in ("dense", "orthogonal"):
        return [0] * len(layers)
    if initializer == "sparse":
        return [math.ceil(sparsity * fan_in) for fan_in, _ in layers]
    each = erk_sparsities(layers, sparsity)
    return [
        min(math.ceil(s * fan_in), fan_in - 1) for s, (fan_in, _) in zip(each, layers, strict=True)
    ]


def erk_sparsities(layers: Sequence[tuple[int, int]], sparsity: float) -> list[float]:
    """Shares of zeros that suit the layers' sizes; over all weights together `sparsity`.

    The density of a layer is `e (fan_in + units) / (fan_in units)`, at most 1, with one `e` for
    all (Erdos-Renyi-kernel; Evci et al. 2020, arXiv:1911.11134): small layers stay denser.
    """
    dense: set[int] = set()
    sizes = [fan_in * units for fan_in, units in layers]
    budget = (1.0 - sparsity) * sum(sizes)
    while True:
        rest = [i for i in range(len(layers)) if i not in dense]
        left = budget - sum(sizes[i] for i in dense)
        e = left / sum(sum(layers[i]) for i in rest) if rest else 0.0
        full = {i for i in rest if e * sum(layers[i]) > sizes[i]}
        if not full:
            break
        dense |= full
    return [
        0.0 if i in dense else 1.0 - e * sum(layer) / sizes[i] for i, layer in enumerate(layers)
    ]


def sparse_kernel(key: Key, fan_in: int, units: int, zeros: int) -> Array:
    """`[fan_in, units]` from U(-1/sqrt(fan_in), 1/sqrt(fan_in)), exactly `zeros` of a unit's at 0.

    Which, is drawn without replacement for each unit.  Consumes `key`.
    """
    value_key, order_key = jax.random.split(key)
    limit = 1.0 / math.sqrt(fan_in)
    kernel = jax.random.uniform(value_key, (fan_in, units), minval=-limit, maxval=limit)
    if zeros == 0:
        return kernel
    order = jax.random.uniform(order_key, (fan_in, units))
    rank = jnp.argsort(jnp.argsort(order, axis=0), axis=0)
    return jnp.where(rank < zeros, 0.0, kernel)


def _kernel(
    initializer: Initializer, fan_in: int, units: int, zeros: int
) -> Callable[[Key], Array]:
    """How a kernel `[fan_in, units]` is drawn."""
    if initializer == "orthogonal":
        draw = jax.nn.initializers.orthogonal(1.0)
        return lambda key: draw(key, (fan_in, units), jnp.float32)
    return lambda key: sparse_kernel(key, fan_in, units, zeros)


def layer_norm(x: Array) -> Array:
    """`x` less its mean over its deviation, both over *all* elements; nothing is learned."""
    centred = x - x.mean()
    return centred / jnp.sqrt(jnp.square(centred).mean() + EPSILON)


def leaky_relu(x: Array) -> Array:
    """`x`, or 0.01 `x` where that is not positive; its derivative at 0 is 0.01."""
    return jnp.where(x > 0, x, SLOPE * x)


def unit(x: Array) -> Array:
    """`x` `[D]` over its length; zeros stay zeros, and pass no gradient on."""
    square = jnp.square(x).sum()
    some = square > 0
    return jnp.where(some, x * jax.lax.rsqrt(jnp.where(some, square, 1.0)), 0.0)


def _network(
    shape: Shape, draws: Sequence[Callable[[Key], Array]], normalized: bool, unit_features: bool
) -> Network:
    layers, heads = shape.layers, len(shape.heads)

    def init(key: Key) -> Params:
        keys = jax.random.split(key, len(layers))
        made = [
            Layer(draw(k), jnp.zeros(units))
            for k, draw, (_, units) in zip(keys, draws, layers, strict=True)
        ]
        return Params(tuple(made[:-heads]), tuple(made[-heads:]))

    def apply(params: Params, x: Array) -> tuple[Array, ...]:
        if shape.features:
            x = patches(x)
        for layer in params.hidden:
            x = _linear(layer, x)
            x = leaky_relu(layer_norm(x) if normalized else x).reshape(-1)
        if unit_features:
            x = unit(x)
        return tuple(_linear(head, x) for head in params.heads)

    return Network(init, apply)


def _linear(layer: Layer, x: Array) -> Array:
    y = x @ layer.kernel
    return y + jnp.broadcast_to(layer.bias, y.shape)
