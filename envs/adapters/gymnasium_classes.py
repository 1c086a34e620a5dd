"""fastrl's environments as classes of Gymnasium's; imported when one is first made."""

import functools
from collections.abc import Callable
from typing import Any

import gymnasium
import jax
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from fastrl import reset as resets
from fastrl.envs.adapters.gymnasium_spaces import theirs, to_ours, to_theirs
from fastrl.hparams import as_arrays
from fastrl.kernels import prng
from fastrl.types import Env, Key
from fastrl.vec import VecEnv

FRAMES_PER_SECOND = 30


class Single(gymnasium.Env):
    """One episode at a time. Chance comes from `np_random`, so `reset(seed=)` decides it all."""

    def __init__(self, env: Env, params: Any, render_mode: str | None) -> None:
        self.env, self.params, spaces = _settings(env, params)
        self._observation_space, self._action_space = spaces
        self.observation_space, self.action_space = map(theirs, spaces)
        self.metadata, self.render_mode = _rendering(env, render_mode), render_mode
        self._state: Any = None
        self._over = True

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        begin, self._step = _single(self.env)
        self._state, observation = begin(_key(self.np_random), self.params)
        self._key, self._over = _key(self.np_random), False
        return to_theirs(self._observation_space, _host(observation)), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if self._over:
            raise gymnasium.error.ResetNeeded("the episode is over or has not begun: call reset()")
        given = _action(self._action_space, action, ())
        self._key, self._state, step = self._step(self._key, self._state, given, self.params)
        step = _host(step)
        terminated, truncated = bool(step.terminated), bool(step.truncated)
        self._over = terminated or truncated
        observation = to_theirs(self._observation_space, step.observation)
        info = {name: float(value) for name, value in step.metrics.items()}
        return observation, float(step.reward), terminated, truncated, info

    def render(self) -> Any:
        """The present state as an array, None without a render mode."""
        if self.render_mode is None:
            return None
        if self._state is None:
            raise gymnasium.error.ResetNeeded("there is nothing to draw yet: call reset()")
        return self.env.render(self._state, self.params)  # type: ignore[attr-defined]

    def __str__(self) -> str:
        return f"<to_gymnasium({self.env})>"


class Vector(VectorEnv):
    """Many episodes in one program; those that end start anew in the same step."""

    def __init__(self, env: Env, num_envs: int, params: Any, render_mode: str | None) -> None:
        self.env, self.params, spaces = _settings(env, params)
        self.num_envs = num_envs
        self._observation_space, self._action_space = spaces
        self.single_observation_space, self.single_action_space = map(theirs, spaces)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.metadata = _rendering(env, render_mode) | {"autoreset_mode": AutoresetMode.SAME_STEP}
        self.render_mode = render_mode
        self._state: Any = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        if seed is not None and not isinstance(seed, int | np.integer):
            raise ValueError(f"seed={seed!r}: needs one integer, from which all episodes are drawn")
        super().reset(seed=seed)
        begin, self._step = _vector(self.env, self.num_envs)
        self._state = begin(_key(self.np_random), self.params)
        self._key = _key(self.np_random)
        return to_theirs(self._observation_space, _host(self._state.observation)), {}

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        if self._state is None:
            raise gymnasium.error.ResetNeeded("no episode has begun: call reset()")
        given = _action(self._action_space, actions, (self.num_envs,))
        self._key, self._state, t = self._step(self._key, self._state, given, self.params)
        t, observation = _host((t, self._state.observation))
        space, done = self._observation_space, t.terminated | t.truncated
        info: dict[str, Any] = {}
        if done.any():
            final = np.full(self.num_envs, None, object)
            for i in np.flatnonzero(done):
                one = jax.tree.map(lambda x, i=i: x[i], t.next_observation)
                final[i] = to_theirs(space, one)
            info = {"final_obs": final, "_final_obs": done, "final_info": {}, "_final_info": done}
        observation = to_theirs(space, observation)
        return observation, t.reward.astype(np.float64), t.terminated, t.truncated, info

    def render(self) -> tuple[Any, ...] | None:
        """A picture of every environment, None without a render mode."""
        if self.render_mode is None:
            return None
        if self._state is None:
            raise gymnasium.error.ResetNeeded("there is nothing to draw yet: call reset()")
        states = _host(self._state.env)
        return tuple(
            self.env.render(jax.tree.map(lambda x, i=i: x[i], states), self.params)  # type: ignore[attr-defined]
            for i in range(self.num_envs)
        )


def _settings(env: Env, params: Any) -> tuple[Env, Any, tuple[Any, Any]]:
    params = as_arrays(env.default_params() if params is None else params)
    return env, params, (env.observation_space(params), env.action_space(params))


def _rendering(env: Env, render_mode: str | None) -> dict[str, Any]:
    """The metadata. Raises ValueError for a render mode that there is not."""
    modes = ["rgb_array"] if hasattr(env, "render") else []
    if render_mode not in (None, *modes):
        known = " or ".join(map(repr, (None, *modes)))
        raise ValueError(f"render_mode={render_mode!r}: {type(env).__name__} takes {known}")
    return {"render_modes": modes, "render_fps": FRAMES_PER_SECOND}


@functools.lru_cache(maxsize=64)
def _single(env: Env) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The jitted reset and step of one environment; a step also hands out the next key."""

    def step(key: Key, state: Any, action: Any, params: Any) -> Any:
        key, step_key = jax.random.split(key)
        return key, *env.step(step_key, state, action, params)

    return jax.jit(lambda key, params: env.reset(key, params)), jax.jit(step)


@functools.lru_cache(maxsize=64)
def _vector(env: Env, num_envs: int) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The same of a batch."""
    vec_env = VecEnv(env, num_envs, resets.fresh(env))

    def step(key: Key, state: Any, action: Any, params: Any) -> Any:
        key, step_key = jax.random.split(key)
        state, transition, _ = vec_env.step(step_key, state, action, params)
        return key, state, transition

    return jax.jit(vec_env.init), jax.jit(step)


def _action(space: Any, action: Any, batch: tuple[int, ...]) -> Any:
    """The action as ours. Raises `gymnasium.error.InvalidAction`."""
    try:
        return to_ours(space, action, batch)
    except ValueError as error:
        raise gymnasium.error.InvalidAction(f"action {action!r} is invalid: {error}") from error


def _key(chance: np.random.Generator) -> Key:
    return prng.key(int(chance.integers(2**32)))


def _host(tree: Any) -> Any:
    """The leaves as NumPy arrays of the caller's own."""
    return jax.tree.map(np.array, jax.device_get(tree))
