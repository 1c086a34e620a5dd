"""IMPALA: updates against float64, the lag of the acting policy, the probes, bad input."""

import all_probes
import jax
import numpy as np
import oracle_on_policy as oracle
import oracle_ppo
import pytest
from test_a2c import flat_params, linear_values

from fastrl.algorithms import agent as agents
from fastrl.algorithms import impala
from fastrl.envs.classic import CartPole
from fastrl.kernels import prng
from fastrl.reset import fresh


def test_updates_equal_a_float64_oracle():
    """Ratios, their two bounds, targets, advantages, losses or running squares that are wrong.

    Two iterations of two passes each: from the second pass on the policies differ.
    """
    config = impala.Config(
        num_envs=4, num_steps=16, policy_lag=1, num_epochs=2, num_minibatches=1, hidden_sizes=()
    )
    hparams = impala.HParams(
        learning_rate=0.05, max_grad_norm=0.3, gamma=0.9, rho_bar=1.1, c_bar=0.9,
        vtrace_lambda=0.95, value_coefficient=0.5, entropy_coefficient=0.02,
    )  # fmt: skip
    env = CartPole()
    task = env.default_params()._replace(max_steps=9)
    algorithm = impala.make(env, config)
    agent = agents.build(env, config, config.network, fresh)
    state, step = jax.jit(algorithm.init)(prng.key(1), hparams, task), jax.jit(algorithm.step)
    expected = flat_params(state.params)
    second = {k: np.zeros_like(v) for k, v in expected.items()}
    farthest = 0.0
    for _ in range(2):
        rollout_key = jax.random.split(state.key, 3)[1]
        acting = impala._swapped(config, state)[0]
        rollout = agent.collect(rollout_key, state, hparams, task, 16, acting)[2]
        s = oracle.double(rollout.samples)
        assert s.truncated.any()
        for _ in range(2):
            value, next_value = linear_values(expected, s, rollout.last_observation)
            log_p = oracle_ppo.softmax_policy(expected, s.observation)[0]
            log_prob = np.take_along_axis(log_p, s.action[..., None], -1)[..., 0]
            rhos = np.exp(log_prob - s.log_prob)
            farthest = max(farthest, np.abs(rhos - 1).max())
            target, advantage = oracle.vtrace(
                s.reward, value, next_value, s.terminated, s.truncated, rhos, 0.9, 1.1, 0.9, 0.95
            )
            batch = {"observation": s.observation, "action": s.action, "advantage": advantage,
                     "target": target}  # fmt: skip
            batch = {k: v.reshape(64, *v.shape[2:]) for k, v in batch.items()}
            grads = oracle.actor_critic_gradient(expected, batch, 0.5, 0.02)
            expected, second = oracle.rmsprop(
                expected, oracle.clipped(grads, 0.3), second, 0.05, 0.99, 1e-5
            )
        state, _ = step(state, hparams, task)
        for name, got in flat_params(state.params).items():
            np.testing.assert_allclose(got, expected[name], atol=1e-4, err_msg=name)
    assert farthest > 0.2  # else the ratios were not tested


def test_the_policy_that_acts_is_that_of_some_iterations_ago():
    """A ring that is read after it is written gives the policy of now, or one too old."""
    env, task = CartPole(), CartPole().default_params()
    config = impala.Config(num_envs=4, num_steps=4, policy_lag=3, hidden_sizes=())
    algorithm = impala.make(env, config)
    hparams = impala.HParams(learning_rate=0.05)
    state, step = jax.jit(algorithm.init)(prng.key(0), hparams, task), jax.jit(algorithm.step)
    learned = []
    for i in range(8):
        learned.append(state.params)
        acting = impala._swapped(config, state)[0]
        jax.tree.map(np.testing.assert_array_equal, acting, learned[max(i - 3, 0)])
        state, _ = step(state, hparams, task)
    now = impala.Config(num_envs=4, num_steps=4, policy_lag=0, hidden_sizes=())
    assert impala._swapped(now, state)[0] is state.params


def test_probes():
    """With a lag of two iterations: values, discount, policy, observations, time limits."""
    config = impala.Config(num_envs=16, num_steps=8, policy_lag=2, hidden_sizes=(16,))
    hparams = impala.HParams(
        learning_rate=5e-3, gamma=0.9, entropy_coefficient=0.0, anneal_steps=60_000
    )
    all_probes.check(impala.make(all_probes.AllProbes(), config), hparams, 60_000)


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"policy_lag": -1}, "policy_lag=-1"),
        ({"num_envs": 6, "num_minibatches": 4}, "num_envs=6 is not divisible by num_minibatches=4"),
        ({"num_epochs": 0}, "num_epochs=0"),
    ],
)
def test_bad_configs_name_the_value(kwargs, words):
    with pytest.raises(ValueError, match=words):
        impala.Config(**kwargs)
