"""Random grid worlds: levels of all kinds in one program, for meta-learned objectives."""

import functools

from fastrl.envs.grid_world.grid_world import GridWorld, State, Tabular
from fastrl.envs.grid_world.level import Object, Params, make_level
from fastrl.envs.grid_world.modes import MODES, Mode
from fastrl.envs.grid_world.sampling import sample_level, sample_lifetime
from fastrl.registry import register

__all__ = [
    "MODES", "GridWorld", "Mode", "Object", "Params", "State", "Tabular", "make_level",
    "sample_level", "sample_lifetime",
]  # fmt: skip

for _name, _mode, _summary in (
    ("Dense", "dense", "objects that soon come back"),
    ("Sparse", "sparse", "two objects, each of which ends the episode"),
    ("Long", "long", "1,000 steps"),
    ("Longer", "longer", "2,000 steps, two rooms"),
    ("LongDense", "long_dense", "2,000 steps, four rooms"),
    ("RandDense", "rand_dense", "objects come back elsewhere"),
    ("RandSmall", "rand_small", "7x7, objects come back elsewhere"),
    ("All", "all", "4x4 to 10x10, up to five objects with numbers of their own"),
    ("RandAll", "rand_all", "as All, and objects come back elsewhere"),
    ("Debug", "debug", "up to 4x4 and 10 steps"),
):
    register(
        f"grid/{_name}-v0",
        functools.partial(GridWorld, mode=_mode),
        f"Random grid world, mode {_mode}: {_summary}.",
    )
