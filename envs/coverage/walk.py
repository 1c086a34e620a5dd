"""What coverage tasks share: a walk on a grid, paid by what each new cell adds to a set function.

With F a function of the set of cells that were visited, monotone and submodular (what a cell adds
shrinks as the set grows), the reward of a step is its marginal gain, F(visited and cell) less
F(visited); so a return is F(all) - F(first cell).  With `additive` it is F(cell) instead, as if
nothing had been visited before: the reward of a learner that takes returns for sums.  `gain` among
the metrics is the marginal gain in either case.
"""

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fastrl.door import flag, integer
from fastrl.envs import checks, drawing
from fastrl.spaces import Box, Discrete, MultiDiscrete
from fastrl.types import Array, Key, Step

MOVES = np.array(
    [[0, 1], [-1, 0], [0, -1], [1, 0], [0, 0]], np.int32
)  # right, up, left, down, stay


class Seen(NamedTuple):
    """What a walker with `history` sees."""

    place: Any  # int32 [2]: cell and time
    visited: Any  # bool [cells]


class Params(NamedTuple):
    """The task: what matters where, and how often a move goes astray."""

    weights: Any  # float32 [cells]
    slip: float = 0.0  # probability that a random move is made instead


class State(NamedTuple):
    """The walk so far."""

    cell: Array  # int32
    time: Array  # int32, steps taken
    visited: Array  # bool [cells]
    memory: Any  # what the set function keeps of the visited cells


@dataclasses.dataclass(frozen=True)
class Walk:
    """Observation: int32 `[2]`, cell and time, or a `Seen`. Action: right, up, left, down, stay.

    Starts in the cell at `start` (row by row; the middle of the grid where it is None); moves
    beyond the border stay. Terminates after `horizon` steps.  Subclasses have `empty(params)`,
    the memory of no cell, and `add(memory, cell, params)`, what a cell adds and the memory with it.
    """

    rows: int = 7
    columns: int = 7
    horizon: int = 20
    start: int | None = None
    history: bool = False  # whether the walker sees which cells it has visited
    additive: bool = False

    version: ClassVar[int] = 1

    def __post_init__(self) -> None:
        for name in ("rows", "columns", "horizon"):
            integer(name, getattr(self, name), 1)
        for name in ("history", "additive"):
            flag(name, getattr(self, name))
        if self.start is not None:
            integer("start", self.start, 0, self.cells - 1)

    @property
    def cells(self) -> int:
        return self.rows * self.columns

    def places(self) -> np.ndarray:
        """Row and column of every cell, int32 `[cells, 2]`."""
        grid = np.meshgrid(np.arange(self.rows), np.arange(self.columns), indexing="ij")
        return np.stack(grid, -1).reshape(-1, 2).astype(np.int32)

    def default_params(self) -> Params:
        """Two hills of weight, the higher one in the corner of row 0 and column 0."""
        at = self.places() / np.maximum([self.rows - 1, self.columns - 1], 1)
        hills = [(1.0, (0.1, 0.1)), (0.8, (0.9, 0.8))]
        weights = np.sum([h * np.exp(-((at - c) ** 2).sum(1) / 0.08) for h, c in hills], axis=0)
        return Params((0.05 + weights).astype(np.float32))

    def weights(self, params: Params) -> Array:
        """The weights, float32 `[cells]`. Raises ValueError if there are more or fewer."""
        if jnp.shape(params.weights) != (self.cells,):
            raise ValueError(
                f"params.weights has shape {jnp.shape(params.weights)}, but {self.rows} rows and "
                f"{self.columns} columns need ({self.cells},)"
            )
        return jnp.asarray(params.weights, jnp.float32)

    def empty(self, params: Params) -> Any:
        raise NotImplementedError

    def add(self, memory: Any, cell: Array, params: Params) -> tuple[Array, Any]:
        raise NotImplementedError

    def reset(self, key: Key, params: Params) -> tuple[State, Any]:
        middle = self.rows // 2 * self.columns + self.columns // 2
        cell = jnp.int32(middle if self.start is None else self.start)
        _, memory = self.add(self.empty(params), cell, params)
        visited = jnp.zeros(self.cells, bool).at[cell].set(True)
        state = State(cell, jnp.int32(0), visited, memory)
        return state, self._observe(state)

    def step(self, key: Key, state: State, action: Array, params: Params) -> tuple[State, Step]:
        action = checks.step(self, action, params)
        cell = self.moved(key, state.cell, action, params)
        gain, memory = self.add(state.memory, cell, params)
        gain = jnp.where(state.visited[cell], 0.0, gain).astype(jnp.float32)
        memory = jax.tree.map(
            lambda new, old: jnp.where(state.visited[cell], old, new), memory, state.memory
        )
        alone = self.add(self.empty(params), cell, params)[0] if self.additive else gain
        state = State(cell, state.time + 1, state.visited.at[cell].set(True), memory)
        over = state.time >= self.horizon
        step = Step(
            self._observe(state), alone.astype(jnp.float32), over, jnp.zeros_like(over),
            {"gain": gain},
        )  # fmt: skip
        return state, step

    def moved(self, key: Key, cell: Array, action: Array, params: Params) -> Array:
        """The cell after a move."""
        slip_key, move_key = jax.random.split(key)
        slips = jax.random.uniform(slip_key) < params.slip
        action = jnp.where(slips, jax.random.randint(move_key, (), 0, len(MOVES)), action)
        row, column = cell // self.columns, cell % self.columns
        move = jnp.asarray(MOVES)[action]
        row = jnp.clip(row + move[0], 0, self.rows - 1)
        column = jnp.clip(column + move[1], 0, self.columns - 1)
        return (row * self.columns + column).astype(jnp.int32)

    def value(self, cells: Any, params: Params) -> Array:
        """F of the set of `cells`, int32 `[n]`, of which each counts once."""
        memory, total = self.empty(params), jnp.float32(0.0)
        for cell in sorted(set(np.asarray(cells).tolist())):
            gain, memory = self.add(memory, jnp.int32(cell), params)
            total = total + gain
        return total

    def observation_space(self, params: Params) -> Any:
        place = MultiDiscrete((self.cells, self.horizon + 1))
        if not self.history:
            return place
        return Seen(place, Box(False, True, (self.cells,), np.dtype(bool)))

    def action_space(self, params: Params) -> Discrete:
        return Discrete(len(MOVES))

    def render(self, state: State, params: Params) -> np.ndarray:
        """The weights, the cells visited and the walker: uint8 `[40 rows, 40 columns, 3]`."""
        shades = np.asarray(params.weights).reshape(self.rows, self.columns)
        cells = [divmod(int(i), self.columns) for i in np.flatnonzero(np.asarray(state.visited))]
        agent = divmod(int(state.cell), self.columns)
        discs = [(cell, 0.12, drawing.INK) for cell in cells]
        return drawing.board(shades, [*discs, (agent, 0.3, drawing.BLUE)])

    def _observe(self, state: State) -> Any:
        place = jnp.stack([state.cell, state.time]).astype(jnp.int32)
        return Seen(place, state.visited) if self.history else place
