"""The world of all tasks: its state, what the seven actions do to it, and what the agent sees.

Functions here serve any batch axes, which come last: `[K, *B]` (see `compiling.batch_last`).
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from fastrl.envs.compiling import branch
from fastrl.envs.minigrid import cells, lines, view
from fastrl.envs.minigrid.lines import Shape
from fastrl.types import Array

Object = tuple[Any, Any]  # its cell and its code


class State(NamedTuple):
    """An agent in a grid of `H` rows and `W` columns, with `K` objects."""

    agent: Array  # int32, the cell where it is: x + 32 y
    direction: Array  # int32: 0 right, 1 down, 2 left, 3 up
    time: Array  # int32, steps taken
    open: Array  # uint32 [H + W], all cells that are no walls: see `lines`
    lava: Any  # likewise, or () where there is none
    object_cell: Array  # int32 [K]: where each object is; CARRIED or GONE is no cell
    object_code: Array  # int32 [K]: what it is, see `cells`
    mission: Any  # int32, the colour that the mission names, or () where it names none


class Front(NamedTuple):
    """The cell in front of the agent, before it acts."""

    cell: Array
    holds: Array  # bool [K]: which object is there
    kind: Array  # its kind; 0 if there is none
    colour: Array
    free: Array  # neither wall nor lava nor object
    lava: Array


def start(
    agent: Any,
    direction: Any,
    open: Array,
    objects: list[Object],
    lava: Any = (),
    mission: Any = (),
) -> State:
    """The state at the start of an episode, from the places and codes of objects."""
    named = () if isinstance(mission, tuple) else (mission,)
    numbers = [agent, direction, *named, *(n for pair in objects for n in pair)]
    sets = [open.shape[1:], () if isinstance(lava, tuple) else lava.shape[1:]]
    batch = np.broadcast_shapes(*sets, *map(np.shape, numbers))

    def full(x: Any) -> Array:
        return jnp.broadcast_to(jnp.asarray(x, jnp.int32), batch)

    def spread(x: Array) -> Array:
        x = x.reshape(x.shape[0], *(1,) * (len(batch) + 1 - x.ndim), *x.shape[1:])
        return jnp.broadcast_to(x, (x.shape[0], *batch))

    return State(
        full(agent), full(direction), full(0), spread(open),
        lava if isinstance(lava, tuple) else spread(lava),
        jnp.stack([full(cell) for cell, _ in objects]),
        jnp.stack([full(code) for _, code in objects]),
        full(mission) if named else (),
    )  # fmt: skip


def front(state: State, shape: Shape) -> Front:
    """What is in front of the agent."""
    d = state.direction
    forward = jnp.where(d < 2, 1, -1) * jnp.where((d & 1) == 0, 1, cells.STRIDE)
    cell = state.agent + forward
    holds = state.object_cell == cell[None]
    code = jnp.sum(jnp.where(holds, state.object_code, 0), 0)
    lava = jnp.zeros(cell.shape, bool)
    if not isinstance(state.lava, tuple):
        lava = lines.has(state.lava, shape, cell)
    free = lines.has(state.open, shape, cell) & ~lava & (code == 0)
    return Front(cell, holds, cells.kind_of(code), cells.colour_of(code), free, lava)


def carried(cell: Array, code: Array) -> Array:
    """The code of what the agent carries, from the objects `[K, *B]`; 0 for nothing."""
    return jnp.sum(jnp.where(cell == cells.CARRIED, code, 0), 0)


def act(state: State, action: Array, ahead: Front) -> State:
    """The agent turns, walks, picks up, drops or toggles what is in front of it."""
    kind, load = ahead.kind, carried(state.object_cell, state.object_code)
    turn = jnp.where(action == cells.MOVES.left, 3, 0) + jnp.where(
        action == cells.MOVES.right, 1, 0
    )
    enters = ahead.free | ahead.lava | cells.is_enterable(kind)
    walks = (action == cells.MOVES.forward) & enters
    takes = (action == cells.MOVES.pickup) & cells.is_carriable(kind) & (load == 0)
    drops = (action == cells.MOVES.drop) & ahead.free
    toggles = action == cells.MOVES.toggle
    leaves = takes | (toggles & (kind == cells.BOX))
    cell = state.object_cell
    cell = jnp.where((cell == cells.CARRIED) & drops[None], ahead.cell[None], cell)
    away = jnp.where(takes, cells.CARRIED, cells.GONE)[None]
    cell = jnp.where(ahead.holds & leaves[None], away, cell)
    opens = (kind == cells.CLOSED_DOOR) | (
        (kind == cells.LOCKED_DOOR) & (load == cells.KEY + 16 * ahead.colour)
    )
    swings = toggles & (opens | (kind == cells.OPEN_DOOR))
    door = jnp.where(opens, cells.OPEN_DOOR, cells.CLOSED_DOOR) + 16 * ahead.colour
    return state._replace(
        agent=jnp.where(walks, ahead.cell, state.agent),
        direction=(state.direction + turn) & 3,
        time=state.time + 1,
        object_cell=cell,
        object_code=jnp.where(ahead.holds & swings[None], door[None], state.object_code),
    )


def image(state: State, shape: Shape, see_through: bool, doors: bool) -> Array:
    """MiniGrid's picture of the view, uint8 `[7, 7, 3, *B]`: type, colour and state.

    `see_through`: nothing hides what is behind it; else walls do, and where there are `doors`,
    those that are not open.
    """

    def as_rows(agent: Array, direction: Array, sets: Any, cell: Array, code: Array) -> Any:
        rows = [view.rows(lines, shape, agent, direction) for lines in sets]
        load = carried(cell, code)
        own = jnp.where(load == 0, cells.EMPTY, load)
        return view.indices(cell, agent, direction), rows, own

    def as_words(index: Array, rows: Any, code: Array) -> Any:
        clear = rows[0]
        if doors:
            clear = view.without(clear, index, cells.is_opaque(cells.kind_of(code)))
        seen = [] if see_through else [view.seen(clear)]
        return [view.pack(r) for r in (*seen, *rows)]

    def as_cells(index: Array, code: Array, words: Any, own: Array) -> Array:
        seen, (floor, *lava) = ([], words) if see_through else (words[:1], words[1:])
        shown = jnp.where(view.unpack(floor), cells.EMPTY, cells.WALL_CODE)
        for w in lava:
            shown = jnp.where(view.unpack(w), cells.LAVA_CODE, shown)
        positions = view.positions(own.ndim)
        for k in range(code.shape[0]):
            shown = jnp.where(positions == index[k][None], code[k][None], shown)
        shown = jnp.where(positions == view.AGENT, own[None], shown)
        for w in seen:
            shown = jnp.where(view.unpack(w), shown, cells.UNSEEN)
        return shown.astype(jnp.uint8)

    sets = [state.open] if isinstance(state.lava, tuple) else [state.open, state.lava]
    cell, code = state.object_cell, state.object_code
    index, rows, own = branch(as_rows, state.agent, state.direction, sets, cell, code)
    shown = branch(as_cells, index, code, branch(as_words, index, rows, code), own)
    picture = jnp.stack(cells.channels(shown), 1)
    return picture.reshape(view.SIZE, view.SIZE, 3, *state.agent.shape)
