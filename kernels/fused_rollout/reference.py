"""The rollout as plain JAX: `vmap`, `jax.random`, matrix products, `lax.scan`."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fastrl.kernels.fused_rollout import heads
from fastrl.kernels.fused_rollout.block import Kept
from fastrl.kernels.fused_rollout.network import NetworkSpec, Weights, dense
from fastrl.spaces import Box


class Ended(NamedTuple):
    """Of the episodes that ended at a step; 0 elsewhere. `[T, N]`."""

    returns: jax.Array
    lengths: jax.Array
    episodes: jax.Array


class Step(NamedTuple):
    """One step of all environments: the body of the scan."""

    env: Any
    spec: NetworkSpec
    weights: Weights
    see: Callable[[Any], Any]
    task: Any
    kept: Kept

    def __call__(self, carry: Any, keys: Any) -> tuple[Any, Any]:
        """`carry`: state, observation, return, length; leaves `[N, ...]`. Consumes `keys`."""
        state, observation, returns, lengths = carry
        policy_key, step_key, reset_key = keys
        n, kept = returns.shape[0], self.kept
        outputs, value = self._network(observation)
        action, log_prob, env_action = self._act(policy_key, outputs)
        state, step = jax.vmap(self.env.step, (0, 0, 0, None))(
            jax.random.split(step_key, n), state, env_action, self.task
        )
        fresh = jax.vmap(self.env.reset, (0, None))(jax.random.split(reset_key, n), self.task)
        done = step.terminated | step.truncated
        returns, lengths = returns + step.reward, lengths + 1
        final: Any = ()
        if kept.final_value:
            final = jnp.where(step.truncated, self._value(step.observation), 0.0)
        samples = (
            observation, action, log_prob, value if kept.value else (), step.reward,
            step.terminated, step.truncated, final,
            step.observation if kept.next_observation else (),
        )  # fmt: skip
        ended = Ended(*(jnp.where(done, x, 0.0) for x in (returns, lengths, 1.0)))
        going = state, step.observation, returns, lengths
        start = *fresh, jnp.zeros_like(returns), jnp.zeros_like(lengths)
        return jax.tree.map(lambda a, b: _pick(done, a, b), start, going), (
            samples, ended, step.metrics,
        )  # fmt: skip

    def _network(self, observation: Any) -> tuple[jax.Array, jax.Array | None]:
        space = self.env.observation_space(self.task)
        cells = jax.tree.map(_columns, self.see(observation))
        return dense(self.spec, self.weights, jnp.stack(heads.encode(space, cells), axis=1))

    def _value(self, observation: Any) -> jax.Array:
        value = self._network(observation)[1]
        assert value is not None
        return value

    def _act(self, key: Any, outputs: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """The action as sampled, its log-probability, and the action for the environment."""
        space, n = self.env.action_space(self.task), outputs.shape[0]

        def words(part: int, entry: int) -> jax.Array:
            if isinstance(space, Box):
                return jax.random.bits(key, (n, *space.shape)).reshape(n, -1)[:, entry]
            own = key if part < 0 else jax.random.split(key, len(space.nvec))[part]
            return jax.random.bits(own, (n,))

        columns, log_std = list(outputs.T), self.weights.log_std
        drawn = heads.sample(space, columns, log_std, words)
        cells = heads.to_environment(space, drawn.action)
        shape = (n, *space.shape)
        action = jnp.stack(drawn.action, axis=1).reshape(shape)
        played = jnp.stack([cells[i] for i in np.ndindex(cells.shape)], axis=1).reshape(shape)
        return action, drawn.log_prob, played


def scan(step: Step, keys: Any, start: Any) -> tuple[Any, Any]:
    """The carry at the end, and (samples, ended, metrics) stacked to `[T, N, ...]`."""
    return jax.lax.scan(lambda carry, now: step(carry, now), start, keys)


def _columns(x: jax.Array) -> np.ndarray:
    """`[N, *S]` as cells of shape S."""
    cells = np.empty(x.shape[1:], object)
    for i in np.ndindex(cells.shape):
        cells[i] = x[(slice(None), *i)]
    return cells


def _pick(done: jax.Array, on_true: jax.Array, on_false: jax.Array) -> jax.Array:
    shaped = done.reshape(done.shape + (1,) * (on_false.ndim - 1))
    return jnp.where(shaped, on_true, on_false)
