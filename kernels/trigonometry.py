"""Sine and cosine together, of float32 numbers: one reduction of the angle serves both.

XLA's CPU compiler computes each of the two by itself, with a path for huge angles that keeps it
from using vector instructions.  Here

    x = k pi/2 + r,  |r| <= pi/4,   by subtracting k times three parts of pi/2 (Cody and Waite 1980)

and the polynomials for r are those of Moshier's Cephes library (`sinf.c`).
"""

import jax
import jax.numpy as jnp
import numpy as np

_PARTS = tuple(map(np.float32, (1.5703125, 4.837512969970703e-4, 7.549789948768648e-8)))
_SIN = tuple(map(np.float32, (-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1)))
_COS = tuple(map(np.float32, (2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2)))


@jax.custom_jvp
def sin_cos(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """`(sin x, cos x)` of float32 `x` `[...]`, in radians.

    Off by at most 1e-7 for |x| up to 1,000, and by 1e-6 up to 10,000; meant for angles, not for
    larger numbers.  Not finite `x` gives NaN.
    """
    x = jnp.asarray(x, jnp.float32)
    quarter = jnp.floor(x * np.float32(2 / np.pi) + np.float32(0.5))
    r = x
    for part in _PARTS:
        r = r - quarter * part
    z = r * r
    sin = r + r * z * _polynomial(_SIN, z)
    cos = np.float32(1.0) - np.float32(0.5) * z + z * z * _polynomial(_COS, z)
    turn = quarter.astype(jnp.int32)
    swapped = (turn & 1) == 1
    first, second = jnp.where(swapped, cos, sin), jnp.where(swapped, sin, cos)
    first = jnp.where((turn & 2) == 0, first, -first)
    return first, jnp.where(((turn + 1) & 2) == 0, second, -second)


@sin_cos.defjvp
def _derivative(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple:
    sin, cos = sin_cos(*primals)
    return (sin, cos), (cos * tangents[0], -sin * tangents[0])


def _polynomial(coefficients: tuple[np.float32, ...], z: jax.Array) -> jax.Array:
    """By Horner's rule, the highest power first."""
    value = coefficients[0] * z + coefficients[1]
    for c in coefficients[2:]:
        value = value * z + c
    return value
