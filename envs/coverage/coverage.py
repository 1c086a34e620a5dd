"""Coverage: F is the weight of all cells within reach of a visited one.

The coverage and biodiversity tasks of Prajapat et al. 2024 (arXiv:2307.13372), section 5, on a
smaller grid: an animal density to be seen from a walk, with a sensor of some radius.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np

from fastrl.door import integer
from fastrl.envs.coverage.walk import Params, Walk
from fastrl.types import Array


@dataclasses.dataclass(frozen=True)
class Coverage(Walk):
    """A walker that sees the cells within `radius` rows and columns of its own."""

    radius: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        integer("radius", self.radius, 0)

    def reach(self) -> np.ndarray:
        """Which cells are seen from which, bool `[cells, cells]`."""
        places = self.places()
        return np.abs(places[:, None] - places[None]).max(-1) <= self.radius

    def empty(self, params: Params) -> Array:
        return jnp.zeros(self.cells, bool)

    def add(self, memory: Array, cell: Array, params: Params) -> tuple[Array, Array]:
        seen = jnp.asarray(self.reach())[cell]
        return jnp.where(seen & ~memory, self.weights(params), 0.0).sum(), memory | seen
