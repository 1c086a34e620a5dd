"""Sums and inverse distribution functions of short rows, with a fixed order of additions.

Every implementation adds in this order, so that all give the same bits.
"""

import jax
import jax.numpy as jnp


def total(rows: jax.Array) -> jax.Array:
    """Sums `[...]` of `rows` `[..., W]`, W a power of two: half to half, then that again, ..."""
    while rows.shape[-1] > 1:
        half = rows.shape[-1] // 2
        rows = rows[..., :half] + rows[..., half:]
    return rows[..., 0]


def choose(rows: jax.Array, mass: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Where `mass` `[...]` falls in `rows` `[..., W]`; what is left of it there; what is there.

    The first place whose running sum exceeds `mass`, int32 `[...]`; where none does, the last
    place that raised the running sum.  So a place that holds zero is never chosen, unless all do
    (then place 0).  The running sum is taken from left to right: rounded additions of numbers
    that are not negative never fall, which sums in another order do not grant.
    """
    running = [rows[..., 0]]
    for i in range(1, rows.shape[-1]):
        running.append(running[-1] + rows[..., i])
    place, before, there = jnp.zeros(mass.shape, jnp.int32), jnp.zeros_like(mass), rows[..., 0]
    for i, upto in enumerate(running[:-1]):
        passed = (upto <= mass) & (upto < running[-1])
        place = place + passed
        before = jnp.where(passed, upto, before)
        there = jnp.where(passed, rows[..., i + 1], there)
    return place, mass - before, there
