"""Several passes of gradient steps over one rollout, in shuffled minibatches."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from fastrl import metrics as fm
from fastrl import optim
from fastrl.kernels.permutation import permutation
from fastrl.metrics import Metrics
from fastrl.types import Array, Key, PyTree

Carry = tuple[PyTree, optax.OptState]  # parameters and the optimiser's state
Update = Callable[[Carry, Array], tuple[Carry, Metrics]]  # by the samples of one minibatch


def check(num_envs: int, num_steps: int, num_minibatches: int) -> None:
    """Raises ValueError unless a rollout can be split into so many minibatches of samples."""
    if num_envs * num_steps % num_minibatches:
        raise ValueError(
            f"num_envs*num_steps={num_envs * num_steps} is not divisible by "
            f"num_minibatches={num_minibatches}"
        )


def check_whole(num_envs: int, num_minibatches: int) -> None:
    """The same of minibatches that hold some environments over the whole time."""
    if num_envs % num_minibatches:
        raise ValueError(
            f"num_envs={num_envs} is not divisible by num_minibatches={num_minibatches}: "
            "a minibatch is some environments over the whole time"
        )


def shuffled(
    key: Key, num_steps: int, num_envs: int, num_epochs: int, num_minibatches: int, block: int = 1
) -> Array:
    """The samples of every minibatch, `[epochs * minibatches, B]`, all of them in every epoch.

    Numbers `t * num_envs + n`; `block` environments side by side stay together.  Consumes `key`.
    """
    shuffle = functools.partial(permutation, a=num_steps, b=num_envs // block)
    order = jax.vmap(shuffle)(jax.random.split(key, num_epochs))
    if block > 1:
        order = order[..., None] * block + jnp.arange(block)[None, None]
    return order.reshape(num_epochs * num_minibatches, -1)


def update(
    optimizer: optim.Optimizer,
    loss: Callable[[PyTree, Any], tuple[Array, Metrics]],
    batch_of: Callable[[Array], Any],
) -> Update:
    """One step down `loss(params, batch_of(row))` for a row of `shuffled`."""

    def step(carry: Carry, row: Array) -> tuple[Carry, Metrics]:
        params, state = carry
        grads, metrics = jax.grad(loss, has_aux=True)(params, batch_of(row))
        return optim.step(optimizer, grads, state, params), metrics

    return step


def descend(update: Update, start: Carry, rows: Array) -> tuple[Carry, Metrics]:
    """`update` for each of `rows` `[K, B]`."""
    end, metrics = jax.lax.scan(update, start, rows)
    return end, fm.fold(metrics)


def descend_until(
    update: Update, start: Carry, rows: Array, name: str, most: Any
) -> tuple[Carry, Metrics]:
    """The same up to the first update after which the metric `name` is beyond `most`."""

    def guarded(carry: Any, row: Array) -> Any:
        inner, going = carry
        shapes = jax.eval_shape(update, inner, row)[1]
        inner, metrics = jax.lax.cond(
            going, update, lambda c, _: (c, fm.zeros_like(shapes)), inner, row
        )
        measure = metrics[name]
        return (inner, going & (measure.total <= most * measure.weight)), metrics

    (end, _), metrics = jax.lax.scan(guarded, (start, jnp.bool_(True)), rows)
    return end, fm.fold(metrics)
