"""From fitness to utilities: how much each member of a population counts.

Fitness is `[P, 2]`, antithetic pairs; `ok` `[P]` says which pairs count at all.  Larger is
better in both.  Ties share: equal members have equal utilities.

| shaping | utility | |
|---|---|---|
| pairwise | 1 for the better of a pair, 0 for the other | needs no common scale between pairs |
| centred | rank / (M - 1) - 1/2 among all M members | needs tasks that can be compared |
| standard | (F - mean) / std among all members | the same |
| raw | F | without bias for the smoothed objective |
"""

from collections.abc import Callable

import jax.numpy as jnp

from fastrl.types import Array

Shaping = Callable[[Array, Array], Array]  # (fitness [P, 2], ok [P]) -> utilities [P, 2]


def pairwise(fitness: Array, ok: Array) -> Array:
    """1 and 0 within each pair, 1/2 each for a tie (the ranks of Salimans et al. within pairs).

    Adding a constant to a pair, or a monotone map of all fitness, changes nothing.
    """
    better = fitness > fitness[:, ::-1]
    return better + 0.5 * (fitness == fitness[:, ::-1])


def centred(fitness: Array, ok: Array) -> Array:
    """Ranks over the population, from -1/2 to 1/2 (Salimans et al. 2017, arXiv:1703.03864)."""
    flat, counts = fitness.ravel(), jnp.repeat(ok, 2)
    below = (flat[None] < flat[:, None]) & counts[None]
    equal = (flat[None] == flat[:, None]) & counts[None]
    rank = below.sum(-1) + 0.5 * (equal.sum(-1) - 1)
    return (rank / jnp.maximum(counts.sum() - 1, 1) - 0.5).reshape(fitness.shape)


def standard(fitness: Array, ok: Array) -> Array:
    """Standardised over the population, as LPO was meta-trained."""
    counts = jnp.broadcast_to(ok[:, None], fitness.shape)
    known = jnp.where(counts, fitness, 0.0)
    number = jnp.maximum(counts.sum(), 1)
    mean = known.sum() / number
    variance = jnp.where(counts, (known - mean) ** 2, 0.0).sum() / number
    return (fitness - mean) / (jnp.sqrt(variance) + 1e-8)


def raw(fitness: Array, ok: Array) -> Array:
    """The fitness itself."""
    return fitness


SHAPINGS: dict[str, Shaping] = {
    "pairwise": pairwise, "centred": centred, "standard": standard, "raw": raw,
}  # fmt: skip
