"""The baseline: a cascade of PI controllers, as a pure function with a carry.

Speed control sets a torque, torque control sets currents, current control sets voltages; a finite
converter then takes the state that is nearest on average. Gains are those of the symmetrical
optimum, as in the controllers that come with gym-electric-motor 3.0.3 (gem_controllers): with
design parameter `a`, inductance L, inertia J and control step T,

    current:  p = L / (a T)       i = p / (a^2 T)
    speed:    p = J / (a^3 T)     i = p / (a^3 T)

Voltages induced by the rotation are added, integrators stop while their output is clipped.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fastrl.envs.motors import machines, stages
from fastrl.envs.motors.drive import Drive
from fastrl.envs.motors.tasks import Params
from fastrl.types import Algorithm, Array, Key, Step


class Carry(NamedTuple):
    speed: Array  # integral of the error, in seconds times the quantity
    currents: tuple[Array, ...]
    rest: tuple[Array, ...]  # of each circuit or phase: voltage still owed, as a share


class Controller(NamedTuple):
    """`act` is to be called with each observation in turn; vmap both for a batch."""

    init: Callable[[], Carry]
    act: Callable[[Carry, Array, Params], tuple[Any, Carry]]  # -> (action, carry)


def cascade(drive: Drive, a: float = 4.0) -> Controller:
    """The controller of `drive`, tuned to the params that it is called with.

    `a` trades speed against damping: 4 is the original's default, 2 is the amount optimum's gain.
    Raises ValueError if the drive's `state_filter` hides what is needed or `a` is not above 1.
    """
    needed = ("omega", *drive.machine.currents)
    needed += ("epsilon",) if drive.machine.synchronous else ()
    if missing := [name for name in needed if name not in drive.observed]:
        raise ValueError(f"state_filter={drive.state_filter}: PI control needs {missing} as well")
    if not a > 1:
        raise ValueError(f"a={a!r}: needs a number above 1")
    machine, phases = drive.machine, len(drive.machine.phases)
    controlled = len(machine.currents) if drive.motor != "ShuntDc" else 1

    def init() -> Carry:
        zero = jnp.float32(0)
        return Carry(zero, (zero,) * controlled, (zero,) * phases)

    def act(carry: Carry, observation: Array, params: Params) -> tuple[Any, Carry]:
        seen = stages.physical(drive, observation, params)
        currents = tuple(seen[name] for name in machine.currents)
        aim = tuple(seen["reference " + name] for name in drive.referenced)
        if drive.control == "SC":
            torque, speed = stages.speed(drive, a, carry.speed, seen["omega"], aim[0], params)
            aim, carry = (torque,), carry._replace(speed=speed)
        if drive.control != "CC":
            aim = stages.operating_point(drive, aim[0], currents, seen["omega"], params)
        voltages, integrals = stages.voltages(
            drive, a, carry.currents, currents, aim, seen["omega"], params
        )
        if machine.synchronous and drive.control_space == "abc":
            ahead = (0.5 + drive.dead_time) * params.tau * params.motor.p * seen["omega"]
            voltages = machines.to_phases(voltages, machines.direction(seen["epsilon"] + ahead))
        action, rest = stages.output(drive, voltages, carry.rest, params)
        return action, carry._replace(currents=integrals, rest=rest)

    return Controller(init, act)


def policy(drive: Drive, params: Params | None = None, a: float = 4.0) -> Algorithm:
    """The cascade as an Algorithm that never learns, for `fastrl.evaluate(policy(drive), ())`.

    It is tuned to `params`, by default those of the drive's standard task.
    """
    controller = cascade(drive, a)
    task = drive.default_params() if params is None else params

    def act(state: Any, carry: Carry, observation: Array, key: Key | None) -> tuple[Any, Carry]:
        def batched(carry: Carry, observation: Array) -> tuple[Any, Carry]:
            return controller.act(carry, observation, task)

        for _ in range(observation.ndim - 1):
            batched = jax.vmap(batched)
        return batched(carry, observation)

    def initial_carry(shape: tuple[int, ...]) -> Carry:
        return jax.tree.map(lambda x: jnp.broadcast_to(x, shape), controller.init())

    return Algorithm(
        lambda key, hparams, task: (), lambda state, hparams, task: (state, {}), act, 1, (),
        env=drive, initial_carry=initial_carry,
    )  # fmt: skip


def play(
    drive: Drive, controller: Controller, key: Key, params: Params, steps: int
) -> tuple[Step, Array]:
    """`steps` steps of one episode, also beyond its end, and the absolute errors `[steps, R]`.

    An error is that of a reference that was observed before the step, in shares of the limit.
    Consumes `key`.
    """
    first, *keys = jax.random.split(key, 2)
    state, observation = drive.reset(first, params)
    names = drive.referenced

    def step(loop: Any, key: Key) -> Any:
        state, carry, observation = loop
        action, carry = controller.act(carry, observation, params)
        state, stepped = drive.step(key, state, action, params)
        at = [drive.observed.index(name) for name in names]
        wanted = [observation[len(drive.observed) + i] for i in range(len(names))]
        is_ = [stepped.observation[i] for i in at]
        error = jnp.stack([jnp.abs(x - y) for x, y in zip(is_, wanted, strict=True)])
        return (state, carry, stepped.observation), (stepped, error)

    loop = (state, controller.init(), observation)
    return jax.lax.scan(step, loop, jax.random.split(keys[0], steps))[1]
