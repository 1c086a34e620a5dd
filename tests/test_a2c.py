"""A2C: one update against float64, the probes, bad input."""

import all_probes
import jax
import numpy as np
import oracle_on_policy as oracle
import oracle_ppo
import pytest

import fastrl
from fastrl.algorithms import a2c
from fastrl.algorithms import agent as agents
from fastrl.envs.classic import CartPole, Pendulum
from fastrl.kernels import prng
from fastrl.reset import fresh


def flat_params(params):
    """The linear actor and critic as the oracle names them."""
    p = params["params"]
    named = {
        "actor_w": p["actor_head"]["kernel"], "actor_b": p["actor_head"]["bias"],
        "critic_w": p["critic_head"]["kernel"], "critic_b": p["critic_head"]["bias"],
    }  # fmt: skip
    return {k: np.asarray(v, np.float64) for k, v in named.items()}


def linear_values(params, samples, last_observation):
    """V(s) `[T, N]` and V(s') of the linear critic; what follows a truncation is given."""
    value = samples.observation @ params["critic_w"][:, 0] + params["critic_b"]
    last = np.asarray(last_observation, np.float64) @ params["critic_w"][:, 0] + params["critic_b"]
    following = np.concatenate([value[1:], last[None]])
    return value, np.where(samples.truncated, samples.final_value, following)


def test_two_updates_equal_a_float64_oracle():
    """Wrong returns, losses, gradient clipping or running squares would show here."""
    config = a2c.Config(num_envs=4, num_steps=16, hidden_sizes=())
    hparams = a2c.HParams(
        learning_rate=0.05, max_grad_norm=0.3, gamma=0.9, gae_lambda=0.8, value_coefficient=0.5,
        entropy_coefficient=0.02,
    )  # fmt: skip
    env = CartPole()
    task = env.default_params()._replace(max_steps=9)  # truncations as well as terminations
    algorithm = a2c.make(env, config)
    agent = agents.build(env, config, config.network, fresh)
    state, step = jax.jit(algorithm.init)(prng.key(1), hparams, task), jax.jit(algorithm.step)
    expected = flat_params(state.params)
    second = {k: np.zeros_like(v) for k, v in expected.items()}
    for _ in range(2):
        rollout_key = jax.random.split(state.key)[1]
        rollout = agent.collect(rollout_key, state, hparams, task, config.num_steps)[2]
        s = oracle.double(rollout.samples)
        assert s.truncated.any()
        value, next_value = linear_values(expected, s, rollout.last_observation)
        advantage = oracle_ppo.gae(s.reward, value, next_value, s.terminated, s.truncated, 0.9, 0.8)
        batch = {"observation": s.observation, "action": s.action, "advantage": advantage,
                 "target": advantage + value}  # fmt: skip
        batch = {k: v.reshape(64, *v.shape[2:]) for k, v in batch.items()}
        grads = oracle.actor_critic_gradient(expected, batch, 0.5, 0.02)
        before = expected
        expected, second = oracle.rmsprop(
            expected, oracle.clipped(grads, 0.3), second, 0.05, 0.99, 1e-5
        )
        state, _ = step(state, hparams, task)
        for name, got in flat_params(state.params).items():
            np.testing.assert_allclose(got, expected[name], atol=2e-5, err_msg=name)
            assert np.abs(expected[name] - before[name]).max() > 1e-3  # something was learned


def test_probes():
    """Value loss, discount, sign of the advantage, observations, time limits: one by one."""
    config = a2c.Config(num_envs=16, hidden_sizes=(16,))
    hparams = a2c.HParams(learning_rate=3e-3, gamma=0.9, anneal_steps=40_000)
    all_probes.check(a2c.make(all_probes.AllProbes(), config), hparams, 40_000)


@pytest.mark.slow
def test_continuous_actions_are_learned():
    """A density of the wrong shape, or actions that are not scaled to their box."""
    env = fastrl.make("probe/ContinuousPolicy")
    algorithm = a2c.make(env, a2c.Config(num_envs=16, hidden_sizes=(16,)))
    hparams = a2c.HParams(learning_rate=3e-3, anneal_steps=40_000)
    state, _ = jax.jit(fastrl.run(algorithm, 40_000))(prng.key(0), hparams, env.default_params())
    assert fastrl.evaluate(algorithm, state, episodes=50).mean_return > -0.06  # blind: -0.25


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"num_envs": 0}, "num_envs=0"),
        ({"num_steps": 2.5}, "num_steps=2.5"),
        ({"normalize_reward": 1}, "normalize_reward=1: needs true or false"),
        ({"torso": "lstm"}, "'lstm'"),
    ],
)
def test_bad_configs_name_the_value(kwargs, words):
    with pytest.raises(ValueError, match=words):
        a2c.Config(**kwargs)


def test_the_same_arguments_give_the_same_algorithm():
    """Else every call of `make` would compile everything again; other spaces are built too."""
    assert a2c.make(Pendulum()) is a2c.make(Pendulum())
