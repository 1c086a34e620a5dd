"""PPO: one update against float64, awkward spaces, tracing, seeds, devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracle_ppo
import pytest
import toys

import fastrl
from fastrl import sharding
from fastrl.algorithms import on_policy, ppo
from fastrl.envs.classic import CartPole
from fastrl.kernels import prng

SMALL = ppo.Config(num_envs=8, num_steps=16, num_epochs=2, num_minibatches=2, hidden_sizes=(16,))


def learned(algorithm, hparams, steps, seed=0):
    """State and metrics of a whole training."""
    program = jax.jit(fastrl.run(algorithm, steps))
    return program(jax.random.key(seed), hparams, algorithm.env.default_params())


def mean_of_last(metrics, name, share=0.1):
    """The mean of a metric over the last tenth of the iterations."""
    total, weight = metrics[name]
    last = max(1, int(len(total) * share))
    return float(total[-last:].sum() / weight[-last:].sum())


def test_three_updates_equal_a_float64_oracle():
    """Wrong advantages, clipping, losses, gradient clipping or Adam would show here."""
    config = ppo.Config(num_envs=4, num_steps=32, num_epochs=3, num_minibatches=1, hidden_sizes=())
    hparams = ppo.HParams(learning_rate=0.05, clip=0.02, max_grad_norm=0.3, gamma=0.9)
    env = CartPole()
    task = env.default_params()._replace(max_steps=9)  # truncations as well as terminations
    algorithm = ppo.make(env, config)
    state = jax.jit(algorithm.init)(prng.key(1), hparams, task)
    after, _ = jax.jit(algorithm.step)(state, hparams, task)

    actions = env.action_space(task)
    network = ppo.actor_critic(env.observation_space(task), actions, config.network)
    vec_env = ppo.VecEnv(env, config.num_envs, fastrl.reset.fresh(env))
    rollout_key = jax.random.split(state.key, 3)[1]
    env_state, samples, _ = on_policy.collect(
        vec_env, network, lambda x: x, lambda x: x, actions, rollout_key, state.params, state.env,
        task, 32,
    )  # fmt: skip
    s = jax.tree.map(
        lambda x: np.asarray(x, np.float64 if x.dtype == jnp.float32 else None), samples
    )
    assert s.truncated.any()
    params = flat_params(state.params)
    last = oracle_ppo.softmax_policy(params, np.asarray(env_state.observation, np.float64))[1]
    value = oracle_ppo.softmax_policy(params, s.observation)[1]
    following = np.concatenate([value[1:], last[None]])
    next_value = np.where(s.truncated, s.final_value, following)
    advantage = oracle_ppo.gae(s.reward, value, next_value, s.terminated, s.truncated, 0.9, 0.95)
    batch = {
        "observation": s.observation.reshape(-1, 4), "action": s.action.reshape(-1),
        "log_prob": s.log_prob.reshape(-1), "advantage": advantage.reshape(-1),
        "target": (advantage + value).reshape(-1),
    }  # fmt: skip
    numbers = {"clip": 0.02, "entropy": 0.01, "value": 0.5, "max_grad_norm": 0.3,
               "learning_rate": 0.05}  # fmt: skip
    expected = oracle_ppo.adam_steps(params, batch, numbers, 3)
    got = flat_params(after.params)
    for name in expected:
        np.testing.assert_allclose(got[name], expected[name], atol=2e-5, err_msg=name)
        assert np.abs(expected[name] - params[name]).max() > 1e-3  # something was learned


def flat_params(params):
    p = params["params"]
    named = {
        "actor_w": p["actor_head"]["kernel"], "actor_b": p["actor_head"]["bias"],
        "critic_w": p["critic_head"]["kernel"], "critic_b": p["critic_head"]["bias"],
    }  # fmt: skip
    return {k: np.asarray(v, np.float64) for k, v in named.items()}


@pytest.mark.slow
def test_masked_actions_are_never_taken_and_the_rest_is_learned():
    """One forbidden action costs 100, so a leaking mask can't reach this return."""
    algorithm = ppo.make(toys.MaskedChoice(), SMALL)
    _, metrics = learned(algorithm, ppo.HParams(learning_rate=1e-2, gamma=0.5), 20_000)
    total, _ = metrics["episode_return"]
    assert (np.asarray(total) >= 0).all()
    assert mean_of_last(metrics, "episode_return") > 3.5  # of 4


@pytest.mark.slow
def test_multi_discrete_actions_pytree_observations_and_a_critic_of_its_own():
    algorithm = ppo.make(toys.Combination(), SMALL)
    _, metrics = learned(algorithm, ppo.HParams(learning_rate=1e-2, gamma=0.5), 20_000)
    assert mean_of_last(metrics, "episode_return") > 3.5  # of 4


@pytest.mark.slow
def test_continuous_actions_are_scaled_to_an_odd_box():
    """A policy that assumes [-1, 1] can't move 0.6 to one side and 0.2 to the other."""
    algorithm = ppo.make(toys.ReachPoint(), SMALL)
    state, metrics = learned(
        algorithm, ppo.HParams(learning_rate=3e-3, gamma=0.5, entropy_coefficient=0.0), 60_000
    )
    assert mean_of_last(metrics, "episode_return") > -3.2
    far = jnp.array([[-9.0, 9.0], [9.0, -9.0]])
    action, _ = algorithm.act(state, (), far, None)
    low, high = algorithm.env.action_space(algorithm.env.default_params()).bounds()
    np.testing.assert_allclose(action, np.stack([[high[0], low[1]], [low[0], high[1]]]), atol=1e-3)


def test_other_numbers_do_not_trace_again():
    """A learning rate, seed or physical constant baked into the program would compile anew."""
    env = CartPole()
    algorithm = ppo.make(env, SMALL)
    program = jax.jit(fastrl.run(algorithm, 256))
    for seed in range(3):
        task = env.default_params()._replace(gravity=9.0 + seed)
        hparams = ppo.HParams(learning_rate=1e-3 * (seed + 1), gamma=0.9 + 0.01 * seed)
        program(jax.random.key(seed), hparams, task)
    assert program._cache_size() == 1  # type: ignore[attr-defined]


def test_the_same_arguments_give_the_same_algorithm():
    """Else every call of `make` would compile everything again."""
    assert ppo.make(CartPole(), SMALL) is ppo.make(CartPole(), SMALL)


@pytest.mark.slow
def test_vmapped_seeds_and_hparams_equal_single_runs():
    algorithm = ppo.make(CartPole(), SMALL)
    one = fastrl.run(algorithm, 512)
    hparams = ppo.HParams(learning_rate=jnp.array([1e-3, 3e-3]))
    task = algorithm.env.default_params()
    keys = jax.random.split(prng.key(0), 2)
    axes = fastrl.axes(hparams)
    grid = jax.jit(jax.vmap(jax.vmap(one, (None, axes, None)), (0, None, None)))
    states, _ = grid(keys, hparams, task)
    single = jax.jit(one)
    for i in range(2):
        for j in range(2):
            state, _ = single(keys[i], ppo.HParams(learning_rate=1e-3 * (1 + 2 * j)), task)
            for got, want in zip(
                jax.tree.leaves(states.params), jax.tree.leaves(state.params), strict=True
            ):
                np.testing.assert_allclose(got[i, j], want, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "devices", "normalized"),
    [
        pytest.param("CartPole-v1", 4, False, marks=pytest.mark.full),
        pytest.param("CartPole-v1", 2, True, marks=pytest.mark.full),
        ("Pendulum-v1", 4, True),
    ],
)
def test_devices_give_the_numbers_of_one(name, devices, normalized):
    """Bit for bit, after 20 iterations of a learner with a high rate.

    Means over a shard, shuffles per device, sums in another order, or an environment that is
    rounded in another way in the shards would all have flipped actions by then.
    """
    config = ppo.Config(
        num_envs=64, num_steps=32, normalize_observation=normalized, normalize_reward=normalized
    )
    algorithm = ppo.make(fastrl.make(name), config)
    task, hparams = algorithm.env.default_params(), ppo.HParams(learning_rate=2.5e-3)
    program = fastrl.run(algorithm, 20 * config.num_envs * config.num_steps)
    alone, _ = jax.jit(program)(jax.random.key(0), hparams, task)
    with jax.set_mesh(sharding.mesh(devices)):
        sharded, _ = jax.jit(program)(jax.random.key(0), hparams, task)
    observation = sharded.env.observation
    assert len(observation.sharding.device_set) == devices
    assert not observation.sharding.is_fully_replicated
    for a, b in zip(jax.tree.leaves(alone), jax.tree.leaves(sharded), strict=True):
        if not jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            np.testing.assert_array_equal(a, b)


@pytest.mark.slow
@pytest.mark.full
def test_environments_that_do_not_divide_are_replicated_with_a_warning():
    """Without it a user pays for four devices and gets one; the numbers are right either way."""
    algorithm = ppo.make(CartPole(), SMALL)
    program = fastrl.run(algorithm, SMALL.num_envs * SMALL.num_steps)
    arguments = jax.random.key(0), ppo.HParams(), algorithm.env.default_params()
    alone, _ = jax.jit(program)(*arguments)
    with jax.set_mesh(sharding.mesh(4)), pytest.warns(UserWarning, match="use a multiple of 32"):
        replicated, _ = jax.jit(program)(*arguments)
    assert replicated.env.observation.sharding.is_fully_replicated
    for a, b in zip(jax.tree.leaves(alone.params), jax.tree.leaves(replicated.params), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("block", [1, 2, 8])
def test_every_sample_is_in_every_epoch_once(block):
    """A block that is cut, or an index that is lost, would be learned from twice or never."""
    config = ppo.Config(
        num_envs=8, num_steps=6, num_epochs=3, num_minibatches=2, shuffle_block=block
    )
    indices = np.asarray(ppo._shuffled(config, prng.key(1)))
    assert indices.shape == (6, 24)
    for epoch in indices.reshape(3, -1):
        np.testing.assert_array_equal(np.sort(epoch), np.arange(48))
    blocks = indices.reshape(-1, block)
    np.testing.assert_array_equal(blocks, blocks[:, :1] + np.arange(block))
    assert (blocks[:, 0] % block == 0).all()


def test_a_block_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="shuffle_block=3 does not divide num_envs=8"):
        ppo.Config(num_envs=8, num_steps=6, num_minibatches=2, shuffle_block=3)


@pytest.mark.slow
def test_target_kl_stops_the_updates_of_an_iteration():
    """With a target of 0 only the first minibatch is learned from."""
    env, task = CartPole(), CartPole().default_params()
    config = ppo.Config(
        num_envs=8,
        num_steps=16,
        num_epochs=4,
        num_minibatches=4,
        stop_on_kl=True,
        hidden_sizes=(8,),
    )
    algorithm = ppo.make(env, config)

    def count(target):
        hparams = ppo.HParams(learning_rate=1e-2, target_kl=target)
        state, metrics = learned(algorithm, hparams, 128)
        return int(state.optimizer[1][0].count), float(metrics["loss"].weight[0])

    del task
    assert count(float("inf")) == (16, 16.0)
    updates, weight = count(-1.0)
    assert updates == 1
    assert weight == 1.0


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"num_envs": 0}, "num_envs=0"),
        ({"num_envs": -3}, "num_envs=-3"),
        ({"num_steps": 2.5}, "num_steps=2.5"),
        ({"num_envs": 10, "num_steps": 10, "num_minibatches": 16}, "100 is not divisible by"),
        ({"hidden_sizes": (64, 0)}, "hidden_sizes"),
        ({"activation": "tan"}, "'tan'.*'tanh'"),
        ({"torso": "lstm"}, "'lstm'"),
    ],
)
def test_bad_configs_name_the_value(kwargs, words):
    with pytest.raises(ValueError, match=words):
        ppo.Config(**kwargs)


def test_a_conv_torso_needs_an_image():
    with pytest.raises(ValueError, match=r"\[H, W, C\]"):
        ppo.make(CartPole(), ppo.Config(torso="conv"))


@pytest.mark.slow
def test_annealing_reaches_the_final_rate():
    """At the end of the schedule a final rate of 0 must leave the parameters alone."""
    algorithm = ppo.make(CartPole(), SMALL)
    batch = algorithm.steps_per_iteration
    hparams = ppo.HParams(learning_rate=1e-2, anneal_steps=4 * batch)
    task = algorithm.env.default_params()
    step = jax.jit(functools.partial(algorithm.step))
    state = jax.jit(algorithm.init)(prng.key(0), hparams, task)
    moved = []
    for _ in range(6):
        before, (state, _) = state.params, step(state, hparams, task)
        moved.append(any((a != b).any() for a, b in zip(
            jax.tree.leaves(before), jax.tree.leaves(state.params), strict=True)))  # fmt: skip
    assert moved == [True, True, True, True, False, False]
