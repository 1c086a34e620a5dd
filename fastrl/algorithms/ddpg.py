"""Deep deterministic policy gradients (Lillicrap et al. 2016, arXiv:1509.02971).

TD3 (`fastrl.algorithms.td3`) with one critic, no smoothing, and policy and targets at every update.
Exploration is by independent normal noise.
"""

import dataclasses
import functools
from typing import NamedTuple

from fastrl import arguments
from fastrl.algorithms import continuous, off_policy, td3
from fastrl.types import Algorithm, Env, ResetFactory, Scalar


@dataclasses.dataclass(frozen=True)
class Config(continuous.Config):
    """What shapes the program; the fields of `continuous.Config`."""

    learning_starts: int = 25_000
    fused_mlp: bool = False  # on CPU: faster updates by kernels; compiles for seconds more


class HParams(NamedTuple):
    """Traced numbers: another value compiles nothing."""

    learning_rate: Scalar = 3e-4  # of the policy
    critic_learning_rate: Scalar = 3e-4
    gamma: Scalar = 0.99  # discount
    tau: Scalar = 0.005  # share of the networks that the targets take on at every update
    noise: Scalar = 0.1  # of actions taken, in units where the Box is [-1, 1]


RANGES = {name: td3.RANGES[name] for name in HParams._fields}


def make(
    env: Env, config: Config = Config(), *, reset: ResetFactory | None = None
) -> Algorithm[HParams, off_policy.State]:
    """DDPG on `env`. The same arguments give the same Algorithm, so nothing compiles twice.

    Raises TypeError or ValueError for what does not fit, before anything is compiled.
    """
    return _make(env, config, arguments.checked(env, config, Config, reset))


@functools.lru_cache(maxsize=256)
def _make(env: Env, config: Config, reset: ResetFactory) -> Algorithm:
    shared = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
    choices = td3.Config(**shared, num_critics=1, policy_delay=1, smoothing=False)
    agent = td3.agent(env, choices)
    return continuous.algorithm("ddpg", env, config, reset, agent, HParams(), RANGES)
