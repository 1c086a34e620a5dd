"""Environments that fastrl ships, one a file; importing this registers their names."""

if __name__ != "fastrl.envs":
    raise ImportError(
        f"this folder was imported as {__name__!r}: import it as 'fastrl.envs' "
        "(under two names every class in it would exist twice)"
    )

from fastrl.envs import (
    adapters,
    bsuite,
    classic,
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
