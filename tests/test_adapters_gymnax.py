"""The gymnax adapter: true last observations, ends apart, both interfaces.

Gymnax itself is tested where it is installed.  Everywhere the logic is tested with a small
module that stands in for it, in the form of 0.0.x and of 1.x.
"""

import dataclasses
import functools
import re
import subprocess
import sys
import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct

from fastrl import reset, spaces
from fastrl.check_env import check_env
from fastrl.envs.adapters.gymnax import Gymnax, from_gymnax
from fastrl.kernels import prng
from fastrl.vec import VecEnv, rollout

N, T = 4, 30


@struct.dataclass
class WalkState:
    place: Any
    time: Any


@struct.dataclass
class WalkParams:
    max_steps_in_episode: int = 6
    stride: float = 1.0


class Discrete:
    def __init__(self, n: int) -> None:
        self.n, self.shape, self.dtype = n, (), np.dtype(np.int32)


class Box:
    def __init__(self, low: Any, high: Any, shape: tuple[int, ...]) -> None:
        self.low, self.high, self.shape, self.dtype = low, high, shape, jnp.float32


class Dict:
    def __init__(self, parts: dict[str, Any]) -> None:
        self.spaces = parts


class OldWalk:
    """Walk off a plank, in the form of 0.0.x: `done` is both kinds of end; types are weak."""

    default_params = WalkParams()
    edge = 3.0

    def __init__(self, width: int = 2) -> None:
        self.width = width

    def reset_env(self, key: Any, params: Any) -> Any:
        state = WalkState(jnp.round(jax.random.uniform(key)), 0)
        return self.see(state, params), state

    def step_env(self, key: Any, state: Any, action: Any, params: Any) -> Any:
        place = state.place + (2 * action - 1) * params.stride
        state = WalkState(place, state.time + 1)
        done = self.is_terminal(state, params)
        return self.see(state, params), state, jnp.sum(place[None]), done, {"discount": 1.0}

    def is_terminal(self, state: Any, params: Any) -> Any:
        late = state.time >= params.max_steps_in_episode
        return jnp.logical_or(jnp.abs(state.place) >= self.edge, late)

    def see(self, state: Any, params: Any) -> Any:
        part = state.time / params.max_steps_in_episode
        return {"at": jnp.zeros(self.width) + state.place, "part": jnp.asarray(part)}

    def observation_space(self, params: Any) -> Any:
        return Dict({"part": Box(0.0, 1.0, ()), "at": Box(-9.0, jnp.full(1, 9.0), (1,))})

    def action_space(self, params: Any) -> Any:
        return Discrete(2)


class NewWalk(OldWalk):
    """The same in the form of 1.x: `step_env` says what terminated, `is_truncated` the rest."""

    def is_terminal(self, state: Any, params: Any) -> Any:
        return jnp.abs(state.place) >= self.edge

    def is_truncated(self, state: Any, params: Any) -> Any:
        return state.time >= params.max_steps_in_episode


class SixValues(NewWalk):
    def step_env(self, key: Any, state: Any, action: Any, params: Any) -> Any:
        return (*super().step_env(key, state, action, params), False)


@pytest.fixture
def gymnax_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module called gymnax in the place of the real one."""
    module: Any = types.ModuleType("gymnax")
    module.registered_envs = ["Old-v0", "New-v0", "Six-v0", "Bare-v0"]

    def make(name: str, **options: Any) -> Any:
        kind = {"Old-v0": OldWalk, "New-v0": NewWalk, "Six-v0": SixValues, "Bare-v0": Bare}[name]
        made = kind(**options)
        return made, made.default_params

    module.make = make
    monkeypatch.setitem(sys.modules, "gymnax", module)


class Bare:
    default_params = WalkParams()


OLD, NEW = OldWalk(), NewWalk()
BOTH = pytest.mark.parametrize("engine", [OLD, NEW], ids=["0.0.x", "1.x"])


@functools.cache
def play(env: Gymnax, action: int | None = None) -> Any:
    """Transitions `[T, N]` of random play, or of one action again and again."""
    params = env.default_params()
    batch = VecEnv(env, N, reset.fresh(env))

    def program(key: Any, params: Any) -> Any:
        state = batch.init(key, params)

        def policy(key: Any, observation: Any) -> Any:
            drawn = spaces.sample(key, env.action_space(params), (N,))
            return drawn if action is None else jnp.full_like(drawn, action), ()

        return rollout(batch, policy, key, state, params, T)[1][0]

    return jax.device_get(jax.jit(program)(prng.key(0), params))


@BOTH
def test_ends_are_told_apart(engine: Any) -> None:
    """Fails if a time limit is a termination, or a limit on a terminal state is a truncation."""
    seen = play(Gymnax(engine))
    place, part = seen.next_observation["at"][..., 0], seen.next_observation["part"]
    over, late = np.abs(place) >= OldWalk.edge, part >= 1.0
    np.testing.assert_array_equal(seen.terminated, over)
    np.testing.assert_array_equal(seen.truncated, late & ~over)
    assert (over & ~late).any()
    assert (late & ~over).any()


@BOTH
def test_a_limit_on_a_terminal_state_is_a_termination(engine: Any) -> None:
    """Fails if both ends at once let a learner bootstrap from beyond the edge."""
    env = Gymnax(engine)
    start = WalkState(jnp.float32(2.0), jnp.int32(5))
    _, step = env.step(prng.key(0), start, jnp.int32(1), env.default_params())
    assert (bool(step.terminated), bool(step.truncated)) == (True, False)
    _, step = env.step(prng.key(0), start, jnp.int32(0), env.default_params())
    assert (bool(step.terminated), bool(step.truncated)) == (False, True)


@BOTH
def test_the_last_observation_is_kept_and_untouched_by_the_limit(engine: Any) -> None:
    """Fails if gymnax's own reset, or the lifted limit, reaches observations."""
    seen = play(Gymnax(engine))
    expected = seen.observation["at"] + (2 * seen.action[..., None] - 1)
    np.testing.assert_array_equal(seen.next_observation["at"], expected)
    steps = np.rint(6 * seen.observation["part"]) + 1
    np.testing.assert_allclose(seen.next_observation["part"], steps / 6, rtol=1e-6)
    done = (seen.terminated | seen.truncated)[:-1]
    assert (seen.observation["part"][1:][done] == 0).all()


@BOTH
def test_it_keeps_the_contract(engine: Any) -> None:
    """Fails if gymnax's weak types, records or scalars of shape [1] reach a learner."""
    report = check_env(Gymnax(engine), num_envs=8, num_steps=30)
    assert report.ok, str(report)
    assert not report.warnings, str(report)


def test_params_are_gymnaxs_own_and_traced() -> None:
    """Fails if other numbers compile anew or do not reach gymnax."""
    env, key = Gymnax(OLD), prng.key(0)
    step = jax.jit(env.step)
    state, _ = env.reset(key, env.default_params())
    moved = []
    for stride, limit in ((1.0, 6), (0.5, 6), (0.5, 1)):
        params = env.default_params().replace(stride=stride, max_steps_in_episode=limit)
        after, result = step(key, state, jnp.int32(1), jax.tree.map(jnp.asarray, params))
        moved.append((float(after.place - state.place), bool(result.truncated)))
    assert moved == [(1.0, False), (0.5, False), (0.5, True)]
    assert step._cache_size() == 1  # type: ignore[attr-defined]


def test_spaces_have_the_shapes_that_come() -> None:
    """Fails if a space that gymnax declares wrongly makes networks that don't fit."""
    env = Gymnax(OldWalk(width=3))
    space = env.observation_space(env.default_params())
    assert space == {"at": spaces.Box(-9.0, (9.0,) * 3, (3,)), "part": spaces.Box(0.0, 1.0)}
    assert env.action_space(env.default_params()) == spaces.Discrete(2)


@pytest.mark.usefixtures("gymnax_named")
def test_names_and_options_reach_gymnax() -> None:
    """Fails if an environment named with options is another one, or equal ones differ."""
    env = from_gymnax("New-v0", width=5)
    assert env.observation_space(env.default_params())["at"].shape == (5,)
    assert env == Gymnax("New-v0", {"width": 5})
    assert hash(env) == hash(Gymnax("New-v0", {"width": 5}))
    assert dataclasses.replace(env, options=()) == Gymnax("New-v0")


@pytest.mark.usefixtures("gymnax_named")
@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: from_gymnax("Old-v1"), ValueError, "did you mean 'Old-v0'"),
        (lambda: from_gymnax("Old-v0", height=3), ValueError, "with options {'height': 3}"),
        (lambda: Gymnax("Old-v0", ["width"]), ValueError, "must be a dictionary"),
        (lambda: from_gymnax(3), ValueError, "environment object of gymnax's"),
        (lambda: from_gymnax("Six-v0"), ImportError, "returns 6 values: fastrl knows the five of "),
        (lambda: from_gymnax("Bare-v0"), ImportError, "has no step_env, reset_env, is_terminal"),
    ],
)
def test_what_does_not_fit_is_named(build: Any, error: type[Exception], message: str) -> None:
    """Fails if another version of gymnax, or a slip, gives a traceback without a way out."""
    with pytest.raises(error, match=re.escape(message)):
        build()


def test_gymnax_stays_out_until_it_is_used() -> None:
    """Fails if `import fastrl` needs gymnax, or its absence is not explained."""
    script = """
import sys
sys.modules["gymnax"] = None  # as if it were not installed
from fastrl.envs.adapters import Gymnax
env = Gymnax("CartPole-v1")
try:
    env.default_params()
except ImportError as error:
    print(error)
"""
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    assert "pip install gymnax (tested with 0.0.9 and 1.0.1" in done.stdout


@pytest.mark.slow
def test_steps_equal_gymnaxs_own() -> None:
    """Fails if a number differs from gymnax's `step`, except that ends keep their observation."""
    gymnax = pytest.importorskip("gymnax")
    engine, params = gymnax.make("CartPole-v1")
    env = from_gymnax("CartPole-v1")
    step = jax.jit(lambda key, state, action: env.step(key, state, action, params))
    key = prng.key(0)
    state, observation = env.reset(key, params)
    np.testing.assert_array_equal(observation, engine.reset_env(key, params)[0])
    ends = 0
    for t, action in enumerate(np.random.default_rng(0).integers(0, 2, 300)):
        key = jax.random.fold_in(prng.key(1), t)
        theirs = engine.step(key, state, action, params)
        state, mine = step(jax.random.split(key)[0], state, jnp.int32(action))
        done = bool(mine.terminated | mine.truncated)
        flags = theirs[3] if len(theirs) == 5 else theirs[3] | theirs[4]
        assert (float(mine.reward), done) == (float(theirs[2]), bool(flags))
        if done:
            ends += 1
            assert (np.abs(mine.observation) > 0.05).any()
            state = env.reset(key, params)[0]
        else:
            np.testing.assert_allclose(mine.observation, theirs[0], atol=1e-6)
    assert ends > 5
