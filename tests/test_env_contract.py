"""Every registered environment keeps the contract; registering one is what adds its test.

Compiling is what takes time.  So all names are traced, which finds wrong shapes, types and spaces;
the whole contract is checked of one or two environments of a class, of the others in full runs.
"""

import functools
from collections import Counter
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fastrl.registry
from fastrl import spaces
from fastrl.check_env import check_env
from fastrl.env_case import named
from fastrl.kernels import prng
from fastrl.transforms.base import Transform
from fastrl.types import Step

# brax is slow to compile, Gymnasium's run on the host: they have tests of their own.
NAMES = [n for n in fastrl.registry.names() if not n.startswith(("brax/", "gymnasium/"))]
CLASSIC = [n for n in NAMES if "/" not in n and not n.startswith("MiniGrid-")]
QUICK = (
    "CartPole-v1", "Pendulum-v1", "MinAtar/Breakout-v1", "bsuite/Catch-v0", "memory/TMaze-v0",
    "motor/Cont-CC-PermExDc-v0", "probe/Value",
)  # fmt: skip
# Those that stand for others.
SLOW = (
    "Acrobot-v1", "MountainCarContinuous-v0", "MinAtar/Asterix-v1",
    "MiniGrid-DoorKey-5x5-v0", "bandit/LinearContextual-v0",
    "bsuite/CartPoleSwingup-v0", "bsuite/DeepSeaStochastic-v0", "bsuite/UmbrellaChain-v0",
    "grid/Debug-v0", "grid/RandAll-v0", "maze/Labyrinth-v0", "memory/RepeatPrevious-v0",
    "motor/Finite-CC-PMSM-v0", "motor/Finite-TC-ExtExDc-v0", "probe/ContinuousPolicy",
    "quadrotor/MultiHover-v0",
)  # fmt: skip


def first_of_classes() -> list[str]:
    """A name for every class of environments."""
    return list({type(fastrl.registry.make(n)): n for n in reversed(NAMES)}.values())[::-1]


def marked() -> list[Any]:
    """All names: some at once, those that stand for others where there is time, and the rest."""
    slow, rest = pytest.mark.slow, [pytest.mark.slow, pytest.mark.full]
    return [n if n in QUICK else pytest.param(n, marks=slow if n in SLOW else rest) for n in NAMES]


@pytest.mark.parametrize("name", marked())
def test_environment_keeps_the_contract(name: str) -> None:
    """Fails if learners, transforms or the compiler can't rely on this environment."""
    report = check_env(fastrl.registry.make(name), num_envs=16, num_steps=200)
    assert report.ok, str(report)
    assert {w.name for w in report.warnings} <= {"start states", "episode ends"}, str(report)


@pytest.mark.parametrize("name", NAMES)
def test_shapes_and_types_are_those_of_the_spaces(name: str) -> None:
    """Fails if a name can't be made, or programs get other arrays from it than its spaces say."""
    env = fastrl.registry.make(name)
    assert env == fastrl.registry.make(name)
    assert isinstance(env.version, int)
    params, key = env.default_params(), prng.key(0)
    observation, action = env.observation_space(params), env.action_space(params)
    expected = types(spaces.zeros(observation))
    state, first = jax.eval_shape(env.reset, key, params)
    assert types(first) == expected
    after, step = jax.eval_shape(env.step, key, state, spaces.zeros(action), params)
    assert types(after) == types(state)
    assert isinstance(step, Step)
    assert types(step.observation) == expected
    scalars = (jnp.float32, jnp.bool_, jnp.bool_)
    for value, dtype in zip(step[1:4], scalars, strict=True):
        assert (value.shape, value.dtype) == ((), dtype)


REFUSING = [n for n in first_of_classes() if not n.startswith("probe/")]


@pytest.mark.parametrize("name", REFUSING)
def test_a_malformed_action_is_refused(name: str) -> None:
    """Fails if a wrong action is taken for another one outside of programs, or not named."""
    env = fastrl.registry.make(name)
    params, key = env.default_params(), prng.key(0)
    # A transform computes with the state before the environment inside sees the action.
    reset = (
        env.reset if isinstance(env, Transform) else functools.partial(jax.eval_shape, env.reset)
    )
    state, _ = reset(key, params)
    space = env.action_space(params)
    wrong: list[Any] = [np.zeros((*space.shape, 3), np.float32)]
    if isinstance(space, spaces.Discrete):
        wrong += [space.n, -1, 0.5, np.zeros(2, np.int32)]
    for action in wrong:
        with pytest.raises(ValueError, match="action"):
            env.step(key, state, action, params)


def test_params_that_are_no_numbers_are_refused() -> None:
    """Fails if outside of programs NaN or a limit of no steps is played, or not named."""
    env, key = fastrl.registry.make("CartPole-v1"), prng.key(0)
    params = env.default_params()
    state, _ = jax.eval_shape(env.reset, key, params)
    for wrong in ({"gravity": float("nan")}, {"max_steps": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            env.step(key, state, jnp.int32(0), params._replace(**wrong))


def types(tree: Any) -> list[Any]:
    """Names, shapes and types of the leaves, also whether they are weakly typed."""
    return [
        (name, jnp.shape(x), jnp.result_type(x), getattr(x, "weak_type", False))
        for name, x in named(tree)
    ]


@pytest.mark.parametrize("name", CLASSIC)
def test_dynamics_are_written_in_scalars(name: str) -> None:
    """Fails if `step` handles arrays before it stacks the observation.

    A kernel traces the same `step`, and knows no slices, gathers or concatenations.
    """
    env = fastrl.registry.make(name)
    params, key = env.default_params(), prng.key(0)
    state, _ = jax.eval_shape(env.reset, key, params)
    action = spaces.zeros(env.action_space(params))
    jaxpr = jax.make_jaxpr(env.step)(key, state, action, params)
    used = Counter(eqn.primitive.name for eqn in equations(jaxpr.jaxpr))
    stack = {"concatenate", "stack"}
    assert sum(used[name] for name in stack) == 1, used
    arrays = {"gather", "scatter", "slice", "dynamic_slice", "iota", "dot_general", "sort"}
    assert not arrays & set(used), used


def equations(jaxpr: Any) -> Iterator[Any]:
    """All equations, also those of inner functions."""
    for eqn in jaxpr.eqns:
        inner = [v for v in eqn.params.values() if hasattr(v, "jaxpr")]
        if not inner:
            yield eqn
        for closed in inner:
            yield from equations(closed.jaxpr)
