"""Streams with memory: exact gradients, whole streams in NumPy, and what only a memory can do."""

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import oracle_streaming as oracle
import pytest
from streaming_script import SIZE, Script
from test_streaming_oracle import Walk, assert_close, flat, play

import fastrl
from fastrl.envs import probe
from fastrl.spaces import Box, Discrete
from fastrl.streaming import recurrent_cells, recurrent_q, recurrent_td, series, stream_td
from fastrl.types import Array, Key, Step

INPUTS, UNITS, T = 3, 4, 50


def wanted(t: int) -> np.ndarray:
    """Of every step another function of the features."""
    return np.cos(np.arange(2 * UNITS) + 0.7 * t)


def test_carried_sensitivities_are_backpropagation_through_all_of_the_past():
    """A term of the recurrence that is missing, or taken at another step. In float64."""
    with jax.enable_x64(True):
        cell = recurrent_cells.cell("diagonal", INPUTS, UNITS)
        params = cell.init(jax.random.key(0))
        xs = jax.random.normal(jax.random.key(1), (T, INPUTS))
        weights = jnp.stack([jnp.asarray(wanted(t)) for t in range(T)])

        def step(memory: Any, now: Any) -> Any:
            def loss(p: Any) -> Any:
                following, features = cell.step(p, memory, now[0])
                return (now[1] * features).sum(), (following, features)

            gradient, (memory, features) = jax.grad(loss, has_aux=True)(params)
            return memory, (gradient, features)

        run = jax.jit(lambda m: jax.lax.scan(step, m, (xs, weights)))
        _, (online, features) = run(cell.start(True))

        def unrolled(p: Any) -> Any:
            factor = jnp.exp(-jnp.exp(p.nu) + 1j * jnp.exp(p.theta))
            gate = jnp.sqrt(1 - jnp.abs(factor) ** 2)[None]
            kernel = gate * (p.kernel[0] + 1j * p.kernel[1])

            def hidden(h: Any, x: Any) -> Any:
                h = factor * h + x @ kernel
                return h, jnp.concatenate([h.real, h.imag])

            return jax.lax.scan(hidden, jnp.zeros(UNITS, complex), xs)[1]

        whole = jax.jit(jax.jacrev(lambda p: (weights * unrolled(p)).sum(-1)))(params)
        expected = jax.jit(unrolled)(params)
        plain = jax.jit(lambda m: jax.lax.scan(lambda m, x: cell.step(params, m, x), m, xs))
        _, unlearned = plain(cell.start(False))
        online, whole = jax.device_get((online, whole))
        features, expected, unlearned = jax.device_get((features, expected, unlearned))
    np.testing.assert_allclose(features, expected, atol=1e-12)
    np.testing.assert_allclose(unlearned, expected, atol=1e-12)
    for mine, theirs in zip(online, whole, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-9, atol=1e-12)
        assert np.abs(mine[-1]).min() > 1e-6


def test_the_gradient_of_the_gated_unit_ends_at_the_memory_before():
    """Another unit than Cho's, or a gradient that goes on into the past, which has changed."""
    cell = recurrent_cells.cell("gru", INPUTS, UNITS)
    xs = jax.random.normal(jax.random.key(1), (3, INPUTS))

    def program(key: Any) -> Any:
        params = cell.init(key)
        memories, features = [cell.start(True)], []
        for x in xs:
            memory, feature = cell.step(params, memories[-1], x)
            memories, features = [*memories, memory], [*features, feature]

        def last(p: Any, chained: bool) -> Any:
            memory = cell.step(p, memories[1], xs[1])[0] if chained else memories[2]
            return cell.step(p, memory, xs[2])[1].sum()

        gradients = [jax.grad(last)(params, chained) for chained in (False, True)]
        return params, features, gradients

    params, features, gradients = jax.device_get(jax.jit(program)(jax.random.key(0)))
    kernel, recurrent = (np.asarray(k, np.float64) for k in params[:2])

    def unit(h: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, ...]:
        given, recalled = np.split(x @ kernel, 3), np.split(h @ recurrent, 3)
        reset = 1 / (1 + np.exp(-given[0] - recalled[0]))
        update = 1 / (1 + np.exp(-given[1] - recalled[1]))
        return reset, update, np.tanh(given[2] + reset * recalled[2]), recalled[2]

    hidden = [np.zeros(UNITS)]
    for x, feature in zip(np.asarray(xs, np.float64), features, strict=True):
        _, update, candidate, _ = unit(hidden[-1], x)
        hidden.append((1 - update) * candidate + update * hidden[-1])
        np.testing.assert_allclose(feature, hidden[-1], atol=1e-6)
    before = hidden[2]
    reset, update, candidate, recalled = unit(before, np.asarray(xs[2], np.float64))
    by_candidate = (1 - update) * (1 - candidate**2)
    np.testing.assert_allclose(gradients[0].candidate_bias, by_candidate * reset, atol=1e-6)
    by_update = (before - candidate) * update * (1 - update)
    by_reset = by_candidate * recalled * reset * (1 - reset)
    expected = np.concatenate([by_reset, by_update, by_candidate])
    np.testing.assert_allclose(gradients[0].bias, expected, atol=1e-6)
    by_recurrent = np.outer(before, np.concatenate([by_reset, by_update, by_candidate * reset]))
    np.testing.assert_allclose(gradients[0].recurrent, by_recurrent, atol=1e-6)
    for one, two in zip(*gradients, strict=True):
        np.testing.assert_allclose(one, two, atol=1e-6)


def test_a_stream_with_memory_is_that_of_numpy():
    """Values of the wrong memory, a memory that outlives an episode, or one that learns twice."""
    units, steps = 3, 250
    config = recurrent_td.Config(
        num_steps=1, hidden_sizes=(), memory_size=units, initializer="dense"
    )
    hparams = recurrent_td.HParams(time_limit=50.0)
    played = play(recurrent_td.make(Script(), config), hparams, steps)
    first, walk = played.first.params, Walk(config, played)
    nu, theta, kernel = (np.asarray(p, np.float64) for p in first.cell)
    head, bias = (np.asarray(p, np.float64) for p in first.network.heads[0])
    optimizer = oracle.Optimizer("obgd", flat(first).size)
    h, by_nu, by_theta = np.zeros((3, units), complex)
    by_kernel, deltas = np.zeros((SIZE, units), complex), []
    for i in range(steps):
        x, w = walk.x, kernel[0] + 1j * kernel[1]
        r, d = np.exp(-np.exp(nu)), np.exp(nu)
        factor, gate = r * np.exp(1j * np.exp(theta)), np.sqrt(1 - r**2)
        by_nu = factor * by_nu - d * factor * h + d * r**2 / gate * (x @ w)
        by_theta = factor * by_theta + 1j * np.exp(theta) * factor * h
        by_kernel = factor * by_kernel + gate * x[:, None]
        h = factor * h + gate * (x @ w)
        c = (head[:units] - 1j * head[units : 2 * units])[:, 0]  # Re(c dh) is the change of v
        features = np.concatenate([np.real(h), np.imag(h), x])
        v = features @ head[:, 0] + bias[0]
        t, after = walk.step(np.sin(played.metrics["action"][i]))
        following = factor * h + gate * (after @ w)
        v_after = np.concatenate([following.real, following.imag, after]) @ head[:, 0] + bias[0]
        delta = t.reward + t.discount * v_after - v
        parts = [c * by_nu, c * by_theta, c * by_kernel, c * 1j * by_kernel]
        gradient = np.concatenate([*(np.real(p).ravel() for p in parts), features, [1.0]])
        update = optimizer.step(gradient, delta, t.clears)
        ends = np.cumsum([units, units, kernel.size, len(features)])
        moved = np.split(update, ends)
        nu, theta, bias = nu + moved[0], theta + moved[1], bias + moved[4]
        kernel, head = kernel + moved[2].reshape(kernel.shape), head + moved[3][:, None]
        deltas.append(delta)
        if t.again is not None:
            for carried in (h, by_nu, by_theta, by_kernel):
                carried[:] = 0.0
    last = played.last
    assert_close("errors", played.metrics["td_error"], np.abs(deltas))
    flat_mine = np.concatenate([nu, theta, kernel.ravel(), head.ravel(), bias])
    assert_close("parameters", flat(last.params), flat_mine)
    assert_close("trace", flat(last.optimizer.trace), optimizer.z)
    assert_close("memory", last.memory.hidden, np.stack([np.real(h), np.imag(h)]))


class Last(NamedTuple):
    shown: Array  # float32 [3], newest first


@dataclasses.dataclass(frozen=True)
class Echo:
    """Shows coins, +1 or -1, for ever; the reward is the coin of three steps ago."""

    version: ClassVar[int] = 1

    def default_params(self) -> probe.NoParams:
        return probe.NoParams()

    def reset(self, key: Key, params: Any) -> tuple[Last, Array]:
        return Last(jnp.zeros(3)), jnp.zeros(1)

    def step(self, key: Key, state: Last, action: Array, params: Any) -> tuple[Last, Step]:
        coin = jnp.where(jax.random.bernoulli(key), 1.0, -1.0)
        shown = jnp.stack([coin, state.shown[0], state.shown[1]])
        no = jnp.bool_(False)
        return Last(shown), Step(coin[None], state.shown[2], no, no)

    def observation_space(self, params: Any) -> Box:
        return Box(-1.0, 1.0, (1,))

    def action_space(self, params: Any) -> Discrete:
        return Discrete(2)


SMALL = {"hidden_sizes": (16,), "initializer": "dense", "num_steps": 1000}


def errors(module: Any, steps: int, **config: Any) -> float:
    """The mean error of the last tenth of the predictions, seeds 0 and 1."""
    algorithm = module.make(Echo(), module.Config(**SMALL, **config))
    hparams = module.HParams(gamma=0.0, trace_decay=0.0)
    training = jax.jit(fastrl.members(algorithm, steps, "vmap"))
    keys = jax.random.split(jax.random.key(0), 2)
    _, metrics = training(keys, hparams, probe.NoParams())
    return float(metrics["td_error"].total[:, -steps // 10_000 :].mean() / 1000)


@pytest.mark.slow
def test_what_was_three_steps_ago_is_predicted_with_memory_only():
    """The reward is a coin seen three steps before: without memory every prediction is off by 1."""
    assert errors(recurrent_td, 20_000, memory_size=16) < 0.3
    assert errors(stream_td, 20_000, time_feature=False) > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("cell", ["diagonal", pytest.param("gru", marks=pytest.mark.full)])
def test_the_memory_probe_is_solved(cell):
    """A memory that is not kept, not cleared at every end, or not that of `act`."""
    env = fastrl.make("probe/Memory")
    config = recurrent_q.Config(cell=cell, memory_size=8, **SMALL)
    algorithm = recurrent_q.make(env, config)
    hparams = recurrent_q.HParams(gamma=0.9, exploration_steps=5_000, final_epsilon=0.1)
    training = jax.jit(fastrl.run(algorithm, 20_000))
    state, _ = training(jax.random.key(0), hparams, env.default_params())
    assert fastrl.evaluate(algorithm, state, episodes=200).mean_return == 1.0


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"cell": "lstm"}, "cell 'lstm'"),
        ({"memory_size": 0}, "memory_size=0"),
        ({"torso": "conv"}, "torso='conv'"),
    ],
)
def test_mistakes_are_named(config, words):
    """A cell or size that does not exist is found in the middle of a program."""
    with pytest.raises(ValueError, match=words):
        recurrent_q.Config(**config)


def test_a_series_is_predicted_from_what_was_seen_before():
    """A memory that is not fed, not carried from chunk to chunk, or not cleared at an end."""
    rng = np.random.default_rng(0)
    cues = rng.integers(0, 2, 1500)
    # Four rows: a sign, two blank ones, and the cumulant that the sign announced.
    observations = np.zeros((1500, 4, 1))
    observations[:, 0, 0] = 2.0 * cues - 1.0
    cumulants = np.zeros((1500, 4))
    cumulants[:, 3] = observations[:, 0, 0]
    ends = np.zeros((1500, 4), bool)
    ends[:, 3] = True
    rows = series.rows(observations.reshape(-1, 1), cumulants.reshape(-1), ends.reshape(-1))
    hparams = recurrent_td.HParams(gamma=1.0, trace_decay=0.9)
    fields = {"hidden_sizes": (16,), "initializer": "dense", "scale_reward": False}
    errors = {}
    for config in (
        recurrent_td.Config(memory_size=8, **fields),
        stream_td.Config(time_feature=False, **fields),
    ):
        predictor = series.predictor(1, config)
        state = predictor.init(jax.random.key(0), hparams)
        half = jax.tree.map(lambda x: x[:3000], rows), jax.tree.map(lambda x: x[3000:], rows)
        state, _, _ = predictor.run(state, half[0], hparams)
        state, predictions, _ = predictor.run(state, half[1], hparams)
        before_the_cumulant = np.asarray(predictions).reshape(-1, 4)[-250:, 2]
        errors[type(config)] = np.mean((before_the_cumulant - (2.0 * cues[-250:] - 1.0)) ** 2)
    assert errors[recurrent_td.Config] < 0.3, errors
    assert errors[stream_td.Config] > 0.8, errors  # the sign is not in the row
    start = predictor.init(jax.random.key(0), hparams)
    assert start.memory == ()
