"""What `make` of every algorithm does first: its arguments checked, its episodes' starts built."""

from typing import Any

from fastrl import door
from fastrl import reset as resets
from fastrl.types import Env, Reset, ResetFactory


def checked(env: Env, config: Any, cls: type, reset: ResetFactory | None) -> ResetFactory:
    """`reset`, by default the environment's own.

    Raises TypeError unless `env` is an environment, `config` a `cls`, and `reset` a function.
    """
    door.environment(env)
    door.record("config", config, cls)
    reset = reset or resets.default(env)
    door.function("reset", reset, "fastrl.reset.pool")
    return reset


def starts(env: Env, reset: ResetFactory) -> Reset:
    """Where episodes of `env` start. Raises TypeError if `reset` makes something else."""
    made = reset(env)
    door.record("what reset(env) returns", made, Reset)
    return made
