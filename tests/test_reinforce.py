"""REINFORCE: one update against float64, the probes, bad input."""

import all_probes
import jax
import numpy as np
import oracle_on_policy as oracle
import pytest
from test_a2c import flat_params, linear_values

from fastrl.algorithms import agent as agents
from fastrl.algorithms import reinforce
from fastrl.envs.classic import CartPole
from fastrl.kernels import prng
from fastrl.reset import fresh


def gains(rewards, next_values, terminated, truncated, gamma):
    """`[T, N]`: the discounted rewards up to where the data end, and what stands for the rest."""
    result = np.zeros(rewards.shape)
    for t, n in np.ndindex(*rewards.shape):
        for u in range(t, len(rewards)):
            result[t, n] += gamma ** (u - t) * rewards[u, n]
            if terminated[u, n]:
                break
            if truncated[u, n] or u == len(rewards) - 1:
                result[t, n] += gamma ** (u - t + 1) * next_values[u, n]
                break
    return result


@pytest.mark.parametrize("baseline", [True, False])
def test_an_update_equals_a_float64_oracle(baseline):
    """Returns over an end, a baseline in the wrong place, losses, or Adam."""
    config = reinforce.Config(
        num_envs=4, num_steps=24, hidden_sizes=(), baseline=baseline, normalize_advantage=baseline
    )
    hparams = reinforce.HParams(
        learning_rate=0.05, gamma=0.9, entropy_coefficient=0.02, baseline_coefficient=0.5
    )
    env = CartPole()
    task = env.default_params()._replace(max_steps=9)
    algorithm = reinforce.make(env, config)
    state = jax.jit(algorithm.init)(prng.key(1), hparams, task)
    after, _ = jax.jit(algorithm.step)(state, hparams, task)
    agent = agents.build(env, config, config.network, fresh)
    rollout = agent.collect(jax.random.split(state.key)[1], state, hparams, task, 24)[2]
    s, before = oracle.double(rollout.samples), flat_params(state.params)
    assert s.truncated.any()
    value, next_value = linear_values(before, s, rollout.last_observation)
    target = gains(s.reward, next_value, s.terminated, s.truncated, 0.9)
    advantage = target - value if baseline else target
    if baseline:
        advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
    batch = {"observation": s.observation, "action": s.action, "advantage": advantage,
             "target": target}  # fmt: skip
    batch = {k: v.reshape(96, *v.shape[2:]) for k, v in batch.items()}
    grads = oracle.actor_critic_gradient(before, batch, 0.5, 0.02)
    for name, got in flat_params(after.params).items():
        expected = before[name] - 0.05 * grads[name] / (np.abs(grads[name]) + 1e-5)  # Adam's first
        np.testing.assert_allclose(got, expected, atol=2e-5, err_msg=name)


def test_probes():
    """Baseline, discount, sign of the advantage, observations, time limits: one by one."""
    config = reinforce.Config(num_envs=16, num_steps=32, hidden_sizes=(16,))
    hparams = reinforce.HParams(learning_rate=1e-2, gamma=0.9, anneal_steps=120_000)
    all_probes.check(reinforce.make(all_probes.AllProbes(), config), hparams, 120_000)


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"num_steps": 0}, "num_steps=0"),
        ({"baseline": 1}, "baseline=1: needs true or false"),
        ({"hidden_sizes": (64, -1)}, "hidden_sizes"),
    ],
)
def test_bad_configs_name_the_value(kwargs, words):
    with pytest.raises(ValueError, match=words):
        reinforce.Config(**kwargs)
