"""PPO on the probe environments: each fails for one reason only."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fastrl
from fastrl import ppo

CONFIG = ppo.Config(num_envs=16, num_steps=16, num_minibatches=4, hidden_sizes=(32,))
GAMMA = 0.9
HPARAMS = ppo.HParams(learning_rate=3e-3, gamma=GAMMA, anneal_steps=60_000)


def learned(name, steps=60_000, config=CONFIG, hparams=HPARAMS, **options):
    env = fastrl.make(name, **options)
    algorithm = ppo.make(env, config)
    state, metrics = jax.jit(fastrl.run(algorithm, steps))(
        jax.random.key(0), hparams, env.default_params()
    )
    return algorithm, state, metrics


def values(algorithm, state, *observations):
    return np.asarray(algorithm.value(state, jnp.array(observations, jnp.float32)[:, None]))


def test_value():
    """Value loss or bootstrapping at a termination broken."""
    algorithm, state, _ = learned("probe/Value", 20_000)
    np.testing.assert_allclose(values(algorithm, state, 0.0), [1.0], atol=0.02)


def test_value_from_observation():
    """The critic does not see its observation."""
    algorithm, state, _ = learned("probe/ValueFromObservation", 20_000)
    np.testing.assert_allclose(values(algorithm, state, 1.0, -1.0), [1.0, -1.0], atol=0.03)


def test_discount():
    """A discount that is not applied, or applied twice, gives 1 or 0.81."""
    algorithm, state, _ = learned("probe/Discount", 20_000)
    np.testing.assert_allclose(values(algorithm, state, 0.0, 1.0), [GAMMA, 1.0], atol=0.03)


@pytest.mark.parametrize("name", ["probe/Policy", "probe/PolicyFromObservation"])
def test_policy(name):
    """Advantages of the wrong sign or of another sample, or a policy that sees nothing."""
    algorithm, state, _ = learned(name, 20_000)
    assert fastrl.evaluate(algorithm, state, episodes=50).mean_return == 1.0


def test_continuous_policy():
    """Means that do not move, or a scale that does not shrink."""
    algorithm, state, metrics = learned("probe/ContinuousPolicy")
    assert fastrl.evaluate(algorithm, state, episodes=50).mean_return > -0.003
    entropy = metrics["entropy"].total / metrics["entropy"].weight
    assert entropy[-1] < entropy[0] - 0.5


@pytest.mark.parametrize("gamma", [0.9, 0.98])
def test_time_limit_is_no_end(gamma):
    """Reward 1 for ever, cut off every few steps: worth 1/(1-gamma), not the truncated sum."""
    hparams = HPARAMS._replace(gamma=gamma, learning_rate=1e-2, anneal_steps=200_000)
    algorithm, state, _ = learned("probe/TimeLimit", 200_000, hparams=hparams)
    space = algorithm.env.observation_space(algorithm.env.default_params())
    assert algorithm.value is not None
    value = float(algorithm.value(state, fastrl.spaces.zeros(space)))
    limit = algorithm.env.default_params().max_steps
    truncated_sum = (1 - gamma**limit) / (1 - gamma)
    assert abs(value * (1 - gamma) - 1) < 0.05
    assert abs(truncated_sum * (1 - gamma) - 1) > 0.1  # else the test could not tell


def test_normalised_rewards_keep_the_time_limit_right():
    """Scaled by one running standard deviation, all values scale alike."""
    config = ppo.Config(num_envs=16, num_steps=16, num_minibatches=4, hidden_sizes=(32,),
                        normalize_reward=True)  # fmt: skip
    hparams = HPARAMS._replace(learning_rate=1e-2, anneal_steps=200_000)
    algorithm, state, _ = learned("probe/TimeLimit", 200_000, config, hparams)
    space = algorithm.env.observation_space(algorithm.env.default_params())
    assert algorithm.value is not None
    value = float(algorithm.value(state, fastrl.spaces.zeros(space)))
    scale = float(jnp.sqrt(state.rewards.statistics.variance))
    assert abs(value * scale * (1 - GAMMA) - 1) < 0.1
