"""Mazes with levels as params, for unsupervised environment design."""

import functools

from fastrl.envs.maze.generate import mutate, mutate_all, sample_level
from fastrl.envs.maze.layouts import LAYOUTS
from fastrl.envs.maze.level import Level
from fastrl.envs.maze.maze import Maze, Seen, State
from fastrl.envs.maze.solve import UNREACHABLE, Plan, is_solvable, plan, shortest_path
from fastrl.registry import register

__all__ = [
    "LAYOUTS", "UNREACHABLE", "Level", "Maze", "Plan", "Seen", "State", "is_solvable", "mutate",
    "mutate_all", "plan", "sample_level", "shortest_path",
]  # fmt: skip

for _level in ("Random", "SixteenRooms", "Labyrinth", "StandardMaze"):
    register(
        f"maze/{_level}-v0",
        functools.partial(Maze, level=_level),
        f"Maze, {'a fixed random level' if _level == 'Random' else 'level ' + _level}: "
        "find the goal, seeing five cells ahead.",
    )
