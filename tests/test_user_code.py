"""Mistakes in users' own environments and algorithms: what `train` says about them, and where."""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import pytest
import tiny

from fastrl import ppo, train
from fastrl.envs.classic import CartPole
from fastrl.types import Algorithm
from fastrl.user_code import is_users

CONFIG = ppo.Config(num_envs=4, num_steps=8, num_minibatches=2, num_epochs=1)


@dataclasses.dataclass(frozen=True)
class Branches(CartPole):
    def step(self, key: Any, state: Any, action: Any, params: Any) -> Any:
        if action > 0:  # here
            state = state._replace(time=state.time)
        return super().step(key, state, action, params)


@dataclasses.dataclass(frozen=True)
class LacksAParam(CartPole):
    def reset(self, key: Any, params: Any) -> Any:
        return super().reset(key, params.inner)  # here


@dataclasses.dataclass(frozen=True)
class Shortens(CartPole):
    """What is wrong shows in fastrl's code only, not here."""

    def step(self, key: Any, state: Any, action: Any, params: Any) -> Any:
        state, step = super().step(key, state, action, params)
        return state, step._replace(observation=step.observation[:3])


@dataclasses.dataclass(frozen=True)
class ForgetsTheState(CartPole):
    def reset(self, key: Any, params: Any) -> Any:
        return super().reset(key, params)[1]


def wrong_init(key: Any, hparams: Any, task: Any) -> Any:
    return jnp.zeros(3) @ jnp.zeros(4)  # here


def wrong_step(state: Any, hparams: Any, task: Any) -> Any:
    return state._replace(weight=1.0), {}  # here


def wrong_act(state: Any, carry: Any, observation: Any, key: Any) -> Any:
    return int(observation), carry  # here


def line_of(code: Any) -> str:
    """Where the mistake of a class or function is, as errors say it."""
    lines, first = inspect.getsourcelines(code)
    offset = next(i for i, line in enumerate(lines) if line.rstrip().endswith("# here"))
    return f"test_user_code.py, line {first + offset}"


def message(algorithm: Algorithm, **options: Any) -> str:
    with pytest.raises(ValueError, match=r"the algorithm|the policy") as caught:
        train(algorithm, steps=100, progress=False, **options)
    return str(caught.value)


@pytest.mark.parametrize(
    ("env", "says"),
    [(Branches, "jnp.where"), (LacksAParam, "no attribute 'inner'")],
)
def test_an_environments_error_is_explained_with_its_line(env: Callable[[], Any], says: str):
    """JAX's own message about tracers names neither the user's line nor what to write instead."""
    said = message(ppo.make(env(), CONFIG))
    assert line_of(env) in said
    assert says in said
    assert "fastrl check-env" in said


def test_what_an_environment_returns_wrongly_is_named():
    """The error itself arises later, in code that the user has not written."""
    assert "Shortens" in (said := message(ppo.make(Shortens(), CONFIG)))
    assert "its shape is (3,), not (4,)" in said
    assert "return (state, observation)" in message(ppo.make(ForgetsTheState(), CONFIG))


@pytest.mark.parametrize(("part", "code"), [("init", wrong_init), ("step", wrong_step)])
def test_an_algorithms_error_is_explained_with_its_line(part: str, code: Callable[..., Any]):
    said = message(tiny.make()._replace(**{part: code}))
    assert f"the algorithm's {part} fails" in said
    assert line_of(code) in said


def test_an_error_of_act_is_explained_with_its_line(tmp_path):
    said = message(tiny.make()._replace(act=wrong_act), run_dir=tmp_path)
    assert line_of(wrong_act) in said
    assert "a Python number" in said


def test_a_step_that_returns_no_metrics_is_named():
    said = message(tiny.make()._replace(step=lambda state, hparams, task: (state, state.key)))
    assert "must return (state, metrics)" in said


def test_whose_code_it_is():
    """A user's package may lie among the installed ones; what fastrl stands on is never theirs."""
    for module in (jnp, dataclasses, ppo, pytest):
        assert is_users(inspect.getfile(module)) == (module is pytest)
