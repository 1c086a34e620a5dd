"""Memory: cells forget at ends, sequences equal steps; PPO with memory learns what needs one."""

import functools
from typing import Any, NamedTuple

import all_probes
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toys

import fastrl
from fastrl import memory, ppo, ppo_memory
from fastrl.cells import MemoryConfig
from fastrl.envs.classic import CartPole
from fastrl.kernels import prng
from fastrl.networks import NetworkConfig
from fastrl.spaces import Box, Discrete

CELLS = ("gru", "lstm", "transformer")
T, N, D = 7, 3, 2
STARTS = np.zeros((T, N), bool)
STARTS[[0, 4, 4, 5], [0, 0, 1, 1]] = True  # at once, within, two in a row; in the last none
GOING = np.zeros((T, N), bool)


class Case(NamedTuple):
    """Jitted functions of `(params, carry, x [T, N, D], starts [T, N])`, and arguments for them."""

    unroll: Any
    reach: Any  # bool [T, N, T, N]: whether a value depends on an observation
    network: memory.Recurrent
    params: Any
    carry: Any  # in use
    x: Any


@functools.cache
def case(cell):
    """A network whose biases are not 0, so that a memory that starts at 0 is told from another."""
    config = MemoryConfig(cell, size=4, window=3, heads=2, layers=2)
    network = memory.recurrent(
        Box(-1.0, 1.0, (D,)), Discrete(3), NetworkConfig((3,), shared_torso=True), config
    )
    params = jax.jit(network.init)(prng.key(0))
    leaves, treedef = jax.tree.flatten(params)
    draw = np.random.default_rng(0)
    params = treedef.unflatten(
        [x + jnp.asarray(draw.normal(0, 0.3, x.shape), x.dtype) for x in leaves]
    )
    before, x = jnp.asarray(draw.normal(size=(2, T, N, D)), jnp.float32)
    unroll = jax.jit(network.unroll)
    slope = jax.jacobian(lambda *args: network.unroll(*args)[2], argnums=2)
    reach = jax.jit(lambda *args: (slope(*args) != 0).any(-1))
    carry = unroll(params, network.initial_carry((N,)), before, GOING)[0]
    return Case(unroll, reach, network, params, carry, x)


@pytest.mark.parametrize("cell", CELLS)
def test_a_sequence_gives_what_its_steps_give(cell):
    """What is learned from would not be what has acted: other times, masks, or caches."""
    c = case(cell)
    after, policy, value = c.unroll(c.params, c.carry, c.x, STARTS)
    step, carry = jax.jit(c.network.step), c.carry
    for t in range(T):
        carry, policy_t, value_t = step(c.params, carry, c.x[t], STARTS[t])
        np.testing.assert_allclose(policy_t.log_p, policy.log_p[t], atol=2e-5)
        np.testing.assert_allclose(value_t, value[t], atol=2e-5)
    following = [step(c.params, state, c.x[0], GOING[0])[2] for state in (after, carry)]
    np.testing.assert_allclose(*following, atol=2e-5)


@pytest.mark.parametrize("cell", CELLS)
def test_nothing_before_a_start_is_remembered(cell):
    """An episode that sees the one before it, forwards or by its gradient."""
    c = case(cell)
    reach = np.asarray(c.reach(c.params, c.carry, c.x, STARTS))
    episode, time = np.cumsum(STARTS, 0), np.arange(T)
    age = time[:, None] - time[None]
    longest = 5 if cell == "transformer" else T + 1  # two layers of three entries
    for n in range(N):
        same = episode[:, n][:, None] == episode[:, n][None]
        expected = same & (age >= 0) & (age < longest)
        np.testing.assert_array_equal(reach[:, n, :, n], expected)
    other = jax.tree.map(lambda x: ~x if x.dtype == bool else x + 1.0, c.carry)
    values = [np.asarray(c.unroll(c.params, carry, c.x, STARTS)[2]) for carry in (c.carry, other)]
    forgotten = (episode > 0) | (time >= longest - 1)[:, None]
    np.testing.assert_array_equal(values[0] == values[1], forgotten)


def oracle_cell(cell, p, x, starts, carry):
    """The outputs `[T, N, H]` of GRU or LSTM in float64, gate by gate."""
    sigmoid = lambda a: 1 / (1 + np.exp(-a))  # noqa: E731
    w, b = p["inputs"]["kernel"], p["inputs"]["bias"]
    u, v = p["recurrent"]["kernel"], p["recurrent"]["bias"]
    h, c, outputs = np.asarray(carry[0], np.float64), np.asarray(carry[-1], np.float64), []
    size = h.shape[-1]
    gate = lambda a, i: a[..., i * size : (i + 1) * size]  # noqa: E731
    for t in range(len(x)):
        h, c = (np.where(starts[t][:, None], 0.0, s) for s in (h, c))
        i, r = x[t] @ w + b, h @ u + v
        if cell == "gru":
            update = sigmoid(gate(i, 1) + gate(r, 1))
            new = np.tanh(gate(i, 2) + sigmoid(gate(i, 0) + gate(r, 0)) * gate(r, 2))
            h = (1 - update) * new + update * h
        else:
            g = i + r
            c = sigmoid(gate(g, 1)) * c + sigmoid(gate(g, 0)) * np.tanh(gate(g, 2))
            h = sigmoid(gate(g, 3)) * np.tanh(c)
        outputs.append(h)
    return np.stack(outputs)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_cells_equal_their_equations_in_float64(cell):
    """A gate in the place of another still learns, only worse."""
    c = case(cell)
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), c.params["params"])
    torso, head = p["actor_torso"]["Dense_0"], p["critic_head"]
    seen = np.tanh(np.asarray(c.x, np.float64) @ torso["kernel"] + torso["bias"])
    hidden = oracle_cell(cell, p["actor_memory"], seen, STARTS, c.carry[0])
    expected = hidden @ head["kernel"][:, 0] + head["bias"]
    value = c.unroll(c.params, c.carry, c.x, STARTS)[2]
    np.testing.assert_allclose(value, expected, atol=2e-5)


def learned(env, config, hparams, steps, seed=0):
    algorithm = ppo_memory.make(env, config)
    program = jax.jit(fastrl.run(algorithm, steps))
    return algorithm, program(prng.key(seed), hparams, env.default_params())[0]


@pytest.mark.parametrize(
    "cell", ["gru", *(pytest.param(c, marks=pytest.mark.slow) for c in CELLS[1:])]
)
def test_memory_is_kept_and_cleared_at_both_ends(cell):
    """Without memory 1/3; with one that outlives a termination or a truncation less than 1."""
    config = ppo_memory.Config(
        num_envs=32, num_steps=16, num_minibatches=2, cell=cell, memory_size=16, window=4,
        hidden_sizes=(16,),
    )  # fmt: skip
    hparams = ppo_memory.HParams(learning_rate=1e-2, anneal_steps=40_000)
    algorithm, state = learned(fastrl.make("probe/Memory"), config, hparams, 40_000)
    assert fastrl.evaluate(algorithm, state, episodes=200).mean_return > 0.98


@pytest.mark.slow
def test_the_t_maze_is_solved_with_memory_and_not_without():
    """A memory that is lost on the way, or not learned from: half of the turns are wrong."""
    env = fastrl.make("memory/TMaze-v0")
    hparams = ppo_memory.HParams(anneal_steps=150_000)
    algorithm, state = learned(env, ppo_memory.Config(memory_size=32), hparams, 150_000)
    assert fastrl.evaluate(algorithm, state, episodes=200).mean_return > 3.8  # of 4
    without = ppo.make(env)
    program = jax.jit(fastrl.run(without, 150_000))
    state, _ = program(prng.key(0), ppo.HParams(anneal_steps=150_000), env.default_params())
    assert fastrl.evaluate(without, state, episodes=200).mean_return < 2.6  # by chance 1.95


@pytest.mark.slow
def test_actions_that_are_masked_out_are_never_taken():
    """One of them costs 100: a mask that gets out of step with the memory."""
    config = ppo_memory.Config(
        num_envs=8, num_steps=16, num_minibatches=2, memory_size=16, hidden_sizes=(16,)
    )
    algorithm = ppo_memory.make(toys.MaskedChoice(), config)
    program = jax.jit(fastrl.run(algorithm, 20_000))
    hparams = ppo_memory.HParams(learning_rate=1e-2, gamma=0.5)
    state, metrics = program(prng.key(0), hparams, algorithm.env.default_params())
    assert (np.asarray(metrics["episode_return"].total) >= 0).all()
    assert fastrl.evaluate(algorithm, state, episodes=50).mean_return > 3.5  # of 4


def test_an_update_starts_from_the_memory_of_before_the_rollout():
    """From zeros, or from that of after it, the first pass would not be on policy: KL is not 0."""
    config = ppo_memory.Config(num_envs=8, num_steps=16, num_epochs=1, num_minibatches=1,
                               memory_size=8, hidden_sizes=(8,))  # fmt: skip
    algorithm = ppo_memory.make(CartPole(), config)
    task = algorithm.env.default_params()._replace(max_steps=11)
    _, metrics = jax.jit(fastrl.run(algorithm, 5 * 8 * 16))(
        prng.key(0), ppo_memory.HParams(learning_rate=0.05), task
    )
    kl = metrics["approximate_kl"]
    assert kl.total.shape == (5,)
    np.testing.assert_allclose(kl.total / kl.weight, 0.0, atol=1e-6)


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"num_envs": 6}, "num_envs=6 is not divisible by num_minibatches=4"),
        ({"cell": "rnn"}, "'rnn'"),
        ({"cell": "transformer", "heads": 3}, "size=64 is not divisible by heads=3"),
        ({"window": 0}, "window=0"),
        ({"memory_size": 0}, "memory_size=0"),
    ],
)
def test_bad_configs_name_the_value(kwargs, words):
    with pytest.raises(ValueError, match=words):
        ppo_memory.Config(**kwargs)


def test_a_critic_with_a_view_of_its_own_needs_its_own_memory():
    """With one memory for both it would see what only the critic may see, or the reverse."""
    with pytest.raises(ValueError, match="shared_torso=true"):
        ppo_memory.make(toys.Combination())
    algorithm = ppo_memory.make(toys.Combination(), ppo_memory.Config(shared_torso=False))
    assert len(algorithm.initial_carry(())) == 2


@pytest.mark.slow
def test_probes():
    """Value loss, discount, sign of the advantage, observations, time limits: one by one."""
    config = ppo_memory.Config(
        num_envs=16, num_steps=16, memory_size=16, hidden_sizes=(16,), num_minibatches=2
    )
    hparams = ppo_memory.HParams(learning_rate=5e-3, gamma=0.9, anneal_steps=40_000)
    algorithm = ppo_memory.make(all_probes.AllProbes(), config)
    all_probes.check(algorithm, hparams, 40_000, tolerance=0.06)
