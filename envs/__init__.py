"""Environments that fastrl ships, one a file; importing a family registers its names.

A family is imported when it is asked for: by attribute, by import, or by one of its names.
"""

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

if __name__ != "fastrl.envs":
    raise ImportError(
        f"this folder was imported as {__name__!r}: import it as 'fastrl.envs' "
        "(under two names every class in it would exist twice)"
    )

if TYPE_CHECKING:
    from fastrl.envs import (
        adapters,
        bsuite,
        classic,
        continual,
        coverage,
        grid_world,
        maze,
        memory,
        minatar,
        minigrid,
        motors,
        probe,
        quadrotor,
        tabular,
    )

__all__ = [
    "adapters",
    "bsuite",
    "classic",
    "continual",
    "coverage",
    "grid_world",
    "maze",
    "memory",
    "minatar",
    "minigrid",
    "motors",
    "probe",
    "quadrotor",
    "tabular",
]

# How the names of a family begin; those of `classic` are the ones that begin otherwise.
_BEGINNINGS = {
    "MinAtar/": "minatar",
    "MiniGrid-": "minigrid",
    "bandit/": "bsuite",
    "brax/": "adapters",
    "bsuite/": "bsuite",
    "continual/": "continual",
    "coverage/": "coverage",
    "grid/": "grid_world",
    "gymnasium/": "adapters",
    "maze/": "maze",
    "memory/": "memory",
    "motor/": "motors",
    "probe/": "probe",
    "quadrotor/": "quadrotor",
    "tabular/": "tabular",
}


def load_family(name: str) -> None:
    """Imports the family that an environment called `name` would belong to."""
    families = (family for start, family in _BEGINNINGS.items() if name.startswith(start))
    importlib.import_module(f"{__name__}.{next(families, 'classic')}")


def load_all() -> None:
    """Imports every family."""
    for family in __all__:
        importlib.import_module(f"{__name__}.{family}")


def __getattr__(name: str) -> ModuleType:
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
