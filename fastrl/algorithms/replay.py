"""What off-policy learners keep of a step, and what they make of it: n-step targets, priorities."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp

from fastrl import optim, spaces, storage
from fastrl.buffers import Draw
from fastrl.buffers import ring as rings
from fastrl.types import Action, Array, Env, Observation, PyTree, Scalar, Transition


class Item(NamedTuple):
    """What the buffer keeps of a step."""

    observation: PyTree  # as kept, see `fastrl.storage`
    action: Action
    reward: Array
    terminated: Array
    truncated: Array
    next_observation: PyTree


class Batch(NamedTuple):
    """What an update learns from. Leaves are `[B, ...]`.

    A target is `reward + discount * value(next_observation)`: `reward` is the discounted sum of
    `k <= n_step` rewards up to an end of the episode, `next_observation` the successor after them,
    and `discount` is `gamma^k`, or 0 where the task itself ended.
    """

    observation: Observation
    action: Action
    reward: Array
    discount: Array
    next_observation: Observation
    weight: Array  # of the sample's loss: importance weights of prioritised replay, else 1


def empty_item(env: Env, kept: storage.Storage) -> Item:
    """An item of the shapes and types that `env` makes."""
    params, flag = env.default_params(), jnp.bool_(False)
    observation = kept.pack(spaces.zeros(env.observation_space(params)))
    action = spaces.zeros(env.action_space(params))
    return Item(observation, action, jnp.float32(0.0), flag, flag, observation)


def item(kept: storage.Storage, t: Transition) -> Item:
    """What is kept of `t`."""
    return Item(
        kept.pack(t.observation), t.action, t.reward, t.terminated, t.truncated,
        kept.pack(t.next_observation),
    )  # fmt: skip


def n_step(items: Item, draw: Draw, gamma: Scalar, n: int) -> tuple[Array, Array, Array]:
    """Of the windows at `draw`: the sum of rewards, the discount of what follows, the last row.

        R = r_0 + gamma r_1 + ... + gamma^{k-1} r_{k-1},   gamma^k (1 - terminated_{k-1})

    where k <= n steps lead to an end of the episode.  All `[B]`; the last row may lie beyond the
    end of the ring, as `fastrl.buffers.ring.take` allows.
    """
    flags = items.reward, items.terminated, items.truncated
    return summed(lambda k: rings.take(flags, draw.row + k, draw.env), draw.row, gamma, n)


def summed(
    at: Callable[[int], tuple[Array, Array, Array]], now: Array, gamma: Scalar, n: int
) -> tuple[Array, Array, Array]:
    """The sums of `n_step`; `at(k)` gives reward and flags of `k` steps after `now`."""
    reward, terminated, truncated = at(0)
    total, discount, last = reward, jnp.full_like(reward, gamma), now
    going = ~(terminated | truncated)
    for k in range(1, n):
        reward, term, trunc = at(k)
        total = total + jnp.where(going, discount * reward, 0.0)
        discount = jnp.where(going, discount * gamma, discount)
        last = jnp.where(going, now + k, last)
        terminated = terminated | (going & term)
        going = going & ~(term | trunc)
    return total, jnp.where(terminated, 0.0, discount), last


def proportional(error: Array, hparams: Any) -> Array:
    """Priorities by `|error|^alpha` (Schaul et al. 2016, section 3.3)."""
    return jnp.power(error + 1e-6, hparams.alpha)


def annealed(hparams: Any, steps: Array) -> Array:
    """The exponent of importance weights: from `beta` to 1 in `beta_steps`."""
    return optim.linear(hparams.beta, 1.0, steps.astype(jnp.float32) / hparams.beta_steps)
