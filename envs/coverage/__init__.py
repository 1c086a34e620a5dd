"""Walks that are rewarded for what they add: coverage of a grid, and informative paths."""

from fastrl.envs.coverage.coverage import Coverage
from fastrl.envs.coverage.informative import InformativePath
from fastrl.envs.coverage.walk import Seen, Walk
from fastrl.registry import register

__all__ = ["Coverage", "InformativePath", "Seen", "Walk"]

register("coverage/Grid-v0", Coverage, "Coverage: see as much of a grid as possible on a walk.")
register(
    "coverage/InformativePath-v0",
    InformativePath,
    "InformativePath: measure a random field where it tells most, on a walk.",
)
