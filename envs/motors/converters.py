"""Power converters: what an action puts on a circuit, as a share of the supply voltage.

Continuous actions are duty cycles, averaged over a control step; finite ones are states of
half bridges. A half bridge that is off is conducted by its diodes, to the side that the current
chooses. A transistor may be switched on only some time after its neighbour was switched off:
the interlocking time, which lowers averaged voltages and leaves half bridges off. Rules of
gym-electric-motor 3.0.3 (physical_systems/converters.py).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp

from fastrl.types import Array

OFF, UPPER, LOWER = 0, 1, 2  # states of a half bridge


class Converter(NamedTuple):
    """The converter of one circuit (of one phase of a `B6C`)."""

    actions: int  # number of finite actions
    low: float  # of continuous actions; high is 1
    average: Callable[[Any, Any, Any], Any]  # (duty, current, dead share) -> share of the supply
    states: Callable[[Any], tuple[Any, ...]]  # finite action -> a state for each half bridge
    sides: tuple[int, ...]  # the sign with which the current flows out of each half bridge
    middle: float  # what half bridges are measured from
    positive: tuple[str, ...]  # kinds of quantities ("u", "i") that are never negative


def _half(duty: Any, current: Any, dead: Any) -> Array:
    """A half bridge, averaged; `dead` is interlocking time by control step."""
    return jnp.clip(jnp.clip(duty, 0.0, 1.0) - jnp.sign(current) * dead, 0.0, 1.0)


def _one_quadrant(duty: Any, current: Any, dead: Any) -> Array:
    return jnp.where(current >= 0, jnp.clip(duty, 0.0, 1.0), 1.0)


def _four_quadrants(duty: Any, current: Any, dead: Any) -> Array:
    # Both halves see the current with the same sign, as in the original.
    return _half(0.5 * (duty + 1), current, dead) - _half(0.5 * (1 - duty), current, dead)


def _phase(duty: Any, current: Any, dead: Any) -> Array:
    return _half(0.5 * (duty + 1), current, dead) - 0.5


CONVERTERS: dict[str, Converter] = {
    "1QC": Converter(2, 0.0, _one_quadrant, lambda a: (a,), (1,), 0.0, ("u", "i")),
    "2QC": Converter(3, 0.0, _half, lambda a: (a,), (1,), 0.0, ("u",)),
    "4QC": Converter(
        4, -1.0, _four_quadrants, lambda a: (1 + (a >> 1), 1 + (a & 1)), (1, -1), 0.0, ()
    ),
    "B6C": Converter(2, -1.0, _phase, lambda a: (2 - a,), (1,), 0.5, ()),
}


def levels(converter: Converter, states: tuple[Any, ...], current: Any) -> tuple[Array, ...]:
    """Whether each half bridge lies at the supply's upper end: bool []."""
    return tuple(
        (state == UPPER) | ((state == OFF) & (side * current < 0))
        for state, side in zip(states, converter.sides, strict=True)
    )


def output(converter: Converter, at_upper: tuple[Array, ...]) -> Array:
    """The share of the supply voltage between the ends of the circuit: float32 []."""
    first, *second = (level.astype(jnp.float32) for level in at_upper)
    return (first - second[0] if second else first) - converter.middle


def switching(states: tuple[Any, ...], before: tuple[Any, ...]) -> tuple[Array, ...]:
    """Whether each half bridge changes from one transistor to the other: bool []."""
    return tuple(
        (state != OFF) & (old != OFF) & (state != old)
        for state, old in zip(states, before, strict=True)
    )
