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


def test_every_environment_can_be_drawn() -> None:
    """Fails if `fastrl render` has nothing to show of a name, or shows the same of all states.

    That pictures have the right form is part of the contract.
    """
    assert [n for n in NAMES if not hasattr(fastrl.registry.make(n), "render")] == []
    for name in ("continual/SwitchingCorners-v0", "coverage/Grid-v0", "tabular/Lock-v0",
                 "probe/TimeLimit", "probe/Memory"):  # fmt: skip
        env = fastrl.registry.make(name)
        params, key = env.default_params(), prng.key(0)
        state = jax.jit(env.reset)(key, params)[0]
        after = jax.jit(env.step)(key, state, jnp.int32(0), params)[0]
        assert (env.render(state, params) != env.render(after, params)).any(), name


@pytest.mark.parametrize("name", first_of_classes())
def test_a_malformed_action_is_refused(name: str) -> None:
    """Fails if a wrong action is taken for another one, or not named; or if an `int` is refused."""
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
    if isinstance(space, spaces.Discrete):  # the first one is right, also as Python's integer
        jax.eval_shape(lambda state: env.step(key, state, 0, params), state)


MALFORMED = [
    ("CartPole-v1", {"gravity": float("nan")}),
    ("CartPole-v1", {"max_steps": 0}),
    ("MinAtar/Breakout-v1", {"sticky_action_prob": 1.5}),
    ("bandit/Gaussian-v0", {"pulls": -3}),
    ("bsuite/MemoryChain-v0", {"memory_length": 0}),
    ("bsuite/UmbrellaChain-v0", {"chain_length": -1}),
    ("coverage/Grid-v0", {"weights": np.zeros(3)}),
    ("grid/Debug-v0", {"rewards": np.zeros(1, np.float32)}),
    ("maze/Labyrinth-v0", {"rows": np.zeros(5, np.uint32)}),
    ("memory/TMaze-v0", {"length": 0}),
    ("motor/Cont-CC-PermExDc-v0", {"tau": float("nan")}),
    ("quadrotor/Hover-v0", {"gravity": float("nan")}),
    ("quadrotor/Trajectory-v0", {"max_steps": 0}),
    ("tabular/Lock-v0", {"rewards": np.zeros((2, 2))}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "wrong"), MALFORMED)
def test_params_that_are_none_are_refused(name: str, wrong: dict[str, Any]) -> None:
    """Fails if outside of programs NaN, no steps or tables of another size are played."""
    env, key = fastrl.registry.make(name), prng.key(0)
    params = env.default_params()
    state, _ = jax.eval_shape(env.reset, key, params)
    state = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), state)
    action = spaces.zeros(env.action_space(params))
    with pytest.raises(ValueError, match=next(iter(wrong))):
        env.step(key, state, action, params._replace(**wrong))


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
