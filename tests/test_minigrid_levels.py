"""MiniGrid's levels: drawn as the package draws them, solvable, and levels of one's own.

Levels are compared by histograms of what can be told of them: where the agent, the first object
of each kind and the doors are, how these lie to each other, how many walls there are.  Those of
the package are in `golden/minigrid_levels.npz`, made by `golden/make_minigrid.py`.
"""

import functools
from collections import Counter
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import fastrl
import fastrl.registry
from fastrl.envs import compiling, minigrid
from fastrl.envs.minigrid import cells, lines, tiles
from fastrl.kernels import prng

GOLDEN = Path(__file__).with_name("golden") / "minigrid_levels.npz"
LEVELS = 4096
QUICK = ("MiniGrid-SimpleCrossingS9N1-v0",)
# Those whose levels are drawn as another task's.
ALIKE = ("DoorKey-5x5", "LavaCrossing", "MultiRoom-N2-S4", "MiniGrid-Unlock-")
NAMES = [
    n
    if n in QUICK
    else pytest.param(n, marks=[pytest.mark.slow, *[pytest.mark.full for a in ALIKE if a in n]])
    for n in fastrl.registry.names()
    if n.startswith("MiniGrid-") and "Empty-5" not in n and "Empty-8" not in n
]


@functools.cache
def levels(name: str, count: int, seed: int) -> tuple[Any, Any]:
    """The env and `count` start states, on the host."""
    env = fastrl.make(name)
    keys = jax.random.split(prng.key(seed), count)
    state, _ = jax.jit(jax.vmap(env.reset, (0, None)))(keys, env.default_params())
    return env, jax.device_get(state)


def features(
    agent: int, direction: int, codes: np.ndarray, mission: int
) -> dict[str, tuple[int, ...]]:
    """What can be told of a level, by name. `codes` is `[H, W]`."""
    kinds, colours = codes & 15, codes >> 4
    ay, ax = divmod(agent, 32)
    seen: dict[str, tuple[int, ...]] = {
        "agent": (ax, ay),
        "direction": (direction,),
        "mission": (mission,),
        "walls": (int((codes == cells.WALL_CODE).sum()),),
        "lava": (int((codes == cells.LAVA_CODE).sum()),),
        "ahead": (
            int(kinds[(ay, ay + 1, ay, ay - 1)[direction], (ax + 1, ax, ax - 1, ax)[direction]]),
        ),
    }
    for kind in (*cells.OBJECTS, cells.LAVA):
        places = np.argwhere(kinds == kind)
        seen[f"number of {kind}"] = (len(places),)
        if len(places):
            y, x = (int(v) for v in places[0])
            seen[f"first {kind}"] = (x, y)
            seen[f"last {kind}"] = tuple(int(v) for v in places[-1])
            seen[f"colour of {kind}"] = (int(colours[y, x]),)
            seen[f"agent to {kind}"] = (x - ax, y - ay)
    return seen


def histograms(states: list[tuple[int, int, np.ndarray, int]]) -> dict[str, Counter]:
    """How often each feature has each value."""
    counted: dict[str, Counter] = {}
    for state in states:
        for name, value in features(*state).items():
            counted.setdefault(name, Counter())[value] += 1
    return counted


def differ(a: Counter, b: Counter) -> float:
    """The probability that two samples of one distribution differ as much: a chi-square test."""
    values = [v for v in a | b if a[v] + b[v] >= 10]
    table = np.array(
        [[c[v] for v in values] + [c.total() - sum(c[v] for v in values)] for c in (a, b)]
    )
    table = table[:, table.sum(0) > 0]
    return 1.0 if table.shape[1] < 2 else float(stats.chi2_contingency(table)[1])  # type: ignore[arg-type]


@pytest.mark.parametrize("name", NAMES)
def test_levels_are_distributed_as_the_packages(name: str) -> None:
    """Fails if something is placed where the package would not, or more often here than there.

    For about 20 features of each of 15 tasks, the least probability is 1e-3 one time in three.
    """
    env, state = levels(name, LEVELS, seed=3)
    mine = histograms([
        (int(s.agent), int(s.direction), tiles.contents(s, env.shape), mission_of(s))
        for s in (jax.tree.map(lambda x, i=i: x[i], state) for i in range(LEVELS))
    ])  # fmt: skip
    with np.load(GOLDEN) as file:
        theirs: dict[str, Counter] = {}
        for key in file.files:
            task, feature, what = key.split("/")
            if task == name and what == "values":
                counts = file[f"{task}/{feature}/counts"].tolist()
                values = map(tuple, file[key].tolist())
                theirs[feature] = Counter(dict(zip(values, counts, strict=True)))
    assert theirs.keys() == mine.keys()
    if not env.mission:  # the package's may name the colour of the goal
        del theirs["mission"]
    for feature, histogram in theirs.items():
        assert differ(histogram, mine[feature]) > 1e-6, feature


def mission_of(state: Any) -> int:
    return 0 if isinstance(state.mission, tuple) else int(state.mission)


def reachable(codes: np.ndarray, start: tuple[int, int]) -> np.ndarray:
    """Where an agent can stand, or what it can touch, taking keys and opening locked doors."""
    opened: set[int] = set()
    while True:
        seen, stack = np.zeros(codes.shape, bool), [start]
        while stack:
            y, x = stack.pop()
            if not (0 <= y < codes.shape[0] and 0 <= x < codes.shape[1]) or seen[y, x]:
                continue
            seen[y, x] = True
            kind, colour = codes[y, x] & 15, codes[y, x] >> 4
            passes = kind in (cells.EMPTY, cells.KEY, cells.OPEN_DOOR, cells.CLOSED_DOOR)
            if passes or (kind == cells.LOCKED_DOOR and colour in opened):
                stack += [(y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)]
        keys = {int(c >> 4) for c in codes[seen] if c & 15 == cells.KEY}
        if keys <= opened:
            return seen
        opened |= keys


@pytest.mark.parametrize("name", NAMES)
def test_levels_can_be_solved(name: str) -> None:
    """Fails if a goal, a box, a ball or a locked door can't be reached in some level."""
    env, state = levels(name, LEVELS, seed=3)
    for i in range(300):
        one = jax.tree.map(lambda x, i=i: x[i], state)
        codes = tiles.contents(one, env.shape)
        if "Dynamic" in name:
            codes[codes & 15 == cells.BALL] = cells.EMPTY  # they move out of the way
        seen = reachable(codes, divmod(int(one.agent), 32))
        for kind in (cells.GOAL, cells.BOX, cells.BALL, cells.LOCKED_DOOR, cells.KEY):
            assert seen[(codes & 15) == kind].all(), (i, kind)


def test_balls_move_as_the_packages() -> None:
    """Fails if a ball does not take every free cell around it alike, in its turn.

    The package tries cells of the 3 by 3 around a ball at random until one is free.
    """
    env = fastrl.make("MiniGrid-Dynamic-Obstacles-6x6-v0")
    places = [cells.at(4, 4), cells.at(2, 2), cells.at(3, 2), cells.at(4, 3)]
    state = env.reset(prng.key(0), env.default_params())[0]._replace(
        agent=jnp.int32(cells.at(1, 2)), object_cell=jnp.array(places, jnp.int32)
    )
    keys = jax.random.split(prng.key(1), 20_000)
    moved = jax.jit(jax.vmap(env.prepare, (0, None)))(keys, state).object_cell
    drawn = Counter(map(tuple, np.asarray(moved).tolist()))
    expected: dict[tuple[int, ...], float] = {tuple(places): 1.0}
    for ball in (1, 2, 3):
        following: dict[tuple[int, ...], float] = {}
        for now, chance in expected.items():
            around = [now[ball] + dx + 32 * dy for dx in (-1, 0, 1) for dy in (-1, 0, 1)]
            inside = [c for c in around if 1 <= c % 32 <= 4 and 1 <= c // 32 <= 4]
            free = [c for c in inside if c not in (*now, cells.at(1, 2))]
            for cell in free:
                after = (*now[:ball], cell, *now[ball + 1 :])
                following[after] = following.get(after, 0.0) + chance / len(free)
        expected = following
    assert drawn.keys() <= expected.keys()
    observed = [drawn[k] for k in expected]
    frequencies = [20_000 * v for v in expected.values()]
    assert stats.chisquare(observed, frequencies)[1] > 1e-4


ROOM = """\
WGWGWGWGWG
WG>>WG  WG
WGKYLY  WG
WG  WGGGWG
WGWGWGWGWG"""


def test_a_level_of_ones_own_is_played() -> None:
    """Fails if a level is not what its text says, or a known solution does not solve it."""
    env = minigrid.Fixed(minigrid.DoorKey(size=5), ROOM)
    params, key = env.default_params(), prng.key(0)
    state, _ = env.reset(key, params)
    assert minigrid.show(state, env.task.shape) == ROOM
    move = cells.MOVES
    way = [
        move.right, move.pickup, move.forward, move.left, move.toggle, move.forward,
        move.forward, move.right, move.forward,
    ]  # fmt: skip
    rewards = []
    for i, action in enumerate(way, 1):
        state, step = env.step(key, state, jnp.int32(action), params)
        assert bool(step.terminated) == (i == len(way))
        rewards.append(float(step.reward))
    np.testing.assert_allclose(rewards, [*[0.0] * 8, 1 - 0.9 * 9 / 250], rtol=1e-6)


def test_many_levels_are_one_program() -> None:
    """Fails if a level is part of the program and not of its arguments."""
    env = minigrid.Fixed(minigrid.DoorKey(size=5), ROOM)
    other = ROOM.replace(">>", "  ").replace("WG  WGGG", "WG^^WGGG")
    starts = jax.tree.map(lambda *x: jnp.stack(x), minigrid.parse(ROOM), minigrid.parse(other))
    params = env.default_params()._replace(start=starts)
    axes: Any = params._replace(task=None, start=0)
    _, views = jax.jit(jax.vmap(env.reset, (None, axes)))(prng.key(0), params)
    np.testing.assert_array_equal(views.direction, [0, 3])
    alone = [
        env.reset(prng.key(0), params._replace(start=minigrid.parse(t)))[1] for t in (ROOM, other)
    ]
    np.testing.assert_array_equal(views.image, [v.image for v in alone])


def started(text: str) -> Any:
    """A start in a level of another size than the task's."""
    env = minigrid.Fixed(minigrid.DoorKey(size=5), ROOM)
    params = env.default_params()._replace(start=minigrid.parse(text))
    return env.reset(prng.key(0), params)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: minigrid.Empty(size=3), "size=3"),
        (lambda: minigrid.Crossing(size=8), "odd"),
        (lambda: minigrid.MultiRoom(num_rooms=20), "num_rooms=20"),
        (lambda: minigrid.parse(ROOM.replace(">>", "  ")), "0 agents"),
        (lambda: minigrid.parse(ROOM.replace("KY", "??")), "'\\?\\?' in line 3, cell 2"),
        (lambda: minigrid.parse(ROOM + "WG"), "characters"),
        (lambda: minigrid.parse(ROOM, objects=2), "objects=2"),
        (lambda: minigrid.Fixed(minigrid.DoorKey(size=6), ROOM), "6"),
        (lambda: minigrid.Fixed(minigrid.Empty(size=5), ROOM), "doors"),
        (lambda: minigrid.Fixed(minigrid.GoToDoor(), ROOM), "colour"),
        (lambda: started(ROOM + "\nWGWGWGWGWG"), "height and width are 11 together"),
    ],
)
def test_what_is_malformed_is_named(make: Any, message: str) -> None:
    """Fails if a wrong field or level is accepted, or the error does not say which it is."""
    with pytest.raises(ValueError, match=message):
        make()


def test_batches_of_batches_are_equal_to_one_batch() -> None:
    """Fails if the rule for batches is wrong when `vmap` is applied twice, or to some arguments."""

    def weighted(rows: Any, weight: Any) -> tuple[Any, Any]:  # [3, *B] and [*B]
        assert rows.shape[1:] == weight.shape
        return rows * weight[None], rows.sum(0) + weight

    def plain(rows: Any, weight: Any) -> tuple[Any, Any]:
        return rows * weight, rows.sum() + weight

    rows = np.arange(36, dtype=np.int32).reshape(4, 3, 3)
    weights = np.arange(4, dtype=np.int32)
    for axes in ((0, 0), (0, None), (None, 0)):
        outer = [a if d == 0 else a[0] for a, d in zip((rows, weights), axes, strict=True)]
        results = [
            jax.jit(jax.vmap(jax.vmap(f, (0, None)), axes))(*outer)
            for f in (compiling.batch_last(weighted), plain)
        ]
        for mine, expected in zip(*results, strict=True):
            np.testing.assert_array_equal(mine, expected)


@pytest.mark.slow
def test_pictures_are_the_packages() -> None:
    """Fails if a tile, its orientation or the light of the view is not as the package draws it."""
    gymnasium = pytest.importorskip("gymnasium")
    pytest.importorskip("minigrid")
    from test_minigrid import SIZES, recorder, state_of

    for name in (
        "MiniGrid-UnlockPickup-v0",
        "MiniGrid-LavaCrossingS9N1-v0",
        "MiniGrid-GoToDoor-5x5-v0",
        "MiniGrid-MemoryS7-v0",
    ):
        theirs = gymnasium.make(name, render_mode="rgb_array").unwrapped
        env = fastrl.make(name)
        for seed in range(3):
            theirs.reset(seed=seed)
            translated = recorder().state(theirs, SIZES[name])
            one = {f"before_{k}": np.asarray(v)[None] for k, v in translated.items()}
            state = jax.tree.map(lambda x: x[0], state_of(env, one, "before"))
            picture = env.render(state, env.default_params())
            difference = np.abs(picture.astype(int) - theirs.render().astype(int))
            assert picture.shape == difference.shape
            assert (difference > 2).mean() < 1e-3


def test_lines_and_grids_are_the_same() -> None:
    """Fails if cells are packed into rows or columns wrongly."""
    members = np.random.default_rng(0).random((6, 9)) < 0.5
    packed = lines.from_grid(members)
    np.testing.assert_array_equal(lines.to_grid(np.asarray(packed), (6, 9)), members)
    columns = np.asarray(packed)[6:, None] >> np.arange(3, 9, dtype=np.uint32)
    np.testing.assert_array_equal(columns & 1 == 1, members.T)
    box = lines.rectangle((6, 9), 2, 1, 5, 4)
    expected = np.zeros((6, 9), bool)
    expected[1:4, 2:5] = True
    np.testing.assert_array_equal(box, lines.from_grid(expected))
