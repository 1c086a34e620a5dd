"""Every episode is another task: `levels`, a Reset for procedural levels and randomisation.

A level is the params of an environment.  Learners never see which one they are given.
"""

from collections.abc import Callable
from typing import Any

import jax

from fastrl import door
from fastrl.types import Array, Env, Key, Pool, PyTree, Reset

Sampler = Callable[[Key], Any]  # key -> params of one episode


def levels(env: Env, sampler: Sampler | None = None) -> Reset:
    """Every episode draws its params with `sampler(key)` and starts from `env.reset` with them.

    By default with `env.sample_level`, where the environment has that.  For `make` of an
    algorithm: `reset=levels`, or `functools.partial(levels, sampler=...)`.  The task's own
    params are not used.

    Raises ValueError without a sampler, and where it does not give params of `env`.
    """
    draw_level = getattr(env, "sample_level", None) if sampler is None else sampler
    if draw_level is None:
        raise ValueError(
            f"levels: {type(env).__name__} has no sample_level(key): pass a function of a key "
            "that returns its params, functools.partial(levels, sampler=...)"
        )
    door.function("sampler", draw_level, "env.sample_level")
    _check(env, draw_level)

    def init(key: Key, params: Any, num_envs: int) -> PyTree:
        return ()

    def draw(key: Key, memory: PyTree, params: Any, done: Array) -> Pool:
        level_key, reset_key = jax.random.split(key)
        drawn = jax.vmap(draw_level)(jax.random.split(level_key, done.shape[0]))
        keys = jax.random.split(reset_key, done.shape[0])
        state, observation = jax.vmap(env.reset)(keys, drawn)
        return Pool((), drawn, state, observation)

    return Reset(init, draw, per_env_params=True)


def _check(env: Env, sampler: Sampler) -> None:
    """Raises ValueError unless `sampler` gives what `env.default_params` does, in shape."""
    wanted = jax.eval_shape(lambda: jax.tree.map(jax.numpy.asarray, env.default_params()))
    given = jax.eval_shape(sampler, jax.random.key(0))
    if jax.tree.structure(given) != jax.tree.structure(wanted):
        raise ValueError(
            f"levels: the sampler returns {jax.tree.structure(given)}, but params of "
            f"{type(env).__name__} are {jax.tree.structure(wanted)}"
        )
    pairs = zip(jax.tree_util.tree_leaves_with_path(given), jax.tree.leaves(wanted), strict=True)
    for (path, ours), theirs in pairs:
        if ours.shape != theirs.shape:
            name = jax.tree_util.keystr(path, simple=True, separator=".")
            raise ValueError(
                f"levels: the sampler's {name} has shape {list(ours.shape)}, but params of "
                f"{type(env).__name__} have {list(theirs.shape)}"
            )
