"""An environment of your own, checked, trained and drawn.

    python custom_environment.py

A thermostat: keep a room at its target temperature with a heater that is on or off.
"""

import dataclasses
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp

import fastrl
from fastrl import ppo
from fastrl.check_env import check_env
from fastrl.spaces import Box, Discrete
from fastrl.types import Array, Key, Step


class Params(NamedTuple):
    """The numbers of the task: traced, so they can be swept, randomised, differentiated."""

    outside: float = 5.0  # degrees
    heating: float = 1.2  # degrees per step
    loss: float = 0.05  # share of the difference to the outside, per step
    max_steps: int = 100


class State(NamedTuple):
    """The numbers of the episode."""

    room: Array
    target: Array
    time: Array


@dataclasses.dataclass(frozen=True)
class Thermostat:
    """Observation: room and target temperature, scaled. Action: 0 off, 1 on."""

    version: ClassVar[int] = 1

    def default_params(self) -> Params:
        return Params()

    def reset(self, key: Key, params: Params) -> tuple[State, Array]:
        room, target = jax.random.uniform(key, (2,), minval=15.0, maxval=25.0)
        state = State(room, target, jnp.int32(0))
        return state, observe(state)

    def step(self, key: Key, state: State, action: Array, params: Params) -> tuple[State, Step]:
        drift = params.loss * (params.outside - state.room)
        room = state.room + drift + params.heating * action
        state = State(room, state.target, state.time + 1)
        reward = -jnp.abs(room - state.target)
        frozen = room < 0.0  # the end of the task: nothing follows
        timed_out = (state.time >= params.max_steps) & ~frozen  # cut off: the task would go on
        return state, Step(observe(state), reward, frozen, timed_out)

    def observation_space(self, params: Params) -> Box:
        return Box(-jnp.inf, jnp.inf, (2,))

    def action_space(self, params: Params) -> Discrete:
        return Discrete(2)


def observe(state: State) -> Array:
    return jnp.stack([state.room - state.target, state.target - 20.0]) / 5.0


if __name__ == "__main__":
    env = Thermostat()
    report = check_env(env)
    report.print()
    assert report.ok
    algorithm = ppo.make(env, ppo.Config(num_envs=64, num_steps=32))
    hparams = ppo.HParams(learning_rate=1e-3, gamma=0.95)
    state = fastrl.train(algorithm, hparams, steps=300_000, run_dir="runs/thermostat")
    print("mild winter:", fastrl.evaluate(algorithm, state, env))
    print("hard winter:", fastrl.evaluate(algorithm, state, env, Params(outside=-5.0)))
