"""The PID controller as a policy for the tasks here: what a learner has to beat.

It sees the state, not the observation, and flies towards `env.setpoint`.
"""

from typing import Any

from fastrl.envs.quadrotor import actions, controllers
from fastrl.envs.quadrotor.controllers import Gains, Memory
from fastrl.envs.quadrotor.flight import Flight, State
from fastrl.types import Array


def init(state: State) -> Memory:
    """The controller's memory at the start of an episode."""
    return controllers.init(state.body)


def act(
    env: Flight, memory: Memory, state: State, params: Any, gains: Gains | None = None
) -> tuple[Memory, Array]:
    """The new memory and the action `[D, A]`, for environments with actions "rpm" or "motors".

    `gains` are those of the drone's model unless given.
    """
    if gains is None:
        gains = controllers.PLUS_GAINS if env.model == "cf2p" else controllers.X_GAINS
    machine = env.machine(params)
    memory, rpm = controllers.control(
        gains, params.drone, params.gravity, machine.control_period, memory, state.body,
        env.setpoint(state, params),
    )  # fmt: skip
    return memory, actions.inverse(env.action, rpm, machine)
