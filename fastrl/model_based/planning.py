"""What Dyna-Q plans with: states as vectors, a model of them, and updates on what it imagines."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fastrl import networks, optim, spaces
from fastrl.buffers import Buffer
from fastrl.buffers import ring as rings
from fastrl.model_based.model import Model
from fastrl.q_network import QNetwork
from fastrl.spaces import Box, Space
from fastrl.types import Array, Key, Observation, PyTree

UNBOUNDED = 3.0  # half the range of numbers without bounds


class Values(NamedTuple):
    """What is learned of the actions."""

    params: PyTree
    target: PyTree
    optimizer: optax.OptState


class Planner(NamedTuple):
    """Network, model, and how observations are seen."""

    encode: Callable[[Observation], Array]  # observation [..., *] -> [..., D]
    width: int  # D
    middle: tuple[float, ...]  # [D] and half the range of each number, see `ranges`
    reach: tuple[float, ...]
    network: QNetwork
    world: Model
    starts: Buffer
    num_planning: int  # updates
    batch_size: int  # transitions of each, all but one imagined

    def q(self, params: PyTree, x: Array) -> Array:
        """The values `[..., A]` of states as vectors `[..., D]`."""
        return self.network.apply(params, x)[..., 0]

    def pair(self, x: Array, action: Array) -> Array:
        """What the model sees: `[..., D + A]`, numbers within their range from -1 to 1."""
        middle, reach = (
            jnp.array(b).reshape((1,) * (x.ndim - 1) + (-1,)) for b in (self.middle, self.reach)
        )
        one_hot = jax.nn.one_hot(action, self.network.num_actions)
        return jnp.concatenate([(x - middle) / reach, one_hot], -1)


class Imagined(NamedTuple):
    """Transitions between states as vectors; leaves are `[B, ...]`."""

    x: Array
    action: Array
    after: Array
    reward: Array
    end: Array  # how sure it is that it terminates, 0 to 1


def imagine(planner: Planner, key: Key, model: PyTree, starts: PyTree, size: int) -> Imagined:
    """`size` transitions by the model, from states seen and actions by chance. Consumes `key`."""
    start_key, action_key = jax.random.split(key)
    draw = planner.starts.sample(starts, start_key, size)
    x = rings.take(planner.starts.ring(starts).items, draw.row, draw.env)
    action = jax.random.randint(action_key, (size,), 0, planner.network.num_actions)
    told = planner.world.predict(model, planner.pair(x, action))
    end = jnp.clip(told[:, -1], 0.0, 1.0)
    return Imagined(x, action, x + told[:, : planner.width], told[:, -2], end)


def plan(
    planner: Planner, key: Key, values: Values, model: PyTree, starts: PyTree, real: Imagined,
    hparams: Any,
) -> tuple[Values, Array]:  # fmt: skip
    """`num_planning` updates of the values, and their mean loss. Consumes `key`."""

    def update(values: Values, key: Key) -> tuple[Values, Array]:
        imagined = imagine(planner, key, model, starts, planner.batch_size - 1)
        batch = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), real, imagined)
        best = planner.q(values.target, batch.after).max(-1)
        wanted = batch.reward + hparams.gamma * (1.0 - batch.end) * best

        def loss(params: PyTree) -> Array:
            q = jnp.take_along_axis(planner.q(params, batch.x), batch.action[:, None], -1)[:, 0]
            return jnp.square(q - wanted).mean()

        value, grads = jax.value_and_grad(loss)(values.params)
        adam = optim.adam(hparams.learning_rate, hparams.max_grad_norm)
        step, optimizer = adam.update(grads, values.optimizer, values.params)
        params = optax.apply_updates(values.params, step)
        target = optax.incremental_update(params, values.target, hparams.tau)  # type: ignore[arg-type]
        return Values(params, target, optimizer), value

    keys = jax.random.split(key, planner.num_planning)
    values, losses = jax.lax.scan(update, values, keys)
    return values, losses.mean()


def ranges(space: Space) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The middle and half the range of each number of an encoded observation.

    A number without bounds is taken to be within -3 and 3, and may be beyond.
    """
    middle, reach = [], []
    for leaf in jax.tree.leaves(space, is_leaf=spaces.is_leaf):
        low, high = np.zeros(1), np.ones(1)
        size = jax.eval_shape(networks.encoder(leaf), spaces.struct_of(leaf)).shape[-1]
        if isinstance(leaf, Box):
            scale = 255.0 if leaf.dtype == np.uint8 else 1.0
            low, high = (np.asarray(b, np.float64) / scale for b in leaf.bounds())
        ends = np.stack([np.broadcast_to(np.ravel(b), size) for b in (low, high)])
        finite = np.isfinite(ends).all(0) & (ends[0] < ends[1])
        low, high = np.where(finite, ends, [[-UNBOUNDED], [UNBOUNDED]])
        middle += ((low + high) / 2).tolist()
        reach += ((high - low) / 2).tolist()
    return tuple(middle), tuple(reach)
