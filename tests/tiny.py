"""A tiny Algorithm whose numbers are easy to follow, for tests of the driver.

It fits one weight vector to noisy targets: a state with a typed key, an integer counter and
floats, metrics with and without content, an environment to evaluate on.
"""

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from fastrl import metrics as fm
from fastrl.spaces import Box
from fastrl.types import Algorithm, Array, Key, Step


class HParams(NamedTuple):
    learning_rate: float = 0.1
    fails_at: int = 2**30  # the iteration whose loss and weights become NaN


class Params(NamedTuple):
    target: float = 1.0
    max_steps: int = 5


class State(NamedTuple):
    key: Key
    weights: dict[str, Array]
    iteration: Array


@dataclasses.dataclass(frozen=True)
class Env:
    """Five steps, each with reward minus the distance of the action to the target."""

    version: ClassVar[int] = 1

    def default_params(self) -> Params:
        return Params()

    def reset(self, key: Key, params: Params) -> tuple[Array, Array]:
        return jnp.int32(0), jax.random.normal(key)

    def step(self, key: Key, state: Array, action: Array, params: Params) -> tuple[Array, Step]:
        time = state + 1
        reward = -jnp.abs(action - params.target)
        observation = jax.random.normal(key)
        return time, Step(observation, reward, jnp.bool_(False), time >= params.max_steps)

    def observation_space(self, params: Params) -> Box:
        return Box(-jnp.inf, jnp.inf)

    def action_space(self, params: Params) -> Box:
        return Box(-jnp.inf, jnp.inf)


def make(size: int = 4, env: Any = Env(), steps_per_iteration: int = 10) -> Algorithm[HParams, Any]:
    """Each iteration takes `steps_per_iteration` steps."""

    def init(key: Key, hparams: HParams, task: Params) -> State:
        key, draw = jax.random.split(key)
        return State(key, {"w": jax.random.normal(draw, (size,))}, jnp.int32(0))

    def step(state: State, hparams: HParams, task: Params) -> tuple[State, fm.Metrics]:
        key, draw = jax.random.split(state.key)
        error = state.weights["w"] - task.target + jax.random.normal(draw, (size,))
        iteration = state.iteration + 1
        bad = iteration >= hparams.fails_at
        weights = state.weights["w"] - hparams.learning_rate * error
        weights = jnp.where(bad, jnp.nan, weights)
        metrics = {
            "episode_return": fm.mean(error, jnp.arange(size) < iteration % 3),
            "loss": fm.mean(jnp.where(bad, jnp.nan, error**2)),
        }
        return State(key, {"w": weights}, iteration), metrics

    def act(state: State, carry: Any, observation: Array, key: Key | None) -> tuple[Array, Any]:
        return state.weights["w"].mean() + 0.01 * observation, carry

    return Algorithm(
        init, step, act, steps_per_iteration, HParams(), env,
        parameters=lambda state: state.weights,
    )  # fmt: skip
