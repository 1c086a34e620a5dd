"""R2D2: its loss against float64, what the ring remembers, and a probe that needs memory."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fastrl
from fastrl.algorithms import r2d2, replay, sequences
from fastrl.algorithms.sequences import Batch, Item, Numbers, Remembered
from fastrl.cells import MemoryConfig
from fastrl.networks import NetworkConfig
from fastrl.recurrent_q import recurrent_q

SHAPE = sequences.Shape(burn_in=2, length=3, n_step=2)
NUMBERS = Numbers(0.9, 1.0)
BATCH, SIZE = 5, 4


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def gru(params, h, x, start):
    """A step of the cell, from h `[H]` and x `[D]`."""
    p, h = params["params"], np.zeros_like(h) if start else h
    inputs = x @ p["cell"]["inputs"]["kernel"] + p["cell"]["inputs"]["bias"]
    recurrent = h @ p["cell"]["recurrent"]["kernel"] + p["cell"]["recurrent"]["bias"]
    (r, z, n), (u_r, u_z, u_n) = np.split(inputs, 3), np.split(recurrent, 3)
    z = sigmoid(z + u_z)
    return (1 - z) * np.tanh(n + sigmoid(r + u_r) * u_n) + z * h


def head(params, h):
    p = params["params"]["head"]["advantage"]
    return h @ p["kernel"] + p["bias"]


def rescale(x):
    return np.sign(x) * (np.sqrt(abs(x) + 1) - 1) + 1e-3 * x


def restore(y):
    return np.sign(y) * (((np.sqrt(1 + 4e-3 * (abs(y) + 1.001)) - 1) / 2e-3) ** 2 - 1)


def errors(params, fixed, target, batch):
    """The errors `[L, B]`, step by step.  `fixed` are the params that no gradient goes through."""
    step, result = batch.item.step, np.zeros((SHAPE.length, BATCH))
    for b in range(BATCH):
        hs, kept, frozen = [], [], []
        h = g = f = batch.item.remembered.carry[0][b]
        for t in range(SHAPE.window):
            start, x = batch.item.remembered.start[t, b], batch.view[t, b]
            h = gru(fixed if t < SHAPE.burn_in else params, h, x, start)
            g, f = gru(fixed, g, x, start), gru(target, f, x, start)
            hs.append(h)
            kept.append(g)
            frozen.append(f)
        for i in range(SHAPE.length):
            t, total, discount, last = SHAPE.burn_in + i, 0.0, 1.0, 0
            for k in range(SHAPE.n_step):
                last = t + k
                total += discount * step.reward[last, b]
                discount *= NUMBERS.gamma
                if step.terminated[last, b]:
                    discount = 0.0
                if step.terminated[last, b] or step.truncated[last, b]:
                    break
            after = batch.after[last, b]
            best = np.argmax(head(fixed, gru(fixed, kept[last], after, False)))
            value = head(target, gru(target, frozen[last], after, False))[best]
            goal = rescale(total + discount * restore(value))
            result[i, b] = head(params, hs[t])[step.action[t, b]] - goal
    return result


def a_batch():
    """Episodes end in both ways; what follows an end is not the successor."""
    rng, shape = np.random.default_rng(0), (SHAPE.window, BATCH)
    end, cut = rng.random(shape) < 0.35, rng.random(shape) < 0.5
    start = np.concatenate([rng.random((1, BATCH)) < 0.3, end[:-1]])
    reward: Any = rng.normal(size=shape) * 3
    flags: Any = end & ~cut, end & cut, start
    step = replay.Item(None, rng.integers(0, 2, shape), reward, flags[0], flags[1], None)
    remembered = Remembered((rng.normal(size=(BATCH, SIZE)),), flags[2])
    weight: Any = rng.random(BATCH) + 0.5
    view, after = rng.normal(size=(*shape, 3)), rng.normal(size=(*shape, 3))
    after[:-1] = np.where(end[:-1, :, None], after[:-1], view[1:])
    return Batch(Item(step, remembered), view, after, weight)


def moved(params, direction, size):
    return jax.tree.map(lambda p, d: p + size * d, params, direction)


def test_the_loss_of_sequences_equals_float64():
    """A memory that outlives an episode, a burn-in with gradient, a target of another step."""
    network = recurrent_q(
        fastrl.spaces.Box(-1.0, 1.0, (3,)), fastrl.spaces.Discrete(2), NetworkConfig(()),
        MemoryConfig("gru", SIZE),
    )  # fmt: skip
    init = jax.jit(network.init)
    params, target = (
        jax.tree.map(lambda x: np.asarray(2 * x, np.float64), init(jax.random.key(i)))
        for i in range(2)
    )
    batch = a_batch()
    to_float = lambda x: jnp.asarray(x, "float32" if x.dtype == float else None)  # noqa: E731
    singles = jax.tree.map(to_float, (target, batch, params))
    loss = jax.value_and_grad(
        lambda p: sequences.loss(SHAPE, network, NUMBERS, singles[0], singles[1], p), has_aux=True
    )
    (value, (error, _)), grads = jax.jit(loss)(singles[2])
    want = errors(params, params, target, batch)
    np.testing.assert_allclose(error, np.abs(want), rtol=2e-4, atol=2e-4)
    weigh = lambda e: (batch.weight * e**2).mean()  # noqa: E731
    np.testing.assert_allclose(value, weigh(want), rtol=1e-4)
    rng = np.random.default_rng(1)
    for _ in range(3):
        way = jax.tree.map(lambda x: rng.normal(size=x.shape), params)
        ends = [weigh(errors(moved(params, way, s), params, target, batch)) for s in (1e-5, -1e-5)]
        slope = sum(jax.tree.leaves(jax.tree.map(lambda g, d: float((g * d).sum()), grads, way)))
        np.testing.assert_allclose(slope, (ends[0] - ends[1]) / 2e-5, rtol=2e-3, atol=2e-3)


def test_rescaling_has_its_inverse():
    x = jnp.array([-300.0, -1.0, -0.01, 0.0, 0.5, 7.0, 1_000.0])
    np.testing.assert_allclose(
        sequences.restored(sequences.rescaled(x, 1.0), 1.0), x, rtol=1e-3, atol=1e-5
    )
    np.testing.assert_allclose(sequences.rescaled(x, 1.0), rescale(np.asarray(x)), rtol=1e-5)
    np.testing.assert_array_equal(sequences.rescaled(x, 0.0), x)


CONFIG = r2d2.Config(
    num_envs=16, num_steps=4, num_rounds=16, batch_size=32, buffer_size=4_096,
    learning_starts=512, n_step=2, burn_in=2, sequence_length=6, hidden_sizes=(), memory_size=16,
)  # fmt: skip


def test_what_was_remembered_is_stored():
    """The carry of another step or environment, or one that outlives its episode."""
    algorithm = r2d2.make(fastrl.make("probe/Memory"), CONFIG)
    task, hparams, parts = algorithm.env.default_params(), r2d2.HParams(), algorithm.init.args[0]  # type: ignore[attr-defined]

    @jax.jit
    def collected(key):
        def more(i, state):
            return r2d2._collect(parts, state, jax.random.fold_in(key, i), hparams, task)[0]

        return jax.lax.fori_loop(0, 4, more, algorithm.init(key, hparams, task))

    state = collected(fastrl.key(0))
    items = jax.tree.map(lambda x: x[:16], parts.buffer.ring(state.buffer).items)
    start, carry = items.remembered.start, items.remembered.carry
    done = items.step.terminated | items.step.truncated
    assert start[0].all()
    np.testing.assert_array_equal(start[1:], done[:-1])
    assert done.sum() > 50
    first = jax.tree.map(lambda x: x[0], carry)
    carries, _ = jax.jit(parts.network.unroll)(
        state.learned.params, first, items.step.observation, start
    )
    np.testing.assert_allclose(carries[0][:-1], carry[0][1:], atol=1e-6)
    np.testing.assert_allclose(carries[0][-1], state.remembered.carry[0], atol=1e-6)


@pytest.mark.slow
def test_memory():
    """Without memory 1/3; with one that outlives an episode, less than 1."""
    hparams = r2d2.HParams(
        learning_rate=3e-3, gamma=0.9, exploration_steps=20_000, target_period=25
    )
    algorithm = r2d2.make(fastrl.make("probe/Memory"), CONFIG)
    task = algorithm.env.default_params()
    state, _ = jax.jit(fastrl.run(algorithm, 60_000))(jax.random.key(0), hparams, task)
    assert fastrl.evaluate(algorithm, state, episodes=200).mean_return > 0.97


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"burn_in": -1}, "burn_in=-1"),
        ({"sequence_length": 0}, "sequence_length=0"),
        ({"cell": "rnn"}, "unknown cell 'rnn'"),
        ({"buffer_size": 160}, "24 steps of 8 .* window of 28 .* needs at least 320"),
    ],
)
def test_bad_configs_name_the_value(kwargs, words):
    with pytest.raises(ValueError, match=words):
        r2d2.Config(**kwargs)
