"""Configs: TOML to a run and back.

    run_config = config.load("configs/ppo_cartpole.toml")
    algorithm, hparams, task = config.build(run_config)

`describe` writes the config of a run that a script made; `dumps` writes a `RunConfig`.
"""

from fastrl.config.build import Built, build, build_env
from fastrl.config.describe import describe, dumps
from fastrl.config.read import load, loads
from fastrl.config.run_config import RunConfig, TrainOptions

__all__ = [
    "Built",
    "RunConfig",
    "TrainOptions",
    "build",
    "build_env",
    "describe",
    "dumps",
    "load",
    "loads",
]
