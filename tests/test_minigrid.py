"""MiniGrid's tasks against the `minigrid` package, step by step from its states.

A state of the package is translated to ours (`golden/make_minigrid.py`), both take the same
action, and image, direction, reward, ends and the state that follows must be equal.  In
Dynamic-Obstacles the balls' moves are given: ours are put where the package's went, and the
choice itself is tested on its own.
"""

import functools
import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fastrl.envs.minigrid
import fastrl.registry
from fastrl.envs.minigrid import lines
from fastrl.envs.minigrid.task import View, advance
from fastrl.envs.minigrid.world import State
from fastrl.networks import encoder
from fastrl.transforms import OneHotChannels

GOLDEN = Path(__file__).with_name("golden")
# Number of objects in our states, which the translation fills up.
SIZES = {
    "MiniGrid-Empty-5x5-v0": 1,
    "MiniGrid-Empty-8x8-v0": 1,
    "MiniGrid-Empty-Random-6x6-v0": 1,
    "MiniGrid-FourRooms-v0": 1,
    "MiniGrid-DoorKey-5x5-v0": 3,
    "MiniGrid-DoorKey-8x8-v0": 3,
    "MiniGrid-Unlock-v0": 2,
    "MiniGrid-UnlockPickup-v0": 3,
    "MiniGrid-MultiRoom-N2-S4-v0": 2,
    "MiniGrid-MultiRoom-N4-S5-v0": 6,
    "MiniGrid-KeyCorridorS3R3-v0": 12,
    "MiniGrid-LavaGapS7-v0": 1,
    "MiniGrid-SimpleCrossingS9N1-v0": 1,
    "MiniGrid-LavaCrossingS9N1-v0": 1,
    "MiniGrid-Dynamic-Obstacles-6x6-v0": 4,
    "MiniGrid-GoToDoor-5x5-v0": 4,
    "MiniGrid-MemoryS7-v0": 3,
}
QUICK = ("MiniGrid-DoorKey-8x8-v0", "MiniGrid-Dynamic-Obstacles-6x6-v0")
# Those without a rule of their own, nor other objects.
ALIKE = ("Empty-5x5", "Empty-8x8", "DoorKey-5x5", "LavaGapS7", "SimpleCrossingS9N1", "Unlock-",
         "MultiRoom-N2-S4", "FourRooms")  # fmt: skip
BY_NAME = [
    n
    if n in QUICK
    else pytest.param(n, marks=[pytest.mark.slow, *[pytest.mark.full for a in ALIKE if a in n]])
    for n in SIZES
]


@functools.cache
def recorder() -> ModuleType:
    """`golden/make_minigrid.py`, which needs the package."""
    pytest.importorskip("minigrid")
    spec = importlib.util.spec_from_file_location("make_minigrid", GOLDEN / "make_minigrid.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def golden(name: str) -> dict[str, np.ndarray]:
    """What was recorded of a task."""
    with np.load(GOLDEN / "minigrid.npz") as file:
        return {k.split("/")[1]: file[k] for k in file.files if k.startswith(name + "/")}


def state_of(env: Any, recorded: dict[str, np.ndarray], when: str) -> State:
    """Our states, `[N, ...]`, from the recorded ones."""
    ints: dict[str, Any] = {
        k: jnp.asarray(recorded[f"{when}_{k}"].astype(np.int32))
        for k in ("agent", "direction", "time", "object_cell", "object_code", "mission")
    }
    grids: dict[str, Any] = {
        k: jax.vmap(lines.from_grid)(recorded[f"{when}_{k}"]) for k in ("open", "lava")
    }
    if not type(env).mission:
        ints["mission"] = ()
    if not recorded["before_lava"].any():
        grids["lava"] = ()
    return State(**ints, **grids)


def assert_equal(name: str, recorded: dict[str, np.ndarray]) -> None:
    """Our steps are the recorded ones."""
    env = fastrl.registry.make(name)
    before = state_of(env, recorded, "before")
    moved = before
    if "Dynamic" in name:
        moved = before._replace(object_cell=jnp.asarray(recorded["after_object_cell"], jnp.int32))
    assert set(recorded["max_steps"]) == {env.default_params().max_steps}
    step = jax.jit(jax.vmap(functools.partial(advance, env), (0, 0, 0, None)))
    after, stepped = step(before, moved, recorded["action"].astype(np.int32), env.default_params())
    np.testing.assert_array_equal(stepped.observation.image, recorded["image"])
    np.testing.assert_array_equal(stepped.observation.direction, recorded["after_direction"])
    np.testing.assert_allclose(stepped.reward, recorded["reward"], atol=1e-6)
    np.testing.assert_array_equal(stepped.terminated, recorded["terminated"])
    cut = recorded["truncated"] & ~recorded["terminated"]  # the package may raise both flags
    np.testing.assert_array_equal(stepped.truncated, cut)
    if type(env).mission:
        np.testing.assert_array_equal(stepped.observation.mission, recorded["before_mission"])
    expected = state_of(env, recorded, "after")
    for field in ("agent", "direction", "time", "open", "lava"):
        np.testing.assert_array_equal(getattr(after, field), getattr(expected, field))
    for mine, theirs in zip(things(after), things(expected), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def things(state: State) -> list[np.ndarray]:
    """The objects that are somewhere, in order, per state: the package lists none that are gone."""
    both = np.stack([state.object_cell, state.object_code], -1)
    kept = [objects[objects[:, 0] != 30 + 32 * 31] for objects in both]
    return [objects[np.lexsort(objects.T)] for objects in kept]


@pytest.mark.parametrize("name", BY_NAME)
def test_steps_equal_those_recorded(name: str) -> None:
    """Fails if a rule, the view, what hides what, a reward or an end is not MiniGrid's."""
    assert_equal(name, golden(name))


def test_codes_become_planes_for_networks() -> None:
    """Fails if a code is in another plane than MiniGrid's wrapper puts it, or reaches a network
    as a number."""
    name = "MiniGrid-GoToDoor-5x5-v0"
    env: Any = OneHotChannels(fastrl.registry.make(name), (11, 6, 3))
    space = env.observation_space(env.default_params())
    assert (space.image.shape, space.image.dtype) == ((7, 7, 20), bool)
    codes = golden(name)["image"][:50]
    inner = env.env.observation_space(env.default_params())
    planes = np.asarray(env._leaf(inner.image, jnp.asarray(codes)))
    expected = np.concatenate([np.eye(n, dtype=bool)[codes[..., c]] for c, n in
                               enumerate((11, 6, 3))], -1)  # fmt: skip
    np.testing.assert_array_equal(planes, expected)
    shown = View(planes, np.zeros(50, np.int32))
    assert encoder(View(space.image, space.direction))(shown).shape == (50, 49 * 20 + 4)
    with pytest.raises(ValueError, match=r"OneHotChannels\(sizes=\(11, 6\)\) needs a Box"):
        OneHotChannels(env.env, (11, 6))


@pytest.mark.slow
@pytest.mark.parametrize("name", list(SIZES))
def test_steps_equal_the_packages(name: str) -> None:
    """Fails as the test above, on 10,000 transitions that are not in the file."""
    recorded = recorder().record(name, 10_000, SIZES[name], seed=7)
    assert recorded["terminated"].any()
    assert recorded["truncated"].any()
    assert (recorded["reward"] > 0).any()
    assert_equal(name, recorded)
