"""Dyna-Q: what it imagines is what happens, and it learns what is right from that."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import MaskedChoice

import fastrl
from fastrl import statistics
from fastrl.envs.continual import Corners
from fastrl.model_based import dyna, planning

TINY = {"num_steps": 200, "hidden_sizes": (16,), "learning_starts": 20, "grids": 10}


def trained(env: Any, steps: int, hparams: dyna.HParams, **config: Any) -> Any:
    algorithm = dyna.make(env, dyna.Config(**TINY | config))
    state, _ = jax.jit(fastrl.run(algorithm, steps))(
        jax.random.key(0), hparams, env.default_params()
    )
    return algorithm, state


def test_what_is_imagined_is_what_happens():
    """The outcome of another action, or ends and rewards in each other's place."""
    env, task = Corners(3), Corners(3).default_params()
    algorithm, state = trained(env, 600, dyna.HParams(final_epsilon=1.0), grids=30, num_starts=64)
    planner = dyna.planner(env, algorithm.recipe.config)
    key = jax.random.key(1)
    seen = jax.jit(lambda s: planning.imagine(planner, key, s.model, s.starts, 64))(state)
    seen = jax.device_get(seen)
    assert len(set(seen.action.tolist())) == 4
    row, column = np.divmod(seen.x.argmax(-1), 3)
    row = np.clip(row + np.array([-1, 0, 1, 0])[seen.action], 0, 2)
    column = np.clip(column + np.array([0, 1, 0, -1])[seen.action], 0, 2)
    there = (row == 0) & (column == 0)
    assert 0 < there.sum() < 64
    np.testing.assert_allclose(seen.after, np.eye(9)[3 * row + column], atol=0.1)
    np.testing.assert_allclose(seen.reward, np.where(there, 1.0, task.step_reward), atol=0.1)
    np.testing.assert_allclose(seen.end, there, atol=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["losse", pytest.param("mlp_replay", marks=pytest.mark.full)])
def test_probes_of_policy_and_bootstrap(model):
    """Observations out of step with actions; or a time limit that is taken for an end."""
    env = fastrl.make("probe/PolicyFromObservation")
    hparams = dyna.HParams(learning_rate=3e-3, exploration_steps=400)
    algorithm, state = trained(env, 600, hparams, model=model)
    assert fastrl.evaluate(algorithm, state, episodes=20).mean_return == 1.0
    env = fastrl.make("probe/TimeLimit")
    hparams = dyna.HParams(learning_rate=1e-2, gamma=0.5, tau=0.2, model_learning_rate=5e-3)
    algorithm, state = trained(env, 800, hparams, model=model)
    value = algorithm.value
    assert value is not None
    np.testing.assert_allclose(value(state, jnp.zeros((1, 1))), 1 / (1 - 0.5), rtol=0.05)


@pytest.mark.slow
@pytest.mark.full
def test_on_losse_it_is_no_worse_than_on_replay():
    """The claim, on Catch: a model that is wrong, or learned late, earns less in the same life."""
    env, returns = fastrl.make("bsuite/Catch-v0"), {}
    for model in ("losse", "mlp_replay"):
        algorithm = dyna.make(env, dyna.Config(num_steps=1_500, model=model))
        training = jax.jit(fastrl.members(algorithm, 1_500))
        keys = jax.random.split(jax.random.key(0), 3)
        _, metrics = training(keys, dyna.HParams(exploration_steps=1_000), env.default_params())
        mean = metrics["episode_return"]
        returns[model] = np.asarray(mean.total / mean.weight)[:, 0]
    gain = statistics.paired_difference(returns["losse"], returns["mlp_replay"])
    assert gain.estimate > 0.0


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"model": "tree"}, "'tree'"),
        ({"batch_size": 1}, "batch_size=1"),
        ({"bins": 300}, "features"),
        ({"model": "mlp", "model_hidden_sizes": (0,)}, "hidden_sizes=0"),
    ],
)
def test_mistakes_are_named(config, words):
    """A size that fits nowhere is found in the middle of a program."""
    with pytest.raises(ValueError, match=words):
        dyna.Config(**config)


def test_environments_that_do_not_fit_are_named():
    """Values of actions that can't be listed, or imagined observations without their mask."""
    with pytest.raises(ValueError, match="Discrete"):
        dyna.make(fastrl.make("Pendulum-v1"))
    with pytest.raises(ValueError, match="action_mask"):
        dyna.make(MaskedChoice())
    with pytest.raises(TypeError, match=r"dyna\.Config"):
        dyna.make(fastrl.make("CartPole-v1"), {"num_steps": 3})  # type: ignore[arg-type]
