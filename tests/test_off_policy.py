"""What off-policy learners share: batches, storage, and memory that stays in place."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fastrl
from fastrl import algorithms, normalize
from fastrl.algorithms import dqn, off_policy, replay
from fastrl.buffers import Draw


def a_ring(rng, length, num_envs):
    """Random steps `[L, N]`; an end is one of both kinds, never both."""
    end = rng.random((length, num_envs)) < 0.3
    cut = rng.random((length, num_envs)) < 0.5
    return replay.Item(
        None, None, rng.normal(size=(length, num_envs)), end & ~cut, end & cut, None
    )  # fmt: skip


OFF_POLICY = [
    name for name in algorithms.names()
    if issubclass(algorithms.module(name).Config, off_policy.Config)
]  # fmt: skip


def test_the_off_policy_learners_are_found():
    """Else the test of all of them is one of none."""
    assert {"dqn", "r2d2", "ddpg", "td3", "sac", "sac_discrete", "redq", "crossq"} <= {*OFF_POLICY}


@pytest.mark.parametrize("name", OFF_POLICY)
def test_a_batch_larger_than_the_buffer_is_refused(name):
    """Else every update learns from copies, and nothing tells."""
    config, small = algorithms.module(name).Config, {"num_envs": 1, "num_steps": 1}
    config(buffer_size=64, batch_size=64, **small)
    with pytest.raises(ValueError, match=r"batch_size=65 is more than buffer_size=64: .* larger"):
        config(buffer_size=64, batch_size=65, **small)


@pytest.mark.parametrize("n", [1, 3])
def test_n_step_returns_equal_plain_loops(n):
    """A reward beyond an end, a discount too many, or the successor of another step."""
    rng, gamma = np.random.default_rng(n), 0.9
    items = a_ring(rng, 7, 3)
    row, env = (x.reshape(-1) for x in np.mgrid[0:7, 0:3])
    draw = Draw(jnp.asarray(row), jnp.asarray(env), jnp.ones(21))
    arrays = jax.tree.map(lambda x: jnp.asarray(x, "float32" if x.dtype == float else None), items)
    got = replay.n_step(arrays, draw, gamma, n)
    for i, (t, e) in enumerate(zip(row, env, strict=True)):
        total, discount, last = 0.0, 1.0, 0
        for k in range(n):
            last = (t + k) % 7
            total += discount * items.reward[last, e]
            discount *= gamma
            if items.terminated[last, e]:
                discount = 0.0
            if items.terminated[last, e] or items.truncated[last, e]:
                break
        np.testing.assert_allclose(got[0][i], total, atol=1e-5)
        np.testing.assert_allclose(got[1][i], discount, atol=1e-6)
        assert int(got[2][i]) % 7 == last


def built(**switches):
    """A DQN of the smallest network, its state, and one jitted iteration."""
    config = dqn.Config(
        num_envs=4, num_steps=2, batch_size=8, buffer_size=4_096, learning_starts=16, num_rounds=4,
        hidden_sizes=(4,), **switches,
    )  # fmt: skip
    algorithm = dqn.make(fastrl.make("CartPole-v1"), config)
    task = algorithm.env.default_params()
    state = jax.jit(algorithm.init)(fastrl.key(0), algorithm.default_hparams, task)
    step = jax.jit(lambda s: algorithm.step(s, algorithm.default_hparams, task), donate_argnums=0)
    return state, step


@pytest.mark.parametrize(
    "switches", [pytest.param({}, marks=pytest.mark.slow), {"prioritised": True, "n_step": 3}]
)
def test_the_buffer_stays_in_place(switches):
    """A copy of it, or of its priorities, in every round would be most of the time."""
    state, step = built(**switches)
    program = step.lower(state).compile()
    text, memory = program.as_text(), program.memory_analysis()
    assert text is not None
    assert memory is not None
    big = [x.shape for x in jax.tree.leaves(state.buffer) if x.size >= 4_096]
    assert len(big) >= 6
    for shape in set(big):
        size = ",".join(map(str, shape))
        assert f"[{size}]" in text  # else the search finds nothing whatever happens
        copies = re.findall(rf"= \w+\[{size}\]\S* copy\(", text)
        assert not copies
    assert memory.temp_size_in_bytes < 4_096 * 8
    pointers = [x.unsafe_buffer_pointer() for x in jax.tree.leaves(state.buffer) if x.size >= 4_096]
    after, _ = program(state)
    ends = [x.unsafe_buffer_pointer() for x in jax.tree.leaves(after.buffer) if x.size >= 4_096]
    assert pointers == ends


def test_no_update_before_it_has_seen_enough():
    """Learning from zeros, or never."""
    state, step = built()
    first = np.asarray(state.learned.networks.updates)
    assert first == 0
    state, metrics = step(state)  # rounds of 8 steps: the first has too few
    assert int(state.learned.networks.updates) == 3
    assert float(metrics["loss"].weight) == 3.0
    assert int(state.steps) == 32


def test_observations_are_kept_small():
    """Flags eight to a byte, and back: what is learned from is what was seen."""
    env = fastrl.make("MinAtar/Breakout-v1")
    config = dqn.Config(num_envs=2, num_steps=2, buffer_size=8, batch_size=8, hidden_sizes=(4,))
    algorithm = dqn.make(env, config)
    parts: Any = algorithm.init.args[0]  # type: ignore[attr-defined]
    task = env.default_params()

    @jax.jit
    def collected(key):
        state = off_policy.init(parts, key, algorithm.default_hparams, task)
        before = state.env.observation
        state, _ = off_policy._collect(parts, state, key, algorithm.default_hparams, task)
        draw = parts.buffer.sample(state.buffer, key, 64)
        return before, state, draw, off_policy._batch(
            parts, state, state.buffer, draw, algorithm.default_hparams
        )  # fmt: skip

    before, state, draw, batch = collected(fastrl.key(0))
    stored = state.buffer.items.observation
    assert stored.dtype == jnp.uint8
    assert stored[0, 0].nbytes == 100  # of 400 flags
    space = env.observation_space(task)
    assert batch.observation.dtype == space.dtype
    assert batch.observation.shape == (64, *space.shape)
    first = np.asarray(draw.row) == 0
    np.testing.assert_array_equal(
        np.asarray(batch.observation)[first], np.asarray(before)[np.asarray(draw.env)[first]]
    )


@pytest.mark.slow
def test_normalised_observations_are_those_of_the_state():
    """Statistics that are not updated, or not used."""
    state, step = built(normalize_observation=True)
    state, _ = step(state)
    assert float(state.observations.count) >= 32
    config = dqn.Config(normalize_observation=True)
    view = normalize.seen(config, state, jnp.ones(4))
    want = (1.0 - state.observations.mean) / jnp.sqrt(state.observations.variance + 1e-8)
    np.testing.assert_allclose(view, jnp.clip(want, -10.0, 10.0), rtol=1e-4)
