"""What hangs on the shaft: a polynomial load, or something that keeps its speed constant.

Load torque: `sign(omega) (a + c omega^2) + b omega`, with the constant part ramped up from zero
speed so that the step at `omega = 0` cannot stop an integrator. Source: gym-electric-motor 3.0.3
(physical_systems/mechanical_loads).
"""

from typing import Any, NamedTuple

import jax.numpy as jnp

from fastrl.types import Array, Scalar

RAMP = 1e-3  # seconds: below a RAMP / j, the constant part is j omega / RAMP


class Load(NamedTuple):
    """Newton metres, rad/s, kg m^2. `omega` is the speed at the start, or the constant one."""

    a: Scalar = 0.0  # static friction
    b: Scalar = 0.0  # sliding friction
    c: Scalar = 0.0  # air resistance
    j_load: Scalar = 1e-5
    omega: Scalar = 0.0


def load_torque(load: Load, inertia: Any, omega: Any) -> Array:
    """What the load takes at speed `omega`; `inertia` is that of rotor and load."""
    slow = jnp.abs(omega) <= load.a / inertia * RAMP
    sign = jnp.sign(omega)
    constant = jnp.where(slow, inertia / RAMP * omega, sign * load.a)
    return sign * load.c * omega**2 + load.b * omega + constant


def acceleration(load: Load, j_rotor: Any, omega: Any, torque: Any) -> Array:
    """omega' under the motor's `torque`."""
    inertia = j_rotor + load.j_load
    return (torque - load_torque(load, inertia, omega)) / inertia
