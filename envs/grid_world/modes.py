"""The modes of the grid world: distributions of levels, by name.

The table of the released GROOVE code (EmptyJackson/groove 0c091c0, `environments/gridworld`),
which follows "Discovering Reinforcement Learning Algorithms" (Oh et al. 2020) for the
handcrafted modes and "Discovering General Reinforcement Learning Algorithms with Adversarial
Environment Design" (Jackson et al. 2023) for the rest.  The mazes are those of minimax.
"""

import dataclasses
from collections.abc import Sequence

from fastrl.envs.maze.layouts import LAYOUTS, rows

Interval = tuple[float, float]  # a constant where both ends are the same
Count = tuple[int, int]  # the least and the most


@dataclasses.dataclass(frozen=True)
class Mode:
    """A distribution of levels, and the sizes of the arrays that hold any of them.

    Rewards, grid sizes and numbers of objects are uniform between their two ends,
    probabilities, steps and lifetimes log-uniform.

    Raises ValueError for fields that contradict each other.
    """

    size: int  # width of the largest grid
    types: tuple[int, ...]  # of each object that there can be; these follow by type:
    rewards: tuple[Interval, ...]
    terminates: tuple[Interval, ...]
    respawns: tuple[Interval, ...]
    max_steps: Count
    lifetime: Count  # agent updates after which a meta-learner starts a new agent
    grid_size: Count = (0, 0)  # (0, 0): the largest
    num_objects: Count = (0, 0)  # (0, 0): all of them
    walls: tuple[int, ...] = ()
    num_walls: int = 0  # drawn from the cells of the largest grid
    random_cells: bool = False  # objects come back in another cell
    layout: tuple[int, ...] = ()  # start and objects of the default level; (): drawn

    def __post_init__(self) -> None:
        if self.grid_size == (0, 0):
            object.__setattr__(self, "grid_size", (self.size, self.size))
        if self.num_objects == (0, 0):
            object.__setattr__(self, "num_objects", (self.max_objects, self.max_objects))
        _check(self)

    @property
    def max_objects(self) -> int:
        return len(self.types)

    @property
    def num_types(self) -> int:
        return len(self.rewards)


def _check(mode: Mode) -> None:
    for name, most in (("grid_size", mode.size), ("num_objects", mode.max_objects)):
        least, greatest = getattr(mode, name)
        if not 1 <= least <= greatest <= most:
            raise ValueError(f"Mode: {name}={(least, greatest)} must lie within 1 and {most}")
    for name in ("max_steps", "lifetime"):
        least, greatest = getattr(mode, name)
        if not 1 <= least <= greatest:
            raise ValueError(f"Mode: {name}={(least, greatest)} must be at least 1 and in order")
    for name in ("rewards", "terminates", "respawns"):
        values = getattr(mode, name)
        if len(values) != mode.num_types:
            raise ValueError(f"Mode: {len(values)} {name} for {mode.num_types} types of objects")
        if any(low > high for low, high in values):
            raise ValueError(f"Mode: {name}={values}: an interval is (low, high)")
        if name != "rewards" and not all(0 <= low <= high <= 1 for low, high in values):
            raise ValueError(f"Mode: {name}={values} must be probabilities, 0 to 1")
        if name != "rewards" and any(low == 0 < high for low, high in values):
            raise ValueError(f"Mode: {name}={values}: a log-uniform interval starts above 0")
    if not all(0 <= t < mode.num_types for t in mode.types):
        raise ValueError(f"Mode: types={mode.types}, but there are {mode.num_types} of them")
    if not all(0 <= c < mode.size**2 for c in mode.walls):
        raise ValueError(f"Mode: walls={mode.walls} must be cells of 0 to {mode.size**2 - 1}")
    if mode.walls and mode.num_walls:
        raise ValueError(f"Mode: has walls, and num_walls={mode.num_walls}: give one of them")
    if not 0 <= mode.num_walls <= mode.size**2:
        raise ValueError(f"Mode: num_walls={mode.num_walls} of {mode.size**2} cells")


def _handmade(
    size: int,
    max_steps: int,
    objects: Sequence[tuple[int, float, float, float]],
    walls: tuple[int, ...] = (),
    *,
    random_cells: bool = False,
    lifetime: int = 2500,
    layout: tuple[int, ...] = (),
) -> Mode:
    """A mode with constant numbers; `objects` are (how many, reward, terminate, respawn)."""
    constants = [tuple((o[i], o[i]) for o in objects) for i in (1, 2, 3)]
    types = tuple(t for t, o in enumerate(objects) for _ in range(o[0]))
    return Mode(
        size, types, *constants, max_steps=(max_steps, max_steps),
        lifetime=(lifetime, lifetime), walls=walls, random_cells=random_cells, layout=layout,
    )  # fmt: skip


def _random(
    grid_size: Count,
    max_steps: Count,
    num_objects: Count,
    num_walls: int,
    lifetime: Count,
    *,
    random_cells: bool = False,
) -> Mode:
    """A mode of random levels; objects of the first type are always worth collecting."""
    kinds = num_objects[1]
    return Mode(
        grid_size[1], tuple(range(kinds)), ((0.0, 1.0),) + ((-1.0, 1.0),) * (kinds - 1),
        ((0.01, 1.0),) * kinds, ((0.001, 0.1),) * kinds, max_steps, lifetime, grid_size,
        num_objects, num_walls=num_walls, random_cells=random_cells,
    )  # fmt: skip


def _maze(name: str) -> Mode:
    """A mode with the walls of a maze, three objects that are worth collecting."""
    lines = rows(name)
    walls = tuple(i for i, c in enumerate("".join(lines)) if c == "#")
    return Mode(
        len(lines), (0, 1, 2), ((0.0, 1.0),) * 3, ((0.01, 1.0),) * 3, ((0.001, 0.1),) * 3,
        (25, 50), (2500, 2500), walls=walls,
    )  # fmt: skip


def _column(size: int, column: int, gaps: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(row * size + column for row in range(size) if row not in gaps)


def _row(size: int, row: int, gaps: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(row * size + column for column in range(size) if column not in gaps)


def _snake(name: str) -> str:
    """SixteenRooms2 -> sixteen_rooms_2."""
    return "".join(f"_{c.lower()}" if c.isupper() or c.isdigit() else c for c in name).strip("_")


_DENSE = ((2, 1.0, 0.0, 0.05), (1, -1.0, 0.5, 0.1), (1, -1.0, 0.0, 0.5))
_LONG = ((2, 1.0, 0.0, 0.01), (2, -1.0, 0.5, 1.0))
_RAND = 25_000  # the lifetime of handcrafted modes with random cells
_ALL = ((4, 10), (20, 750), (1, 5), 15)

MODES: dict[str, Mode] = {
    "dense": _handmade(11, 500, _DENSE, layout=(0, 14, 40, 95, 101)),
    "sparse": _handmade(13, 50, ((1, 1.0, 1.0, 0.0), (1, -1.0, 1.0, 0.0))),
    "long": _handmade(11, 1000, _LONG),
    "longer": _handmade(
        9, 2000, ((2, 1.0, 0.1, 0.01), (3, -1.0, 0.8, 1.0)), _column(9, 4, gaps=(1, 7))
    ),
    "long_dense": _handmade(
        11, 2000, ((4, 1.0, 0.0, 0.005),),
        tuple(sorted({*_column(11, 5, gaps=(0, 7)), *_row(11, 4, gaps=(2, 8))})),
    ),
    "rand_dense": _handmade(11, 500, _DENSE, random_cells=True, lifetime=_RAND),
    "rand_long": _handmade(11, 1000, _LONG, random_cells=True, lifetime=_RAND),
    "rand_small": _handmade(
        7, 500, ((2, 1.0, 0.0, 0.05), (2, -1.0, 0.5, 0.1)), (9, 25),
        random_cells=True, lifetime=_RAND,
    ),
    "rand_sparse": _handmade(
        7, 50, ((1, 1.0, 1.0, 1.0), (2, -1.0, 1.0, 1.0)), random_cells=True, lifetime=_RAND
    ),
    "rand_very_dense": _handmade(
        11, 2000, ((1, 1.0, 0.0, 1.0),), random_cells=True, lifetime=_RAND
    ),
    "rand_tiny": _handmade(3, 50, ((2, 1.0, 0.0, 1.0),), random_cells=True, lifetime=250),
    "small": _random((4, 6), (20, 100), (1, 3), 7, (250, 250)),
    "medium": _random((6, 8), (100, 250), (2, 4), 10, (1000, 1000)),
    "large": _random((8, 10), (250, 750), (2, 5), 15, (2500, 2500)),
    "all": _random(*_ALL, (1000, 1000)),
    "all_shortlife": _random(*_ALL, (250, 250)),
    "all_randlife": _random(*_ALL, (50, 250)),
    "all_vrandlife": _random(*_ALL, (10, 250)),
    "rand_all": _random(*_ALL, (_RAND, _RAND), random_cells=True),
    "debug": _random((3, 4), (5, 10), (1, 2), 4, (4, 4)),
    **{_snake(name): _maze(name) for name in LAYOUTS},
}  # fmt: skip
