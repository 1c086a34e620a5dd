"""Memories: the shape that they are built from, and the recurrent ones, GRU and LSTM.

A memory takes a sequence `x` `[T, ..., D]`, flags `start` `[T, ...]` and a carry `[..., *]`, the
state before the first entry, and gives the state after the last and outputs `[T, ..., H]`.
Where `start` is true a new episode begins: the memory forgets all that was before it, inside
of the cell, before it takes in the entry.  So a sequence may hold several episodes, and the
gradient of one never reaches into another.

Whatever does not depend on the carry is computed for all times at once.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp

from fastrl import door
from fastrl.types import Array, Key, PyTree

Cell = Literal["gru", "lstm", "transformer"]


@dataclasses.dataclass(frozen=True)
class MemoryConfig:
    """The shape of a memory."""

    cell: Cell = "gru"
    size: int = 64  # entries of its output
    window: int = 32  # transformer: the newest entries that it attends to, itself included
    heads: int = 2  # transformer
    layers: int = 1  # transformer
    sinks: int = 0  # transformer: learned keys and values beside those of the entries

    def __post_init__(self) -> None:
        door.choice("cell", self.cell, get_args(Cell))
        door.integer("sinks", self.sinks, 0)
        for name in ("size", "window", "heads", "layers"):
            door.integer(name, getattr(self, name), 1)
        if self.cell == "transformer" and self.size % self.heads:
            raise ValueError(f"size={self.size} is not divisible by heads={self.heads}")

    def initial_carry(self, batch_shape: tuple[int, ...]) -> PyTree:
        """What is remembered before anything was seen; leaves `[*batch_shape, ...]`."""
        zeros = lambda *shape: jnp.zeros((*batch_shape, *shape))  # noqa: E731
        match self.cell:
            case "gru":
                return (zeros(self.size),)
            case "lstm":
                return zeros(self.size), zeros(self.size)
            case _:  # which entries of the cache are valid, and the inputs of every layer
                valid = jnp.zeros((*batch_shape, self.window), bool)
                return valid, *(zeros(self.window, self.size) for _ in range(self.layers))


def _cleared(carry: PyTree, start: Array) -> PyTree:
    """`carry`, zero where an episode starts."""

    def clear(x: Array) -> Array:
        where = start.reshape(start.shape + (1,) * (x.ndim - start.ndim))
        return jnp.where(where, jnp.zeros_like(x), x)

    return jax.tree.map(clear, carry)


class Gru(nn.Module):
    """Gated recurrent unit (Cho et al. 2014), in the form with the reset gate behind the product:

    r, z = sigmoid(W x + U h + b),  n = tanh(W x + b + r (U h + b')),  h <- (1 - z) n + z h
    """

    config: MemoryConfig

    def setup(self) -> None:
        self.inputs, self.recurrent = _gates(3, self.config.size)

    def __call__(self, carry: PyTree, x: Array, start: Array) -> tuple[PyTree, Array]:
        projected = self.inputs(x)
        kernel, bias = self.recurrent(self.config.size)

        def step(carry: PyTree, now: tuple[Array, Array]) -> tuple[PyTree, Array]:
            (h,) = _cleared(carry, now[1])
            r, z, n = jnp.split(now[0], 3, axis=-1)
            u_r, u_z, u_n = jnp.split(h @ kernel + _row(bias, h.ndim), 3, axis=-1)
            update = jax.nn.sigmoid(z + u_z)
            h = (1 - update) * jnp.tanh(n + jax.nn.sigmoid(r + u_r) * u_n) + update * h
            return (h,), h

        return jax.lax.scan(step, carry, (projected, start))


class Lstm(nn.Module):
    """Long short-term memory (Hochreiter and Schmidhuber 1997, with a forget gate):

    i, f, o = sigmoid(W x + U h + b),  g = tanh(W x + U h + b),  c <- f c + i g,  h = o tanh(c)
    """

    config: MemoryConfig

    def setup(self) -> None:
        self.inputs, self.recurrent = _gates(4, self.config.size)

    def __call__(self, carry: PyTree, x: Array, start: Array) -> tuple[PyTree, Array]:
        projected = self.inputs(x)
        kernel, bias = self.recurrent(self.config.size)

        def step(carry: PyTree, now: tuple[Array, Array]) -> tuple[PyTree, Array]:
            h, c = _cleared(carry, now[1])
            i, f, g, o = jnp.split(now[0] + h @ kernel + _row(bias, h.ndim), 4, axis=-1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
            return (h, c), h

        return jax.lax.scan(step, carry, (projected, start))


class _Recurrent(nn.Module):
    """Weights of the products with the state; to be used in a scan, so handed out as arrays."""

    gates: int

    @nn.compact
    def __call__(self, size: int) -> tuple[Array, Array]:
        kernel = self.param("kernel", _blocks(self.gates), (size, self.gates * size))
        return kernel, self.param("bias", nn.initializers.zeros, (self.gates * size,))


def _gates(gates: int, size: int) -> tuple[nn.Module, nn.Module]:
    inputs = nn.Dense(gates * size, kernel_init=nn.initializers.orthogonal(1.0))
    return inputs, _Recurrent(gates)


def _blocks(gates: int) -> Callable[..., Array]:
    """An orthogonal square for each gate."""

    def init(key: Key, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        square = nn.initializers.orthogonal(1.0)
        keys = jax.random.split(key, gates)
        return jnp.concatenate([square(k, (shape[0], shape[0]), dtype) for k in keys], axis=1)

    return init


def _row(bias: Array, ndim: int) -> Array:
    return bias.reshape((1,) * (ndim - 1) + bias.shape)
