"""What learners of action values share: a network, its target network, and their schedule."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fastrl import optim
from fastrl.types import Array


class Learned(NamedTuple):
    """Networks and optimiser."""

    params: Any
    target: Any
    optimizer: optax.OptState
    updates: Array  # int32


def started(params: Any, hparams: Any) -> Learned:
    """Before the first update; the target network is a copy."""
    optimizer = optim.adam(hparams.learning_rate, hparams.max_grad_norm).init(params)
    return Learned(params, jax.tree.map(jnp.copy, params), optimizer, jnp.int32(0))


def descended(learned: Learned, grads: Any, hparams: Any, steps: Array) -> Learned:
    """After an update by `grads` and, every `target_period` of them, a copy into the target."""
    progress = steps.astype(jnp.float32) / hparams.anneal_steps
    rate = optim.linear(hparams.learning_rate, hparams.final_learning_rate, progress)
    updates, optimizer = optim.adam(rate, hparams.max_grad_norm).update(
        grads, learned.optimizer, learned.params
    )
    params = optax.apply_updates(learned.params, updates)
    count = learned.updates + 1
    copies = count % jnp.asarray(hparams.target_period, jnp.int32) == 0
    share = jnp.where(copies, hparams.tau, 0.0)
    target = optax.incremental_update(params, learned.target, share)  # type: ignore[arg-type]
    return Learned(params, target, optimizer, count)


def epsilon(hparams: Any, steps: Array) -> Array:
    """The chance of a random action: linear in environment steps, then constant."""
    progress = steps.astype(jnp.float32) / hparams.exploration_steps
    return optim.linear(hparams.epsilon, hparams.final_epsilon, progress)
