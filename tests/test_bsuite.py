"""The tasks of bsuite against DeepMind's, step by step, with the same chance events.

`tests/golden/make_bsuite.py` plays bsuite 0.3.6 and records every draw.  The drawn numbers are
put into our states and steps, which take them as arguments: 10,000 random transitions of each
task from the recorded files, and others against bsuite where it is installed.
"""

import functools
import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fastrl.envs.bsuite import (
    CartPoleSwingup,
    Catch,
    DeepSea,
    DeepSeaStochastic,
    DiscountingChain,
    MemoryChain,
    UmbrellaChain,
    cartpole_swingup,
    deep_sea,
    umbrella_chain,
)
from fastrl.kernels import prng
from fastrl.types import Step

GOLDEN = Path(__file__).parent / "golden"
KEY = prng.key(0)
Row = dict[str, Any]  # one recorded step


class Case(NamedTuple):
    """How a recorded step is played here."""

    env: Any
    params: Any
    drawn: Callable[[Row], dict[str, Any]] = lambda row: {}  # fields of a start state
    observe: Callable[["Case", Any, Row], Any] = lambda case, state, row: case.env._observe(state)
    step: Callable[["Case", Any, Row], tuple[Any, Step]] = lambda case, state, row: case.env.step(
        KEY, state, row["action"], case.params
    )


def with_params(case: Case, state: Any, row: Row) -> Any:
    return case.env._observe(state, case.params)


def dive(case: Case, state: Any, row: Row) -> tuple[Any, Step]:
    slips = row["step_rand"] <= case.params.slip
    return case.env.move(state, row["action"], slips, row["step_randn"], case.params)


def walk(case: Case, state: Any, row: Row) -> tuple[Any, Step]:
    events = row["step_binomial"], row["step_binomials"]
    return case.env.walk(state, row["action"], *events, case.params)


def chain_start(case: Case, state: Any, row: Row) -> Any:
    return case.env.reset(KEY, case.params)[1]


def umbrella_start(case: Case, state: Any, row: Row) -> Any:
    return umbrella_chain._observe(state, row["start_binomials"], case.params)


def case(name: str) -> Case:
    """The options are those of `OPTIONS` in `make_bsuite.py`."""
    match name:
        case "Catch":
            env = Catch()
            return Case(env, env.default_params(), lambda r: {"ball_column": r["start_randint"]})
        case "DeepSea":
            return Case(DeepSea(), DeepSea().default_params())
        case "DeepSeaStochastic":
            env = DeepSeaStochastic(size=6)
            params = env.default_params()._replace(mapping=deep_sea.mapping(7, 6))
            return Case(env, params, step=dive)
        case "DiscountingChain":
            env = DiscountingChain()
            params = env.default_params()._replace(bonus_chain=3)
            return Case(env, params, observe=chain_start)
        case "MemoryChain":
            env = MemoryChain(num_bits=5)
            params = env.default_params()._replace(memory_length=7)
            return Case(
                env, params, observe=with_params,
                drawn=lambda r: {"context": r["start_binomials"], "query": r["start_randint"]},
            )  # fmt: skip
        case "UmbrellaChain":
            env = UmbrellaChain()
            params = env.default_params()._replace(chain_length=9)
            return Case(
                env, params, observe=umbrella_start, step=walk,
                drawn=lambda r: {"needed": r["start_binomial"], "carried": r["start_binomial1"]},
            )  # fmt: skip
    raise KeyError(name)


NAMES = (
    "Catch", "DeepSea", "DeepSeaStochastic", "DiscountingChain", "MemoryChain", "UmbrellaChain",
)  # fmt: skip


def errors(case: Case, recorded: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """How far our steps are from the recorded ones, leaf by leaf, `[steps]`.

    Found within the scan: without a batch XLA copies stacked observations at every step.
    """
    rows = {k: v.astype(np.int32) if v.dtype == np.int8 else v for k, v in recorded.items()}
    rows["action"] = rows["action"].astype(np.int32)

    def off(ours: Any, theirs: Any) -> Any:
        return jnp.abs(jnp.ravel(ours) - jnp.ravel(theirs).astype(jnp.float32)).max()

    def body(start: Any, state: Any, row: Row) -> tuple[Any, dict[str, Any]]:
        fresh = start._replace(**case.drawn(row))
        state = jax.tree.map(lambda a, b: jnp.where(row["start"], a, b), fresh, state)
        shown = off(case.observe(case, state, row), row["shown"])
        state, step = case.step(case, state, row)
        return state, {
            "shown": jnp.where(row["start"], shown, 0.0),
            "observation": off(step.observation, row["observation"]),
            "reward": off(step.reward, row["reward"]),
            "ended": (step.terminated != row["ended"]) | step.truncated,
        }

    @jax.jit
    def play(rows: Row) -> dict[str, Any]:
        start = case.env.reset(KEY, case.params)[0]
        return jax.lax.scan(functools.partial(body, start), start, rows)[1]

    return jax.device_get(play(rows))


def assert_equal(case: Case, recorded: dict[str, np.ndarray]) -> None:
    """Ends exactly, numbers, which are of the order of 1, to roundings of float32."""
    off = errors(case, recorded)
    assert not off.pop("ended").any()
    assert {name: error.max() for name, error in off.items() if error.max() > 3e-7} == {}


def maker() -> ModuleType:
    """The script that made the recorded files."""
    spec = importlib.util.spec_from_file_location("make_bsuite", GOLDEN / "make_bsuite.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def golden(name: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / f"bsuite_{name}.npz") as file:
        return dict(file)


@pytest.mark.parametrize("name", NAMES)
def test_ten_thousand_steps_equal_bsuites(name: str) -> None:
    """Fails if a rule, a reward, an end or an entry of the observation is not bsuite's."""
    recorded = golden(name)
    assert len(recorded["start"]) == 10_000
    assert recorded["ended"].sum() >= 50
    assert_equal(case(name), recorded)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", NAMES)
def test_steps_equal_those_of_the_installed_bsuite(name: str) -> None:
    """Fails if another bsuite than the recorded one, or another seed, plays otherwise."""
    pytest.importorskip("bsuite")
    assert_equal(case(name), maker().record(name, 10_000, seed=11))


def swing(states: np.ndarray, times: np.ndarray, actions: np.ndarray) -> Step:
    env = CartPoleSwingup()
    x, v, angle, w = jnp.moveaxis(jnp.asarray(states), -1, 0)
    state = cartpole_swingup.State(x, v, angle, w, jnp.asarray(times))
    step = jax.vmap(env.step, (None, 0, 0, None))
    return jax.jit(step)(KEY, state, jnp.asarray(actions), env.default_params())[1]


def test_ten_thousand_swings_equal_bsuites() -> None:
    """Fails if a term of the dynamics, a limit, a cost or an entry of the observation is off.

    Every step is from a state of a box that reaches all limits. Two may be within a rounding of
    a threshold, where rewards and flags can differ.
    """
    recorded, (states, times, actions) = golden("CartPoleSwingup"), maker().box(10_000, seed=1)
    step = swing(states, times.astype(np.int32), actions.astype(np.int32))
    expected = recorded["observation"].astype(np.float32)
    np.testing.assert_allclose(step.observation[:, :6], expected[:, :6], rtol=1e-6, atol=3e-6)
    for ours, theirs in (
        (step.observation[:, 6:], expected[:, 6:]),
        (step.reward, recorded["reward"].astype(np.float32)),
        (step.terminated, recorded["ended"]),
    ):
        differs = ~np.isclose(np.asarray(ours), theirs, rtol=1e-6)
        assert differs.sum() <= 2
    assert recorded["ended"].sum() >= 20
    assert 0.2 < (recorded["reward"] > 0.5).mean() < 0.8


def test_a_swingup_lasts_as_long_as_bsuites() -> None:
    """Fails if the last of its 1,001 steps falls elsewhere, or its end is called a truncation."""
    recorded, env = golden("CartPoleSwingup"), CartPoleSwingup()
    x, v, sin, cos, w = recorded["hanging_shown"][:5].astype(np.float64)
    angle = np.arctan2(sin, cos) % (2 * np.pi)
    x, v, angle, w = (jnp.float32(n) for n in (3 * x, 3 * v, angle, w))
    start = cartpole_swingup.State(x, v, angle, w, jnp.int32(0))

    def body(state: Any, _: None) -> tuple[Any, Step]:
        return env.step(KEY, state, jnp.int32(1), env.default_params())

    _, step = jax.jit(lambda s: jax.lax.scan(body, s, None, length=1001))(start)
    assert int(recorded["hanging_steps"]) == 1001
    assert float(recorded["hanging_discount"]) == 0.0
    assert np.flatnonzero(step.terminated).tolist() == [1000]
    assert not np.asarray(step.truncated).any()


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_swings_equal_those_of_the_installed_bsuite() -> None:
    """Fails if the recorded file hides a difference on other states."""
    pytest.importorskip("bsuite")
    make = maker()
    states, times, actions = make.box(10_000, seed=5)
    recorded = make.record_swingup(10_000, seed=5)
    step = swing(states, times.astype(np.int32), actions.astype(np.int32))
    np.testing.assert_allclose(
        step.observation[:, :6], recorded["observation"][:, :6], rtol=1e-6, atol=3e-6
    )
    assert (np.asarray(step.terminated) != recorded["ended"]).sum() <= 2
