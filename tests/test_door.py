"""Wrong arguments of the Python interface: one clear error each, before anything compiles."""

# Wrong types are the point here.
# pyright: reportArgumentType=false

from typing import Any

import jax
import jax.numpy as jnp
import pytest

import fastrl
from fastrl import VecEnv, objectives, ppo, reset, spaces

ENV = fastrl.make("CartPole-v1")
TASK = ENV.default_params()
ALGORITHM = ppo.make(ENV, ppo.Config(num_envs=4, num_steps=8, num_minibatches=2))
KEY = jax.random.key(0)


def run(key: Any = KEY, hparams: Any = ppo.HParams(), task: Any = TASK, steps: Any = 100):  # noqa: B008
    return fastrl.run(ALGORITHM, steps)(key, hparams, task)


def train(**kwargs):
    return fastrl.train(kwargs.pop("algorithm", ALGORITHM), **({"steps": 64} | kwargs))


CASES: dict[str, Any] = {
    "a name for an environment": (lambda: ppo.make("CartPole-v1"), r"fastrl.make\('CartPole-v1'\)"),
    "a class for an environment": (lambda: ppo.make(type(ENV)), r"pass an instance, CartPole\(\)"),
    "no environment": (lambda: ppo.make(None), "NoneType without default_params"),
    "a dict for a config": (lambda: ppo.make(ENV, {"num_envs": 4}), r"ppo.Config\(\*\*config\)"),
    "hparams for a config": (lambda: ppo.make(ENV, ppo.HParams()), "HParams: pass a ppo.Config"),
    "a name for a reset": (lambda: ppo.make(ENV, reset="pool"), "reset='pool' is no function"),
    "a built reset": (lambda: ppo.make(ENV, reset=reset.fresh(ENV)), "is no function"),
    "a name for an objective": (lambda: ppo.make(ENV, objective="clip"), "objective='clip'"),
    "steps as text": (lambda: run(steps="500"), "steps='500'"),
    "negative steps": (lambda: run(steps=-1), "steps=-1"),
    "steps not a number": (lambda: run(steps=float("nan")), "steps=nan"),
    "endless steps": (lambda: run(steps=float("inf")), "steps=inf"),
    "an environment for an algorithm": (lambda: fastrl.run(ENV, 9), "CartPole, not an Algorithm"),
    "an integer for a key": (lambda: run(key=0), "typed key"),
    "a raw key": (lambda: run(key=jax.random.PRNGKey(0)), "typed key"),
    "a dict of hparams": (lambda: run(hparams={"gamma": 0.9}), r"pass HParams\(\*\*hparams\)"),
    "a word in hparams": (lambda: run(hparams=ppo.HParams(gamma="x")), "hparams.gamma='x'"),
    "a vector in hparams": (lambda: run(hparams=ppo.HParams(gamma=jnp.ones(2))), r"gamma.*\(2,\)"),
    "a discount above 1": (lambda: run(hparams=ppo.HParams(gamma=2.0)), "hparams.gamma=2.0"),
    "a negative rate": (lambda: run(hparams=ppo.HParams(learning_rate=-1.0)), "learning_rate=-1"),
    "no clip range": (lambda: train(hparams=ppo.HParams(clip=0.0)), "hparams.clip=0.0.*above 0"),
    "annealing at once": (lambda: train(hparams=ppo.HParams(anneal_steps=0.0)), "anneal_steps=0"),
    "a NaN": (lambda: train(hparams=ppo.HParams(gamma=float("nan"))), "hparams.gamma=nan"),
    "no task": (lambda: run(task=None), "task is a NoneType: CartPole needs params"),
    "another task": (
        lambda: run(task=fastrl.make("Pendulum-v1").default_params()), "cartpole.Params"),
    "a dict for a task": (lambda: train(task={"gravity": 9.8}), "task"),
    "training an environment": (lambda: train(algorithm=ENV), "not an Algorithm"),
    "a seed as text": (lambda: train(seed="a"), "seed='a'"),
    "a negative seed": (lambda: train(seed=-1), "seed=-1"),
    "a fractional seed": (lambda: fastrl.key(0.5), "seed=0.5"),
    "a huge seed": (lambda: fastrl.key(2**70), "seed=1180591620717411303424"),
    "more devices than there are": (lambda: train(devices=77), "devices=77"),
    "no devices": (lambda: train(devices=0), "devices=0"),
    "no environments": (lambda: VecEnv(ENV, 0, reset.fresh(ENV)).init(KEY, TASK), "num_envs=0"),
    "an unknown name": (lambda: fastrl.make("CartPole-v2"), "did you mean 'CartPole-v1'"),
    "a number for a name": (lambda: fastrl.make(3), "environment 3"),
    "an unknown option": (lambda: fastrl.make("brax/ant", backent="mjx"), "backent"),
    "no episodes": (lambda: fastrl.evaluate(ALGORITHM, None, episodes=0), "episodes=0"),
    "another state": (lambda: fastrl.evaluate(ALGORITHM, {}, episodes=3), "state"),
    "a name to evaluate on": (
        lambda: fastrl.evaluate(ALGORITHM, {}, "CartPole-v1"), "'CartPole-v1' is no environment"),
    "members without an axis": (
        lambda: fastrl.members(ALGORITHM, 64)(KEY, ppo.HParams(), TASK), r"shape \(\)"),
    "no such run": (lambda: fastrl.load("/nowhere"), "/nowhere"),
    "an algorithm to render": (
        lambda: fastrl.render(ALGORITHM, "x.gif"), r"fastrl.Policy\(algorithm, state\)"),
    "an empty discrete space": (lambda: spaces.Discrete(0), r"n=0"),
    "a box upside down": (lambda: spaces.Box(1, 0, (2,)), "low exceeds high"),
    "bounds of another shape": (lambda: spaces.Box((0, 1), 2, (3,)), r"shape \(2,\)"),
    "a word for a flag": (lambda: ppo.Config(normalize_reward="yes"), "normalize_reward='yes'"),
    "a flag for a number": (lambda: ppo.Config(num_envs=True), "num_envs=True"),
    "a number for sizes": (lambda: ppo.Config(hidden_sizes=64), "hidden_sizes=64"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_the_error_names_the_value_and_the_way_out(case):
    call, words = CASES[case]
    with pytest.raises((ValueError, TypeError, RuntimeError), match=words) as caught:
        call()
    assert len(str(caught.value).splitlines()) == 1


def test_objectives_may_be_any_function():
    """An objective of one's own is taken as it is, and makes an algorithm of its own."""

    def half(eta, inputs, hparams):
        loss, metrics = objectives.clip(eta, inputs, hparams)
        return 0.5 * loss, metrics

    assert ppo.make(ENV, objective=half) is not ppo.make(ENV)


@pytest.mark.parametrize("limit", [0, -5])
def test_a_time_limit_below_one_step_is_refused(limit):
    """It would train on episodes that end at once, without a word."""
    with pytest.raises(ValueError, match=f"max_steps={limit}"):
        train(task=TASK._replace(max_steps=limit))


def test_a_reward_that_is_no_scalar_is_named():
    """Else the error is about the carry of a loop deep inside."""

    class Wide(type(ENV)):
        def step(self, key, state, action, params):
            state, step = super().step(key, state, action, params)
            return state, step._replace(reward=step.reward[None])

    with pytest.raises(ValueError, match=r"Wide .* reward is float32\[1\], it must be"):
        train(algorithm=ppo.make(Wide(), ppo.Config(num_envs=4, num_steps=8)))
