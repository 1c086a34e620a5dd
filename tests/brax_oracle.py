"""Brax's own environments, stepped without fastrl: what the adapter is compared with."""

import warnings
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.flatten_util import ravel_pytree


class Start(NamedTuple):
    """Fresh episodes of brax: leaves are `[B, ...]`."""

    keys: Any
    observation: Any
    physics: Any


class Outcome(NamedTuple):
    """What brax's step returned: leaves are `[T * B, ...]`."""

    observation: Any
    reward: Any
    done: Any
    physics: Any


def brax_trajectory(
    name: str, backend: str, steps: int, batch: int
) -> tuple[Start, np.ndarray, np.ndarray, Outcome]:
    """`steps` random steps of `batch` episodes, each going on after its end.

    Returns the starts, the physics before each step `[T, B, P]`, the actions `[T, B, A]` and
    what came of them.
    """
    with warnings.catch_warnings(), jax.numpy_rank_promotion("allow"):
        warnings.simplefilter("ignore")
        from brax import envs

        env = envs.get_environment(name, backend=backend)
        keys = jax.random.split(jax.random.key(7), batch)
        shape = (steps, batch, env.action_size)
        actions = jax.random.uniform(jax.random.key(8), shape, minval=-1.0)
        pack = jax.vmap(lambda s: ravel_pytree(s.pipeline_state)[0])

        def body(state: Any, action: Any) -> tuple[Any, Any]:
            after = jax.vmap(env.step)(state, action)
            return after, (pack(state), after.obs, after.reward, after.done, pack(after))

        start = jax.jit(jax.vmap(env.reset))(keys)
        states, *outcome = jax.jit(lambda s, a: jax.lax.scan(body, s, a)[1])(start, actions)
    flat = [np.asarray(x).reshape(steps * batch, *x.shape[2:]) for x in outcome]
    observation, reward, done, physics = flat
    first = Start(keys, np.asarray(start.obs), np.asarray(pack(start)))
    return (
        first,
        np.asarray(states),
        np.asarray(actions),
        Outcome(observation, reward, done > 0.5, physics),
    )
