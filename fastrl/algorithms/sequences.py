"""Learning from sequences: windows of a ring, their memory brought up to date, targets.

`W` are the steps of a window, `burn_in + length + n_step - 1`; `L` those that are learned from.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fastrl import q_targets
from fastrl.algorithms import replay
from fastrl.buffers import Draw
from fastrl.buffers import ring as rings
from fastrl.q_network import allowed
from fastrl.recurrent_q import RecurrentQ
from fastrl.types import Array, Observation, PyTree, Scalar


class Remembered(NamedTuple):
    """What the policy remembers, and which episodes have just begun. Leaves are `[N, ...]`."""

    carry: PyTree
    start: Array  # bool


class Item(NamedTuple):
    """What the ring keeps of a step."""

    step: replay.Item
    remembered: Remembered  # before it


class Shape(NamedTuple):
    """Steps of a sequence: only for the memory, learned from, and of a target."""

    burn_in: int
    length: int
    n_step: int

    @property
    def window(self) -> int:
        """Steps of which an update on a sequence needs to know."""
        return self.burn_in + self.length + self.n_step - 1


class Numbers(NamedTuple):
    """Traced numbers of the loss."""

    gamma: Scalar
    rescaling: Scalar  # 1: values are rescaled by `h`, 0: they are as they are


class Batch(NamedTuple):
    """Sequences `[W, B, ...]` and the weights `[B]` of their losses."""

    item: Item
    view: Observation  # what the network sees before
    after: Observation  # and after each step
    weight: Array


def windows(items: Item, draw: Draw, length: int) -> Item:
    """The steps of the windows at `draw`, `[W, B, ...]`, and what was remembered before them."""
    rows = draw.row[None] + jnp.arange(length)[:, None]
    step, start = rings.take((items.step, items.remembered.start), rows, draw.env[None])
    carry = rings.take(items.remembered.carry, draw.row, draw.env)
    return Item(step, Remembered(carry, start))


def loss(
    shape: Shape, network: RecurrentQ, numbers: Numbers, target: Any, batch: Batch, params: Any
) -> tuple[Array, tuple[Array, Array]]:
    """The loss of sequences, and of every step that counts |error| and value `[L, B]`."""
    item, after, share = batch.item, batch.after, numbers.rescaling
    carry, values = unrolled(network, params, item.remembered, batch.view, shape.burn_in)
    going = jnp.zeros_like(item.remembered.start)
    _, choice = network.step(*jax.lax.stop_gradient((params, carry)), after, going)
    carry, _ = unrolled(network, target, item.remembered, batch.view, shape.burn_in)
    _, frozen = network.step(target, carry, after, going)
    following = q_targets.following(frozen[..., None], allowed(after, choice))[..., 0]
    total, discount, last = n_step(item.step, numbers.gamma, shape)
    following = jnp.take_along_axis(following, last, 0)
    goal = rescaled(total + discount * restored(following, share), share)
    taken = slice(shape.burn_in, shape.burn_in + shape.length)
    chosen = q_targets.chosen(values[taken][..., None], item.step.action[taken])[..., 0]
    error = chosen - jax.lax.stop_gradient(goal)
    return (batch.weight[None] * error**2).mean(), (jnp.abs(error), chosen)


def unrolled(
    network: RecurrentQ, params: Any, remembered: Remembered, view: Observation, burn_in: int
) -> tuple[PyTree, Array]:
    """Carries after, and values at, each step `[W, B, ...]`; no gradient through the burn-in."""
    first, start = burn_in, remembered.start
    if not first:
        return network.unroll(params, remembered.carry, view, start)
    early, late = (jax.tree.map(lambda x, s=s: x[s], (view, start))
                   for s in (slice(first), slice(first, None)))  # fmt: skip
    burnt = jax.lax.stop_gradient(network.unroll(params, remembered.carry, *early))
    rest = network.unroll(params, jax.tree.map(lambda x: x[-1], burnt[0]), *late)
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b]), burnt, rest)


def n_step(step: replay.Item, gamma: Scalar, shape: Shape) -> tuple[Array, Array, Array]:
    """As `replay.n_step`, of the steps after the burn-in of `step` `[W, B]`.

    The last steps are counted in the window, `[L, B]`.
    """

    def at(k: int) -> tuple[Array, Array, Array]:
        taken = slice(shape.burn_in + k, shape.burn_in + k + shape.length)
        return step.reward[taken], step.terminated[taken], step.truncated[taken]

    now = jnp.arange(shape.burn_in, shape.burn_in + shape.length)[:, None]
    now = jnp.broadcast_to(now, (shape.length, step.reward.shape[1]))
    return replay.summed(at, now, gamma, shape.n_step)


def rescaled(x: Array, share: Scalar) -> Array:
    """`h(x)`; with `share` 0 `x` itself."""
    h = jnp.sign(x) * (jnp.sqrt(jnp.abs(x) + 1.0) - 1.0) + 1e-3 * x
    return x + share * (h - x)


def restored(y: Array, share: Scalar) -> Array:
    """The `x` with `h(x) = y`."""
    size = jnp.abs(y)
    inner = 4e-3 * (size + 1.001)
    root = inner / (jnp.sqrt(1.0 + inner) + 1.0) / 2e-3
    x = jnp.sign(y) * (root**2 - 1.0)
    return y + share * (x - y)
