"""Memory: cells forget at ends, sequences equal steps; PPO with memory learns what needs one."""

import functools

import all_probes
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fastrl
from fastrl import memory, ppo_memory
from fastrl.kernels import prng
from fastrl.memory import MemoryConfig
from fastrl.networks import NetworkConfig
from fastrl.spaces import Box, Discrete

CELLS = ("gru", "lstm", "transformer")
T, N, D = 9, 3, 2
STARTS = np.zeros((T, N), bool)
STARTS[[0, 4, 6, 7], [0, 0, 1, 1]] = True  # none, one, and several episodes begin


@functools.cache
def recurrent(cell, shared=True):
    """Network, parameters with biases that are not 0, observations `[T, N, D]`, a carry in use."""
    config = MemoryConfig(cell, size=4, window=3, heads=2, layers=2)
    torso = NetworkConfig((3,), shared_torso=shared)
    network = memory.recurrent(Box(-1.0, 1.0, (D,)), Discrete(3), torso, config)
    params = network.init(prng.key(0))
    leaves, treedef = jax.tree.flatten(params)
    keys = jax.random.split(prng.key(1), len(leaves))
    moved = [x + jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)]
    params = treedef.unflatten(moved)
    before, x = jax.random.normal(prng.key(2), (2, T, N, D))
    going = jnp.zeros((T, N), bool)
    carry = network.unroll(params, network.initial_carry((N,)), before, going)[0]
    return network, params, x, carry


@pytest.mark.parametrize("cell", CELLS)
def test_a_sequence_gives_what_its_steps_give(cell):
    """What is learned from would not be what has acted: other times, masks, or caches."""
    network, params, x, carry = recurrent(cell)
    after, policy, value = jax.jit(network.unroll)(params, carry, x, jnp.asarray(STARTS))
    step = jax.jit(network.step)
    for t in range(T):
        carry, policy_t, value_t = step(params, carry, x[t], jnp.asarray(STARTS[t]))
        np.testing.assert_allclose(policy_t.log_p, policy.log_p[t], atol=2e-5)
        np.testing.assert_allclose(value_t, value[t], atol=2e-5)
    for a, b in zip(jax.tree.leaves(after), jax.tree.leaves(carry), strict=True):
        still = np.broadcast_to(np.asarray(jax.tree.leaves(carry)[0])[..., None], a.shape) \
            if cell == "transformer" and a.ndim == 3 else np.ones(a.shape, bool)  # fmt: skip
        np.testing.assert_allclose(np.where(still, a, 0), np.where(still, b, 0), atol=2e-5)


@pytest.mark.parametrize("cell", CELLS)
def test_nothing_before_a_start_is_remembered(cell):
    """An episode that sees the one before it, forwards or by its gradient."""
    network, params, x, carry = recurrent(cell)

    def outcome(x, carry):
        return network.unroll(params, carry, x, jnp.asarray(STARTS))[2]

    reach = np.asarray(jax.jit(jax.jacobian(lambda x: outcome(x, carry)))(x))  # [T, N, T, N, D]
    reach = np.abs(reach).max(-1)
    episode = np.cumsum(STARTS, 0)
    for n in range(N):
        sees = reach[:, n, :, n] > 0
        same = episode[:, n][:, None] == episode[:, n][None]
        assert (sees <= (same & np.tri(T, dtype=bool))).all()
        assert sees[1:][same[1:, :-1].diagonal()].any(-1).all()
        assert (sees.diagonal()).all()
    assert sees[2, 0]  # the last environment has one episode: it is remembered
    other = jax.tree.map(lambda c: ~c if c.dtype == bool else c + 1.0, carry)
    same = np.asarray(outcome(x, carry)) == np.asarray(outcome(x, other))
    np.testing.assert_array_equal(same, episode > 0)  # a start clears what the rollout began with


def test_a_window_bounds_what_is_remembered():
    """A cache that grows, or one that is shorter than it says: 2 layers of 3 entries see 5."""
    network, params, x, carry = recurrent("transformer")
    going = jnp.zeros((T, N), bool)
    value = lambda x: network.unroll(params, carry, x, going)[2][:, 0]  # noqa: E731
    reach = np.abs(np.asarray(jax.jit(jax.jacobian(value))(x))[:, :, 0]).max(-1) > 0
    age = np.arange(T)[:, None] - np.arange(T)[None]
    np.testing.assert_array_equal(reach, (age >= 0) & (age < 5))


def oracle_cell(cell, p, x, starts, carry):
    """The outputs `[T, N, H]` of GRU or LSTM in float64, gate by gate."""
    f64 = lambda a: np.asarray(a, np.float64)  # noqa: E731
    sigmoid = lambda a: 1 / (1 + np.exp(-a))  # noqa: E731
    w, b = f64(p["inputs"]["kernel"]), f64(p["inputs"]["bias"])
    u, v = f64(p["recurrent"]["kernel"]), f64(p["recurrent"]["bias"])
    h, c, outputs = f64(carry[0]), f64(carry[-1]), []
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
    network, params, x, carry = recurrent(cell)
    p = params["params"]
    torso = p["actor_torso"]["Dense_0"]
    seen = np.tanh(np.asarray(x, np.float64) @ np.asarray(torso["kernel"]) + torso["bias"][None])
    hidden = oracle_cell(cell, p["actor_memory"], seen, STARTS, carry[0])
    expected = hidden @ np.asarray(p["critic_head"]["kernel"])[:, 0] + p["critic_head"]["bias"]
    value = network.unroll(params, carry, x, jnp.asarray(STARTS))[2]
    np.testing.assert_allclose(value, expected, atol=2e-5)


CONFIG = ppo_memory.Config(
    num_envs=16, num_steps=16, num_minibatches=4, memory_size=16, hidden_sizes=(16,)
)


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
    hparams = ppo_memory.HParams(learning_rate=1e-2, anneal_steps=60_000)
    algorithm, state = learned(fastrl.make("probe/Memory"), config, hparams, 60_000)
    assert fastrl.evaluate(algorithm, state, episodes=200).mean_return > 0.98


@pytest.mark.slow
def test_probes():
    """Value loss, discount, sign of the advantage, observations, time limits: one by one."""
    config = ppo_memory.Config(
        num_envs=16, num_steps=16, memory_size=16, hidden_sizes=(16,), num_minibatches=2
    )
    hparams = ppo_memory.HParams(learning_rate=5e-3, gamma=0.9, anneal_steps=40_000)
    algorithm = ppo_memory.make(all_probes.AllProbes(), config)
    all_probes.check(algorithm, hparams, 40_000, tolerance=0.06)
