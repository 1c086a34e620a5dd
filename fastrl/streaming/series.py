"""Stream TD(lambda) on numbers that come from no environment: an array, or a Python iterator.

A row of a series is an observation and the cumulant that came with it; what is predicted at a row
is the discounted sum of the cumulants of the rows after it.  A row that is `terminated` or
`truncated` is the last of its sequence: the next one starts another, and its cumulant is not used.

    predictor = series.predictor(7, stream_td.Config(time_feature=False))
    state = predictor.init(fastrl.key(0), hparams)
    state, predictions, delta = predictor.run(state, series.rows(observations, cumulants), hparams)

With a config of `recurrent_td` what is predicted from is all rows of the sequence so far.
"""

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fastrl import door
from fastrl import metrics as fm
from fastrl.hparams import conform
from fastrl.metrics import Metrics
from fastrl.streaming import recurrent, recurrent_td, statistics, stream_td
from fastrl.streaming import stream as streams
from fastrl.streaming.networks import Shape
from fastrl.streaming.statistics import RewardScale, Statistics
from fastrl.streaming.stream_td import RANGES, HParams
from fastrl.types import Algorithm, Array, Key, PyTree

Config = stream_td.Config | recurrent_td.Config

_DEFAULTS = stream_td.Config(), HParams()


class Series(NamedTuple):
    """Rows of a series, or one of them without the axis `[T]`; see `rows`."""

    observation: Array  # float32 [T, D]
    cumulant: Array  # float32 [T]
    terminated: Array  # bool [T]: nothing follows
    truncated: Array  # bool [T]: something would have followed


class State(NamedTuple):
    """All there is to go on with."""

    params: PyTree
    optimizer: PyTree
    memory: PyTree  # before the last row; () without one
    observations: Statistics
    cumulants: RewardScale
    x: Array  # the last row as the network sees it
    steps: Array  # int32, rows since the start of the sequence
    fresh: Array  # bool: the next row starts a sequence


class _Model(NamedTuple):
    """What predicts."""

    init: Callable[[Key], PyTree]
    memory: PyTree  # of nothing
    apply: stream_td.Apply
    width: int  # of its inputs


class Predictor(NamedTuple):
    """A pair of pure functions; both can be vmapped."""

    init: Callable[[Key, HParams], State]
    # (state, series [T, ...], hparams) -> (state, predictions [T] in the cumulants' own units,
    # each made when its row came, before it was learned from, delta [T], 0 at a start)
    run: Callable[[State, Series, HParams], tuple[State, Array, Array]]
    num_features: int


def rows(
    observation: Any, cumulant: Any, terminated: Any = None, truncated: Any = None
) -> Series:  # fmt: skip
    """A series of arrays `[T, D]` and `[T]`; without flags it is one sequence.

    Raises ValueError where their lengths disagree.
    """
    observation, cumulant = np.asarray(observation, np.float32), np.asarray(cumulant, np.float32)
    no = np.zeros(cumulant.shape, bool)
    flags = [no if f is None else np.asarray(f, bool) for f in (terminated, truncated)]
    shapes = [x.shape for x in (cumulant, *flags)]
    if observation.ndim != 2 or any(s != observation.shape[:1] for s in shapes):
        raise ValueError(
            f"observation {observation.shape}, cumulant, terminated, truncated {shapes}: "
            "need [T, D] and [T]"
        )
    return Series(*map(jnp.asarray, (observation, cumulant, *flags)))


@functools.lru_cache(maxsize=64)
def predictor(num_features: int, config: Config = _DEFAULTS[0]) -> Predictor:
    """The predictor of series with `num_features` numbers in a row.

    `run` is compiled once for every length of series.  Raises ValueError for bad arguments.
    """
    door.integer("num_features", num_features, 1)
    if not isinstance(config, Config):
        raise TypeError(
            f"config={config!r}: must be of type stream_td.Config or recurrent_td.Config"
        )
    if config.torso == "conv":
        raise ValueError("torso='conv': a row of a series is no image, use 'mlp'")
    model = _model(config, num_features + config.time_feature)

    def init(key: Key, hparams: HParams) -> State:
        params = model.init(key)
        return State(
            params, stream_td.optimizer(config, hparams).init(params), model.memory,
            statistics.init((num_features,)), statistics.init_reward_scale(),
            jnp.zeros(model.width), jnp.int32(0), jnp.bool_(True),
        )  # fmt: skip

    def run(state: State, series: Series, hparams: HParams) -> tuple[State, Array, Array]:
        width = series.observation.shape[-1]
        if width != num_features:
            raise ValueError(f"observations have {width} features, not {num_features}")
        body = lambda state, row: _one(model, config, hparams, state, row)  # noqa: E731
        state, (predictions, deltas) = jax.lax.scan(body, state, series)
        return state, predictions, deltas

    return Predictor(init, jax.jit(run), num_features)


def _model(config: Config, width: int) -> _Model:
    if isinstance(config, recurrent_td.Config):
        made, _ = recurrent.model(config, width, 1)
        return _Model(made.init, made.start(), made.apply, width)
    network = stream_td.value_network(config, Shape((width,), config.hidden_sizes, (1,)))
    return _Model(network.init, (), stream_td.memoryless(network), width)


def follow(
    predictor: Predictor, state: State, stream: Iterable[tuple[Any, ...]],
    hparams: HParams = _DEFAULTS[1], chunk: int = 256,
) -> Iterator[tuple[State, np.ndarray]]:  # fmt: skip
    """Learns from an iterator of rows `(observation, cumulant[, terminated[, truncated]])`.

    Takes `chunk` rows at a time (1: every prediction is made before the next row is asked for) and
    yields the state after them with their predictions `[chunk]`; a rest at the end is a shorter
    chunk.  Nothing else is kept, so the stream may go on for ever.
    """
    door.integer("chunk", chunk, 1)
    hparams = conform(hparams, HParams())
    door.ranges(hparams, RANGES)
    stream = iter(stream)
    while taken := list(itertools.islice(stream, chunk)):
        filled = [(*row, False, False)[:4] if len(row) == 2 else (*row, False)[:4] for row in taken]
        state, predictions, _ = predictor.run(state, rows(*zip(*filled, strict=True)), hparams)
        yield state, np.asarray(predictions)


def make(num_features: int, config: Config = _DEFAULTS[0]) -> Algorithm[HParams, Any]:
    """The predictor as an Algorithm whose task is a `Series` of any length.

    An iteration takes `config.num_steps` rows; after the last row the series starts again.
    """
    return _make(predictor(num_features, config), config)


@functools.lru_cache(maxsize=64)
def _make(predictor: Predictor, config: Config) -> Algorithm:
    def init(key: Key, hparams: HParams, task: Series) -> tuple[State, Array]:
        return predictor.init(key, hparams), jnp.int32(0)

    def step(
        state: tuple[State, Array], hparams: HParams, task: Series
    ) -> tuple[tuple[State, Array], Metrics]:
        learned, at = state
        length = task.cumulant.shape[0]
        index = (at + jnp.arange(config.num_steps)) % length
        taken = jax.tree.map(lambda x: x[index], task)
        taken = taken._replace(truncated=taken.truncated | (index == length - 1))
        learned, predictions, deltas = predictor.run(learned, taken, hparams)
        metrics = fm.summed(streams.learned(predictions, deltas))
        return (learned, (at + config.num_steps) % length), metrics

    def act(state: Any, carry: Any, observation: Any, key: Key | None) -> tuple[Any, Any]:
        raise ValueError("a predictor of series does not act")

    return Algorithm(
        init, step, act, config.num_steps, HParams(), parameters=lambda state: state[0].params,
        check=functools.partial(door.ranges, allowed=RANGES),
    )  # fmt: skip


def _one(
    model: _Model, config: Config, hparams: HParams, state: State, row: Series
) -> tuple[State, tuple[Array, Array]]:
    """One row: seen, predicted from, and unless it starts a sequence learned from."""
    going = ~state.fresh
    steps = jnp.where(going, state.steps + 1, 0)
    observations, cumulants, x = state.observations, state.cumulants, row.observation
    if config.normalize_observation:
        observations = statistics.update(observations, x)
        x = statistics.normalize(observations, x)
    if config.time_feature:
        x = jnp.append(x, statistics.time_feature(steps, hparams.time_limit))
    reward = row.cumulant
    if config.scale_reward:
        scaled, reward = statistics.scale_reward(
            cumulants, reward, row.terminated, row.truncated, hparams.gamma, config.reward_trace,
            second_moment=config.second_moment,
        )  # fmt: skip
        cumulants = _where(going, scaled, cumulants)
    done = row.terminated | row.truncated
    ends = done if config.truncation == "ends" else row.terminated
    clears = row.terminated if config.truncation == "continues" else done
    learned = stream_td.learn(
        model.apply, stream_td.optimizer(config, hparams), state.params, state.optimizer,
        state.memory, state.x, reward, jnp.where(ends, 0.0, hparams.gamma), x, clears,
    )  # fmt: skip
    at_start, _ = model.apply(state.params, model.memory, x)
    prediction = jnp.where(going, learned.following, at_start[0])
    if config.scale_reward:
        prediction = prediction * statistics.deviation(cumulants.statistics)
    params, trace, memory = _where(
        going, (learned.params, learned.optimizer, learned.memory),
        (state.params, state.optimizer, model.memory),
    )  # fmt: skip
    following = State(params, trace, memory, observations, cumulants, x, steps, done)
    return following, (prediction, jnp.where(going, learned.delta, 0.0))


def _where(condition: Array, on_true: PyTree, on_false: PyTree) -> PyTree:
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), on_true, on_false)
