"""`RunConfig`: all that makes a run, as checked and typed records."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from fastrl import algorithms
from fastrl import reset as resets
from fastrl.config.source import Source
from fastrl.levels import levels
from fastrl.transforms.continual import lifelong

RESETS = {
    "fresh": resets.fresh, "pool": resets.pool, "cached": resets.cached, "levels": levels,
    "lifelong": lifelong,
}  # fmt: skip

# In the place of a name: something that only the script that made the run can give again.
CUSTOM = "custom"


@dataclasses.dataclass(frozen=True)
class TrainOptions:
    """When the run is logged, evaluated and saved, in environment steps; 0: only at the end."""

    log_every: int | None = None  # between rows of the log (none: 100 in all)
    eval_every: int | None = None  # between evaluations (none: 10 in all; 0: never)
    eval_episodes: int | None = None  # of one evaluation (none: 32)
    checkpoint_every: int | None = None  # between checkpoints (none: 10 in all)
    keep: int | None = None  # how many checkpoints stay, besides the best (none: 3)


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """All that makes a run. `config` and `hparams` are the algorithm's own records."""

    env: str  # a registered name
    algorithm: str = "ppo"
    steps: int = 500_000  # environment steps
    seed: int = 0
    devices: int = 1  # over which the environments are spread
    objective: str = ""  # empty: the algorithm's own
    task: str = ""  # empty: the environment's params, changed by `params`
    env_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    params: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    transforms: tuple[Mapping[str, Any], ...] = ()  # innermost first; each has a "name"
    reset: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # has a "kind"
    config: Any = None
    hparams: Any = None
    train: TrainOptions = TrainOptions()
    source: Source = dataclasses.field(default=Source(), compare=False)  # for errors

    def __post_init__(self) -> None:
        for name, low, high in (
            ("steps", 1, 2**63 - 1), ("seed", 0, 2**32 - 1), ("devices", 1, 2**31 - 1),
        ):  # fmt: skip
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"{name} = {value}: must be from {low} to {high}")
        if self.algorithm != CUSTOM:
            module = algorithms.module(self.algorithm)
            for name, cls in (("config", module.Config), ("hparams", module.HParams)):
                if getattr(self, name) is None:
                    object.__setattr__(self, name, cls())
