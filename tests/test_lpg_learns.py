"""LPG end to end: a meta-trained rule makes agents that an untrained one does not."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fastrl
from fastrl.hparams import as_arrays, conform
from fastrl.kernels import prng
from fastrl.meta import evolution_fitness, lpg, lpg_agent, meta_gradient

SEEDS = 5
LIFETIME = 20  # updates of an agent
RULE = lpg.LPG(hidden_size=32)


def after_lifetimes(algorithm: Any, etas: list[Any], env: Any) -> list[np.ndarray]:
    """Final returns `[SEEDS, 8 levels]` of agents that live by each eta, on the same levels."""
    run = fastrl.run(algorithm, LIFETIME * algorithm.steps_per_iteration)
    fitness = evolution_fitness.evaluation(algorithm, episodes=16)
    lifetime = float(LIFETIME * algorithm.steps_per_iteration)

    @jax.jit
    def program(keys: Any, hparams: Any) -> Any:
        def one(key: Any) -> Any:
            level_key, train_key, test_key = jax.random.split(key, 3)
            task = env.sample_level(level_key)
            state, metrics = run(train_key, hparams, task)
            return fitness(test_key, state, metrics, task)

        return jax.lax.map(one, keys)

    keys = jax.random.split(prng.key(99), SEEDS * 8)
    found = []
    for eta in etas:
        hparams = lpg_agent.HParams(objective=eta, anneal_steps=lifetime)
        hparams = conform(hparams, algorithm.default_hparams)
        found.append(np.asarray(program(keys, hparams)).reshape(SEEDS, 8))
    return found


@pytest.mark.slow
def test_agents_learn_by_a_rule_of_200_meta_steps():
    """A meta-gradient of the wrong sign, or one that never reaches the rule."""
    env = fastrl.make("grid/Debug-v0")
    inner = lpg_agent.make(env, lpg_agent.Config(8, 20), objective=RULE)
    config = meta_gradient.Config(num_lives=8, window=5, lifetime=LIFETIME)
    outer = meta_gradient.make(inner, RULE.init, config)
    hparams = as_arrays(outer.default_hparams._replace(learning_rate=3e-3))
    task = as_arrays(env.default_params())
    run = jax.jit(fastrl.run(outer, 200 * outer.steps_per_iteration))
    state, metrics = run(prng.key(0), hparams, task)
    assert not float(jnp.sum(metrics["diverged"].total))
    learned, random = after_lifetimes(inner, [state.eta, RULE.init(prng.key(1))], env)
    gain = (learned - random).mean(1)
    assert (gain > 0).all(), (learned.mean(1), random.mean(1))
    assert gain.mean() > 0.1, gain
