"""Records transitions of the `minigrid` package, as states of ours, what it did with them.

    pip install minigrid==3.2.0; python tests/golden/make_minigrid.py

writes `minigrid.npz`, which tests compare with where the package is missing (where it is
installed they record anew, with other seeds), and `minigrid_levels.npz`, histograms of levels.
"""

# The original is installed in an environment of its own.
# pyright: reportMissingImports=false, reportArgumentType=false

import sys
import warnings
from pathlib import Path
from typing import Any

import gymnasium
import minigrid
import numpy as np

FILE = Path(__file__).with_name("minigrid.npz")
KINDS = {"key": 5, "ball": 6, "box": 7, "goal": 8}
COLOURS = ("red", "green", "blue", "purple", "yellow", "grey")
CARRIED, GONE = 31 + 32 * 31, 30 + 32 * 31
LEVELS = 4000  # of each task in the histograms
TRANSITIONS = 160  # of each task in the file

Record = dict[str, np.ndarray]


def record(name: str, count: int, num_objects: int, seed: int) -> Record:
    """`count` transitions of MiniGrid's task `name`, arrays `[count, ...]`.

    Actions are random.  Now and then the agent is put somewhere else, mostly next to an object,
    given an object, or brought close to the time limit, so that everything that can happen does.
    """
    rng = np.random.default_rng(seed)
    env = make(name)
    env.reset(seed=seed)
    fixed = hasattr(env, "obstacles") or hasattr(env, "success_pos")  # nothing can be picked up
    rows: list[dict[str, Any]] = []
    before = None
    for _ in range(count):
        chances = rng.random(4)
        if chances[0] < 0.25:
            _displace(env, rng)
        if chances[1] < 0.05:
            env.step_count = env.max_steps - int(rng.integers(1, 3))
        if chances[2] < 0.05 and not fixed:
            _pick_up(env, rng)
        if before is None or (chances[:3] < (0.25, 0.05, 0.05)).any():
            before = state(env, num_objects)
        chance = np.array([1, 1, 4, 2, 1, 2, 1], float)[: env.action_space.n]
        action = int(rng.choice(len(chance), p=chance / chance.sum()))
        observation, reward, terminated, truncated, _ = env.step(action)
        after = state(env, num_objects)
        rows.append({
            **{f"before_{k}": v for k, v in before.items()},
            **{f"after_{k}": v for k, v in after.items()},
            "action": action, "reward": reward, "terminated": terminated, "truncated": truncated,
            "image": observation["image"], "max_steps": env.max_steps,
        })  # fmt: skip
        before = after
        if terminated or truncated or chances[3] < 0.02:
            env.reset()
            before = None
    return {k: np.array([row[k] for row in rows]) for k in rows[0]}


def state(env: Any, num_objects: int) -> dict[str, Any]:
    """The env's state in our terms: a grid of walls and lava, and a list of objects.

    Objects are listed by rows; balls that move after the goal and in the package's order.
    """
    grid, objects = env.grid, []
    open_, lava = (
        np.ones((grid.height, grid.width), bool),
        np.zeros((grid.height, grid.width), bool),
    )
    for i, thing in enumerate(grid.grid):
        if thing is None:
            continue
        y, x = divmod(i, grid.width)
        if thing.type == "wall":
            open_[y, x] = False
        elif thing.type == "lava":
            lava[y, x] = True
        else:
            objects.append((x + 32 * y, code(thing)))
    if env.carrying is not None:
        objects.append((CARRIED, code(env.carrying)))
    if hasattr(env, "obstacles"):
        goals = [o for o in objects if o[1] % 16 == KINDS["goal"]] or [(GONE, KINDS["goal"] + 16)]
        places = [int(b.cur_pos[0]) + 32 * int(b.cur_pos[1]) for b in env.obstacles]
        objects = [*goals, *((place, 6 + 16 * 2) for place in places)]
    objects += [(GONE, KINDS["goal"] + 16)] * (num_objects - len(objects))
    words = env.mission.split()
    colours = [COLOURS.index(w) for w in words if w in COLOURS]
    return {
        "agent": int(env.agent_pos[0]) + 32 * int(env.agent_pos[1]),
        "direction": env.agent_dir,
        "time": getattr(env, "step_count", 0),
        "open": open_,
        "lava": lava,
        "object_cell": np.array([o[0] for o in objects], np.int32),
        "object_code": np.array([o[1] for o in objects], np.int32),
        "mission": colours[0] if colours else 0,
    }


def code(thing: Any) -> int:
    """Our code of an object of the package."""
    colour = 16 * COLOURS.index(thing.color)
    if thing.type == "door":
        return colour + (4 if thing.is_open else 13 if thing.is_locked else 12)
    return colour + KINDS[thing.type]


def _displace(env: Any, rng: np.random.Generator) -> None:
    """Puts the agent onto a random free cell, three times in four one that faces an object."""
    grid = env.grid
    cells = [(x, y) for x in range(1, grid.width - 1) for y in range(1, grid.height - 1)]
    free = [c for c in cells if grid.get(*c) is None or grid.get(*c).can_overlap()]
    free = [c for c in free if grid.get(*c) is None or grid.get(*c).type == "door"]
    if hasattr(env, "rooms"):  # around which there is floor too, up to the end of the grid
        free = [c for c in free if any(_inside(c, room) for room in env.rooms)]
    steps = ((1, 0), (0, 1), (-1, 0), (0, -1))

    def ahead(cell: tuple[int, int], direction: int) -> Any:
        return grid.get(cell[0] + steps[direction][0], cell[1] + steps[direction][1])

    poses = [(c, d) for c in free for d in range(4)]
    facing = [p for p in poses if getattr(ahead(*p), "type", "wall") != "wall"]
    choice = facing if facing and rng.random() < 0.75 else poses
    cell, direction = choice[rng.integers(len(choice))]
    env.agent_pos, env.agent_dir = cell, direction


def _inside(cell: tuple[int, int], room: Any) -> bool:
    return all(t < c < t + s - 1 for c, t, s in zip(cell, room.top, room.size, strict=True))


def make(name: str) -> Any:
    """The package's task, bare. It warns that the first version of one name has six rooms."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return gymnasium.make(name, disable_env_checker=True).unwrapped


def _pick_up(env: Any, rng: np.random.Generator) -> None:
    """The agent carries an object of the grid, or what it carries is gone."""
    things = [t for t in env.grid.grid if t is not None and t.can_pickup()]
    if env.carrying is None and things:
        thing = things[rng.integers(len(things))]
        index = next(i for i, t in enumerate(env.grid.grid) if t is thing)
        env.grid.grid[index] = None
        env.carrying = thing


def main() -> int:
    """Writes the file."""
    sys.path.insert(0, str(FILE.parents[1]))
    from test_minigrid import SIZES

    arrays = {"version": np.array(minigrid.__version__)}
    for name, num_objects in SIZES.items():
        recorded = record(name, TRANSITIONS, num_objects, seed=1)
        arrays |= {f"{name}/{k}": small(v) for k, v in recorded.items()}
    np.savez_compressed(FILE, **arrays)
    print(f"{FILE}: {FILE.stat().st_size} bytes")
    write_levels(FILE.with_name("minigrid_levels.npz"), list(SIZES))
    return 0


def write_levels(file: Path, names: list[str]) -> None:
    """Histograms of the features of levels, by task."""
    from test_minigrid_levels import histograms

    arrays = {}
    for name in names:
        env = make(name)
        env.reset(seed=11)
        states = []
        for _ in range(LEVELS):
            env._gen_grid(env.width, env.height)  # what `reset` does, without the view
            drawn = state(env, 12)
            codes = np.where(drawn["open"], 1, 2 + 16 * 5)
            codes[drawn["lava"]] = 9
            for cell, thing in zip(drawn["object_cell"], drawn["object_code"], strict=True):
                if cell != GONE:
                    codes[cell // 32, cell % 32] = thing
            states.append((drawn["agent"], drawn["direction"], codes, drawn["mission"]))
        for feature, histogram in histograms(states).items():
            arrays[f"{name}/{feature}/values"] = np.array(list(histogram), np.int8)
            arrays[f"{name}/{feature}/counts"] = np.array(list(histogram.values()), np.int16)
        print(name, flush=True)
    np.savez_compressed(file, **arrays)
    print(f"{file}: {file.stat().st_size} bytes")


def small(array: np.ndarray) -> np.ndarray:
    """Integers in the fewest bytes, as the file is part of the repository."""
    if array.dtype == np.int64:
        return array.astype(np.min_scalar_type(array.max()))
    return array


if __name__ == "__main__":
    sys.exit(main())
