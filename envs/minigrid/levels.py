"""Levels of one's own: `parse` and `show` write them as text, `Fixed` plays them.

Two characters a cell, as MiniGrid prints its grids: `WG` a wall, two spaces the floor, `>>`,
`vv`, `<<` or `^^` the agent, `VR` lava, and objects with the initial of their colour (`S` is
grey): `KY` a yellow key, `A` ball, `B` box, `G` goal, `_` open, `D` closed, `L` locked door.
"""

import dataclasses
from typing import Any, ClassVar, NamedTuple

import numpy as np

from fastrl import door
from fastrl.envs.minigrid import cells, lines, tiles, world
from fastrl.envs.minigrid.task import Params as TaskParams
from fastrl.envs.minigrid.task import Task, see
from fastrl.envs.minigrid.world import State
from fastrl.spaces import Discrete
from fastrl.types import Array, Key, Step

_AGENT = (">>", "vv", "<<", "^^")
_FIXED = {"  ": cells.EMPTY, "WG": cells.WALL_CODE, "VR": cells.LAVA_CODE}
_KINDS = {
    "K": cells.KEY, "A": cells.BALL, "B": cells.BOX, "G": cells.GOAL,
    "_": cells.OPEN_DOOR, "D": cells.CLOSED_DOOR, "L": cells.LOCKED_DOOR,
}  # fmt: skip
_COLOURS = "RGBPYS"
_CODES = {k + c: n + 16 * i for k, n in _KINDS.items() for i, c in enumerate(_COLOURS)}
_TEXTS = {code: text for text, code in (_FIXED | _CODES).items()}


class Params(NamedTuple):
    """A task's own params, and the start of every episode: another level compiles nothing."""

    task: TaskParams
    start: State


@dataclasses.dataclass(frozen=True)
class Fixed:
    """`task` with one level, `level` as text; many levels are many `params.start`.

    `mission` is the colour that the task names, for tasks that name one.
    """

    version: ClassVar[int] = 1

    task: Task
    level: str
    mission: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.task, Task):
            raise ValueError(f"task={self.task!r}: needs a task, such as minigrid.DoorKey(size=5)")
        start = parse(self.level, self.mission)
        shape = tuple(len(line) for line in (_rows(self.level), _rows(self.level)[0]))
        if shape != self.task.shape:
            raise ValueError(f"level: it is {shape}, the task's grid is {self.task.shape}")
        if self.task.mission != bool(self.mission):
            needs = "names a colour: give one" if self.task.mission else "names none: leave it out"
            raise ValueError(f"mission={self.mission!r}: the mission of this task {needs}")
        kinds = np.asarray(start.object_code) & 15
        if np.any(kinds >= cells.CLOSED_DOOR) and not self.task.doors:
            raise ValueError(f"level: it has doors, and {type(self.task).__name__} has none")

    @property
    def num_actions(self) -> int:
        """How many actions there are."""
        return self.task.num_actions

    def default_params(self) -> Params:
        return Params(self.task.default_params(), parse(self.level, self.mission))

    def reset(self, key: Key, params: Params) -> tuple[State, Any]:
        if (given := params.start.open.shape[0]) != (wanted := sum(self.task.shape)):
            raise ValueError(
                f"params.start: height and width are {given} together, those of the task's grid "
                f"{wanted}, {self.task.shape}"
            )
        return params.start, see(self.task, params.start)

    def step(self, key: Key, state: State, action: Array, params: Params) -> tuple[State, Step]:
        return self.task.step(key, state, action, params.task)

    def observation_space(self, params: Params) -> Any:
        return self.task.observation_space(params.task)

    def action_space(self, params: Params) -> Discrete:
        return self.task.action_space(params.task)

    def render(self, state: State, params: Params) -> np.ndarray:
        """As `Task.render`."""
        return self.task.render(state, params.task)


def parse(text: str, mission: str = "", objects: int | None = None) -> State:
    """The start that `text` shows. Objects are listed by rows.

    `objects`: how many places for objects the state has, so that levels can be stacked.
    Raises ValueError, naming the line and the cell, where the text is no level.
    """
    rows = _rows(text)
    agents = [(x, y) for y, row in enumerate(rows) for x, c in enumerate(row) if c in _AGENT]
    if len(agents) != 1:
        raise ValueError(f"level: it has {len(agents)} agents, and must have one ({_AGENT})")
    x, y = agents[0]
    direction = _AGENT.index(rows[y][x])
    codes = np.array([[_code(c, x, y) for x, c in enumerate(row)] for y, row in enumerate(rows)])
    things = [
        (cells.at(int(x), int(y)), int(codes[y, x]))
        for y, x in np.argwhere(~np.isin(codes, list(_FIXED.values())))
    ]
    wanted = max(len(things), 1) if objects is None else door.integer("objects", objects, 1)
    if wanted < len(things):
        raise ValueError(f"objects={objects}: the level has {len(things)}")
    things += [(cells.GONE, cells.GOAL_CODE)] * (wanted - len(things))
    if mission:
        door.choice("mission", mission, cells.COLOURS)
    lava = codes == cells.LAVA_CODE
    return world.start(
        cells.at(x, y), direction, lines.from_grid(codes != cells.WALL_CODE), things,
        lava=lines.from_grid(lava) if lava.any() else (),
        mission=cells.COLOURS.index(mission) if mission else (),
    )  # fmt: skip


def show(state: State, shape: lines.Shape) -> str:
    """`state` as text; what the agent stands on, and what it carries, is not shown."""
    codes = tiles.contents(state, shape)
    rows = [[_TEXTS[int(code)] for code in row] for row in codes]
    y, x = divmod(int(state.agent), cells.STRIDE)
    rows[y][x] = _AGENT[int(state.direction)]
    return "\n".join("".join(row) for row in rows)


def _rows(text: str) -> list[list[str]]:
    """The cells of each line."""
    if not isinstance(text, str):
        raise ValueError(f"level={text!r}: needs a text, two characters a cell (see `parse`)")
    rows = [line for line in text.split("\n") if line]
    lengths = sorted({len(row) for row in rows})
    if len(lengths) != 1 or lengths[0] % 2:
        raise ValueError(
            f"level: its lines have {lengths} characters: needs an even number, in all"
        )
    for name, side in (("lines", len(rows)), ("cells in a line", lengths[0] // 2)):
        if not 3 <= side <= cells.LARGEST:
            raise ValueError(f"level: it has {side} {name}, must be 3 to {cells.LARGEST}")
    return [[row[i : i + 2] for i in range(0, len(row), 2)] for row in rows]


def _code(cell: str, x: int, y: int) -> int:
    if cell in _AGENT:
        return cells.EMPTY
    known = _FIXED | _CODES
    if cell not in known:
        kinds = ", ".join((*_AGENT, *_FIXED, *(k + "R" for k in _KINDS)))
        raise ValueError(f"level: {cell!r} in line {y + 1}, cell {x + 1}: known are {kinds} ...")
    return known[cell]
