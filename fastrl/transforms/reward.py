"""Transforms of what the agent is rewarded for."""

import dataclasses
import math
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp

from fastrl.transforms.base import Transform
from fastrl.types import Action, Array, Key, Observation, Step


class ScaleRewardParams(NamedTuple):
    env: Any
    scale: float | Array


@dataclasses.dataclass(frozen=True)
class ScaleReward(Transform):
    """Rewards times `scale`, a traced number of the params.

    Episode returns in logs are those of the scaled rewards.  For a scale learned on the way
    see `fastrl.normalize.scale_rewards`.
    """

    scale: float

    own_params: ClassVar[bool] = True

    def _check(self) -> None:
        if not math.isfinite(self.scale):
            raise ValueError(f"ScaleReward(scale={self.scale}): needs a finite number")

    def default_params(self) -> ScaleRewardParams:
        return ScaleRewardParams(self.env.default_params(), self.scale)

    def reset(self, key: Key, params: ScaleRewardParams) -> tuple[Any, Observation]:
        return self.env.reset(key, params.env)

    def step(
        self, key: Key, state: Any, action: Action, params: ScaleRewardParams
    ) -> tuple[Any, Step]:
        state, step = self.env.step(key, state, action, params.env)
        return state, step._replace(reward=jnp.float32(step.reward * params.scale))
