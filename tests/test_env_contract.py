"""Every registered environment keeps the contract; registering one is what adds its test."""

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import jax
import pytest

import fastrl.registry
from fastrl import spaces
from fastrl.check_env import check_env
from fastrl.kernels import prng

# brax is slow to compile, Gymnasium's run on the host: they have tests of their own.
NAMES = [
    n for n in fastrl.registry.names() if not n.startswith(("brax/", "gymnasium/", "MiniGrid-"))
]
# MiniGrid's tasks share one step, which takes most of a minute to check: those that add to it.
MINIGRID = [
    "MiniGrid-DoorKey-5x5-v0",
    "MiniGrid-Dynamic-Obstacles-6x6-v0",
    "MiniGrid-GoToDoor-5x5-v0",
]
CLASSIC = [n for n in NAMES if "/" not in n]


def quick_first(names: list[str]) -> list[Any]:
    """The first of every family at once, the others where there is time."""
    families: set[str] = set()
    marked = []
    for name in names:
        family = name if name in CLASSIC else re.split("[/-]", name)[0]
        marks = [pytest.mark.slow] if family in families else []
        marked.append(pytest.param(name, marks=marks))
        families.add(family)
    return marked


@pytest.mark.parametrize(
    "name", quick_first(NAMES) + [pytest.param(n, marks=pytest.mark.slow) for n in MINIGRID]
)
def test_environment_keeps_the_contract(name: str) -> None:
    """Fails if learners, transforms or the compiler can't rely on this environment."""
    report = check_env(fastrl.registry.make(name), num_envs=16, num_steps=200)
    assert report.ok, str(report)
    assert {w.name for w in report.warnings} <= {"start states", "episode ends"}, str(report)


@pytest.mark.parametrize("name", CLASSIC)
def test_dynamics_are_written_in_scalars(name: str) -> None:
    """Fails if `step` handles arrays before it stacks the observation.

    A kernel traces the same `step`, and knows no slices, gathers or concatenations.
    """
    env = fastrl.registry.make(name)
    params, key = env.default_params(), prng.key(0)
    state, _ = env.reset(key, params)
    action = spaces.sample(key, env.action_space(params))
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
