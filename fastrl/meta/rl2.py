"""RL^2: what an agent with memory learns within a life, episode by episode.

RL^2 (Duan et al. 2016, arXiv:1611.02779; Wang et al. 2016, arXiv:1611.05763) is no algorithm of its
own: a policy with memory, trained by any policy gradient on lives of several episodes of one task,
that sees its last action, its last reward and where episodes end.  Here that is `ppo_memory` on
`fastrl.transforms.MetaEpisode` with the reset `levels`; advantages reach from one episode into the
next, so what is learned early in a life counts for what it gains later.

This module measures it: the returns of the first, the second ... episode of lives.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fastrl import door
from fastrl.episodes import Episode, Player
from fastrl.hparams import as_arrays
from fastrl.kernels import prng
from fastrl.transforms import MetaEpisode
from fastrl.types import Algorithm, Array, Key

Sampler = Callable[[Key], Any]  # key -> params of one life


def returns_by_episode(
    algorithm: Algorithm, state: Any, *, lives: int = 256, episodes: int = 0,
    sampler: Sampler | None = None, seed: int = 0, deterministic: bool = True,
    max_steps: int = 100_000,
) -> np.ndarray:  # fmt: skip
    """Returns `[lives, episodes]` of the policy in `state`, NaN where a life ended before.

    Every life has a task of its own: `sampler(key)`, by default `env.sample_level`, else the
    default params.  `episodes` are as many as the environment's lives have, unless given.

    Raises ValueError for bad arguments and without a `MetaEpisode` in the environment, and
    RuntimeError if a life is still running after `max_steps` steps.
    """
    door.algorithm(algorithm)
    lives = door.integer("lives", lives, 1)
    episodes = door.integer("episodes", episodes, 0) or meta_episode(algorithm.env).episodes
    max_steps = door.integer("max_steps", max_steps, 1)
    draw = sampler or getattr(algorithm.env, "sample_level", None)
    player = Player(algorithm.act, algorithm.initial_carry, algorithm.env, bool(deterministic))
    program = _program(player, draw, lives, episodes)
    key = prng.key(door.integer("seed", seed, 0, 2**32 - 1))
    totals, completed, going = jax.device_get(program(key, state, max_steps))
    if going:
        raise RuntimeError(
            f"a life of {type(algorithm.env).__name__} was still running after "
            f"max_steps={max_steps} steps: raise max_steps, or give lives fewer episodes"
        )
    return np.where(completed, totals, np.nan)


def meta_episode(env: Any) -> MetaEpisode:
    """The `MetaEpisode` among the transforms of `env`. Raises ValueError if there is none."""
    inner = env
    while not isinstance(inner, MetaEpisode):
        if not hasattr(inner, "env"):
            raise ValueError(
                f"{type(env).__name__} has no lives of several episodes: wrap it in "
                "fastrl.transforms.MetaEpisode(env, episodes)"
            )
        inner = inner.env
    return inner


def _number(env: Any, state: Any) -> Array:
    """How many episodes of the life have ended, int32 `[...]`."""
    while not isinstance(env, MetaEpisode):
        env, state = env.env, env.inner_state(state)
    return state.episode


@functools.lru_cache(maxsize=32)
def _program(player: Player, draw: Sampler | None, lives: int, episodes: int) -> Any:
    """The jitted function `(key, state, max_steps) -> totals, completed, whether one goes on`."""
    env = player.env

    def tasks(key: Key) -> Any:
        if draw is None:
            same = as_arrays(env.default_params())
            return jax.tree.map(lambda x: jnp.broadcast_to(x, (lives, *jnp.shape(x))), same)
        return jax.vmap(draw)(jax.random.split(key, lives))

    def program(key: Key, state: Any, max_steps: Any) -> tuple[Array, Array, Array]:
        task_key, life_key = jax.random.split(key)
        params, rows = tasks(task_key), jnp.arange(lives)
        advance = jax.vmap(functools.partial(player.advance, state))

        def going(loop: tuple[Episode, Array, Array, Array, Array]) -> Array:
            return loop[1].any() & (loop[4] < max_steps)

        def body(loop: Any) -> Any:
            life, alive, totals, completed, time = loop
            column = jnp.where(alive, _number(env, life.env), episodes)  # beyond: dropped
            life, step = advance(params, life)
            over = step.terminated | step.truncated
            after = _number(env, life.env)
            totals = totals.at[rows, column].add(step.reward, mode="drop")
            ended = jnp.where(after > column, column, episodes)
            completed = completed.at[rows, ended].set(True, mode="drop")
            return life, alive & ~over, totals, completed, time + 1

        start = jax.vmap(functools.partial(player.begin, life_key))(rows, params)
        totals = jnp.zeros((lives, episodes)), jnp.zeros((lives, episodes), bool)
        loop = start, jnp.ones(lives, bool), *totals, jnp.int32(0)
        _, alive, totals, completed, _ = jax.lax.while_loop(going, body, loop)
        return totals, completed, alive.any()

    return jax.jit(program)
