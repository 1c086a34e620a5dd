"""Recurrent replay: deep Q-learning with memory (R2D2, Kapturowski et al. 2019, ICLR).

The ring keeps, with every step, what was remembered before it (the stored state).  An update
unrolls the network over windows of `burn_in + sequence_length` steps from there; the first
`burn_in` only bring the memory up to date and are not learned from (section 3).  Targets are
double, over `n_step` rewards, with rescaled values (section 2.3):

    h(x) = sign(x) (sqrt(|x| + 1) - 1) + 0.001 x,    h(sum_k gamma^k r_k + gamma^n h^-1(Q))

A window may hold several episodes: the memory is cleared inside of the cell where one starts, and
no sum of rewards goes beyond an end.  Where an episode was cut off, the value of its true
successor is that of one more step of the memory.  Not taken over: the last action and reward as
inputs, one epsilon for each of many actors.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fastrl import arguments, buffers, door, normalize, sharding, storage
from fastrl import metrics as fm
from fastrl.algorithms import dqn, off_policy, q_learning, ranges, replay, sequences
from fastrl.algorithms.sequences import Batch, Item, Numbers, Remembered
from fastrl.buffers import Buffer
from fastrl.buffers import ring as rings
from fastrl.cells import MemoryConfig
from fastrl.metrics import Metrics
from fastrl.networks import Activation, NetworkConfig
from fastrl.q_network import allowed, epsilon_greedy
from fastrl.recurrent_q import Cell, RecurrentQ, batch_shape, recurrent_q
from fastrl.types import (
    Action,
    Algorithm,
    Array,
    Env,
    Key,
    Observation,
    PyTree,
    Recipe,
    ResetFactory,
    Scalar,
)
from fastrl.vec import VecEnv, VecState


@dataclasses.dataclass(frozen=True)
class Config(off_policy.Config):
    """What shapes the program; the fields of `off_policy.Config` and these."""

    num_envs: int = 8
    num_steps: int = 8
    batch_size: int = 32  # sequences
    n_step: int = 5
    burn_in: int = 8  # steps at the start of a sequence that are not learned from
    sequence_length: int = 16  # steps that are
    hidden_sizes: tuple[int, ...] = (64,)  # before the memory
    activation: Activation = "relu"
    torso: dqn.Torso = "mlp"
    cell: Cell = "gru"
    memory_size: int = 64
    dueling: bool = True
    prioritised: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "hidden_sizes", self.network.hidden_sizes)
        door.choice("cell", self.cell, ("gru", "lstm"))
        door.integer("burn_in", self.burn_in, 0)
        for name in ("sequence_length", "memory_size"):
            door.integer(name, getattr(self, name), 1)
        rings.shape(self.buffer_size, self.num_envs, self.num_steps, self.shape.window)

    @property
    def shape(self) -> sequences.Shape:
        """Of the sequences."""
        return sequences.Shape(self.burn_in, self.sequence_length, self.n_step)

    @property
    def network(self) -> NetworkConfig:
        """The torso's share of this."""
        return NetworkConfig(self.hidden_sizes, self.activation, self.torso)


class HParams(NamedTuple):
    """Traced numbers: another value compiles nothing."""

    learning_rate: Scalar = 1e-3
    gamma: Scalar = 0.99
    epsilon: Scalar = 1.0  # chance of a random action at the start
    final_epsilon: Scalar = 0.05
    exploration_steps: Scalar = 50_000  # environment steps from the first epsilon to the last
    target_period: Scalar = 50  # updates between copies into the target network
    tau: Scalar = 1.0  # share of the network in such a copy
    max_grad_norm: Scalar = 10.0
    rescaling: Scalar = 1.0  # 1: values are rescaled by h, 0: they are as they are
    alpha: Scalar = 0.9  # exponent of priorities
    beta: Scalar = 0.6  # exponent of importance weights at the start
    beta_steps: Scalar = 500_000  # environment steps until it is 1
    greatest_share: Scalar = 0.9  # of the greatest error of a sequence in its priority
    anneal_steps: Scalar = float("inf")  # until the rate below is reached
    final_learning_rate: Scalar = 0.0


RANGES = ranges.of(HParams, rescaling=ranges.SHARE, greatest_share=ranges.SHARE)


class State(NamedTuple):
    """All there is to go on with."""

    key: Key
    learned: q_learning.Learned
    env: VecState
    remembered: Remembered
    buffer: PyTree
    observations: normalize.RunningStatistics
    steps: Array  # int32: environment steps so far


class _Parts(NamedTuple):
    """What is closed over."""

    config: Config
    network: RecurrentQ
    vec_env: VecEnv
    buffer: Buffer
    storage: storage.Storage


def make(
    env: Env, config: Config = Config(), *, reset: ResetFactory | None = None
) -> Algorithm[HParams, State]:
    """R2D2 on `env`. The same arguments give the same Algorithm, so nothing compiles twice.

    Raises TypeError or ValueError for what does not fit, before anything is compiled.
    """
    return _make(env, config, arguments.checked(env, config, Config, reset))


@functools.lru_cache(maxsize=256)
def _make(env: Env, config: Config, reset: ResetFactory) -> Algorithm:
    space = env.observation_space(env.default_params())
    starts = arguments.starts(env, reset)
    network = recurrent_q(
        space, env.action_space(env.default_params()), config.network,
        MemoryConfig(config.cell, config.memory_size), dueling=config.dueling,
    )  # fmt: skip
    kind = buffers.prioritised if config.prioritised else buffers.uniform
    buffer = kind(
        config.buffer_size, config.num_envs, block=config.num_steps, window=config.shape.window
    )
    parts = _Parts(
        config, network, VecEnv(env, config.num_envs, starts), buffer, storage.storage(space)
    )

    def values(state: State, carry: Any, observation: Observation, first: bool) -> Any:
        view = normalize.seen(config, state, observation)
        start = jnp.full(batch_shape(space, observation), first)
        carry, outputs = network.step(state.learned.params, carry, view, start)
        return carry, allowed(view, outputs)

    def act(
        state: State, carry: Any, observation: Observation, key: Key | None
    ) -> tuple[Action, Any]:
        carry, outputs = values(state, carry, observation, False)
        return jnp.argmax(outputs, -1).astype(jnp.int32), carry

    def value(state: State, observation: Observation) -> Array:
        """Of the first observation of an episode."""
        carry = network.initial_carry(batch_shape(space, observation))
        return values(state, carry, observation, True)[1].max(-1)

    return Algorithm(
        functools.partial(_init, parts), functools.partial(_step, parts), act,
        config.steps_per_round * config.num_rounds, HParams(), env, value,
        parameters=lambda state: state.learned.params,
        check=functools.partial(door.ranges, allowed=RANGES),
        initial_carry=network.initial_carry, recipe=Recipe("r2d2", env, config, reset),
    )  # fmt: skip


def _init(parts: _Parts, key: Key, hparams: HParams, task: Any) -> State:
    """The state before the first step. Consumes `key`."""
    key, network_key, env_key = jax.random.split(key, 3)
    params, n = parts.network.init(network_key), parts.config.num_envs
    env = parts.vec_env.env
    step = replay.empty_item(env, parts.storage)
    before = Remembered(parts.network.initial_carry(()), jnp.bool_(True))
    return State(
        key, q_learning.started(params, hparams), parts.vec_env.init(env_key, task),
        sharding.shard_envs(Remembered(parts.network.initial_carry((n,)), jnp.ones(n, bool)), n),
        parts.buffer.init(Item(step, before)),
        normalize.init(env.observation_space(env.default_params())), jnp.int32(0),
    )  # fmt: skip


def _step(parts: _Parts, state: State, hparams: HParams, task: Any) -> tuple[State, Metrics]:
    """One iteration."""

    def one(state: State, _: None) -> tuple[State, Metrics]:
        key, act_key, update_key = jax.random.split(state.key, 3)
        state, acted = _collect(parts, state._replace(key=key), act_key, hparams, task)
        update = functools.partial(_update, parts, state, hparams)
        learned, memory, metrics = off_policy.updates(
            parts.config, parts.buffer, update, state.learned, state.buffer, update_key, state.steps
        )
        return state._replace(learned=learned, buffer=memory), acted | metrics

    state, metrics = jax.lax.scan(one, state, None, parts.config.num_rounds)
    return state, fm.fold(metrics)


def _collect(
    parts: _Parts, state: State, key: Key, hparams: HParams, task: Any
) -> tuple[State, Metrics]:
    """A round's environment steps, into the ring."""
    config, kept = parts.config, parts.storage
    epsilon = q_learning.epsilon(hparams, state.steps)

    def body(carry: tuple[VecState, Remembered], key: Key) -> Any:
        env, before = carry
        action_key, step_key = jax.random.split(key)
        view = normalize.seen(config, state, env.observation)
        after, values = parts.network.step(state.learned.params, before.carry, view, before.start)
        action = epsilon_greedy(action_key, values, epsilon, view)
        env, t, metrics = parts.vec_env._step(step_key, env, action, task)
        item = Item(replay.item(kept, t), before)
        return (env, Remembered(after, t.terminated | t.truncated)), (item, metrics)

    keys = jax.random.split(key, config.num_steps)
    (env, remembered), (items, metrics) = jax.lax.scan(body, (state.env, state.remembered), keys)
    items = sharding.collect(items)
    observations = state.observations
    if config.normalize_observation:
        observations = normalize.update(observations, kept.unpack(items.step.observation))
    state = state._replace(
        env=env, remembered=remembered, buffer=parts.buffer.add(state.buffer, items),
        observations=observations, steps=state.steps + config.steps_per_round,
    )  # fmt: skip
    return state, fm.summed(metrics)


def _update(
    parts: _Parts,
    state: State,
    hparams: HParams,
    learned: q_learning.Learned,
    memory: PyTree,
    key: Key,
) -> tuple[q_learning.Learned, PyTree, Metrics]:
    """One gradient update on a batch of sequences. Consumes `key`."""
    config, buffer = parts.config, parts.buffer
    draw = buffer.sample(memory, key, config.batch_size)
    item = sequences.windows(buffer.ring(memory).items, draw, config.shape.window)
    weight = jnp.ones(config.batch_size)
    if config.prioritised:
        beta = replay.annealed(hparams, state.steps)
        weight = buffers.importance(draw, buffer.size(memory), beta)
    see = lambda stored: normalize.seen(config, state, parts.storage.unpack(stored))  # noqa: E731
    batch = sharding.shard_batch(
        Batch(item, see(item.step.observation), see(item.step.next_observation), weight)
    )
    numbers = Numbers(hparams.gamma, hparams.rescaling)
    loss = functools.partial(
        sequences.loss, config.shape, parts.network, numbers, learned.target, batch
    )
    (value, (error, chosen)), grads = jax.value_and_grad(loss, has_aux=True)(learned.params)
    learned = q_learning.descended(learned, grads, hparams, state.steps)
    if config.prioritised:
        share = hparams.greatest_share
        error = share * error.max(0) + (1.0 - share) * error.mean(0)  # section 2.3
        memory = buffer.reweigh(memory, draw, replay.proportional(error, hparams))
    return learned, memory, {"loss": fm.mean(value), "q_value": fm.mean(chosen)}
