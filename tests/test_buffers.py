"""Replay buffers against plain NumPy: what is there, what is drawn, how often, how large it is."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fastrl import buffers
from fastrl.buffers import Draw
from fastrl.buffers import ring as rings
from fastrl.kernels import sum_tree

KINDS = {"uniform": buffers.uniform, "prioritised": buffers.prioritised}
ITEM = {"time": jnp.int32(0), "env": jnp.int32(0)}


def block_of(first, steps, num_envs):
    """Items that say when and where they are from: leaves `[T, N]`."""
    time = np.repeat(np.arange(first, first + steps, dtype=np.int32)[:, None], num_envs, 1)
    return {"time": time, "env": np.tile(np.arange(num_envs, dtype=np.int32), (steps, 1))}


def starts(time, length, window, num_envs):
    """Of `time` steps so far: all (first time, env) whose window is among the last `length`."""
    first = range(max(time - length, 0), time - window + 1)
    return {(t, n) for t in first for n in range(num_envs)}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("capacity", "num_envs", "block", "window"), [(10, 2, 1, 1), (12, 2, 2, 3), (9, 3, 1, 3)]
)
def test_windows_are_those_of_the_last_steps(kind, capacity, num_envs, block, window):
    """Windows across the newest step, of another environment, overwritten, or never drawn."""
    buffer = KINDS[kind](capacity, num_envs, block=block, window=window)
    state = buffer.init(ITEM)
    length = buffer.ring(state).items["time"].shape[0]
    assert length * num_envs >= capacity

    @jax.jit
    def draw(state, key):
        draw = buffer.sample(state, key, 256)
        rows = draw.row[None] + jnp.arange(window)[:, None]
        return rings.take(buffer.ring(state).items, rows, draw.env[None]), draw.probability

    add = jax.jit(buffer.add)
    for time in range(0, 3 * length, block):
        state = add(state, block_of(time, block, num_envs))
        allowed = starts(time + block, length, window, num_envs)
        assert int(buffer.size(state)) == len(allowed)
        if not allowed:
            continue
        taken, probability = draw(state, jax.random.key(time))
        first, env = np.asarray(taken["time"][0]), np.asarray(taken["env"][0])
        assert set(zip(first.tolist(), env.tolist(), strict=True)) == allowed
        np.testing.assert_array_equal(taken["time"], first + np.arange(window)[:, None])
        np.testing.assert_array_equal(taken["env"], np.broadcast_to(env, (window, 256)))
        np.testing.assert_allclose(probability, 1 / len(allowed), rtol=1e-5)


@functools.cache
def filled():
    """A full prioritised buffer that went round, whose windows have priorities of all sizes."""
    capacity, num_envs = 24, 2
    buffer = buffers.prioritised(capacity, num_envs, window=2)
    state, add = buffer.init(ITEM), jax.jit(buffer.add)
    for time in range(30):
        state = add(state, block_of(time, 1, num_envs))
    row, env = np.divmod(np.arange(capacity), num_envs)
    held = np.asarray(sum_tree.get(state.tree, jnp.arange(capacity))) > 0
    row, env = row[held].astype(np.int32), env[held].astype(np.int32)
    priority = np.random.default_rng(0).gamma(0.7, 1.0, len(row)).astype(np.float32) + 1e-3
    one = jnp.ones(len(row))
    state = buffer.reweigh(
        state, Draw(jnp.asarray(row), jnp.asarray(env), one), jnp.asarray(priority)
    )
    return buffer, state, row * num_envs + env, priority


def test_draws_follow_the_priorities():
    """Frequencies and reported probabilities are p_i / sum p."""
    buffer, state, leaf, priority = filled()
    expected = np.zeros(24)
    expected[leaf] = priority / priority.sum(dtype=np.float64)
    assert (expected == 0).sum() == 2  # the newest row begins no window of two
    n = 100_000
    draw = jax.jit(lambda key: buffer.sample(state, key, n))(jax.random.key(0))
    drawn = np.asarray(draw.row) * 2 + np.asarray(draw.env)
    np.testing.assert_allclose(draw.probability, expected[drawn], rtol=1e-5)
    counts = np.bincount(drawn, minlength=24)
    deviation = np.sqrt(n * expected * (1 - expected)) + 1
    assert (np.abs(counts - n * expected) < 4 * deviation).all()


def test_importance_weights_are_as_defined():
    """(size * P)^-beta over the greatest, and with beta 1 a weighted mean is the plain one."""
    buffer, state, leaf, _ = filled()
    draw = jax.jit(lambda key: buffer.sample(state, key, 64))(jax.random.key(1))
    size = buffer.size(state)
    assert int(size) == len(leaf)
    probability = np.asarray(draw.probability, np.float64)
    for beta in (0.0, 0.4, 1.0):
        weight = (len(leaf) * probability) ** -beta
        got = buffers.importance(draw, size, beta)
        np.testing.assert_allclose(got, weight / weight.max(), rtol=1e-5)
    draw = jax.jit(lambda key: buffer.sample(state, key, 50_000))(jax.random.key(2))
    weight = np.asarray(buffers.importance(draw, size, 1.0), np.float64)
    drawn = np.asarray(draw.row) * 2 + np.asarray(draw.env)
    assert abs((weight * drawn).sum() / weight.sum() - leaf.mean()) < 0.15


def test_what_is_new_has_the_greatest_priority():
    """Else a step might never be learned from."""
    buffer, state, _, priority = filled()
    state = buffer.add(state, block_of(30, 1, 2))
    row = int(buffer.ring(state).head) - 1
    ready = sum_tree.get(state.tree, jnp.arange(2) + ((row - 1) % 12) * 2)
    np.testing.assert_allclose(ready, max(priority.max(), 1.0))
    assert not np.asarray(sum_tree.get(state.tree, jnp.arange(2) + row * 2)).any()


def test_what_does_not_fit_is_refused_with_numbers(monkeypatch):
    """Before anything is compiled: sizes, and the bytes."""
    with pytest.raises(ValueError, match="buffer_size=0"):
        buffers.uniform(0, 1)
    with pytest.raises(ValueError, match=r"5 steps of 2 .* window of 6 .* needs at least 12"):
        buffers.prioritised(10, 2, window=6)
    monkeypatch.setattr(rings, "_available", lambda: 1_000_000)
    item = {"picture": jax.ShapeDtypeStruct((84, 84, 4), jnp.uint8), "reward": jnp.float32(0.0)}
    with pytest.raises(ValueError, match=r"takes 28,228,000 bytes \(28,228 an item\).* at most 28"):
        buffers.uniform(1_000, 10).init(item)
    assert buffers.uniform(20, 10).init(item).items["picture"].nbytes == 20 * 84 * 84 * 4
