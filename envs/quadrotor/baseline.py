"""The PID controller as a policy for the tasks here: what a learner has to beat.

It sees the state, not the observation, and flies towards `env.setpoint`.
"""

from typing import Any

from fastrl.envs.quadrotor import actions, controllers
from fastrl.envs.quadrotor.controllers import Memory
from fastrl.envs.quadrotor.flight import Flight, State
from fastrl.types import Array


def init(state: State) -> Memory:
    """The controller's memory at the start of an episode."""
    return controllers.init(state.body)


def act(env: Flight, memory: Memory, state: State, params: Any) -> tuple[Memory, Array]:
    """The new memory and the action `[D, A]`, by the gains in `params`.

    For environments with actions "rpm", "motors" or "one_d_rpm"; raises ValueError for others.
    """
    machine = env.machine(params)
    memory, rpm = controllers.control(
        machine.gains, machine.drone, machine.gravity, machine.control_period, memory, state.body,
        env.setpoint(state, params),
    )  # fmt: skip
    return memory, actions.inverse(env.action, rpm, machine)
