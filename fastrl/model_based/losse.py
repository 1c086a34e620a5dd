"""Losse-FTL: a sparse linear model that stands at the optimum of all past data, online.

Liu, Du, Lee and Lin 2024, "Locality Sensitive Sparse Encoding for Learning World Models Online"
(arXiv:2401.13034), algorithm 2, as public implementations have it.  An input `x` `[S]` is projected
at random and squashed into `G` grids of `R` dimensions with `bins` cells each,

    h = bins sigmoid(gain x P),    P ~ truncated normal / sqrt(S), fixed

and within its cell of each grid the `2^R` corners share a weight of 1, multilinearly: of
`D = G (bins + 1)^R` features `K = G 2^R` are not 0, and they sum to `G`.  The outputs are linear in
them.  With A the sum of phi phi', B that of phi y', n pairs, S the active features of the newest,

    W[S] <- (A[S, S] / n + ridge I)^-1 (B[S] - A[S, :] W + A[S, S] W[S]) / n

This is the exact minimum over the block `W[S]` of (1 / 2n) sum |y - W' phi|^2 + ridge / 2 |W|^2:
no step raises that objective, and blocks that are met again bring W to the optimum of all pairs
(Follow-The-Leader), so what was learned in one place is not forgotten in another.  The state takes
`D^2` numbers however long the stream is.
"""

import dataclasses
import functools
import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fastrl import door
from fastrl.model_based.model import Model
from fastrl.types import Array, Key, Scalar

_MOST = 2**16  # features: beyond, the squared matrix takes 16 GB


@dataclasses.dataclass(frozen=True)
class Grids:
    """What shapes the features."""

    num_inputs: int
    grids: int = 50
    bins: int = 5  # of each dimension of a grid
    dimensions: int = 2  # of a grid

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            door.integer(field.name, getattr(self, field.name), 1)
        if self.size > _MOST:
            raise ValueError(
                f"grids={self.grids}, bins={self.bins}, dimensions={self.dimensions}: "
                f"{self.size:,} features; needs at most {_MOST:,}"
            )

    @property
    def nodes(self) -> int:
        """Features of one grid."""
        return (self.bins + 1) ** self.dimensions

    @property
    def size(self) -> int:
        """All features: D."""
        return self.grids * self.nodes

    @property
    def active(self) -> int:
        """Those that are not 0: K."""
        return self.grids * 2**self.dimensions


class Sparse(NamedTuple):
    """The features of inputs that are not 0; no index stands twice."""

    index: Array  # type: ignore[override]  # int32 [..., K]
    value: Array  # [..., K]


class State(NamedTuple):
    """Everything that is known of the pairs so far."""

    projection: Array  # [S, G R], fixed: gain P
    gram: Array  # [D, D]: the sum of phi phi'
    moment: Array  # [D, O]: the sum of phi y'
    weights: Array  # [D, O]
    count: Array  # type: ignore[override]  # int32, pairs


def init(key: Key, grids: Grids, num_outputs: int, gain: Scalar = 1.0) -> State:
    """A model of nothing yet, which predicts 0. Consumes `key`."""
    shape = grids.num_inputs, grids.grids * grids.dimensions
    drawn = jax.random.truncated_normal(key, -2.0, 2.0, shape) / np.sqrt(grids.num_inputs)
    zeros = functools.partial(jnp.zeros, dtype=drawn.dtype)
    outputs = grids.size, num_outputs
    return State(
        gain * drawn, zeros((grids.size, grids.size)), zeros(outputs), zeros(outputs), jnp.int32(0)
    )


def encode(grids: Grids, projection: Array, x: Array) -> Sparse:
    """The features of `x` `[..., S]`."""
    h = grids.bins * jax.nn.sigmoid(x @ projection)
    h = h.reshape(*x.shape[:-1], grids.grids, 1, grids.dimensions)
    cell = jnp.clip(jnp.floor(h), 0, grids.bins - 1)  # a sigmoid of 1 is in the last cell too
    offset = h - cell
    corners = np.array(list(itertools.product((0, 1), repeat=grids.dimensions)), np.int32)
    corners = corners.reshape((1,) * (x.ndim - 1) + (1, *corners.shape))
    strides = (grids.bins + 1) ** np.arange(grids.dimensions - 1, -1, -1, dtype=np.int32)
    node = (strides.reshape((1,) * (x.ndim + 1) + (-1,)) * (cell.astype(jnp.int32) + corners)).sum(
        -1
    )
    first = (grids.nodes * np.arange(grids.grids, dtype=np.int32)).reshape(
        (1,) * (x.ndim - 1) + (-1, 1)
    )
    value = jnp.where(corners == 1, offset, 1.0 - offset).prod(-1)
    flat = (*x.shape[:-1], grids.active)
    return Sparse((node + first).reshape(flat), value.reshape(flat))


def dense(grids: Grids, features: Sparse) -> Array:
    """One input's features with the zeros between them, `[D]`."""
    nothing = jnp.zeros(grids.size, features.value.dtype)
    return nothing.at[features.index].set(features.value, unique_indices=True)


def update(grids: Grids, state: State, x: Array, y: Array, ridge: Scalar) -> State:
    """The model after one more pair, `x` `[S]` and `y` `[O]`."""
    features = encode(grids, state.projection, x)
    rows = state.gram[features.index] + jnp.outer(features.value, dense(grids, features))
    moment = state.moment.at[features.index].add(jnp.outer(features.value, y))
    state = state._replace(
        gram=state.gram.at[features.index].set(rows, unique_indices=True),
        moment=moment, count=state.count + 1,
    )  # fmt: skip
    return _minimised(state, features, rows, ridge)


def revisit(grids: Grids, state: State, x: Array, ridge: Scalar) -> State:
    """Nearer to the optimum at `x` `[S]`, of which nothing new is known."""
    features = encode(grids, state.projection, x)
    return _minimised(state, features, state.gram[features.index], ridge)


def predict(grids: Grids, state: State, x: Array) -> Array:
    """The outputs `[..., O]` at `x` `[..., S]`."""
    features = encode(grids, state.projection, x)
    return (features.value[..., None] * state.weights[features.index]).sum(-2)


def model(grids: Grids, num_outputs: int) -> Model:
    """Losse as a `Model`, with `hparams.ridge` and `hparams.gain`."""

    def start(key: Key, hparams: Any) -> State:
        return init(key, grids, num_outputs, hparams.gain)

    def updated(key: Key, state: State, x: Array, y: Array, hparams: Any) -> State:
        return update(grids, state, x, y, hparams.ridge)

    return Model(start, updated, functools.partial(predict, grids))


def _minimised(state: State, features: Sparse, rows: Array, ridge: Scalar) -> State:
    """The state at the minimum over the active weights; `rows` `[K, D]` are those of `gram`.

    Solved for the change from the gradient, so that rounding is a share of the change only.
    """
    n = jnp.maximum(state.count, 1).astype(rows.dtype)
    index, old = features.index, state.weights[features.index]
    gradient = (state.moment[index] - rows @ state.weights) / n - ridge * old
    block = rows[:, index] / n + ridge * jnp.eye(len(index), dtype=rows.dtype)
    change = jax.scipy.linalg.solve(block, gradient, assume_a="pos")
    return state._replace(weights=state.weights.at[index].add(change, unique_indices=True))
