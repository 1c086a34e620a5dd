"""What all quadrotor tasks share: state, actions, physics, observation; the task is filled in."""

import dataclasses
from typing import Any, ClassVar, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fastrl import door
from fastrl.envs import checks
from fastrl.envs.quadrotor import actions, controllers, drones, physics
from fastrl.envs.quadrotor import vectors as v
from fastrl.envs.quadrotor.actions import ActionType, Machine
from fastrl.envs.quadrotor.controllers import Gains, Setpoint
from fastrl.envs.quadrotor.drones import Air, Drone, Motors
from fastrl.envs.quadrotor.forces import Body
from fastrl.envs.quadrotor.vectors import Vector
from fastrl.spaces import Box
from fastrl.types import Array, Key, Step


class State(NamedTuple):
    """Entries are `[D]`, one per drone, unless said otherwise."""

    body: Body
    rpm: Motors  # how fast the motors turn
    frame: Any  # attitude of a step of physics ago with physics="pyb", else ()
    history: Array  # float32 [D, action_history * A], the last actions, the oldest first
    controller: Any  # memory of the PID where actions go through it, else ()
    phase: Array  # float32 [], radians: where on the reference path the episode began, else 0
    time: Array  # int32 [], steps taken


@dataclasses.dataclass(frozen=True)
class Flight:
    """A task for `num_drones` drones; see `Hover` and `Trajectory`.

    Observation `[D, 12 + action_history * A]`: position, roll, pitch and yaw, velocity and
    angular velocity (all in the world's frame), then the last actions. Action `[D, A]` in
    [-1, 1], of the kind `action`. One action holds for `substeps` steps of physics, which are the
    original's explicit model ("dyn") or what Bullet makes of it ("pyb").
    """

    model: str = "cf2x"
    action: ActionType = "rpm"
    physics: Literal["dyn", "pyb"] = "dyn"
    num_drones: int = 1
    action_history: int = 15
    substeps: int = 8
    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        door.choice("model", self.model, tuple(drones.DRONES))
        door.choice("action", self.action, tuple(actions.SIZES))
        door.choice("physics", self.physics, ("dyn", "pyb"))
        door.integer("num_drones", self.num_drones, 1)
        door.integer("action_history", self.action_history, 0)
        door.integer("substeps", self.substeps, 1)
        if self.model == "racer" and self.action in actions.THROUGH_PID:
            raise ValueError(
                f"action={self.action!r} goes through a controller made for the Crazyflie: with "
                "model='racer' take 'rpm', 'motors' or 'one_d_rpm'"
            )

    def default_params(self) -> Any:
        """The numbers of the standard task."""
        raise NotImplementedError

    def setpoint(self, state: State, params: Any) -> Setpoint:
        """Where the drones are to be after the next step."""
        raise NotImplementedError

    def _starts(self, draws: Array, phase: Array, params: Any) -> tuple[Vector, Vector]:
        """Start positions and velocities from uniform `draws` `[3, D]` in [-1, 1]."""
        raise NotImplementedError

    def _judge(self, state: State, params: Any) -> tuple[Array, Array]:
        """The reward and whether the task has ended, of the state after a step."""
        raise NotImplementedError

    def reset(self, key: Key, params: Any) -> tuple[State, Array]:
        n = self.num_drones
        draws = jax.random.uniform(key, (6 * n + 1,), minval=-1.0, maxval=1.0)
        per_drone, phase = draws[:-1].reshape(6, n), draws[-1] * params.start_phase
        tilt, yaw = params.start_tilt, params.start_yaw
        zero = Vector(*(jnp.zeros(n, jnp.float32) for _ in range(3)))
        attitude = v.from_angles(
            Vector(tilt * per_drone[3], tilt * per_drone[4], yaw * per_drone[5])
        )
        position, velocity = self._starts(per_drone[:3], phase, params)
        body = Body(position, velocity, attitude, zero)
        hover = jnp.full(n, drones.hover_rpm(params.drone, params.gravity), jnp.float32)
        history = jnp.zeros((n, self.action_history * self._action_size), jnp.float32)
        controller = controllers.init(body) if self.action in actions.THROUGH_PID else ()
        frame = attitude if self.physics == "pyb" else ()
        state = State(body, Motors(*(hover,) * 4), frame, history, controller, phase, jnp.int32(0))
        return state, self._observe(state, params)

    def step(self, key: Key, state: State, action: Array, params: Any) -> tuple[State, Step]:
        action = self._accept(action)
        action = checks.step(self, action, params)
        controller, command = actions.command(
            self.action, action, state.body, state.controller, self.machine(params)
        )
        body, frame, rpm = physics.fly(
            state.body, state.frame, state.rpm, command, params.drone, params.air, params.gravity,
            params.time_step, self.substeps,
        )  # fmt: skip
        kept = jnp.concatenate([state.history, action], axis=1)[:, self._action_size :]
        history = kept if self.action_history else state.history
        state = State(body, rpm, frame, history, controller, state.phase, state.time + 1)
        reward, terminated = self._judge(state, params)
        truncated = (state.time >= params.max_steps) & ~terminated
        return state, Step(self._observe(state, params), reward, terminated, truncated)

    def machine(self, params: Any) -> Machine:
        """The params that actions depend on."""
        period = params.time_step * self.substeps
        return Machine(params.drone, params.gains, params.gravity, params.authority, period)

    def observation_space(self, params: Any) -> Box:
        moving, acts = 12 + self._extra_size, self.action_history * self._action_size
        high = (jnp.inf,) * moving + (1.0,) * acts
        rows = (high,) * self.num_drones
        return Box(tuple(tuple(-h for h in r) for r in rows), rows, (self.num_drones, len(high)))

    def action_space(self, params: Any) -> Box:
        return Box(-1.0, 1.0, (self.num_drones, self._action_size))

    def render(self, state: State, params: Any) -> np.ndarray:
        """The drones from the side and from above: uint8 `[360, 640, 3]`."""
        from fastrl.envs.quadrotor.pictures import draw

        return draw(state.body, self.setpoint(state, params), params.drone)

    _extra_size: ClassVar[int] = 0  # entries of `_extra`

    def _extra(self, state: State, params: Any) -> tuple[Array, ...]:
        """Further entries of the observation, `[D]` each, before the actions."""
        return ()

    @property
    def _action_size(self) -> int:
        return actions.SIZES[self.action]

    def _accept(self, action: Array) -> Array:
        """`action` as float32 within its bounds. Raises ValueError for another shape."""
        shape = (self.num_drones, self._action_size)
        if jnp.shape(action) != shape:
            raise ValueError(
                f"action has shape {jnp.shape(action)}: {type(self).__name__} with "
                f"num_drones={self.num_drones} and action={self.action!r} takes {shape}"
            )
        return jnp.clip(jnp.asarray(action, jnp.float32), -1.0, 1.0)

    def _observe(self, state: State, params: Any) -> Array:
        body = state.body
        spin = v.to_world(v.axes(body.attitude), body.rates)
        angles = v.to_angles(body.attitude)
        extra = self._extra(state, params)
        entries = (*body.position, *angles, *body.velocity, *spin, *extra)
        return jnp.concatenate([jnp.stack(entries, axis=1), state.history], axis=1)

    def _tilted(self, body: Body, most: Any) -> Array:
        """Whether roll or pitch exceed `most`, `[D]`."""
        angles = v.to_angles(body.attitude)
        return (jnp.abs(angles.x) > most) | (jnp.abs(angles.y) > most)


def standard(flight: Flight) -> tuple[Drone, Air, Gains]:
    """The drone, the air and the controller's gains of the standard task."""
    drone = drones.DRONES[flight.model]
    if flight.physics == "pyb":
        x, y = drones.URDF_MOTORS[flight.model]
        drone = drone._replace(motor_x=x, motor_y=y)
    return drone, Air(), controllers.PLUS_GAINS if flight.model == "cf2p" else controllers.X_GAINS
