"""PQN: updates against float64, epsilon-greedy draws, the probes, bad input."""

import all_probes
import jax
import jax.numpy as jnp
import numpy as np
import oracle_on_policy as oracle
import pytest
import toys

import fastrl
from fastrl.algorithms import pqn
from fastrl.envs.classic import CartPole, Pendulum
from fastrl.kernels import prng
from fastrl.q_network import epsilon_greedy, q_network
from fastrl.reset import fresh
from fastrl.storage import storage
from fastrl.vec import VecEnv


def parts_of(env, config):
    """What `pqn.make` closes over."""
    space = env.observation_space(env.default_params())
    network = q_network(space, env.action_space(env.default_params()), config.network)
    q_values = lambda params, x: network.apply(params, x)[..., 0]  # noqa: E731
    return pqn._Parts(config, VecEnv(env, config.num_envs, fresh(env)), storage(space), q_values)


def flat_params(params):
    head = params["params"]["head"]["advantage"]
    return {"w": np.asarray(head["kernel"], np.float64), "b": np.asarray(head["bias"], np.float64)}


def test_updates_equal_a_float64_oracle():
    """Wrong targets, bootstrapping at the two ends, loss, clipping, RAdam before and after its
    variance counts: nine steps on one batch."""
    config = pqn.Config(num_envs=4, num_steps=40, num_epochs=9, num_minibatches=1, hidden_sizes=())
    hparams = pqn.HParams(
        learning_rate=0.02, gamma=0.9, q_lambda=0.7, reward_scale=0.5, max_grad_norm=0.5,
        epsilon=1.0,
    )  # fmt: skip
    env = CartPole()
    task = env.default_params()._replace(max_steps=16)
    algorithm = pqn.make(env, config)
    state = jax.jit(algorithm.init)(prng.key(1), hparams, task)
    after, _ = jax.jit(algorithm.step)(state, hparams, task)

    rollout_key = jax.random.split(state.key, 3)[1]
    env_state, samples, _ = pqn._collect(parts_of(env, config), rollout_key, state, hparams, task)
    s = oracle.double(samples)
    assert s.truncated.any()
    assert s.terminated.any()
    before = flat_params(state.params)
    best = lambda x: (np.asarray(x, np.float64) @ before["w"] + before["b"]).max(-1)  # noqa: E731
    np.testing.assert_allclose(s.value, best(s.observation), atol=1e-5)
    following = np.concatenate([s.value[1:], best(env_state.observation)[None]])
    next_values = np.where(s.truncated, s.final_value, following)
    targets = oracle.lambda_returns(
        0.5 * s.reward, next_values, s.terminated, s.truncated, 0.9, 0.7
    ).reshape(-1)
    expected = before
    first, second = ({k: np.zeros_like(v) for k, v in before.items()} for _ in range(2))
    for count in range(1, 10):
        x, action = s.observation.reshape(-1, 4), s.action.reshape(-1)
        grads = oracle.clipped(oracle.q_gradient(expected, x, action, targets), 0.5)
        change, first, second = oracle.radam_step(grads, first, second, count, 0.02)
        expected = {k: expected[k] + change[k] for k in expected}
    for name, got in flat_params(after.params).items():
        np.testing.assert_allclose(got, expected[name], atol=5e-5, err_msg=name)
        assert np.abs(expected[name] - before[name]).max() > 5e-3  # something was learned


def test_the_value_of_a_successor_that_was_cut_off_is_its_own():
    """Where truncated it is max_a Q of the true successor, and it is 0 elsewhere."""
    config = pqn.Config(num_envs=4, num_steps=16, num_minibatches=4, hidden_sizes=())
    env, hparams = fastrl.make("probe/TimeLimit"), pqn.HParams()
    algorithm = pqn.make(env, config)
    task = env.default_params()._replace(max_steps=5)
    state = jax.jit(algorithm.init)(prng.key(0), hparams, task)
    params = jax.tree.map(lambda x: x + 2.0, state.params)  # Q = 2 wherever it is
    _, samples, _ = pqn._collect(
        parts_of(env, config), prng.key(1), state._replace(params=params), hparams, task
    )
    np.testing.assert_array_equal(samples.final_value, np.where(samples.truncated, 2.0, 0.0))
    assert samples.truncated.sum() == 3 * 4


def test_epsilon_greedy_draws():
    """Shares of the best and of each other action, with a mask and at both ends of epsilon."""
    count, q = 40_000, jnp.array([0.0, 3.0, 1.0, 2.0])
    values, seen = jnp.broadcast_to(q, (count, 4)), jnp.zeros(count)
    share = lambda a: np.bincount(a, minlength=4) / count  # noqa: E731
    drawn = share(epsilon_greedy(prng.key(0), values, 0.4, seen))
    np.testing.assert_allclose(drawn, [0.1, 0.7, 0.1, 0.1], atol=0.01)
    mask = jnp.broadcast_to(jnp.array([True, False, False, True]), (count, 4))
    masked = {"view": seen, "action_mask": mask}
    drawn = share(epsilon_greedy(prng.key(1), values, 0.4, masked))
    np.testing.assert_allclose(drawn, [0.2, 0.0, 0.0, 0.8], atol=0.01)
    assert share(epsilon_greedy(prng.key(2), values, 0.0, seen))[1] == 1.0
    drawn = share(epsilon_greedy(prng.key(3), values, 1.0, seen))
    np.testing.assert_allclose(drawn, 0.25, atol=0.01)


def test_probes():
    """Loss, discount, greedy policy, observations, time limits: one by one."""
    config = pqn.Config(num_envs=16, num_steps=8, num_epochs=4, num_minibatches=2,
                        hidden_sizes=(16,), layer_norm=False)  # fmt: skip
    hparams = pqn.HParams(
        learning_rate=6e-2, gamma=0.9, anneal_steps=30_000, exploration_steps=15_000
    )
    all_probes.check(pqn.make(all_probes.AllProbes(), config), hparams, 30_000)


def test_forbidden_actions_are_never_taken():
    """One of them costs 100: a mask that leaks into exploration, targets or the greedy policy."""
    config = pqn.Config(num_envs=8, num_steps=16, num_minibatches=2, hidden_sizes=(16,))
    algorithm = pqn.make(toys.MaskedChoice(), config)
    hparams = pqn.HParams(learning_rate=5e-3, gamma=0.5, exploration_steps=4_000)
    task = algorithm.env.default_params()
    state, metrics = jax.jit(fastrl.run(algorithm, 8_000))(prng.key(0), hparams, task)
    assert (np.asarray(metrics["episode_return"].total) >= 0).all()
    assert fastrl.evaluate(algorithm, state, episodes=50).mean_return == 4.0


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"num_envs": 0}, "num_envs=0"),
        ({"num_envs": 10, "num_steps": 10}, "100 is not divisible by num_minibatches=16"),
        ({"layer_norm": "yes"}, "layer_norm='yes'"),
    ],
)
def test_bad_configs_name_the_value(kwargs, words):
    with pytest.raises(ValueError, match=words):
        pqn.Config(**kwargs)


def test_continuous_actions_are_refused():
    with pytest.raises(ValueError, match=r"Box.*Discrete"):
        pqn.make(Pendulum())
