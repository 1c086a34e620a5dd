"""Stream learners as Algorithms: tables, isolation, evaluation, series, the door, learning."""

import dataclasses
import functools
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from streaming_script import Params as ScriptParams
from streaming_script import Script

import fastrl
from fastrl import population
from fastrl.envs import probe
from fastrl.spaces import Box, Discrete
from fastrl.streaming import networks, series, stream, stream_ac, stream_q, stream_sarsa, stream_td
from fastrl.types import Array, Key, Step

# Linear in one-hot observations, nothing normalised, the bound off: a table.
TABLE = {
    "hidden_sizes": (), "initializer": "dense", "normalize_observation": False,
    "scale_reward": False, "time_feature": False, "num_steps": 1,
}  # fmt: skip
STATES = 5


class Walk(NamedTuple):
    at: Array


@dataclasses.dataclass(frozen=True)
class RandomWalk:
    """One of 5 places, left or right by action; reward 1 beyond the right end."""

    version: ClassVar[int] = 1

    def default_params(self) -> probe.NoParams:
        return probe.NoParams()

    def reset(self, key: Key, params: probe.NoParams) -> tuple[Walk, Array]:
        return Walk(jnp.int32(STATES // 2)), jnp.int32(STATES // 2)

    def step(self, key: Key, state: Walk, action: Array, params: Any) -> tuple[Walk, Step]:
        at = state.at + 2 * action - 1
        out = (at < 0) | (at >= STATES)
        reward = (at >= STATES).astype(jnp.float32)
        at = jnp.clip(at, 0, STATES - 1)
        noted = {"action": action.astype(jnp.float32)}
        return Walk(at), Step(at, reward, out, jnp.zeros_like(out), noted)

    def observation_space(self, params: Any) -> Discrete:
        return Discrete(STATES)

    def action_space(self, params: Any) -> Discrete:
        return Discrete(2)


def _walked(algorithm: Any, hparams: Any, steps: int) -> tuple[Any, Any, Any]:
    """The state before, after, and (place, action, SARSA's next action) of every step."""

    def body(state: Any, _: None) -> Any:
        after, metrics = algorithm.step(state, hparams, probe.NoParams())
        note = state.stream.env.at, metrics["action"].total, getattr(after, "action", 0)
        return after, note

    def program(key: Any) -> Any:
        first = algorithm.init(key, hparams, probe.NoParams())
        return first, *jax.lax.scan(body, first, None, steps)

    first, last, notes = jax.jit(program)(jax.random.key(1))
    return first, last, zip(*(np.asarray(n).astype(int).tolist() for n in notes), strict=True)


def _end(at: int, action: int) -> tuple[int, float, bool]:
    following = at + 2 * action - 1
    out = not 0 <= following < STATES
    return min(max(following, 0), STATES - 1), float(following >= STATES), out


@pytest.mark.parametrize("module", [stream_td, stream_q, stream_sarsa], ids=lambda m: m.__name__)
def test_one_hot_and_no_bound_is_a_table(module):
    """Another order of trace, update and bootstrap than Sutton and Barto's lambda algorithms."""
    alpha, decay, gamma = 0.1, np.float64(np.float32(0.9) * np.float32(0.8)), np.float32(0.9)
    hparams = module.HParams(gamma=0.9, trace_decay=0.8, learning_rate=alpha, kappa=0.0)
    options = {"cut": "before"} if module is stream_q else {}
    if module is not stream_td:
        hparams = hparams._replace(epsilon=0.5, final_epsilon=0.5)
    config = module.Config(**TABLE, **options)
    first, last, steps = _walked(module.make(RandomWalk(), config), hparams, 2000)
    table = np.asarray(first.params.heads[0].kernel, np.float64)  # [places, outputs]
    bias = np.zeros(table.shape[1])  # is one feature more, always 1
    trace, bias_trace = np.zeros_like(table), np.zeros_like(bias)
    for at, action, following in steps:
        place, reward, out = _end(at, action)
        column = 0 if module is stream_td else action
        q, after = table[at] + bias, table[place] + bias
        match module.__name__.rsplit("_", 1)[-1]:
            case "q":
                bootstrap = after.max()
            case "sarsa":
                bootstrap = after[following]
            case _:
                bootstrap = after[0]
        if module is stream_q and action != q.argmax():
            trace[:], bias_trace[:] = 0.0, 0.0
        trace, bias_trace = decay * trace, decay * bias_trace
        trace[at, column] += 1.0
        bias_trace[column] += 1.0
        delta = reward + gamma * bootstrap * (not out) - q[column]
        table, bias = table + alpha * delta * trace, bias + alpha * delta * bias_trace
        if out:
            trace[:], bias_trace[:] = 0.0, 0.0
    np.testing.assert_allclose(last.params.heads[0].kernel, table, atol=2e-4)
    np.testing.assert_allclose(last.params.heads[0].bias, bias, atol=2e-4)


def test_streams_share_nothing():
    """One stream's NaN, or its neighbours, change another stream."""
    algorithm = stream_q.make(Script(), stream_q.Config(num_steps=20, hidden_sizes=(6,)))
    keys = jax.random.split(jax.random.key(0), 3)
    training = jax.jit(fastrl.members(algorithm, 100, "vmap"))

    def trained(order: list[int], poison: list[int]) -> Any:
        task = ScriptParams(poison=jnp.array(poison))
        return training(keys[jnp.array(order)], stream_q.HParams(), task)[0]

    clean, poisoned = trained([0, 1, 2], [0, 0, 0]), trained([0, 1, 2], [0, 1, 0])
    turned = trained([2, 0, 1], [0, 0, 0])
    leaves = [jax.tree.leaves(s.params) for s in (clean, poisoned, turned)]
    for a, b, c in zip(*leaves, strict=True):
        np.testing.assert_array_equal(a[0], b[0])
        np.testing.assert_array_equal(a[2], b[2])
        np.testing.assert_array_equal(a, jnp.roll(c, -1, 0))
        assert np.isnan(b[1]).any()
    assert np.isfinite(jax.tree.leaves(clean.params)[0]).all()


@functools.cache
def scripted() -> tuple[Any, Any]:
    """An algorithm, and the program of one stream of 100 transitions."""
    algorithm = stream_q.make(Script(), stream_q.Config(num_steps=20, hidden_sizes=(6,)))
    return algorithm, jax.jit(fastrl.run(algorithm, 100))


def test_blocks_of_streams_are_the_streams():
    """Blocks that mix up members, or that no stream asks for."""
    algorithm, single = scripted()
    keys, gammas = jax.random.split(jax.random.key(0), 4), jnp.linspace(0.5, 0.9, 4)
    hparams = stream_q.HParams(gamma=gammas)
    program = jax.jit(fastrl.members(algorithm, 100, "map", block=2))
    params = program(keys, hparams, ScriptParams())[0].params
    for i in range(4):
        one, _ = single(keys[i], hparams._replace(gamma=gammas[i]), ScriptParams())
        for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(one.params), strict=True):
            np.testing.assert_allclose(a[i], b, rtol=1e-3, atol=1e-5)
    assert [population.block_size(n, 64) for n in (1, 30, 64, 65, 100, 1024)] == [
        1, 30, 64, 33, 50, 64,
    ]  # fmt: skip
    assert algorithm.side_by_side == 256
    image = stream.side_by_side([networks.Shape((10, 10, 4), (128,), (3,), 16)])
    assert image == 2  # 132,000 weights: few streams fill the cache
    with pytest.raises(ValueError, match="block=0"):
        fastrl.members(algorithm, 60, block=0)


def test_every_observation_is_counted_once():
    """The true successor of an end, or the first observation of the next episode, is missing."""
    _, program = scripted()
    state, metrics = program(jax.random.key(0), stream_q.HParams(), ScriptParams())
    episodes = int(metrics["episode_return"].weight.sum())
    assert episodes > 3
    assert int(state.stream.observations.count) == 100 + episodes + 1
    assert int(state.stream.rewards.statistics.count) == 100
    assert int(state.selections) == 100


@dataclasses.dataclass(frozen=True)
class Clock:
    """Nothing is seen; reward 1 for action 1 in the second half of 8 steps, else for action 0."""

    version: ClassVar[int] = 1

    def default_params(self) -> probe.NoParams:
        return probe.NoParams()

    def reset(self, key: Key, params: Any) -> tuple[Walk, Array]:
        return Walk(jnp.int32(0)), jnp.zeros(1)

    def step(self, key: Key, state: Walk, action: Array, params: Any) -> tuple[Walk, Step]:
        right = action == (state.at >= 4)
        at = state.at + 1
        end = at >= 8
        return Walk(at), Step(jnp.zeros(1), right.astype(jnp.float32), end, jnp.zeros_like(end))

    def observation_space(self, params: Any) -> Box:
        return Box(0.0, 0.0, (1,))

    def action_space(self, params: Any) -> Discrete:
        return Discrete(2)


def test_evaluation_sees_the_time():
    """`act` does not count the steps of its episode, or not as training does."""
    config = stream_q.Config(initializer="dense", hidden_sizes=(16, 16))
    algorithm = stream_q.make(Clock(), config)
    hparams = stream_q.HParams(gamma=0.5, time_limit=8.0, exploration_steps=1000, final_epsilon=0.1)
    state, _ = jax.jit(fastrl.run(algorithm, 6000))(jax.random.key(0), hparams, probe.NoParams())
    assert fastrl.evaluate(algorithm, state, episodes=1).mean_return >= 7.0
    carry = algorithm.initial_carry((2,))
    _, carry = algorithm.act(state, carry, jnp.zeros((2, 1)), None)
    np.testing.assert_array_equal(carry, [1, 1])
    assert algorithm.value is not None
    assert algorithm.value(state, jnp.zeros((2, 1))).shape == (2,)


def test_predictions_of_a_series():
    """A cumulant counted one row late, chunks that do not go on where the last one stopped."""
    angle = 2 * np.pi * np.arange(4000) / 8
    observations = np.stack([np.sin(angle), np.cos(angle)], -1)
    cumulants = np.cos(angle)  # of the same row: it came with the observation
    gamma = 0.5
    # What follows a row: sum of gamma^k cos(angle + (k + 1) step).
    step = np.exp(2j * np.pi / 8)
    expected = (np.exp(1j * angle) * step / (1 - gamma * step)).real
    config = stream_td.Config(
        hidden_sizes=(16,), initializer="dense", time_feature=False, num_steps=500
    )
    hparams = stream_td.HParams(gamma=gamma)
    predictor = series.predictor(2, config)
    start = predictor.init(jax.random.key(0), hparams)
    rows = series.rows(observations, cumulants)
    _, predictions, _ = predictor.run(start, rows, hparams)
    assert np.abs(np.asarray(predictions)[-800:] - expected[-800:]).mean() < 0.1
    pieces = list(series.follow(
        predictor, start, zip(observations[:1200], cumulants[:1200], strict=True), hparams, 500
    ))  # fmt: skip
    assert [len(p) for _, p in pieces] == [500, 500, 200]
    np.testing.assert_allclose(
        np.concatenate([p for _, p in pieces]), predictions[:1200], rtol=1e-3, atol=1e-3
    )
    algorithm = series.make(2, config)
    (whole, at), metrics = jax.jit(fastrl.run(algorithm, 4000))(jax.random.key(0), hparams, rows)
    assert int(at) == 0
    np.testing.assert_allclose(float(metrics["td_error"].weight.sum()), 4000)
    assert whole.x.shape == (2,)
    with pytest.raises(ValueError, match="need \\[T, D\\] and \\[T\\]"):
        series.rows(observations, cumulants[:7])
    with pytest.raises(ValueError, match="3 features, not 2"):
        predictor.run(start, series.rows(np.zeros((4, 3)), np.zeros(4)), hparams)


def test_a_series_that_ends_starts_again():
    """The row after an end is learned from as if it had followed."""
    predictor = series.predictor(1, stream_td.Config(hidden_sizes=(4,), initializer="dense"))
    hparams = stream_td.HParams()
    start = predictor.init(jax.random.key(0), hparams)
    ends = np.array([0, 1, 0, 0], bool)
    a = series.rows(np.ones((4, 1)), np.array([0.0, 1.0, 50.0, 1.0]), ends)
    b = series.rows(np.ones((4, 1)), np.array([9.0, 1.0, -7.0, 1.0]), ends)
    (one, _, delta), (other, _, _) = (
        predictor.run(start, a, hparams),
        predictor.run(start, b, hparams),
    )
    for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(x, y)
    assert (np.asarray(delta) == 0.0).tolist() == [True, False, True, False]


def test_bad_arguments_say_the_way_out():
    """A program that compiles, or fails within JAX."""
    cartpole, pendulum = fastrl.make("CartPole-v1"), fastrl.make("Pendulum-v1")
    for module in (stream_q, stream_sarsa, stream_ac, stream_td):
        for wrong, message in (
            ({"num_steps": 0}, "num_steps=0"), ({"hidden_sizes": (0,)}, "hidden_sizes=0"),
            ({"hidden_sizes": 3}, "hidden_sizes=3"), ({"sparsity": 1.5}, "sparsity=1.5"),
            ({"optimizer": "adan"}, "optimizer"), ({"torso": "conv"}, "time_feature=false"),
            ({"truncation": "end"}, "truncation"), ({"layer_norm": 1}, "layer_norm=1"),
        ):  # fmt: skip
            with pytest.raises(ValueError, match=message):
                module.Config(**wrong)
        with pytest.raises(ValueError, match="version"):
            module.Config.version("2025")
        with pytest.raises(TypeError, match="config is a dict"):
            module.make(cartpole, {"num_steps": 3})
        algorithm = module.make(cartpole)
        assert module.make(cartpole, module.Config()) is algorithm
        with pytest.raises(ValueError, match="gamma"):
            algorithm.check(algorithm.default_hparams._replace(gamma=1.5))
    for module in (stream_q, stream_sarsa):
        with pytest.raises(ValueError, match="Discrete"):
            module.make(pendulum)
    with pytest.raises(ValueError, match="num_features=0"):
        series.predictor(0)
    with pytest.raises(TypeError, match="policy"):
        stream_td.make(cartpole, policy=3)  # type: ignore[arg-type]


@pytest.mark.slow
def test_truncations_bootstrap_where_the_version_says_so():
    """V = 1 / (1 - gamma) where a cut takes nothing away; the version of 2024 learns less."""
    values = {}
    for truncation in ("ends", "bootstraps"):
        config = stream_td.Config(
            truncation=truncation, hidden_sizes=(), scale_reward=False, time_feature=False,
            normalize_observation=False, initializer="dense",
        )  # fmt: skip
        algorithm = stream_td.make(probe.TimeLimit(), config)
        hparams = stream_td.HParams(gamma=0.9, learning_rate=0.005, kappa=0.0)
        program = jax.jit(fastrl.run(algorithm, 5000))
        state, _ = program(jax.random.key(0), hparams, probe.TimeLimitParams())
        assert algorithm.value is not None
        values[truncation] = float(algorithm.value(state, jnp.zeros(1)))
    np.testing.assert_allclose(values["bootstraps"], 10.0, rtol=0.05)
    # There the sum of trace times error over an episode of 10 steps is 0.
    trace = (1 - 0.72 ** np.arange(1, 11)) / (1 - 0.72)
    expected = trace.sum() / (0.1 * trace[:-1].sum() + trace[-1])
    np.testing.assert_allclose(values["ends"], expected, rtol=0.03)


@pytest.mark.slow
def test_stream_q_learns_cartpole():
    """Anything: five streams of 60,000 transitions; without learning a return is about 20."""
    env = fastrl.make("CartPole-v1")
    algorithm = stream_q.make(env, stream_q.Config(num_steps=10_000))
    hparams = stream_q.HParams(exploration_steps=10_000)
    training = jax.jit(fastrl.members(algorithm, 60_000, "vmap"))
    keys = jax.random.split(jax.random.key(0), 5)
    _, metrics = training(keys, hparams, env.default_params())
    last = metrics["episode_return"]
    returns = np.asarray(last.total[:, -3:].sum(1) / last.weight[:, -3:].sum(1))
    assert np.median(returns) > 200, returns
