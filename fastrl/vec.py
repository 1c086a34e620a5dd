"""Batches of environments and what happens at the end of an episode.

The environments of a batch step together.  At the end of an episode an environment takes a
fresh start from its `Reset` in the same step, so no step is ever wasted or masked; the
`Transition` still holds the true successor observation.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fastrl import door
from fastrl import metrics as fm
from fastrl.anywhere import anywhere
from fastrl.metrics import Metrics
from fastrl.sharding import shard_envs, warn_if_replicated
from fastrl.types import Action, Array, Env, Key, Observation, PyTree, Reset, Step, Transition


class VecState(NamedTuple):
    """A batch of running episodes. Leaves are `[N, ...]` but for `memory`."""

    memory: PyTree  # the Reset's own state
    params: PyTree  # per-environment params, () where all share the task's
    env: PyTree
    observation: Observation
    episode_return: Array  # float32 [N], so far
    episode_length: Array  # int32 [N], so far


class VecEnv(NamedTuple):
    """`num_envs` copies of `env` under one `reset`."""

    env: Env
    num_envs: int
    reset: Reset

    def init(self, key: Key, params: Any) -> VecState:
        """`num_envs` fresh episodes. Consumes `key`."""
        n = door.integer("num_envs", self.num_envs, 1)
        warn_if_replicated(n)
        memory_key, draw_key = jax.random.split(key)
        memory = self.reset.init(memory_key, params, n)
        first = self.reset.draw(draw_key, memory, params, jnp.ones(n, bool))
        return shard_envs(
            VecState(
                *first,
                episode_return=jnp.zeros(n, jnp.float32),
                episode_length=jnp.zeros(n, jnp.int32),
            ),
            n,
        )

    def step(
        self, key: Key, state: VecState, action: Action, params: Any
    ) -> tuple[VecState, Transition, Metrics]:
        """Steps every environment once; those whose episode ended start a new one.

        `action` is `[N, ...]`; consumes `key`.  The metrics count the episodes that ended:
        `episode_return`, `episode_length`, and whatever the environment reports per step.
        """
        state, transition, metrics = self._step(key, state, action, params)
        return state, transition, fm.summed(metrics)

    def _step(
        self, key: Key, state: VecState, action: Action, params: Any
    ) -> tuple[VecState, Transition, Metrics]:
        """`step` with metrics per environment."""
        step_key, draw_key = jax.random.split(key)
        per_env = self.reset.per_env_params
        step_keys = jax.random.split(step_key, self.num_envs)
        env_state, step = jax.vmap(self.env.step, (0, 0, 0, 0 if per_env else None))(
            step_keys, state.env, action, state.params if per_env else params
        )
        _check(self.env, step, self.num_envs)
        done = step.terminated | step.truncated
        returns = state.episode_return + step.reward
        lengths = state.episode_length + 1
        metrics = {
            "episode_return": fm.each(returns, done),
            "episode_length": fm.each(lengths, done),
            **{name: fm.each(values) for name, values in step.metrics.items()},
        }
        going = VecState(state.memory, state.params, env_state, step.observation, returns, lengths)
        following = self._restarted(draw_key, params, done, going)
        transition = Transition(
            state.observation, action, step.reward, step.terminated, step.truncated,
            step.observation,
        )  # fmt: skip
        return shard_envs(following, self.num_envs), transition, metrics

    def _restarted(self, key: Key, params: Any, done: Array, going: VecState) -> VecState:
        """`going`, with a fresh start for every environment that is done.

        On CPU nothing is drawn or copied where none is.  The branch also keeps XLA from fusing
        the draws into every one of their readers, where it would repeat them without vector
        instructions: CartPole rollouts take a fifth of the time.  Resets with memory are called
        at every step, for they may count.
        """

        def restarted() -> VecState:
            fresh = self.reset.draw(key, going.memory, params, done)
            returns, lengths = going.episode_return, going.episode_length
            start = VecState(*fresh, jnp.zeros_like(returns), jnp.zeros_like(lengths))
            return select_envs(done, start, going)._replace(memory=fresh.memory)

        if jax.tree.leaves(going.memory):
            return restarted()
        return jax.lax.platform_dependent(
            cpu=lambda: jax.lax.cond(anywhere(done), restarted, lambda: going), default=restarted
        )


def _check(env: Env, step: Step, num_envs: int) -> None:
    """Raises TypeError if rewards or flags are no scalars; happens while tracing."""
    for name in ("reward", "terminated", "truncated"):
        shape = jnp.shape(getattr(step, name))
        if shape != (num_envs,):
            raise TypeError(
                f"{type(env).__name__}.step returned a {name} of shape {shape[1:]}, not (): "
                "`fastrl check-env` checks an environment"
            )


def select_envs(where: Array, on_true: VecState, on_false: VecState) -> VecState:
    """Per environment one of two states; `where` is `[N]`. `memory` has no such axis: kept out."""

    def pick(a: Array, b: Array) -> Array:
        return jnp.where(where.reshape(where.shape + (1,) * (a.ndim - 1)), a, b)

    nothing = on_true._replace(memory=()), on_false._replace(memory=())
    return jax.tree.map(pick, *nothing)


BatchPolicy = Callable[[Key, Observation], tuple[Action, PyTree]]
Keep = Callable[[Transition, PyTree], PyTree]


def _both(transition: Transition, extras: PyTree) -> PyTree:
    return transition, extras


def rollout(
    vec_env: VecEnv,
    policy: BatchPolicy,
    key: Key,
    state: VecState,
    params: Any,
    num_steps: int,
    keep: Keep = _both,
) -> tuple[VecState, PyTree, Metrics]:
    """`num_steps` steps of every environment under `policy(key, observation [N, ...])`.

    `policy` returns the actions and anything else worth keeping (log-probabilities, values);
    `keep(transition, extras)` chooses what is stored of a step, by default both, stacked to
    `[T, N, ...]`.  Storing less is the cheapest speed-up there is.  Consumes `key`.
    """

    def body(state: VecState, key: Key) -> tuple[VecState, tuple[PyTree, Metrics]]:
        policy_key, step_key = jax.random.split(key)
        action, extras = policy(policy_key, state.observation)
        state, transition, metrics = vec_env._step(step_key, state, action, params)
        return state, (keep(transition, extras), metrics)

    state, (kept, metrics) = jax.lax.scan(body, state, jax.random.split(key, num_steps))
    return state, kept, fm.summed(metrics)
