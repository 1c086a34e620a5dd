"""InformativePath: F is the information that measurements give about a Gaussian random field.

Informative path planning and Bayesian experiment design as in Prajapat et al. 2024
(arXiv:2307.13372), section 5: with the field's covariance K over the cells and measurements with
noise of variance s,

    F(A) = 1/2 log det(I + K_A / s),     F(x | A) = 1/2 log(1 + k_A(x, x) / s)

where k_A is the covariance that is left after A was measured.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np

from fastrl.door import number
from fastrl.envs.coverage.walk import Params, Walk
from fastrl.types import Array


@dataclasses.dataclass(frozen=True)
class InformativePath(Walk):
    """A field of covariance `w_x w_y exp(-|x - y|^2 / 2 l^2)`, with the weights as deviations."""

    length_scale: float = 1.5  # l, in cells
    noise: float = 0.1  # s

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("length_scale", "noise"):
            if number(name, getattr(self, name), 0.0) == 0.0:
                raise ValueError(f"{name}=0: must be above 0")

    def empty(self, params: Params) -> Array:
        places = self.places().astype(np.float32)
        squares = ((places[:, None] - places[None]) ** 2).sum(-1)
        weights = self.weights(params)
        alike = jnp.asarray(np.exp(-0.5 * squares / self.length_scale**2), jnp.float32)
        return weights[:, None] * weights[None, :] * alike

    def add(self, memory: Array, cell: Array, params: Params) -> tuple[Array, Array]:
        column = memory[:, cell]
        variance = jnp.maximum(column[cell], 0.0)
        gain = 0.5 * jnp.log1p(variance / self.noise)
        left = memory - column[:, None] * column[None, :] / (self.noise + variance)
        return gain, left
