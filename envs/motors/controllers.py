"""The baseline: a cascade of PI controllers, as a pure function with a carry.

Speed control sets a torque, torque control sets currents, current control sets voltages; a finite
converter then takes the state that is nearest on average. Gains are those of the symmetrical
optimum, as in the controllers that come with gym-electric-motor 3.0.3 (gem_controllers): with
design parameter `a`, inductance L, inertia J and control step T,

    current:  p = L / (a T)       i = p / (a^2 T)
    speed:    p = J / (a^3 T)     i = p / (a^3 T)

Voltages induced by the rotation are added, integrators stop while their output is clipped.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fastrl.envs.motors import machines
from fastrl.envs.motors.drive import Drive
from fastrl.envs.motors.machines import Numbers
from fastrl.envs.motors.tasks import Params, share_of_limit
from fastrl.types import Algorithm, Array, Key, Step

MARGIN = 0.8  # of the limit that references of currents keep below


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
        seen = _physical(drive, observation, params)
        currents = tuple(seen[name] for name in machine.currents)
        aim = tuple(seen["reference " + name] for name in drive.referenced)
        if drive.control == "SC":
            torque, speed = _speed(drive, a, carry.speed, seen["omega"], aim[0], params)
            aim, carry = (torque,), carry._replace(speed=speed)
        if drive.control != "CC":
            aim = _operating_point(drive, aim[0], currents, seen["omega"], params)
        voltages, integrals = _currents(
            drive, a, carry.currents, currents, aim, seen["omega"], params
        )
        if machine.synchronous and drive.control_space == "abc":
            ahead = (0.5 + drive.dead_time) * params.tau * params.motor.p * seen["omega"]
            voltages = machines.to_phases(voltages, machines.direction(seen["epsilon"] + ahead))
        action, rest = _output(drive, voltages, carry.rest, params)
        return action, carry._replace(currents=integrals, rest=rest)

    return Controller(init, act)


def policy(drive: Drive, params: Params | None = None, a: float = 4.0) -> Algorithm:
    """The cascade as an Algorithm that never learns, for `fastrl.evaluate(policy(drive), ())`.

    It is tuned to `params`, by default those of the drive's standard task.
    """
    controller = cascade(drive, a)
    task = drive.default_params() if params is None else params

    def act(state: Any, carry: Carry, observation: Array, key: Key | None) -> tuple[Any, Carry]:
        batched = functools.partial(controller.act, params=task)
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


def _physical(drive: Drive, observation: Array, params: Params) -> dict[str, Array]:
    """What is observed, in SI units."""
    names = [*drive.observed, *("reference " + name for name in drive.referenced)]
    limits = params.limits
    units = {"i": limits.current, "u": limits.voltage, "o": limits.omega, "t": limits.torque}
    units["e"] = jnp.pi
    return {
        name: observation[i] * units[name.removeprefix("reference ")[0]]
        for i, name in enumerate(names)
    }


def _delay(drive: Drive, params: Params) -> Any:
    """The time after which an action acts, in seconds."""
    return params.tau * (1 + drive.dead_time)


def _speed(
    drive: Drive, a: float, integral: Array, omega: Array, aim: Array, params: Params
) -> tuple[Array, Array]:
    """The torque wanted, and the integral."""
    time = a**2 * _delay(drive, params)  # constant of the current loop
    gain = (params.motor.j_rotor + params.load.j_load) / (a * time)
    error = aim - omega
    torque = gain * error + gain / (a * time) * integral
    low = 0.0 if "torque" in drive.machine.one_sided else -params.limits.torque
    bounded = jnp.clip(torque, low, params.limits.torque)
    return bounded, integral + jnp.where(bounded == torque, params.tau * error, 0.0)


def _operating_point(
    drive: Drive, torque: Array, currents: Numbers, omega: Array, params: Params
) -> Numbers:
    """Currents that make `torque`."""
    m, most = params.motor, MARGIN * params.limits.current
    if drive.motor == "PermExDc":
        return (jnp.clip(torque / m.psi_e, -most, most),)
    if drive.motor == "SeriesDc":
        return (jnp.minimum(jnp.sqrt(jnp.maximum(torque, 0.0) / m.l_e_prime), most),)
    if drive.machine.synchronous:
        return _least_currents(torque, omega, params)
    i_e = currents[1]
    flux = m.l_e_prime * jnp.where(i_e < 0, jnp.minimum(i_e, -1e-2), jnp.maximum(i_e, 1e-2))
    armature = jnp.clip(torque / flux, -most, most)
    if drive.motor == "ShuntDc":
        # Its excitation follows the voltage: too much of it is to be driven back.
        return (jnp.where(jnp.abs(i_e) > most, -jnp.sign(i_e) * most, armature),)
    # The excitation is held, since it is slow: at its nominal value.
    excitation = share_of_limit("i_e", drive.machine) * params.limits.current
    return armature, excitation + 0.0 * i_e


def _least_currents(torque: Array, omega: Array, params: Params) -> Numbers:
    """The shortest current vector of a PMSM that makes `torque`, as far as voltage allows.

    With D = l_q - l_d: torque = 1.5 p i_q (psi/2 + sqrt(psi^2/4 + D^2 i_q^2)), solved by Newton's
    method, and i_d = -D i_q^2 / (psi/2 + sqrt(psi^2/4 + D^2 i_q^2)).
    """
    m = params.motor
    wanted, half, lean = jnp.abs(torque) / (1.5 * m.p), 0.5 * m.psi_p, m.l_q - m.l_d
    i_q = wanted / m.psi_p
    for _ in range(6):
        root = jnp.sqrt(half**2 + (lean * i_q) ** 2)
        slope = half + root + (lean * i_q) ** 2 / root
        i_q = i_q - (i_q * (half + root) - wanted) / slope
    i_d = -lean * i_q**2 / (half + jnp.sqrt(half**2 + (lean * i_q) ** 2))
    shrink = jnp.minimum(1.0, MARGIN * params.limits.current / jnp.sqrt(i_d**2 + i_q**2 + 1e-6))
    i_d, i_q = shrink * i_d, shrink * i_q
    flux = 0.9 * 0.5 * params.supply / jnp.maximum(m.p * jnp.abs(omega), 1.0)
    most = jnp.sqrt(jnp.maximum(flux**2 - (m.psi_p + m.l_d * i_d) ** 2, 0.0)) / m.l_q
    return i_d, jnp.sign(torque) * jnp.minimum(i_q, most)


def _currents(
    drive: Drive, a: float, integrals: Numbers, currents: Numbers, aim: Numbers, omega: Array,
    params: Params,
) -> tuple[Numbers, tuple[Array, ...]]:  # fmt: skip
    """Voltages (of a PMSM in its own coordinates), and the integrals."""
    m, delay = params.motor, _delay(drive, params)
    if drive.machine.synchronous:
        inductances, turning = (m.l_d, m.l_q), m.p * omega
        induced = (-turning * m.l_q * currents[1], turning * (m.l_d * currents[0] + m.psi_p))
        most = 0.5 * params.supply
    else:
        inductances = (
            (m.l_a + m.l_e,) if drive.motor == "SeriesDc" else (m.l_a, getattr(m, "l_e", 0))
        )
        flux = m.psi_e if drive.motor == "PermExDc" else m.l_e_prime * currents[-1]
        induced = (flux * omega, 0.0 * omega)
        most = params.supply
    errors = [w - i for w, i in zip(aim, currents, strict=False)]
    gains = [inductance / (a * delay) for inductance in inductances]
    wanted = [
        gain * error + gain / (a**2 * delay) * integral + emf
        for gain, error, integral, emf in zip(gains, errors, integrals, induced, strict=False)
    ]
    if drive.machine.synchronous:
        length = jnp.sqrt(wanted[0] ** 2 + wanted[1] ** 2)
        shrink = jnp.minimum(1.0, most / jnp.maximum(length, 1e-6))
        voltages, held = tuple(shrink * u for u in wanted), [shrink < 1.0] * 2
    else:
        voltages = tuple(jnp.clip(u, -most, most) for u in wanted)
        held = [jnp.abs(u) > most for u in wanted]
    integrals = tuple(
        integral + jnp.where(stop, 0.0, params.tau * error)
        for integral, stop, error in zip(integrals, held, errors, strict=True)
    )
    return voltages, integrals


def _output(
    drive: Drive, voltages: Numbers, rest: Numbers, params: Params
) -> tuple[Any, tuple[Array, ...]]:
    """The action, and of finite ones the voltage that is still owed."""
    shares = [u / params.supply for u in voltages]
    if drive.actions == "Cont":
        scale = 2.0 if drive.machine.synchronous else 1.0
        low = drive.action_space(params).low
        return jnp.stack([jnp.clip(scale * s, low, 1.0) for s in shares]), tuple(rest)
    least = {"1QC": 0.0, "2QC": 0.0, "4QC": -1.0, "B6C": -0.5}[drive.converter]
    owed = [s + r for s, r in zip(shares, rest, strict=True)]
    steps = [jnp.clip(jnp.round(o - least), 0.0, -2 * least if least else 1.0) for o in owed]
    rest = tuple(jnp.clip(o - (s + least), -1.0, 1.0) for o, s in zip(owed, steps, strict=True))
    upper = [s.astype(jnp.int32) for s in steps]
    if drive.machine.synchronous:
        return 4 * upper[0] + 2 * upper[1] + upper[2], rest
    if drive.converter == "4QC":  # -U, 0, U are its states 2, 0, 1
        actions = [jnp.where(u == 0, 2, u - 1) for u in upper]
    else:
        actions = [jnp.where(u == 1, 1, 2 if drive.converter == "2QC" else 0) for u in upper]
    return (actions[0] if len(actions) == 1 else jnp.stack(actions)), rest
