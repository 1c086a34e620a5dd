"""What all tasks share: params, spaces, reward, ends. A task adds levels, and when it is won."""

import dataclasses
import functools
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fastrl.envs import checks
from fastrl.envs.compiling import batch_last
from fastrl.envs.minigrid import cells, view, world
from fastrl.envs.minigrid.lines import Shape
from fastrl.envs.minigrid.world import Front, State
from fastrl.spaces import Box, Discrete
from fastrl.types import Array, Key, Step


class Params(NamedTuple):
    """Numbers of a task."""

    max_steps: int


class View(NamedTuple):
    """An observation where all episodes have the same mission."""

    image: Any  # uint8 [7, 7, 3]: type, colour and state of each cell, by column and row
    direction: Any  # int32, 0 right, 1 down, 2 left, 3 up


class MissionView(NamedTuple):
    """An observation where the mission names a colour."""

    image: Any
    direction: Any
    mission: Any  # int32, the colour, as images have it


class Verdict(NamedTuple):
    """Whether a step ended the task, well or not."""

    won: Array
    lost: Array


@dataclasses.dataclass(frozen=True)
class Task:
    """A task in a grid: `level` draws a start, `judge` tells the end. Batch axes come last there.

    Reward 1 - 0.9 t / max_steps where it is won after t steps, else 0.
    """

    version: ClassVar[int] = 1
    see_through: ClassVar[bool] = False  # whether walls hide nothing
    doors: ClassVar[bool] = False  # whether there can be doors
    mission: ClassVar[bool] = False  # whether the mission names a colour
    num_actions: ClassVar[int] = len(cells.MOVES)
    num_words: ClassVar[int] = 0  # random words that a level takes
    reward_lost: ClassVar[float] = 0.0

    @property
    def shape(self) -> Shape:
        """Rows and columns of the grid."""
        raise NotImplementedError

    def max_steps(self) -> int:
        """The time limit of the standard task."""
        raise NotImplementedError

    def draw(self, key: Key) -> Any:
        """All that is random in a level. Consumes `key`."""
        return jax.random.bits(key, (self.num_words,), jnp.uint32)

    def level(self, drawn: Any) -> State:
        """The start that `drawn` (of `draw`, batch axes last) stands for."""
        raise NotImplementedError

    def moves(self, action: Array) -> Array:
        """What the world does for `action`."""
        return action

    def prepare(self, key: Key, state: State) -> State:
        """What happens before the agent acts. Consumes `key`."""
        return state

    def judge(self, before: State, ahead: Front, action: Array, after: State) -> Verdict:
        """Whether the step ended the task: by the goal, or in lava."""
        forward = action == cells.MOVES.forward
        return Verdict(forward & (ahead.kind == cells.GOAL), forward & ahead.lava)

    def default_params(self) -> Params:
        return Params(self.max_steps())

    def reset(self, key: Key, params: Params) -> tuple[State, Any]:
        return begin(self, self.draw(key))

    def step(self, key: Key, state: State, action: Array, params: Params) -> tuple[State, Step]:
        action = checks.step(self, action, params)
        return advance(self, state, self.prepare(key, state), action, params)

    def observation_space(self, params: Params) -> Any:
        image = Box(0, 255, (view.SIZE, view.SIZE, 3), np.dtype(np.uint8))
        if self.mission:
            return MissionView(image, Discrete(4), Discrete(len(cells.COLOURS)))
        return View(image, Discrete(4))

    def action_space(self, params: Params) -> Discrete:
        return Discrete(self.num_actions)

    def render(self, state: State, params: Params) -> np.ndarray:
        """The whole grid as MiniGrid draws it, what the agent sees lit: uint8 `[32 H, 32 W, 3]`."""
        from fastrl.envs.minigrid import tiles

        return tiles.picture(state, self.shape, np.asarray(see(self, state).image))

    def look(self, state: State) -> Any:
        """The observation of `state`; batch axes come last."""
        image = world.image(state, self.shape, self.see_through, self.doors)
        if self.mission:
            return MissionView(image, state.direction, state.mission)
        return View(image, state.direction)


@functools.partial(jax.jit, static_argnums=0)
def see(task: Task, state: State) -> Any:
    """The observation of `state`."""
    return batch_last(task.look)(state)


@functools.partial(jax.jit, static_argnums=0)
def begin(task: Task, drawn: Any) -> tuple[State, Any]:
    """The start that `drawn` stands for, and its observation."""

    def started(drawn: Any) -> tuple[State, Any]:
        state = task.level(drawn)
        return state, task.look(state)

    return batch_last(started)(drawn) if jax.tree.leaves(drawn) else started(drawn)


@functools.partial(jax.jit, static_argnums=0)
def advance(
    task: Task, before: State, state: State, action: Array, params: Params
) -> tuple[State, Step]:
    """A step of an agent in `state`, which was `before` when it chose `action`."""

    def stepped(before: Any, state: State, action: Array, max_steps: Array) -> tuple[State, Step]:
        ahead = world.front(state, task.shape)
        after = world.act(state, task.moves(action), ahead)
        before = state._replace(object_cell=before)
        verdict = task.judge(before, ahead, action, after)
        part = after.time.astype(jnp.float32) / max_steps.astype(jnp.float32)
        lost = jnp.where(verdict.lost, task.reward_lost, 0.0)
        reward = jnp.where(verdict.won, 1.0 - 0.9 * part, lost).astype(jnp.float32)
        terminated = verdict.won | verdict.lost
        truncated = (after.time >= max_steps) & ~terminated
        return after, Step(task.look(after), reward, terminated, truncated)

    limit = jnp.asarray(params.max_steps, jnp.int32)
    return batch_last(stepped)(before.object_cell, state, jnp.asarray(action, jnp.int32), limit)
