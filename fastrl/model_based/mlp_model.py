"""A network as a model of the world, learned by Adam from the newest pair, or from replay.

Without replay it is the obvious online learner: one gradient step on each pair, which overwrites
what it knew elsewhere.  With replay each step is on the newest pair and a batch of those before it,
which costs a memory of the whole stream.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fastrl import buffers, door
from fastrl.buffers import ring as rings
from fastrl.model_based.model import Model
from fastrl.types import Array, Key, PyTree


@dataclasses.dataclass(frozen=True)
class Shape:
    """What shapes the network; `batch_size` pairs of `buffer_size` are replayed, 0 for none."""

    num_inputs: int
    num_outputs: int
    hidden_sizes: tuple[int, ...] = (64, 64)
    batch_size: int = 0
    buffer_size: int = 10_000

    def __post_init__(self) -> None:
        for name in ("num_inputs", "num_outputs", "buffer_size"):
            door.integer(name, getattr(self, name), 1)
        door.integer("batch_size", self.batch_size, 0)
        sizes = tuple(door.integer("hidden_sizes", n, 1) for n in self.hidden_sizes)
        object.__setattr__(self, "hidden_sizes", sizes)


class State(NamedTuple):
    """The network and, with replay, the pairs."""

    params: tuple[tuple[Array, Array], ...]  # kernel and bias of each layer
    optimizer: PyTree
    pairs: PyTree  # a ring of (x [S], y [O]); () without replay


def model(shape: Shape) -> Model:
    """The network as a `Model`, with `hparams.model_learning_rate`."""
    replay = buffers.uniform(shape.buffer_size, 1)

    def init(key: Key, hparams: Any) -> State:
        params = _network(key, (shape.num_inputs, *shape.hidden_sizes, shape.num_outputs))
        pair = jnp.zeros(shape.num_inputs), jnp.zeros(shape.num_outputs)
        pairs = replay.init(pair) if shape.batch_size else ()
        return State(params, optax.adam(hparams.model_learning_rate).init(params), pairs)

    def update(key: Key, state: State, x: Array, y: Array, hparams: Any) -> State:
        xs, ys, pairs = x[None], y[None], state.pairs
        if shape.batch_size:
            pairs = replay.add(pairs, jax.tree.map(lambda a: a[None, None], (x, y)))
            draw = replay.sample(pairs, key, shape.batch_size)
            old_xs, old_ys = rings.take(replay.ring(pairs).items, draw.row, draw.env)
            xs, ys = jnp.concatenate([xs, old_xs]), jnp.concatenate([ys, old_ys])
        loss = lambda p: jnp.square(_outputs(p, xs) - ys).mean()  # noqa: E731
        step, optimizer = optax.adam(hparams.model_learning_rate).update(
            jax.grad(loss)(state.params), state.optimizer
        )
        return State(optax.apply_updates(state.params, step), optimizer, pairs)  # type: ignore[arg-type]

    return Model(init, update, lambda state, x: _outputs(state.params, x))


def _network(key: Key, sizes: tuple[int, ...]) -> tuple[tuple[Array, Array], ...]:
    """Kernels from a uniform distribution of variance 1 / (3 fan_in), zero biases."""
    keys = jax.random.split(key, len(sizes) - 1)
    made = []
    for k, fan_in, units in zip(keys, sizes[:-1], sizes[1:], strict=True):
        limit = fan_in**-0.5
        kernel = jax.random.uniform(k, (fan_in, units), minval=-limit, maxval=limit)
        made.append((kernel, jnp.zeros(units)))
    return tuple(made)


def _outputs(params: tuple[tuple[Array, Array], ...], x: Array) -> Array:
    for i, (kernel, bias) in enumerate(params):
        x = x @ kernel
        x = x + jnp.broadcast_to(bias, x.shape)
        x = jax.nn.relu(x) if i < len(params) - 1 else x
    return x
