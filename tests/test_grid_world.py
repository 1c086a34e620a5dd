"""The random grid world: golden levels, rules, distributions of levels."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fastrl.registry
from fastrl.envs.grid_world import MODES, GridWorld, Mode, Object, Params
from fastrl.envs.grid_world.modes import Interval
from fastrl.kernels import prng

# name: mode that holds it, level, expected undiscounted return of uniform actions, and the best
GOLDEN: dict[str, tuple[str, dict[str, Any], float, float]] = {
    "A": (
        "debug", {"grid_size": 3, "objects": [Object(8, 1.0, 1.0)], "max_steps": 10},
        0.154755, 1.0,
    ),
    "B": (
        "debug",
        {
            "grid_size": 3, "walls": [4], "max_steps": 8,
            "objects": [Object(8, 1.0, 0.0, 0.5), Object(2, -1.0, 0.5, 1.0)],
        },
        -0.303985, 2.125,
    ),
    "C": (
        "small",
        {
            "grid_size": 4, "walls": [5, 6], "max_steps": 25,
            "objects": [
                Object(15, 0.8, 0.1, 0.01), Object(3, -0.5, 0.8, 0.1), Object(12, 0.3, 0.02, 0.1)
            ],
        },
        0.010605, 1.679989,
    ),
}  # fmt: skip
MOVES = ((-1, 0), (1, 0), (0, -1), (0, 1), (0, 0))


def golden(name: str, **options: Any) -> tuple[GridWorld, Params]:
    mode, numbers, _, _ = GOLDEN[name]
    env = GridWorld(mode, **options)
    return env, env.level(**numbers)


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def expected_return(numbers: dict[str, Any], choose: Callable[[list[float]], float]) -> float:
    """The expected return from the start, by backward induction in float64.

    `choose` takes the values of the five actions: their mean for uniform play, or their maximum.
    """
    g, objects = numbers["grid_size"], numbers["objects"]
    walls = set(numbers.get("walls", ()))
    cells = [c for c in range(g * g) if c not in walls]
    subsets = list(itertools.product((False, True), repeat=len(objects)))
    value = {(c, s): 0.0 for c in cells for s in subsets}

    def moved(cell: int, move: tuple[int, int]) -> int:
        row, column = cell // g + move[0], cell % g + move[1]
        inside = 0 <= row < g and 0 <= column < g
        return row * g + column if inside and row * g + column not in walls else cell

    def action_value(cell: int, present: tuple[bool, ...], move: tuple[int, int]) -> float:
        cell = moved(cell, move)
        taken = [e and o.cell == cell for e, o in zip(present, objects, strict=True)]
        reward = sum(o.reward for t, o in zip(taken, objects, strict=True) if t)
        end = min(1.0, sum(o.terminate for t, o in zip(taken, objects, strict=True) if t))
        there = [  # the probability that each object is there next
            0.0 if t else (1.0 if e else o.respawn)
            for t, e, o in zip(taken, present, objects, strict=True)
        ]
        following = sum(
            math.prod(p if e else 1 - p for p, e in zip(there, s, strict=True)) * value[cell, s]
            for s in subsets
        )
        return reward + (1 - end) * following

    for _ in range(numbers["max_steps"]):
        value = {
            (c, s): choose([action_value(c, s, m) for m in MOVES]) for c in cells for s in subsets
        }
    return value[numbers.get("start", 0), (True,) * len(objects)]


@pytest.mark.parametrize("name", GOLDEN)
def test_backward_induction_gives_the_golden_values(name: str) -> None:
    """Fails if the levels here are not those whose values are known."""
    _, numbers, uniform, best = GOLDEN[name]
    assert expected_return(numbers, mean) == pytest.approx(uniform, abs=1e-6)
    assert expected_return(numbers, max) == pytest.approx(best, abs=1e-6)


@pytest.mark.parametrize("episodes", [20_000, pytest.param(400_000, marks=pytest.mark.slow)])
def test_returns_of_uniform_actions_are_the_expected_ones(episodes: int) -> None:
    """Fails if any rule of the step is off: three golden levels in one program, within 3.5
    standard errors, where the induction gives the exact mean."""
    env = GridWorld("small")
    levels = [env.level(**GOLDEN[name][1]) for name in GOLDEN]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *levels)
    returns = np.asarray(play(env, stacked, episodes))
    for name, ours in zip(GOLDEN, returns, strict=True):
        exact = expected_return(GOLDEN[name][1], mean)
        error = ours.std() / np.sqrt(episodes)
        assert abs(ours.mean() - exact) < 3.5 * error, (name, ours.mean(), exact, error)


def play(env: GridWorld, levels: Params, episodes: int) -> Any:
    """Returns of the first episodes of uniform actions, `[L, episodes]`."""

    def body(carry: Any, key: Any) -> Any:
        state, going, total, level = carry
        action = jax.random.bits(key, dtype=jnp.uint32) % 5
        state, step = env.step(jax.random.fold_in(key, 1), state, action.astype(jnp.int32), level)
        total = total + jnp.where(going, step.reward, 0.0)
        return (state, going & ~(step.terminated | step.truncated), total, level), None

    def one(key: Any, level: Params) -> Any:
        state, _ = env.reset(key, level)
        carry = (state, jnp.bool_(True), jnp.float32(0), level)
        carry, _ = jax.lax.scan(body, carry, jax.random.split(key, 25))
        return carry[2]

    many = jax.jit(jax.vmap(jax.vmap(one, (0, None)), (0, 0)))
    keys = jax.random.split(prng.key(11), (3, episodes))
    return many(keys, levels)


def run(env: GridWorld, level: Params, actions: list[int], seed: int = 0) -> list[Any]:
    """(state, Step) before and after each action; the first has no Step."""
    step = jax.jit(env.step)
    state, _ = env.reset(prng.key(seed), level)
    seen: list[Any] = [(state, None)]
    for i, action in enumerate(actions):
        state, happened = step(
            jax.random.fold_in(prng.key(seed), i), state, jnp.int32(action), level
        )
        seen.append((state, happened))
    return seen


def test_a_collected_object_is_gone_for_a_step_although_it_always_comes_back() -> None:
    """Fails if an object respawns in the step that collects it, or pays twice in a row."""
    env = GridWorld("debug")
    level = env.level(grid_size=3, start=0, objects=[Object(1, 1.0, 0.0, 1.0)], max_steps=10)
    seen = run(env, level, [3, 4, 4, 4])
    assert [float(s.reward) for _, s in seen[1:]] == [1.0, 0.0, 1.0, 0.0]
    assert [bool(state.present[0]) for state, _ in seen] == [True, False, True, False, True]
    assert not any(state.present[1] for state, _ in seen), "an object that the level has not"


def test_walls_and_edges_hold_back() -> None:
    """Fails if cells are numbered by the largest width instead of the level's, or a move leaks."""
    env = GridWorld("debug", moves=9)
    level = env.level(grid_size=3, start=0, walls=[4], objects=[], max_steps=20)
    level = level._replace(num_objects=np.int32(0))
    path = [(0, 0), (2, 0), (3, 1), (1, 1), (8, 5), (2, 5), (3, 5), (1, 8), (5, 8), (2, 7)]
    path += [(6, 5), (5, 1), (7, 3), (6, 1), (7, 3), (5, 3), (0, 0), (8, 0)]  # action, cell after
    seen = run(env, level, [action for action, _ in path])
    cells = [int(state.row) * 3 + int(state.column) for state, _ in seen[1:]]
    assert cells == [cell for _, cell in path]


def test_the_time_limit_truncates_and_never_a_terminal_step() -> None:
    """Fails if the limit is a step off, or raised together with the end of the task."""
    env, level = golden("A")
    seen = run(env, level, [0] * 10)
    assert [bool(s.truncated) for _, s in seen[1:]] == [False] * 9 + [True]
    assert not any(bool(s.terminated) for _, s in seen[1:])
    last = run(env, level, [4] * 6 + [1, 1, 3, 3])[-1][1]
    assert (bool(last.terminated), bool(last.truncated)) == (True, False)
    assert float(last.reward) == 1.0


def test_only_explicit_collection_collects() -> None:
    """Fails if walking over an object collects it where collecting is an action."""
    env = GridWorld("debug", explicit_collect=True)
    level = env.level(grid_size=3, start=0, objects=[Object(1, 1.0)], max_steps=10)
    seen = run(env, level, [3, 4, 5 + 4, 5 + 2])
    assert [float(s.reward) for _, s in seen[1:]] == [0.0, 0.0, 1.0, 0.0]
    assert int(seen[-1][0].column) == 0
    assert env.action_space(level).n == 10


@pytest.mark.parametrize("name", ["B", "C"])
def test_the_vector_is_one_hot_at_the_index_with_the_time_behind(name: str) -> None:
    """Fails if the two forms of the observation disagree, or the index is not the stated one."""
    env, level = golden(name, observation="vector")
    index_env, _ = golden(name, observation="index")
    vectors, indices = (
        run(env, level, [1, 1, 3, 3, 4, 0]),
        run(index_env, level, [1, 1, 3, 3, 4, 0]),
    )
    cells, g = env.levels.size**2, int(level.grid_size)
    for (state, step), (_, other) in zip(vectors[1:], indices[1:], strict=True):
        vector, seen = np.asarray(step.observation), other.observation
        assert vector.shape == (cells * 2**env.levels.max_objects + 1,)
        bits = sum(2**j for j in range(env.levels.max_objects) if state.present[j])
        assert int(seen.entry) == int(state.row) * g + int(state.column) + cells * bits
        assert np.flatnonzero(vector[:-1]).tolist() == [int(seen.entry)]
        assert vector[-1] == seen.time[0] == np.float32(0.001) * int(state.time)


@pytest.mark.slow
def test_objects_come_back_in_free_cells() -> None:
    """Fails if with random cells an object appears on a wall, the agent, or another object, if
    one that stays moves, or if the planes show something else: 60,000 object-steps."""
    env = GridWorld("rand_all")
    levels = jax.jit(jax.vmap(env.sample_level))(jax.random.split(prng.key(1), 60))
    levels = levels._replace(
        respawns=jnp.full_like(levels.respawns, 0.5), terminates=levels.terminates * 0
    )

    def one(key: Any, level: Params) -> Any:
        def body(state: Any, key: Any) -> Any:
            after, step = env.step(key, state, jax.random.randint(key, (), 0, 5), level)
            return after, (after, step.observation)

        first = env.reset(key, level)
        return first, jax.lax.scan(body, first[0], jax.random.split(key, 200))[1]

    first, later = jax.jit(jax.vmap(one))(jax.random.split(prng.key(2), 60), levels)
    states, observations = jax.tree.map(
        lambda a, b: np.concatenate([np.asarray(a)[:, None], np.asarray(b)], 1), first, later
    )
    agent = states.row * np.asarray(levels.grid_size)[:, None] + states.column
    walls = np.unpackbits(np.asarray(levels.walls).view(np.uint8), axis=-1, bitorder="little")
    appeared = states.present.copy()
    appeared[:, 1:] &= ~states.present[:, :-1]
    on_wall = np.take_along_axis(walls, states.cells.reshape(60, -1), 1).reshape(states.cells.shape)
    assert not (on_wall == 1)[states.present].any()
    assert (states.cells < (np.asarray(levels.grid_size) ** 2)[:, None, None])[states.present].all()
    assert not (states.cells == agent[..., None])[appeared].any()
    stays = states.present[:, 1:] & states.present[:, :-1]
    assert (states.cells[:, 1:] == states.cells[:, :-1])[stays].all()
    assert (states.cells[:, 1:] != states.cells[:, :-1])[appeared[:, 1:]].mean() > 0.99
    for i, j in itertools.combinations(range(5), 2):
        both = states.present[..., i] & states.present[..., j]
        assert not (states.cells[..., i] == states.cells[..., j])[both].any()
    planes = observations[..., :-1].reshape(60, 201, 6, 100)
    expected = np.zeros_like(planes)
    level, time, kind = np.nonzero(states.present)
    expected[level, time, 1 + kind, states.cells[level, time, kind]] = 1
    np.put_along_axis(expected[:, :, 0], agent[..., None], 1.0, -1)
    np.testing.assert_array_equal(planes, expected)


TABLE = {  # mode: largest g, steps, length of the observation, lifetime
    "dense": (11, (500, 500), 1937, (2500, 2500)),
    "sparse": (13, (50, 50), 677, (2500, 2500)),
    "long": (11, (1000, 1000), 1937, (2500, 2500)),
    "longer": (9, (2000, 2000), 2593, (2500, 2500)),
    "long_dense": (11, (2000, 2000), 1937, (2500, 2500)),
    "rand_dense": (11, (500, 500), 485, (25_000, 25_000)),
    "rand_long": (11, (1000, 1000), 364, (25_000, 25_000)),
    "rand_small": (7, (500, 500), 148, (25_000, 25_000)),
    "rand_sparse": (7, (50, 50), 148, (25_000, 25_000)),
    "rand_very_dense": (11, (2000, 2000), 243, (25_000, 25_000)),
    "small": (6, (20, 100), 289, (250, 250)),
    "medium": (8, (100, 250), 1025, (1000, 1000)),
    "large": (10, (250, 750), 3201, (2500, 2500)),
    "all": (10, (20, 750), 3201, (1000, 1000)),
    "all_shortlife": (10, (20, 750), 3201, (250, 250)),
    "all_randlife": (10, (20, 750), 3201, (50, 250)),
    "all_vrandlife": (10, (20, 750), 3201, (10, 250)),
    "rand_all": (10, (20, 750), 601, (25_000, 25_000)),
    "debug": (4, (5, 10), 65, (4, 4)),
    "labyrinth_flipped": (13, (25, 50), 1353, (2500, 2500)),
}


@pytest.mark.parametrize("name", TABLE)
def test_modes_have_the_sizes_of_the_table(name: str) -> None:
    """Fails if a mode's grid, horizon, observation or lifetime is not the published one."""
    size, steps, length, lifetime = TABLE[name]
    mode = MODES[name]
    assert (mode.size, mode.max_steps, mode.lifetime) == (size, steps, lifetime)
    env = GridWorld(name, observation="vector")
    assert env.observation_space(None).shape == (length,)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "name",
    ["all", *(pytest.param(n, marks=pytest.mark.slow) for n in ("debug", "long_dense", "medium"))],
)
def test_sampled_levels_are_the_mode_says(name: str) -> None:
    """Fails if a number of a level is outside its range or has another mean, walls are not as many,
    or the start and objects are on walls, outside, or on each other."""
    mode, n = MODES[name], 2000
    env = GridWorld(name)
    levels = jax.jit(jax.vmap(env.sample_level))(jax.random.split(prng.key(3), n))
    levels = jax.tree.map(np.asarray, levels)
    g = levels.grid_size
    assert set(g) == set(range(mode.grid_size[0], mode.grid_size[1] + 1))
    assert set(levels.num_objects) == set(range(mode.num_objects[0], mode.num_objects[1] + 1))
    least, most = mode.max_steps
    assert levels.max_steps.min() >= least
    assert levels.max_steps.max() <= most
    log_mean = np.log(levels.max_steps).mean()
    assert abs(log_mean - np.log([least, most]).mean()) < 0.02 * max(1.0, np.log(most / least))
    for values, intervals, logs in (
        (levels.rewards, mode.rewards, False),
        (levels.terminates, mode.terminates, True),
        (levels.respawns, mode.respawns, True),
    ):
        for j, kind in enumerate(mode.types):
            check_range(values[:, j], intervals[kind], logs)
    walls = np.unpackbits(levels.walls.view(np.uint8), axis=-1, bitorder="little")
    assert (walls.sum(-1) == max(mode.num_walls, len(mode.walls))).all()
    if mode.num_walls:
        share = walls.mean(0)[: mode.size**2]
        expected = mode.num_walls / mode.size**2
        assert np.abs(share - expected).max() < 4.5 * np.sqrt(expected * (1 - expected) / n)
    cells = np.concatenate([levels.start[:, None], levels.cells], -1)
    assert (cells < (g**2)[:, None]).all()
    assert not np.take_along_axis(walls, cells, -1).any()
    assert (np.diff(np.sort(cells, -1), axis=-1) > 0).all()


def check_range(values: np.ndarray, interval: Interval, logs: bool) -> None:
    low, high = interval
    if low == high:
        assert (values == np.float32(low)).all()
        return
    assert values.min() >= low * (1 - 1e-5) - 1e-6
    assert values.max() <= high * (1 + 1e-5)
    if logs:
        values, low, high = np.log(values), np.log(low), np.log(high)
    assert abs(values.mean() - (low + high) / 2) < 4.5 * (high - low) / np.sqrt(12 * len(values))


def test_lifetimes_are_log_uniform() -> None:
    """Fails if a meta-learner would be given other lifetimes than the mode says."""
    keys = jax.random.split(prng.key(4), 4000)
    drawn = np.asarray(jax.jit(jax.vmap(GridWorld("all_vrandlife").sample_lifetime))(keys))
    assert drawn.min() == 10
    assert drawn.max() == 250
    assert abs(np.log(drawn).mean() - np.log([10, 250]).mean()) < 0.06
    assert int(GridWorld("all").sample_lifetime(keys[0])) == 1000


def test_a_level_that_makes_no_sense_is_refused() -> None:
    """Fails if a level by hand is accepted that the step would misread, or without its numbers."""
    env = GridWorld("debug")
    good: dict[str, Any] = {"grid_size": 3, "objects": [Object(8, 1.0)], "max_steps": 5}
    for change, message in [
        ({"grid_size": 5}, "grid_size=5.*at most 4"),
        ({"walls": [0]}, "start is in cell 0, where a wall is"),
        ({"walls": [9]}, "a wall's cell=9"),
        ({"start": 8}, "object 0 is in cell 8, where start is"),
        ({"objects": [Object(1, 1.0, 1.5)]}, "terminate=1.5"),
        ({"objects": [Object(1, 1.0, 0.0, -0.1)]}, "respawn=-0.1"),
        ({"objects": [Object(1, float("nan"))]}, "reward=nan"),
        ({"objects": [Object(i, 1.0) for i in (1, 2, 3)]}, "3 objects: .* at most 2"),
        ({"max_steps": 0}, "max_steps=0"),
    ]:
        with pytest.raises(ValueError, match=message):
            env.level(**{**good, **change})


def test_malformed_fields_are_refused() -> None:
    """Fails if an environment is built that can't work, or the message names no way out."""
    with pytest.raises(ValueError, match="did you mean 'dense'"):
        GridWorld("dens")
    with pytest.raises(ValueError, match="moves=4"):
        GridWorld(moves=4)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no table has rows for"):
        GridWorld("rand_all", observation="index")
    with pytest.raises(ValueError, match="did you mean 'index'"):
        GridWorld(observation="indx")  # type: ignore[arg-type]
    ends = ((0.0, 0.5),)
    with pytest.raises(ValueError, match="starts above 0"):
        Mode(4, (0,), ((0.0, 1.0),), ends, ends, (5, 10), (4, 4))
    with pytest.raises(ValueError, match="grid_size"):
        Mode(
            4, (0,), ((0.0, 1.0),), ((0.1, 0.5),), ((0.1, 0.5),), (5, 10), (4, 4), grid_size=(3, 5)
        )


@pytest.mark.parametrize("name", ["grid/All-v0", "grid/RandDense-v0"])
def test_a_picture_follows_the_state(name: str) -> None:
    """Fails if a picture is empty, or shows an object that is not there."""
    env = fastrl.registry.make(name)
    level = env.default_params()
    state, _ = env.reset(prng.key(0), level)
    picture = env.render(state, level)
    width = 32 * int(level.grid_size)
    assert picture.shape == (width, width, 3)
    gone = state._replace(present=jnp.asarray(state.present).at[0].set(False))
    assert 0.0005 < (env.render(gone, level) != picture).any(-1).mean() < 0.2


def test_default_levels_are_fixed() -> None:
    """Fails if a name stands for another level than yesterday, or depends on the engine's keys."""
    dense = GridWorld("dense").default_params()
    assert (int(dense.start), np.asarray(dense.cells).tolist()) == (0, [14, 40, 95, 101])
    level = GridWorld("all").default_params()
    assert (int(level.grid_size), int(level.start), int(level.max_steps)) == (10, 54, 277)
    assert np.asarray(level.cells).tolist() == [38, 52, 80, 18, 47]
