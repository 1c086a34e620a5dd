"""The maze against jaxued's, step by step, and its levels, mutations and solver."""

from collections import deque
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fastrl.envs.maze import (
    LAYOUTS,
    UNREACHABLE,
    Level,
    Maze,
    State,
    is_solvable,
    mutate,
    mutate_all,
    plan,
    sample_level,
    shortest_path,
)  # fmt: skip
from fastrl.envs.maze.level import pack_rows
from fastrl.kernels import prng

GOLDEN = Path(__file__).with_name("golden") / "maze.npz"
STEPS = ((0, 1), (1, 0), (0, -1), (-1, 0))  # right, down, left, up

CORNER = """
    >.#
    ...
    #.G"""


def many_levels(seed: int, count: int, num_walls: int) -> Level:
    keys = jax.random.split(prng.key(seed), count)
    return jax.jit(jax.vmap(lambda key: sample_level(key, 13, num_walls)))(keys)


def one(levels: Level, i: int) -> Level:
    return jax.tree.map(lambda x: x[i], levels)


def test_every_step_equals_jaxueds() -> None:
    """Fails if a move, the view, the reward or an end differs in any of 12,600 transitions."""
    recorded = np.load(GOLDEN)
    walls = np.unpackbits(recorded["walls"], axis=-1)[:, :169].reshape(-1, 13, 13).astype(bool)
    env, key = Maze(), prng.key(0)

    @jax.jit
    @jax.vmap
    def step(level: Level, state: State, action: Any) -> Any:
        return env.step(key, state, action, level)

    count, shape = len(walls), recorded["reward"].shape
    level, cell, direction, time, action = (
        np.broadcast_to(x, shape).reshape(-1).astype(np.int32)
        for x in (
            np.arange(count)[:, None, None],
            *np.moveaxis(recorded["state"], -1, 0)[..., None],
            np.arange(7),
        )
    )
    rows = pack_rows(walls)[level]
    goal = recorded["goal"].astype(np.int32)[level]
    levels = Level(rows, np.zeros_like(goal), np.zeros_like(goal), goal, np.full_like(goal, 250))
    state = State(*map(jnp.asarray, (cell // 13, cell % 13, direction, time)))
    after, ours = jax.tree.map(
        lambda x: x.reshape(*shape, *x.shape[1:]), step(levels, state, action)
    )

    place, direction, done, seen_direction = np.moveaxis(recorded["outcome"], -1, 0)
    np.testing.assert_array_equal(after.row * 13 + after.column, place)
    np.testing.assert_array_equal(after.direction, direction)
    np.testing.assert_array_equal(ours.observation.direction, seen_direction)
    np.testing.assert_array_equal(np.round(ours.observation.image * 10), recorded["image"])
    np.testing.assert_allclose(ours.reward, recorded["reward"], atol=1e-6)
    np.testing.assert_array_equal(ours.terminated, recorded["reward"] > 0)
    np.testing.assert_array_equal(ours.terminated | ours.truncated, done)
    assert ours.terminated.sum() > 50
    assert ours.truncated.sum() > 50
    assert not (ours.terminated & ours.truncated).any()


def test_the_view_in_a_corner_is_right_by_hand() -> None:
    """Fails if the view is mirrored, turned the wrong way, or shows free cells beyond the edge.

    Drawn as the agent sees it, itself at the bottom in the middle.
    """
    env, key = Maze(size=3, view=3), prng.key(0)
    level = Level.from_text(CORNER)
    state, seen = env.reset(key, level)
    views = []
    for _ in range(4):  # right, down, left, up
        codes = np.round(np.asarray(seen.image)[..., 0] * 10).astype(int).T  # from far to near
        views.append(" ".join("".join(".#G"[(1, 2, 8).index(c)] for c in row) for row in codes))
        state, step = env.step(key, state, jnp.int32(1), level)
        seen = step.observation
    assert views == ["##. #.. #..", ".## ..# ..#", "### ### ..#", "### ### #.."]
    state, seen = env.reset(key, level._replace(start=np.int32(4), direction=np.int32(1)))
    np.testing.assert_allclose(seen.image[0, 1], [0.8, 0.1, 0.0])  # the goal: ahead to the left


def test_named_mazes_have_their_shortest_ways() -> None:
    """Fails if a layout was copied wrongly: found once by breadth-first search over states."""
    levels = [Level.named(name) for name in LAYOUTS]
    stacked = jax.tree.map(lambda *x: np.stack(x), *levels)
    lengths = np.asarray(jax.jit(jax.vmap(shortest_path))(stacked))
    assert lengths.tolist() == [search(level) for level in levels]
    assert dict(zip(LAYOUTS, lengths, strict=True))["Labyrinth"] == 113
    for level in levels:
        assert Level.from_text(level.to_text()).to_text() == level.to_text()


def search(level: Level) -> int:
    """The fewest actions to the goal by breadth-first search; UNREACHABLE without a way."""
    walls, size = np.asarray(level.walls), level.rows.shape[-1]
    start = (*divmod(int(level.start), size), int(level.direction))
    goal = divmod(int(level.goal), size)
    distance, queue = {start: 0}, deque([start])
    while queue:
        row, column, d = queue.popleft()
        near = distance[row, column, d] + 1
        ahead = (row + STEPS[d][0], column + STEPS[d][1])
        if ahead == goal:
            return near
        following = [(row, column, (d + 1) % 4), (row, column, (d - 1) % 4)]
        if 0 <= ahead[0] < size and 0 <= ahead[1] < size and not walls[ahead]:
            following.append((*ahead, d))
        for state in following:
            if state not in distance:
                distance[state] = near
                queue.append(state)
    return UNREACHABLE


def test_the_solver_agrees_with_a_search() -> None:
    """Fails if the flood leaks through walls or edges, or misses turns: 200 levels, 80 walls."""
    levels = many_levels(1, 200, 80)
    lengths = np.asarray(jax.jit(jax.vmap(shortest_path))(levels))
    solvable = np.asarray(jax.jit(jax.vmap(is_solvable))(levels))
    expected = np.array([search(one(levels, i)) for i in range(200)])
    np.testing.assert_array_equal(lengths, expected)
    np.testing.assert_array_equal(solvable, expected < UNREACHABLE)
    assert 20 < solvable.sum() < 180


@pytest.mark.slow
def test_following_the_plan_earns_the_promised_return() -> None:
    """Fails if the plan's actions do not reach the goal in as many steps as it says."""
    env, levels = Maze(), many_levels(2, 64, 40)

    def play(level: Level) -> Any:
        action = plan(level).action

        def body(state: State, _: None) -> Any:
            best = action[state.direction, state.row, state.column]
            state, step = env.step(prng.key(0), state, best, level)
            return state, (step.reward, step.terminated)

        rewards, ends = jax.lax.scan(body, env.reset(prng.key(0), level)[0], None, 120)[1]
        first = jnp.argmax(ends)
        return rewards[first], jnp.where(ends.any(), first + 1, UNREACHABLE)

    returns, lengths = jax.jit(jax.vmap(play))(levels)
    shortest = np.asarray(jax.jit(jax.vmap(shortest_path))(levels))
    np.testing.assert_array_equal(lengths, shortest)
    reached = shortest < UNREACHABLE
    np.testing.assert_allclose(returns[reached], 1 - 0.9 * shortest[reached] / 250, atol=1e-6)
    assert reached.sum() > 40


def test_random_levels_have_the_right_distribution() -> None:
    """Fails if cells are not equally likely, or agent and goal lie on walls or each other."""
    n, walls_drawn = 4000, 25
    levels = many_levels(3, n, walls_drawn)
    walls = np.asarray(levels.walls).reshape(n, 169)
    assert not walls[np.arange(n), levels.start].any()
    assert not walls[np.arange(n), levels.goal].any()
    assert (np.asarray(levels.start) != np.asarray(levels.goal)).all()
    expected = 1 - (1 - 1 / 169) ** walls_drawn  # drawn with replacement
    error = np.sqrt(expected * (1 - expected) / n)
    assert np.abs(walls.mean(0) - expected).max() < 4.5 * error
    for cells in (levels.start, levels.goal):
        counts = np.bincount(cells, minlength=169)
        assert ((counts - n / 169) ** 2 / (n / 169)).sum() < 169 + 4.5 * np.sqrt(2 * 169)
    assert (np.bincount(levels.direction) > 0.9 * n / 4).all()


def test_mutations_are_a_third_each() -> None:
    """Fails if an edit is more or less likely than a third, the start moves, or a wall is put
    on start or goal."""
    n, levels = 3000, many_levels(4, 3000, 25)
    edit = jax.jit(jax.vmap(lambda key, level: mutate(key, level, 1, 20)))
    after = edit(jax.random.split(prng.key(5), n), levels)
    flips = (np.asarray(after.walls) != np.asarray(levels.walls)).sum((-1, -2))
    moved = np.asarray(after.goal) != np.asarray(levels.goal)
    assert set(flips) == {0, 1}
    assert not (moved & (flips == 1)).any()
    for share in ((flips == 1).mean(), moved.mean()):
        assert abs(share - 1 / 3) < 4 * np.sqrt(2 / 9 / n)
    many = jax.jit(jax.vmap(lambda key, level: mutate(key, level, 20)))(
        jax.random.split(prng.key(6), n), levels
    )
    np.testing.assert_array_equal(many.start, levels.start)
    np.testing.assert_array_equal(many.direction, levels.direction)
    for level in (after, many):
        walls = np.asarray(level.walls).reshape(n, 169)
        assert not walls[np.arange(n), level.start].any()
        assert not walls[np.arange(n), level.goal].any()
        assert (np.asarray(level.start) != np.asarray(level.goal)).all()
    distance = (np.asarray(many.walls) != np.asarray(levels.walls)).sum((-1, -2))
    assert distance.max() <= 20
    assert distance.mean() > 5


@pytest.mark.slow
def test_all_mutations_change_all_there_is() -> None:
    """Fails if walls, start, direction or goal never change, or a level becomes malformed."""
    n, levels = 3000, many_levels(7, 3000, 25)
    after = jax.jit(jax.vmap(mutate_all))(jax.random.split(prng.key(8), n), levels)
    walls = np.asarray(after.walls).reshape(n, 169)
    assert not walls[np.arange(n), after.start].any()
    assert not walls[np.arange(n), after.goal].any()
    assert (np.asarray(after.start) != np.asarray(after.goal)).all()
    changed = (np.asarray(after.walls) != np.asarray(levels.walls)).sum((-1, -2))
    assert changed.max() <= 5
    # of an edit: a quarter puts a wall where there was none, and three quarters clear one
    free = 1 - np.asarray(levels.walls).mean()
    assert abs(changed.mean() - 5 * (free / 4 + (1 - free) * 3 / 4)) < 0.15
    for before, now in ((levels.start, after.start), (levels.goal, after.goal)):
        share = (np.asarray(before) != np.asarray(now)).mean()
        assert abs(share - (1 - 0.75**5)) < 0.05  # moved by one of five edits, a quarter each
    none = jax.jit(jax.vmap(lambda key, level: mutate_all(key, level, 0, 5)))(
        jax.random.split(prng.key(9), n), levels
    )
    jax.tree.map(np.testing.assert_array_equal, none, levels)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "needs rows"),
        ("..\n.", "row 1 '.' has 1 cells"),
        (">?\nG.", r"'\?' in row 0, column 1"),
        ("..\nG.", "needs one agent"),
        (">.\n..", "needs one goal"),
        (">.\nGG", "row 1, column 0; row 1, column 1"),
    ],
)
def test_a_malformed_drawing_is_refused(text: str, message: str) -> None:
    """Fails if a mistake in a drawing becomes another maze instead of an error with its place."""
    with pytest.raises(ValueError, match=message):
        Level.from_text(text)


def test_malformed_levels_and_fields_are_refused() -> None:
    """Fails if a level or field that can't work is accepted, or the message lacks the value."""
    walls = np.zeros((4, 4), bool)
    walls[0, 1] = True
    assert Level.of(walls, 0, 3, 15).to_text() == "^#..\n....\n....\n...G"
    for numbers, message in [
        ((1, 0, 15), "start=1: there is a wall in row 0, column 1"),
        ((0, 0, 16), "goal=16"),
        ((0, 4, 15), "direction=4"),
        ((5, 0, 5), "both in row 1, column 1"),
    ]:
        with pytest.raises(ValueError, match=message):
            Level.of(walls, *numbers)
    with pytest.raises(ValueError, match="bool"):
        Level.of(np.zeros((3, 4), bool), 0, 0, 1)
    with pytest.raises(ValueError, match="did you mean 'Labyrinth"):
        Level.named("Labyrint")
    with pytest.raises(ValueError, match="13 by 13"):
        Maze("Labyrinth", size=9)
    with pytest.raises(ValueError, match="view=7"):
        Maze(view=7)
    with pytest.raises(ValueError, match="size=4"):
        Maze().reset(prng.key(0), Level.of(walls, 0, 3, 15))


def test_a_picture_follows_the_agent() -> None:
    """Fails if the maze's picture is empty, or does not change with the state."""
    env = Maze("Labyrinth")
    level = env.default_params()
    state, _ = env.reset(prng.key(0), level)
    picture = env.render(state, level)
    assert picture.shape == (360, 360, 3)
    turned, _ = env.step(prng.key(0), state, jnp.int32(0), level)
    assert 0.001 < (env.render(turned, level) != picture).any(-1).mean() < 0.2
