"""Five electric motors as ordinary differential equations, with their parameters and limits.

Units: volts, amperes, ohms, henries, webers, newton metres, radians, seconds. Equations and
numbers are those of gym-electric-motor 3.0.3 (physical_systems/electric_motors); it takes them
from the Heinzmann PMG 132 and, for the PMSM, from Brosch et al. (10.1109/TPEL.2020.3006779).
A motor is seen from its phases: one for a circuit of a DC motor, three for the PMSM, whose own
voltages and currents are in coordinates `d, q` that turn with the rotor.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp

from fastrl.types import Array, Scalar

Numbers = tuple[Any, ...]  # scalars that may be traced: currents, voltages


class SeriesDc(NamedTuple):
    """Armature and excitation carry one current."""

    r_a: Scalar = 16e-3
    r_e: Scalar = 48e-3
    l_a: Scalar = 19e-6
    l_e: Scalar = 5.4e-3
    l_e_prime: Scalar = 1.7e-3  # effective excitation inductance
    j_rotor: Scalar = 0.0025


class ShuntDc(NamedTuple):
    """Armature and excitation lie at one voltage."""

    r_a: Scalar = 16e-3
    r_e: Scalar = 0.4
    l_a: Scalar = 19e-6
    l_e: Scalar = 5.4e-3
    l_e_prime: Scalar = 1.7e-3
    j_rotor: Scalar = 0.0025


class ExtExDc(NamedTuple):
    """Armature and excitation have a converter each."""

    r_a: Scalar = 16e-3
    r_e: Scalar = 0.16
    l_a: Scalar = 19e-6
    l_e: Scalar = 5.4e-3
    l_e_prime: Scalar = 1.7e-3
    j_rotor: Scalar = 0.0025


class PermExDc(NamedTuple):
    """A magnet in place of the excitation circuit."""

    r_a: Scalar = 16e-3
    l_a: Scalar = 19e-6
    psi_e: Scalar = 0.165
    j_rotor: Scalar = 0.025


class Pmsm(NamedTuple):
    """Permanent magnet synchronous motor."""

    p: Scalar = 3.0  # pole pairs
    l_d: Scalar = 0.37e-3
    l_q: Scalar = 1.2e-3
    r_s: Scalar = 18e-3
    psi_p: Scalar = 66e-3
    j_rotor: Scalar = 0.03883


class Limits(NamedTuple):
    """What quantities are divided by in observations; beyond `current` an episode ends."""

    omega: Scalar
    torque: Scalar
    current: Scalar
    voltage: Scalar  # of a circuit or phase


class Machine(NamedTuple):
    """A motor as functions of its parameters `m`, its currents and its speed."""

    params: Any
    limits: Limits
    nominal: Limits
    currents: tuple[str, ...]  # names of the currents of the ODE
    phases: tuple[str, ...]  # names of the voltages that converters put on
    slopes: Callable[[Any, Numbers, Any, Numbers], Numbers]  # (m, currents, omega, voltages)
    torque: Callable[[Any, Numbers], Any]  # (m, currents)
    drawn: Callable[[Numbers], Numbers]  # currents -> what flows out of each circuit's converter
    one_sided: tuple[str, ...] = ()  # quantities that count as never negative
    synchronous: bool = False


def _series_slopes(m: SeriesDc, currents: Numbers, omega: Any, voltages: Numbers) -> Numbers:
    (i,), (u,) = currents, voltages
    return ((u - (m.r_a + m.r_e) * i - m.l_e_prime * omega * i) / (m.l_a + m.l_e),)


def _two_circuits(m: Any, currents: Numbers, omega: Any, voltages: Numbers) -> Numbers:
    (i_a, i_e), (u_a, u_e) = currents, voltages
    armature = (u_a - m.r_a * i_a - m.l_e_prime * omega * i_e) / m.l_a
    return armature, (u_e - m.r_e * i_e) / m.l_e


def _shunt_slopes(m: ShuntDc, currents: Numbers, omega: Any, voltages: Numbers) -> Numbers:
    return _two_circuits(m, currents, omega, voltages * 2)


def _permanent_slopes(m: PermExDc, currents: Numbers, omega: Any, voltages: Numbers) -> Numbers:
    (i,), (u,) = currents, voltages
    return ((u - m.r_a * i - m.psi_e * omega) / m.l_a,)


def _pmsm_slopes(m: Pmsm, currents: Numbers, omega: Any, voltages: Numbers) -> Numbers:
    (i_d, i_q), (u_d, u_q) = currents, voltages
    turning = m.p * omega
    along = (u_d - m.r_s * i_d + turning * m.l_q * i_q) / m.l_d
    return along, (u_q - m.r_s * i_q - turning * (m.l_d * i_d + m.psi_p)) / m.l_q


def pmsm_torque(m: Pmsm, currents: Numbers) -> Any:
    """1.5 p (psi_p + (l_d - l_q) i_d) i_q."""
    i_d, i_q = currents
    return 1.5 * m.p * (m.psi_p + (m.l_d - m.l_q) * i_d) * i_q


def least_current_d(m: Any, current: Any, sqrt: Callable[[Any], Any] = math.sqrt) -> Any:
    """The i_d of the greatest torque with a current vector of length `current`."""
    lean = m.psi_p / (2 * (m.l_d - m.l_q))
    return -lean / 2 - sqrt((lean / 2) ** 2 + current**2 / 2)


def _pmsm_limits() -> tuple[Limits, Limits]:
    """The torque's limit is the greatest torque with nominal current."""
    m, nominal = Pmsm(), 240.0
    i_d = least_current_d(m, nominal)
    torque = pmsm_torque(m, (i_d, math.sqrt(nominal**2 - i_d**2)))
    turn = math.pi / 30
    return Limits(4e3 * turn, torque, 400.0, 150.0), Limits(3e3 * turn, torque, nominal, 150.0)


_DC_LIMITS, _DC_NOMINAL = Limits(400.0, 38.0, 210.0, 60.0), Limits(300.0, 16.0, 97.0, 60.0)


def _cross_torque(m: Any, currents: Numbers) -> Any:
    """Both currents of two circuits, or twice the one of a series motor."""
    return m.l_e_prime * currents[0] * currents[-1]


MACHINES: dict[str, Machine] = {
    "SeriesDc": Machine(
        SeriesDc(), _DC_LIMITS, _DC_NOMINAL, ("i",), ("u",), _series_slopes, _cross_torque,
        lambda i: i, one_sided=("omega", "torque"),
    ),
    "ShuntDc": Machine(
        ShuntDc(), _DC_LIMITS, _DC_NOMINAL, ("i_a", "i_e"), ("u",), _shunt_slopes, _cross_torque,
        lambda i: (i[0] + i[1],), one_sided=("omega",),
    ),
    "PermExDc": Machine(
        PermExDc(), _DC_LIMITS, _DC_NOMINAL, ("i",), ("u",), _permanent_slopes,
        lambda m, i: m.psi_e * i[0], lambda i: i,
    ),
    "ExtExDc": Machine(
        ExtExDc(), _DC_LIMITS, _DC_NOMINAL, ("i_a", "i_e"), ("u_a", "u_e"), _two_circuits,
        _cross_torque, lambda i: i,
    ),
    "PMSM": Machine(
        Pmsm(), *_pmsm_limits(), ("i_sd", "i_sq"), ("u_a", "u_b", "u_c"), _pmsm_slopes,
        pmsm_torque, lambda i: i, synchronous=True,
    ),
}  # fmt: skip


class Direction(NamedTuple):
    """The cosine and sine of the rotor's electrical angle."""

    cos: Array
    sin: Array


def direction(angle: Any) -> Direction:
    return Direction(jnp.cos(angle), jnp.sin(angle))


def to_phases(dq: Numbers, rotor: Direction) -> Numbers:
    """Rotor coordinates `d, q` into the phases `a, b, c`, amplitudes kept."""
    d, q = dq
    alpha, beta = rotor.cos * d - rotor.sin * q, rotor.sin * d + rotor.cos * q
    half = 0.5 * math.sqrt(3) * beta
    return alpha, -0.5 * alpha + half, -0.5 * alpha - half


def to_rotor(phases: Numbers, rotor: Direction) -> Numbers:
    """Phases `a, b, c` into rotor coordinates `d, q`."""
    a, b, c = phases
    alpha, beta = (2 * a - b - c) / 3, (b - c) / math.sqrt(3)
    return rotor.cos * alpha + rotor.sin * beta, rotor.cos * beta - rotor.sin * alpha
