"""PROPS: which policy it collects with, what that does to the data, and PPO on them."""

import dataclasses
import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fastrl
from fastrl import distributions, networks, props
from fastrl.algorithms import props_sampler
from fastrl.algorithms.props_sampler import Data
from fastrl.kernels import prng
from fastrl.spaces import Box, Discrete, MultiDiscrete

SMALL = props.Config(
    num_envs=4, num_steps=16, num_epochs=4, num_minibatches=2, hidden_sizes=(), behaviour_steps=4,
    behaviour_minibatches=2, behaviour_epochs=2,
)  # fmt: skip
NETWORK = networks.actor_critic(
    Box(-1.0, 1.0, (2,)), Discrete(3), networks.NetworkConfig(hidden_sizes=())
)


def some_data(weight=1.0, size=32):
    x = jax.random.normal(prng.key(1), (size, 2))
    action = jax.random.randint(prng.key(2), (size,), 0, 2)  # action 2 is never taken
    return Data(x, action, jnp.full(size, weight))


@functools.lru_cache
def parameters():
    return jax.jit(NETWORK.init)(prng.key(0))


@functools.partial(jax.jit, static_argnames=("epochs", "minibatches"))
def _behave(target, data, hparams, epochs, minibatches):
    return props_sampler.behaviour(NETWORK, target, data, prng.key(3), hparams, epochs, minibatches)


def behave(data, hparams, epochs=1, minibatches=1):
    return _behave(parameters(), data, hparams, epochs=epochs, minibatches=minibatches)


def test_loss_and_gradient_by_hand():
    """max(r, clip(r)) + lambda KL in float64; its gradient is that of actions that count."""
    hparams = props.HParams(behaviour_clip=0.1, behaviour_penalty=0.7)
    data = some_data()
    data = data._replace(weight=data.weight.at[::3].set(0.0))
    target = parameters()
    moved = jax.tree.map(lambda x: x + 0.3 * jax.random.normal(prng.key(4), x.shape), target)
    loss = functools.partial(props_sampler._loss, NETWORK, target, hparams, batch=data)
    got, gradient = jax.jit(jax.value_and_grad(lambda p: loss(p)[0]))(moved)

    x, action, weight = (np.asarray(v, np.float64) for v in data)
    action = action.astype(int)

    def policy(params):
        head = params["params"]["actor_head"]
        logits = x @ np.asarray(head["kernel"], np.float64) + np.asarray(head["bias"], np.float64)
        p = np.exp(logits - logits.max(-1, keepdims=True))
        return p / p.sum(-1, keepdims=True)

    aim, p = policy(target), policy(moved)
    chosen = np.eye(3)[action]
    ratio = (p * chosen).sum(-1) / (aim * chosen).sum(-1)
    kl = (aim * np.log(aim / p)).sum(-1)
    count = weight.sum()
    expected = ((np.maximum(ratio, np.clip(ratio, 0.9, 1.1)) + 0.7 * kl) * weight).sum() / count
    np.testing.assert_allclose(float(got), expected, rtol=1e-5)
    flows = (ratio >= 0.9) * weight / count  # below the clip nothing pushes further down
    d_logits = (flows * ratio)[:, None] * (chosen - p) + 0.7 * (weight / count)[:, None] * (p - aim)
    head = gradient["params"]["actor_head"]
    np.testing.assert_allclose(head["kernel"], x.T @ d_logits, atol=2e-6)
    np.testing.assert_allclose(head["bias"], d_logits.sum(0), atol=2e-6)
    assert (flows == 0).sum() > weight.size - count  # some samples are clipped


def log_p(params, data):
    policy: Any = NETWORK.policy(params, data.observation)
    return policy.log_p


def test_actions_of_the_data_become_less_likely():
    """The sign: an action that the data lack must gain, within the clip."""
    data, hparams = some_data(), props.HParams(behaviour_kl=1e9, behaviour_learning_rate=3e-3)
    params, reported = behave(data, hparams, epochs=20)
    before, after = (np.exp(log_p(p, data)) for p in (parameters(), params))
    assert (after[:, 2] - before[:, 2]).mean() > 0.01
    taken = np.asarray(data.action)
    ratio = after[np.arange(32), taken] / before[np.arange(32), taken]
    assert ratio.mean() < 0.95
    assert ratio.min() > 0.5
    assert float(reported["behaviour_loss"].total) < 20 * 32


def test_without_data_the_target_itself_acts():
    params, reported = behave(some_data(weight=0.0), props.HParams())
    for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(parameters()), strict=True):
        np.testing.assert_array_equal(a, b)
    assert float(reported["behaviour_loss"].weight) == 0.0


def test_updates_stop_beyond_the_target_kl():
    """With a target below 0 only the first minibatch counts."""
    _, reported = behave(some_data(), props.HParams(behaviour_kl=-1.0), epochs=5, minibatches=2)
    assert float(reported["behaviour_loss"].weight) == 16.0


def _policy(space, *outputs) -> Any:
    return distributions.from_outputs(space, *outputs)


def test_divergences_equal_their_definitions():
    """KL of all kinds of policies, against a mean over samples or a sum over actions."""
    key = prng.key(5)
    logits = jax.random.normal(key, (2, 7))
    p, q = (_policy(MultiDiscrete((3, 4)), x) for x in logits)
    total = sum(
        (np.exp(a.log_p) * (a.log_p - b.log_p)).sum() for a, b in zip(p.parts, q.parts, strict=True)
    )
    np.testing.assert_allclose(props_sampler.divergence(p, q), total, rtol=1e-6)
    box = Box(-np.inf, np.inf, (2,))
    p = _policy(box, jnp.array([0.3, -0.5]), jnp.array([0.1, -0.4]))
    q = _policy(box, jnp.array([0.0, 0.2]), jnp.array([-0.2, 0.3]))
    grid = jnp.stack(jnp.meshgrid(*[jnp.linspace(-9, 9, 800)] * 2), -1).reshape(-1, 2)
    same = lambda d: distributions.DiagonalNormal(  # noqa: E731
        jnp.broadcast_to(d.mean, grid.shape), jnp.broadcast_to(d.log_std, grid.shape)
    )
    log_p, log_q = (same(d).log_prob(grid) for d in (p, q))
    sums = float((jnp.exp(log_p) * (log_p - log_q)).sum()) * (18 / 799) ** 2
    np.testing.assert_allclose(props_sampler.divergence(p, q), sums, rtol=1e-3)
    with pytest.raises(ValueError, match="no divergence"):
        props_sampler.divergence(p, distributions.categorical(jnp.zeros(2)))


def test_sampling_error_of_a_bandit_is_that_of_its_counts():
    """One state, so the empirical policy is the shares of actions: KL(shares || pi)."""
    network = networks.actor_critic(
        Box(0.0, 0.0, (1,)), Discrete(3), networks.NetworkConfig(hidden_sizes=())
    )
    params = jax.jit(network.init)(prng.key(0))
    action = jnp.array([0] * 10 + [1] * 5 + [2] * 1 + [2] * 4, jnp.int32)
    weight = jnp.array([1.0] * 16 + [0.0] * 4)
    data = Data(jnp.zeros((20, 1)), action, weight)
    error = jax.jit(lambda d: props_sampler.sampling_error(network, params, d, 2000))(data)
    shares = np.array([10, 5, 1]) / 16
    np.testing.assert_allclose(error, (shares * np.log(shares * 3)).sum(), atol=2e-3)


@functools.lru_cache
def counts(sampler, steps=192):
    """Shares of the two actions after each step of a bandit with a fixed policy, 32 seeds."""
    env = fastrl.make("probe/Value")
    config = props.Config(
        num_envs=1, num_steps=steps, num_epochs=1, num_minibatches=1, hidden_sizes=(),
        sampler=sampler, behaviour_steps=1, behaviour_epochs=8, behaviour_minibatches=1,
    )  # fmt: skip
    algorithm = props.make(env, config)
    hparams = props.HParams(learning_rate=0.0, behaviour_learning_rate=0.3, behaviour_clip=1.0,
                            behaviour_kl=10.0, max_grad_norm=1e9)  # fmt: skip
    run = fastrl.members(algorithm, steps, "vmap")
    states, _ = jax.jit(run)(jax.random.split(jax.random.key(0), 32), hparams, env.default_params())
    action = np.asarray(states.buffer.action)[..., 0]  # [32, steps]
    return np.cumsum(action, 1) / np.arange(1, steps + 1)


@pytest.mark.slow
def test_a_bandit_is_sampled_with_an_error_that_falls_faster():
    """Total variation of i.i.d. sampling falls as 1/sqrt(k); filling the gaps, about as 1/k."""
    ours, independent = (np.abs(counts(s) - 0.5).mean(0) for s in ("props", "on_policy"))
    assert ours[-1] < 0.35 * independent[-1]
    for k in (24, 48, 96, 191):
        assert ours[k] < 0.7 * independent[k]
    slope = np.polyfit(np.log([24, 48, 96, 191]), np.log(ours[[24, 48, 96, 191]]), 1)[0]
    assert slope < -0.7


@pytest.mark.parametrize("sampler", ["props", pytest.param("ros", marks=pytest.mark.slow)])
def test_policy_from_observation(sampler):
    """PPO must learn whichever policy collects: no wrong sign, no sample of another state."""
    env = fastrl.make("probe/PolicyFromObservation")
    config = props.Config(
        num_envs=8, num_steps=16, num_epochs=4, num_minibatches=2, hidden_sizes=(8,),
        sampler=sampler, buffer_rollouts=2, behaviour_steps=4, behaviour_epochs=2,
    )  # fmt: skip
    algorithm = props.make(env, config)
    program = jax.jit(fastrl.run(algorithm, 60 * algorithm.steps_per_iteration))
    state, _ = program(
        jax.random.key(0), props.HParams(learning_rate=1e-2, target_kl=1.0), env.default_params()
    )
    assert fastrl.evaluate(algorithm, state, episodes=50).mean_return == 1.0


@pytest.mark.slow
def test_values_over_cuts_ends_and_old_rollouts():
    """Reward 1 for ever is worth 10 with a discount of 0.9, though it is cut off all the time."""
    env = fastrl.make("probe/TimeLimit")
    config = props.Config(
        num_envs=8, num_steps=16, num_epochs=8, num_minibatches=2, hidden_sizes=(),
        sampler="on_policy", buffer_rollouts=2,
    )  # fmt: skip
    algorithm = props.make(env, config)
    program = jax.jit(fastrl.run(algorithm, 400 * algorithm.steps_per_iteration))
    hparams = props.HParams(learning_rate=1e-2, gamma=0.9, target_kl=1e9)
    state, metrics = program(jax.random.key(0), hparams, env.default_params())
    assert algorithm.value is not None
    assert abs(float(algorithm.value(state, jnp.zeros(1))) - 10.0) < 0.3
    weight = np.asarray(metrics["entropy"].weight)
    assert weight[0] == 128 * 8  # of the first iteration only one rollout counts
    assert weight[1] == 256 * 8


def test_the_buffer_holds_the_last_rollouts_in_order():
    """A rollout that is not shifted, or written to the wrong place, would be learned from twice."""
    env = fastrl.make("CartPole-v1")
    algorithm = props.make(env, dataclasses.replace(SMALL, buffer_rollouts=3, num_minibatches=2))
    hparams, task = props.HParams(), env.default_params()._replace(max_steps=9)
    states, step = [jax.jit(algorithm.init)(prng.key(0), hparams, task)], jax.jit(algorithm.step)
    for _ in range(4):
        states.append(step(states[-1], hparams, task)[0])
    rewards = [np.asarray(s.buffer.observation) for s in states]
    for before, after in itertools.pairwise(rewards[1:]):
        np.testing.assert_array_equal(after[:32], before[16:])
    buffer = states[-1].buffer
    ends = np.asarray(buffer.terminated | buffer.truncated)
    follows = np.asarray(buffer.next_observation)[:-1][~ends[:-1]]
    np.testing.assert_array_equal(follows, np.asarray(buffer.observation)[1:][~ends[:-1]])


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"num_steps": 0}, "num_steps=0"),
        ({"behaviour_steps": 5}, "num_steps=16 is not divisible by behaviour_steps=5"),
        ({"num_minibatches": 3}, "64 is not divisible by num_minibatches=3"),
        ({"sampler": "prop"}, "'prop'.*'props'"),
    ],
)
def test_bad_configs_name_the_value(kwargs, words):
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(SMALL, **kwargs)
