"""Vectors and unit quaternions as records of their entries, which may be arrays of any shape.

Entries apart from each other keep loops over many drones vectorised, and nothing is stacked
before the observation. Quaternions have the scalar last and turn the body's frame into the
world's; angles are roll, pitch and yaw about fixed axes, as in Bullet.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fastrl.types import Array, Scalar

GIMBAL = 0.99999  # Bullet's threshold on sin(pitch), beyond which roll and yaw are not told apart


class Vector(NamedTuple):
    """Three entries of equal shape."""

    x: Any
    y: Any
    z: Any


class Quaternion(NamedTuple):
    """A rotation from body to world, of length 1."""

    x: Any
    y: Any
    z: Any
    w: Any


class Axes(NamedTuple):
    """The body's axes in the world's frame: the columns of its rotation matrix."""

    x: Vector
    y: Vector
    z: Vector


def add(*vectors: Vector) -> Vector:
    """The sum."""
    return Vector(*(sum(entries[1:], entries[0]) for entries in zip(*vectors, strict=True)))


def subtract(a: Vector, b: Vector) -> Vector:
    """a - b."""
    return Vector(a.x - b.x, a.y - b.y, a.z - b.z)


def scale(a: Vector, by: Scalar) -> Vector:
    """Every entry times `by`."""
    return Vector(a.x * by, a.y * by, a.z * by)


def times(a: Vector, b: Vector) -> Vector:
    """Entry by entry."""
    return Vector(a.x * b.x, a.y * b.y, a.z * b.z)


def dot(a: Vector, b: Vector) -> Any:
    """The inner product."""
    return a.x * b.x + a.y * b.y + a.z * b.z


def cross(a: Vector, b: Vector) -> Vector:
    """a x b."""
    return Vector(a.y * b.z - a.z * b.y, a.z * b.x - a.x * b.z, a.x * b.y - a.y * b.x)


def norm(a: Vector) -> Array:
    """The length, with gradient 0 where it is 0."""
    squared = dot(a, a)
    positive = squared > 0.0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, squared, 1.0)), 0.0)


def clip(a: Vector, most: Vector) -> Vector:
    """Every entry within plus and minus that of `most`."""
    return Vector(*(jnp.clip(x, -m, m) for x, m in zip(a, most, strict=True)))


def axes(q: Quaternion) -> Axes:
    """The axes of a body with attitude `q`."""
    x, y, z, w = q
    return Axes(
        Vector(1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y)),
        Vector(2 * (x * y - w * z), 1 - 2 * (x * x + z * z), 2 * (y * z + w * x)),
        Vector(2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)),
    )


def to_world(a: Axes, v: Vector) -> Vector:
    """The body's vector `v` in the world's frame."""
    return add(scale(a.x, v.x), scale(a.y, v.y), scale(a.z, v.z))


def to_body(a: Axes, v: Vector) -> Vector:
    """The world's vector `v` in the body's frame."""
    return Vector(dot(a.x, v), dot(a.y, v), dot(a.z, v))


def turn(q: Quaternion, rates: Vector, time: Scalar) -> Quaternion:
    """`q` after `time` at constant `rates` about the body's axes: q * exp(rates time / 2).

    Sine and cosine by their series, which is exact in float32 for turns of up to 5 radians.
    """
    half = (0.25 * time * time) * dot(rates, rates)  # squared
    c = _series(half, _COSINE)
    x, y, z = scale(rates, 0.5 * time * _series(half, _SINE))
    return Quaternion(
        c * q.x + z * q.y - y * q.z + x * q.w,
        -z * q.x + c * q.y + x * q.z + y * q.w,
        y * q.x - x * q.y + c * q.z + z * q.w,
        -x * q.x - y * q.y - z * q.z + c * q.w,
    )


_COSINE = [(-1) ** k / math.factorial(2 * k) for k in range(8)]  # cos(x), in x^2
_SINE = [(-1) ** k / math.factorial(2 * k + 1) for k in range(7)]  # sin(x) / x, in x^2


def _series(x: Array, coefficients: list[float]) -> Array:
    total = jnp.full_like(x, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        total = total * x + coefficient
    return total


def normalise(q: Quaternion) -> Quaternion:
    """`q` with length 1."""
    by = jax.lax.rsqrt(q.x * q.x + q.y * q.y + q.z * q.z + q.w * q.w)
    return Quaternion(*(entry * by for entry in q))


def from_angles(angles: Vector) -> Quaternion:
    """The attitude with roll, pitch and yaw `angles`."""
    (sr, sp, sy), (cr, cp, cy) = (tuple(f(0.5 * a) for a in angles) for f in (jnp.sin, jnp.cos))
    return Quaternion(
        sr * cp * cy - cr * sp * sy,
        cr * sp * cy + sr * cp * sy,
        cr * cp * sy - sr * sp * cy,
        cr * cp * cy + sr * sp * sy,
    )


def to_angles(q: Quaternion) -> Vector:
    """Roll, pitch and yaw. Upright or upside down on its side roll is 0, as in Bullet."""
    x, y, z, w = q
    sin_pitch = 2 * (w * y - x * z)
    roll = jnp.arctan2(2 * (y * z + w * x), w * w - x * x - y * y + z * z)
    yaw = jnp.arctan2(2 * (x * y + w * z), w * w + x * x - y * y - z * z)
    locked = jnp.abs(sin_pitch) >= GIMBAL
    side = jnp.sign(sin_pitch)
    return Vector(
        jnp.where(locked, 0.0, roll),
        jnp.where(locked, side * (0.5 * math.pi), jnp.arcsin(jnp.clip(sin_pitch, -1.0, 1.0))),
        jnp.where(locked, 2 * jnp.arctan2(-side * x, side * y), yaw),
    )
