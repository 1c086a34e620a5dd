"""`check_env` on environments that are broken in one way each, and `load_env` on bad names."""

import dataclasses
import io
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import Place

from fastrl.check_env import Report, check_env
from fastrl.registry import make
from fastrl.spaces import Box, Discrete, MultiDiscrete
from fastrl.types import Array, Key, Step
from fastrl.user_code import load_env, load_object


class Params(NamedTuple):
    drift: float = 0.1
    max_steps: int = 5


@dataclasses.dataclass(frozen=True)
class Sound:
    """A random walk; the broken environments below change one method of it."""

    version: ClassVar[int] = 1

    def default_params(self) -> Any:
        return Params()

    def reset(self, key: Key, params: Any) -> Any:
        state = Place(jax.random.uniform(key), jnp.int32(0))
        return state, state.x[None]

    def step(self, key: Key, state: Any, action: Array, params: Any) -> Any:
        state = Place(state.x + (action - 0.5) * params.drift, state.time + 1)
        truncated = state.time >= params.max_steps
        return state, Step(state.x[None], state.x, jnp.zeros_like(truncated), truncated)

    def observation_space(self, params: Any) -> Any:
        return Box(-2.0, 2.0, (1,))

    def action_space(self, params: Any) -> Any:
        return Discrete(2)


class NoVersion(Sound):
    version = None  # type: ignore[assignment]


class NoStep(Sound):
    step = None  # type: ignore[assignment]


class OldReset(Sound):
    def reset(self, key: Key) -> Any:  # type: ignore[override]
        return super().reset(key, None)


@dataclasses.dataclass(frozen=True)
class HoldsArray(Sound):
    table: Any = dataclasses.field(default_factory=lambda: jnp.zeros(3))


class ByIdentity(Sound):
    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)


class TextParams(Sound):
    def default_params(self) -> Any:
        return {"mode": "hard"}


@dataclasses.dataclass(frozen=True)
class PlainParams:
    drift: float = 0.1


class UnregisteredParams(Sound):
    def default_params(self) -> Any:
        return PlainParams()


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class StaticNumbers:
    drift: float = 0.1
    max_steps: int = 5


class StaticParams(Sound):
    def default_params(self) -> Any:
        return StaticNumbers()


class SpaceFromParams(Sound):
    def observation_space(self, params: Any) -> Any:
        return Box(-params.drift, params.drift, (1,))


class ForeignSpace(Sound):
    def action_space(self, params: Any) -> Any:
        return ("left", "right")


class BareReset(Sound):
    def reset(self, key: Key, params: Any) -> Any:
        return jax.random.uniform(key, (1,))


class WrongShape(Sound):
    def reset(self, key: Key, params: Any) -> Any:
        state, _ = super().reset(key, params)
        return state, state.x


class GymStep(Sound):
    def step(self, key: Key, state: Any, action: Array, params: Any) -> Any:
        state, step = super().step(key, state, action, params)
        return step.observation, step.reward, step.terminated, step.truncated, {}


class TupleStep(Sound):
    def step(self, key: Key, state: Any, action: Array, params: Any) -> Any:
        state, step = super().step(key, state, action, params)
        return state, tuple(step)


def edited(**changes: Any) -> type[Sound]:
    """A `Sound` whose Step has some fields changed, each by a function of (state, step)."""

    class Edited(Sound):
        def step(self, key: Key, state: Any, action: Array, params: Any) -> Any:
            state, step = super().step(key, state, action, params)
            return state, step._replace(**{k: f(state, step) for k, f in changes.items()})

    return Edited


class PythonIf(Sound):
    def step(self, key: Key, state: Any, action: Array, params: Any) -> Any:
        if action == 1:
            state = state._replace(x=state.x + 1)
        return super().step(key, state, action, params)


class UsesNumPy(Sound):
    def step(self, key: Key, state: Any, action: Array, params: Any) -> Any:
        return super().step(key, state._replace(x=jnp.float32(np.tanh(state.x))), action, params)


class Raises(Sound):
    def step(self, key: Key, state: Any, action: Array, params: Any) -> Any:
        raise KeyError("wheels")


class WeakTime(Sound):
    def reset(self, key: Key, params: Any) -> Any:
        state, observation = super().reset(key, params)
        return state._replace(time=jnp.asarray(0)), observation

    def step(self, key: Key, state: Any, action: Array, params: Any) -> Any:
        state, step = super().step(key, state, action, params)
        return state._replace(time=state.time.astype(jnp.float32)), step


class OtherStructure(Sound):
    def step(self, key: Key, state: Any, action: Array, params: Any) -> Any:
        state, step = super().step(key, Place(*state[:2]), action, params)
        return tuple(state), step


class ForeignChance(Sound):
    def reset(self, key: Key, params: Any) -> Any:
        state = Place(jnp.float32(np.random.default_rng().uniform()), jnp.int32(0))
        return state, state.x[None]


class LostChance(Sound):
    def reset(self, key: Key, params: Any) -> Any:
        jax.random.uniform(key)
        return Place(jnp.float32(0.5), jnp.int32(0)), jnp.full(1, 0.5)


class OneStart(Sound):
    def reset(self, key: Key, params: Any) -> Any:
        return Place(jnp.float32(0.5), jnp.int32(0)), jnp.full(1, 0.5)


class KeepsKey(Sound):
    """Records of other kinds, and a key in the state: nothing is wrong with them."""

    def reset(self, key: Key, params: Any) -> Any:
        x = jax.random.uniform(key)
        return {"key": key, "x": x, "time": jnp.int32(0)}, (x, {"mask": jnp.ones(2, jnp.int32)})

    def step(self, key: Key, state: Any, action: Any, params: Any) -> Any:
        x = state["x"] + action["push"][0] * params.drift
        state = {"key": jax.random.split(state["key"])[0], "x": x, "time": state["time"] + 1}
        seen = (jnp.clip(x, 0.0, 1.0), {"mask": jnp.ones(2, jnp.int32)})
        metrics = {"speed": params.drift * 2}
        done: Any = state["time"] >= params.max_steps
        reward: Any = 1.0  # Python's numbers become arrays when the step is traced
        truncated: Any = False
        return state, Step(seen, reward, done, truncated, metrics)

    def observation_space(self, params: Any) -> Any:
        return Box(0.0, 1.0), {"mask": MultiDiscrete((2, 2))}

    def action_space(self, params: Any) -> Any:
        return {"push": Box(-1.0, 1.0, (1,)), "gear": Discrete(3)}


class LeavesSpace(Sound):
    def observation_space(self, params: Any) -> Any:
        return Box(0.0, 1.0, (1,))


class Endless(Sound):
    def default_params(self) -> Any:
        return Params(max_steps=10_000)


class GreyPicture(Sound):
    def render(self, state: Any, params: Any) -> Any:
        return np.zeros((4, 4), np.uint8)


BROKEN = [
    (Sound, "methods", "give an environment, Sound()"),
    (NoStep(), "methods", "step(self, key, state, action, params)"),
    (OldReset(), "methods", "reset takes (key): it must be reset(self, key, params)"),
    (
        object(),
        "methods",
        "methods are missing: write default_params(self); reset(self, key, pa",
    ),
    (HoldsArray(), "equality", "arrays belong in Params"),
    (ByIdentity(), "equality", "frozen=True"),
    (TextParams(), "params", "Params['mode'] is 'hard', no number"),
    (UnregisteredParams(), "params", "make Params a NamedTuple"),
    (StaticParams(), "params", "Params.drift is no leaf"),
    (SpaceFromParams(), "spaces", "make what a space needs a field of the environment"),
    (ForeignSpace(), "spaces", "action_space holds 'left'"),
    (BareReset(), "reset", "return (state, observation)"),
    (WrongShape(), "reset", "its shape is (), not (1,)"),
    (GymStep(), "step", "a tuple of 5 values: return (state, Step("),
    (TupleStep(), "step", "without observation, reward"),
    (edited(reward=lambda s, x: s.time)(), "step", "reward is int32[], it must be float32[]"),
    (edited(reward=lambda s, x: x.observation)(), "step", "reward is float32[1]"),
    (edited(truncated=lambda s, x: s.time)(), "step", "truncated is int32[], it must be bool[]"),
    (edited(metrics=lambda s, x: {"x": x.observation})(), "step", "metrics['x'] has shape (1,)"),
    (Raises(), "step", "KeyError: 'wheels' (test_check_env.py, line "),
    (PythonIf(), "jit", "use jnp.where, jax.lax.cond, & and | (test_check_env.py, line "),
    (UsesNumPy(), "jit", "handed to NumPy: use jax.numpy instead (test_check_env.py, line "),
    (WeakTime(), "state types", "state.time is int32[], weakly typed after reset and float32[]"),
    (OtherStructure(), "state types", "return the same structure"),
    (ForeignChance(), "same key", "draw with jax.random from the key given"),
    (LostChance(), "start states", "identical although reset draws from its key"),
    (
        edited(terminated=lambda s, x: x.truncated)(),
        "flags",
        "truncated = (time >= limit) & ~terminated",
    ),
    (LeavesSpace(), "observations", "is outside [[0.], [1.]]"),
    (edited(reward=lambda s, x: x.reward / jnp.float32(0))(), "rewards", "not finite"),
    (edited(observation=lambda s, x: x.observation * jnp.nan)(), "step", "nan"),
    (GreyPicture(), "render", "shape (4, 4): return [height, width, 3]"),
]


def check(env: Any) -> Report:
    return check_env(env, num_envs=4, num_steps=20)


def names_of(cases: list[Any]) -> list[str]:
    return [f"{i}-{case[1].replace(' ', '-')}" for i, case in enumerate(cases)]


@pytest.mark.parametrize(("env", "name", "words"), BROKEN, ids=names_of(BROKEN))
def test_what_is_broken_is_named_with_a_way_out(env: Any, name: str, words: str) -> None:
    """Fails if a defect goes unseen, is called something else, or ends in a traceback."""
    failures = {c.name: c.message for c in check(env).failures}
    assert words in failures.get(name, f"(not failed, but {failures})")


@pytest.mark.parametrize(
    ("env", "name"),
    [(OneStart(), "start states"), (Endless(), "episode ends"), (NoVersion(), "methods")],
)
def test_what_may_be_meant_so_is_a_warning(env: Any, name: str) -> None:
    """Fails if a single start, a long episode or a missing version is refused, or not told."""
    report = check(env)
    assert report.ok, str(report)
    assert name in [w.name for w in report.warnings]


@pytest.mark.parametrize("env", [Sound(), KeepsKey()])
def test_a_sound_environment_passes_without_warnings(env: Any) -> None:
    """Fails if the checks find fault with what the contract allows."""
    report = check(env)
    assert report.ok, str(report)
    assert not report.warnings, str(report)
    assert report.steps_per_second is not None


def test_report_is_a_table() -> None:
    """Fails if the report does not print, or a message is lost in it."""
    from rich.console import Console

    report = check(GymStep())
    console = Console(file=io.StringIO(), width=200)
    console.print(report)
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert all(c.name in printed and c.message in printed for c in report.checks)
    assert "not run" in printed


def test_check_env_validates_its_numbers() -> None:
    with pytest.raises(ValueError, match="num_envs=1"):
        check_env(Sound(), num_envs=1)


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module in the current folder, outside `sys.path`."""
    (tmp_path / "walker_env.py").write_text(
        "from fastrl.envs.classic import CartPole\n"
        "class Needs:\n    def __init__(self, size): pass\n"
        "built = CartPole()\n"
    )
    (tmp_path / "walker_wrong.py").write_text("import fastrl\nx = 1 / 0\n")
    (tmp_path / "walker_syntax.py").write_text("x = = 1\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("")  # restores sys.path afterwards
    return "walker_env"


def test_load_env_takes_classes_functions_and_objects(module: str) -> None:
    """Fails if a user's environment in the current folder can't be named on a command line."""
    expected = make("CartPole-v1")
    assert load_env(f"{module}:CartPole") == expected
    assert load_env(f"{module}:built") == expected


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("CartPole", "write module:Name"),
        ("walker_env:", "write module:Name"),
        ("walker_env.py:CartPole", "walker_env:CartPole"),
        ("wolker_env:CartPole", "did you mean 'walker_env'"),
        ("walker_env.inner:CartPole", "'walker_env' is not a package"),
        ("walker_env:CartPol", "did you mean 'CartPole'"),
        ("walker_env:CartPole.resets", "did you mean 'reset'"),
        ("walker_env:Needs", "missing 1 required positional argument"),
        ("walker_wrong:x", r"ZeroDivisionError: division by zero \(walker_wrong.py, line 2\)"),
        ("walker_syntax:x", r"SyntaxError: .*\(walker_syntax.py, line 1\)"),
    ],
)
def test_bad_names_are_answered_clearly(module: str, spec: str, words: str) -> None:
    """Fails if a slip on the command line ends in a traceback or an unhelpful error."""
    with pytest.raises(ValueError, match=words):
        load_env(spec)


def test_load_object_finds_what_is_inside(module: str) -> None:
    assert load_object(f"{module}:CartPole.version") == 1
