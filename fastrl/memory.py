"""Networks with memory: GRU, LSTM, and a small transformer with a bounded cache.

A memory takes a sequence `x` `[T, ..., D]`, flags `start` `[T, ...]` and a carry `[..., *]`, the
state before the first entry, and gives the state after the last and outputs `[T, ..., H]`.
Where `start` is true a new episode begins: the memory forgets all that was before it, inside
of the cell, before it takes in the entry.  So a sequence may hold several episodes, and the
gradient of one never reaches into another.

Whatever does not depend on the carry is computed for all times at once.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fastrl import distributions, door, spaces
from fastrl.distributions import Distribution
from fastrl.networks import NetworkConfig, Torso, encoder, split_views
from fastrl.spaces import Box, Space
from fastrl.types import Array, Key, Observation, PyTree

Cell = Literal["gru", "lstm", "transformer"]


@dataclasses.dataclass(frozen=True)
class MemoryConfig:
    """The shape of a memory."""

    cell: Cell = "gru"
    size: int = 64  # entries of its output
    window: int = 32  # transformer: the newest entries that it attends to, itself included
    heads: int = 2  # transformer
    layers: int = 1  # transformer

    def __post_init__(self) -> None:
        door.choice("cell", self.cell, tuple(_CELLS))
        for name in ("size", "window", "heads", "layers"):
            door.integer(name, getattr(self, name), 1)
        if self.cell == "transformer" and self.size % self.heads:
            raise ValueError(f"size={self.size} is not divisible by heads={self.heads}")

    def initial_carry(self, batch_shape: tuple[int, ...]) -> PyTree:
        """What is remembered before anything was seen; leaves `[*batch_shape, ...]`."""
        shapes = _CELLS[self.cell].carry_shapes(self)
        return tuple(jnp.zeros((*batch_shape, *shape), dtype) for shape, dtype in shapes)


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

    @staticmethod
    def carry_shapes(config: MemoryConfig) -> list[tuple[tuple[int, ...], Any]]:
        return [((config.size,), jnp.float32)]

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

    @staticmethod
    def carry_shapes(config: MemoryConfig) -> list[tuple[tuple[int, ...], Any]]:
        return [((config.size,), jnp.float32)] * 2

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


class Transformer(nn.Module):
    """Attention to the last `window` entries of the episode (Dai et al. 2019, Transformer-XL).

    The carry is a cache of the layers' inputs, oldest first, and which of them are valid.  Layers
    are normalised before attention and before the perceptron (GTrXL's reordering, Parisotto et
    al. 2020); where an entry stands is a learned number for each head and age.  No gradient
    reaches back into the cache.  All times are computed at once, and give what one after
    the other would.
    """

    config: MemoryConfig

    @staticmethod
    def carry_shapes(config: MemoryConfig) -> list[tuple[tuple[int, ...], Any]]:
        cache = ((config.window, config.size), jnp.float32)
        return [((config.window,), jnp.bool_)] + [cache] * config.layers

    @nn.compact
    def __call__(self, carry: PyTree, x: Array, start: Array) -> tuple[PyTree, Array]:
        window, (valid, *caches) = self.config.window, carry
        allowed, valid = _allowed(valid, start, window)
        x = nn.Dense(self.config.size, name="inputs")(x)
        after = []
        for i, cache in enumerate(caches):
            kept = jnp.moveaxis(jax.lax.stop_gradient(cache), -2, 0)
            entries = jnp.concatenate([kept, x])  # [W + T, ..., H]
            after.append(jnp.moveaxis(entries[-window:], 0, -2))
            x = x + self._attention(i, x, entries, allowed)
            inner = nn.Dense(2 * self.config.size, name=f"wide_{i}")(nn.LayerNorm(name=f"b_{i}")(x))
            x = x + nn.Dense(self.config.size, name=f"narrow_{i}")(nn.relu(inner))
        return (valid, *after), nn.LayerNorm(name="last")(x)

    def _attention(self, i: int, x: Array, entries: Array, allowed: Array) -> Array:
        """`[T, ..., H]`: what each of the last T entries draws from those before it."""
        size, heads, window = self.config.size, self.config.heads, self.config.window
        norm = nn.LayerNorm(name=f"a_{i}")
        entries, x = norm(entries), norm(x)
        split = lambda y: y.reshape(*y.shape[:-1], heads, size // heads)  # noqa: E731
        query = split(nn.Dense(size, name=f"query_{i}")(x))
        projected = [
            nn.Dense(size, name=f"{n}_{i}", use_bias=False)(entries) for n in ("key", "value")
        ]
        key, value = map(split, projected)
        bias = self.param(f"age_{i}", nn.initializers.zeros, (heads, window))
        age = _ages(len(x), window)
        by_age = bias[:, np.clip(age, 0, window - 1)]  # [h, T, W + T]
        scores = jnp.einsum("t...hd,s...hd->...hts", query, key) / np.sqrt(size // heads)
        scores = scores + by_age.reshape((1,) * (scores.ndim - 3) + by_age.shape)
        weights = jax.nn.softmax(jnp.where(allowed[..., None, :, :], scores, -1e9))
        mixed = jnp.einsum("...hts,s...hd->t...hd", weights, value)
        return nn.Dense(size, name=f"output_{i}")(mixed.reshape(*x.shape[:-1], size))


def _ages(steps: int, window: int) -> np.ndarray:
    """How long before the entry at `t` that at `s` of cache and sequence was: int `[T, W + T]`."""
    return (window + np.arange(steps))[:, None] - np.arange(window + steps)[None]


def _allowed(valid: Array, start: Array, window: int) -> tuple[Array, Array]:
    """Which entries each one may see, bool `[..., T, W + T]`, and what of the next cache is valid.

    Those of the same episode, itself and `window - 1` before it.
    """
    episode = jnp.moveaxis(jnp.cumsum(start, axis=0), 0, -1)  # [..., T]; 0 goes on from the cache
    of_entry = jnp.concatenate([jnp.where(valid, 0, -1), episode], axis=-1)
    age = _ages(len(start), window)
    near = np.broadcast_to((age >= 0) & (age < window), (*episode.shape, of_entry.shape[-1]))
    same = episode[..., :, None] == of_entry[..., None, :]
    return same & near, of_entry[..., -window:] == episode[..., -1:]


_CELLS: dict[str, Any] = {"gru": Gru, "lstm": Lstm, "transformer": Transformer}


class Recurrent(NamedTuple):
    """A policy and a value function with memory; sequences are `[T, ...]`."""

    init: Callable[[Key], Any]  # (key) -> params
    # (params, carry, observations [T, ...], start [T, ...]) -> carry, policy and value [T, ...]
    unroll: Callable[[Any, PyTree, Observation, Array], tuple[PyTree, Distribution, Array]]
    initial_carry: Callable[[tuple[int, ...]], PyTree]

    def step(
        self, params: Any, carry: PyTree, observation: Observation, start: Array
    ) -> tuple[PyTree, Distribution, Array]:
        """One time step: the same on observations and `start` `[...]`."""
        one = jax.tree.map(lambda x: x[None], (observation, start))
        carry, policy, value = self.unroll(params, carry, *one)
        return carry, *jax.tree.map(lambda x: x[0], (policy, value))


class _Network(nn.Module):
    """Outputs of the policy head, log standard deviations, values; one memory or one for each."""

    torso: NetworkConfig
    memory: MemoryConfig
    num_outputs: int
    continuous: bool

    @nn.compact
    def __call__(
        self, carries: tuple[PyTree, ...], x: Array, critic_x: Array, start: Array
    ) -> tuple[tuple[PyTree, ...], Array, Array | None, Array]:
        after, streams = [], []
        inputs = (("actor", x), ("critic", critic_x))
        for carry, (name, seen) in zip(carries, inputs, strict=False):
            hidden = Torso(self.torso, name=f"{name}_torso")(seen)
            cell = _CELLS[self.memory.cell](self.memory, name=f"{name}_memory")
            carry, hidden = cell(carry, hidden, start)
            after.append(carry)
            streams.append(hidden)
        orthogonal = nn.initializers.orthogonal
        outputs = nn.Dense(self.num_outputs, kernel_init=orthogonal(0.01), name="actor_head")
        value = nn.Dense(1, kernel_init=orthogonal(1.0), name="critic_head")
        log_std = None
        if self.continuous:
            log_std = self.param("log_std", nn.initializers.zeros, (self.num_outputs,))
        return tuple(after), outputs(streams[0]), log_std, value(streams[-1])[..., 0]


def recurrent(
    observation_space: Space, action_space: Space, torso: NetworkConfig, memory: MemoryConfig
) -> Recurrent:
    """The actor-critic with memory for these spaces.

    Policy and value share torso and memory, or with `torso.shared_torso=False` have their own.
    Raises ValueError where a space does not fit the network, before anything is compiled.
    """
    actor_space, critic_space, _ = split_views(observation_space)
    if torso.shared_torso and actor_space != critic_space:
        raise ValueError("shared_torso=true: a critic with a view of its own needs its own torso")
    image = torso.torso == "conv"
    encode, encode_critic = encoder(actor_space, image), encoder(critic_space, image)
    num_outputs = distributions.num_outputs(action_space)
    network = _Network(torso, memory, num_outputs, isinstance(action_space, Box))
    outputs_of: Callable[..., Any] = network.apply

    def initial_carry(batch_shape: tuple[int, ...]) -> PyTree:
        return (memory.initial_carry(batch_shape),) * (1 if torso.shared_torso else 2)

    def init(key: Key) -> Any:
        actor, critic, _ = split_views(spaces.zeros(observation_space, (1,)))
        start = jnp.ones(1, bool)
        return network.init(key, initial_carry(()), encode(actor), encode_critic(critic), start)

    def unroll(
        params: Any, carry: PyTree, observation: Observation, start: Array
    ) -> tuple[PyTree, Distribution, Array]:
        actor, critic, mask = split_views(observation)
        carry, outputs, log_std, value = outputs_of(
            params, carry, encode(actor), encode_critic(critic), start
        )
        return carry, distributions.from_outputs(action_space, outputs, log_std, mask), value

    return Recurrent(init, unroll, initial_carry)
