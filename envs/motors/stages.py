"""The stages of a cascade of PI controllers: see `controllers.cascade`."""

from typing import Any

import jax.numpy as jnp

from fastrl.envs.motors.converters import CONVERTERS
from fastrl.envs.motors.drive import Drive
from fastrl.envs.motors.machines import Numbers
from fastrl.envs.motors.tasks import Params, share_of_limit
from fastrl.types import Array

MARGIN = 0.8  # of the limit that references of currents keep below


def physical(drive: Drive, observation: Array, params: Params) -> dict[str, Array]:
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


def speed(
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


def operating_point(
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
    return armature, jnp.full_like(i_e, excitation)


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


def voltages(
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
        bounded, held = tuple(shrink * u for u in wanted), [shrink < 1.0] * 2
    else:
        least = 0.0 if "u" in CONVERTERS[drive.converter].positive else -most
        bounded = tuple(jnp.clip(u, least, most) for u in wanted)
        held = [b != u for b, u in zip(bounded, wanted, strict=True)]
    integrals = tuple(
        integral + jnp.where(stop, 0.0, params.tau * error)
        for integral, stop, error in zip(integrals, held, errors, strict=True)
    )
    return bounded, integrals


def output(
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
