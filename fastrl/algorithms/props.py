"""PPO on data collected to look on-policy: PROPS (Corrado and Hanna 2023, arXiv:2311.08290).

Every `behaviour_steps` steps the policy that acts is made anew (`props_sampler`): near the target
policy, but preferring what the data in the buffer lack.  After `num_steps` steps PPO trains the
target policy on the last `buffer_rollouts` rollouts as if it had played them all: no importance
weights; log-probabilities, values and advantages (GAE within each rollout) are those of the
present parameters.  Then the oldest rollout is dropped.

With `sampler="on_policy"` this is PPO that reuses old rollouts, the fair baseline; with one epoch,
one minibatch and `clip=inf` it is A2C on the same data.  Observations are stored as they are and
normalised when they are used, so statistics that move do not mix old and new.
"""

import dataclasses
import functools
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from fastrl import arguments, door, optim, sharding, spaces
from fastrl import metrics as fm
from fastrl.algorithms import agent as agents
from fastrl.algorithms import minibatches, props_sampler, props_update, ranges
from fastrl.algorithms.agent import Statistics
from fastrl.algorithms.props_sampler import Data, collect
from fastrl.algorithms.props_update import Parts, Sample
from fastrl.metrics import Metrics
from fastrl.networks import Activation, NetworkConfig
from fastrl.types import (
    Algorithm,
    Array,
    Env,
    Key,
    PyTree,
    ResetFactory,
    Scalar,
    Transition,
)
from fastrl.vec import VecState

_SAMPLERS = ("props", "ros", "on_policy")


@dataclasses.dataclass(frozen=True)
class Config:
    """What shapes the program. An iteration takes `num_envs * num_steps` environment steps."""

    num_envs: int = 1
    num_steps: int = 1024  # of every environment, per update of the target policy
    num_epochs: int = 16
    num_minibatches: int = 16  # per epoch
    buffer_rollouts: int = 1  # that are trained on
    sampler: Literal["props", "ros", "on_policy"] = "props"
    behaviour_steps: int = 16  # of every environment, per update of the behaviour policy
    behaviour_epochs: int = 16
    behaviour_minibatches: int = 4
    hidden_sizes: tuple[int, ...] = (64, 64)
    activation: Activation = "tanh"
    normalize_observation: bool = False  # by running mean and variance
    normalize_reward: bool = False  # by the running std of the discounted return
    error_fit_steps: int = 0  # above 0: `sampling_error` is measured, by a fit of so many steps

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if type(field.default) is int:
                least = 0 if field.name == "error_fit_steps" else 1
                door.integer(field.name, getattr(self, field.name), least)
            elif type(field.default) is bool:
                door.flag(field.name, getattr(self, field.name))
        door.choice("sampler", self.sampler, _SAMPLERS)
        for name in ("num_minibatches", "behaviour_minibatches"):
            if self.buffer_size % getattr(self, name):
                raise ValueError(
                    f"buffer_rollouts*num_steps*num_envs={self.buffer_size} is not divisible by "
                    f"{name}={getattr(self, name)}"
                )
        if self.num_steps % self.behaviour_steps:
            raise ValueError(
                f"num_steps={self.num_steps} is not divisible by "
                f"behaviour_steps={self.behaviour_steps}"
            )
        object.__setattr__(self, "hidden_sizes", self.network.hidden_sizes)

    @property
    def buffer_size(self) -> int:
        """Transitions that are trained on."""
        return self.buffer_rollouts * self.num_steps * self.num_envs

    @property
    def network(self) -> NetworkConfig:
        """The network's share of this."""
        return NetworkConfig(self.hidden_sizes, self.activation)


class HParams(NamedTuple):
    """Traced numbers: another value compiles nothing."""

    learning_rate: Scalar = 1e-3
    gamma: Scalar = 0.99  # discount
    gae_lambda: Scalar = 0.95
    clip: Scalar = 0.2  # of the target policy's probability ratio
    entropy_coefficient: Scalar = 0.01
    value_coefficient: Scalar = 0.5
    max_grad_norm: Scalar = 0.5  # of both policies
    target_kl: Scalar = 0.03  # skip the rest of an iteration's updates beyond it
    behaviour_learning_rate: Scalar = 1e-3
    behaviour_clip: Scalar = 0.3
    behaviour_kl: Scalar = 0.01  # skip the rest of a behaviour update beyond it
    behaviour_penalty: Scalar = 0.0  # lambda, of the KL from the target policy
    reward_scale: Scalar = 1.0
    anneal_steps: Scalar = float("inf")  # environment steps until the rate below is reached
    final_learning_rate: Scalar = 0.0


RANGES = ranges.of(
    HParams, behaviour_learning_rate=ranges.NOT_NEGATIVE, behaviour_clip=ranges.POSITIVE,
    behaviour_penalty=ranges.NOT_NEGATIVE,
)  # fmt: skip


class State(NamedTuple):
    """All there is to go on with."""

    key: Key
    params: PyTree  # of the target policy and the values
    optimizer: PyTree
    env: VecState
    statistics: Statistics
    buffer: Transition  # [b * T, N, ...], the newest rollout last; actions as sampled
    iteration: Array


def make(
    env: Env, config: Config = Config(), *, reset: ResetFactory | None = None
) -> Algorithm[HParams, State]:
    """PPO with PROPS on `env`. The same arguments give the same Algorithm.

    Raises TypeError or ValueError for what does not fit, before anything is compiled.
    """
    return _make(env, config, arguments.checked(env, config, Config, reset))


@functools.lru_cache(maxsize=256)
def _make(env: Env, config: Config, reset: ResetFactory) -> Algorithm:
    agent = agents.build(env, config, config.network, reset)
    parts = Parts(config, agent)

    def init(key: Key, hparams: HParams, task: Any) -> State:
        key, network_key, env_key = jax.random.split(key, 3)
        params = agent.network.init(network_key)
        shape = config.buffer_rollouts * config.num_steps, config.num_envs
        observation = spaces.zeros(agent.observation_space, shape)
        flags = jnp.zeros(shape, bool)
        buffer = Transition(
            observation, spaces.zeros(agent.action_space, shape), jnp.zeros(shape), flags, flags,
            observation,
        )  # fmt: skip
        optimizer = optim.adam(hparams.learning_rate, hparams.max_grad_norm).init(params)
        env_state = agent.vec_env.init(env_key, task)
        return State(
            key, params, optimizer, env_state, agent.statistics(), buffer, jnp.int32(0)
        )  # fmt: skip

    step = functools.partial(_iterate, parts)
    return agents.algorithm("props", env, config, reset, agent, init, step, HParams(), RANGES)


def _iterate(parts: Parts, state: State, hparams: HParams, task: Any) -> tuple[State, Metrics]:
    """A rollout under policies that fill the gaps of the buffer, and PPO on all of the buffer."""
    key, collect_key, update_key = jax.random.split(state.key, 3)
    env_state, buffer, valid, metrics = collect(
        parts.config, parts.agent, collect_key, state, hparams, task
    )
    statistics = props_update.counted(parts.config, state.statistics, buffer, hparams)
    seen = state._replace(statistics=statistics, buffer=buffer)
    samples = props_update.samples_of(parts, seen, valid, hparams)
    params, optimizer, reported = _update(parts, update_key, seen, samples, hparams)
    if parts.config.error_fit_steps:
        data = Data(samples.observation, samples.action, samples.weight)
        reported["sampling_error"] = fm.mean(props_sampler.sampling_error(
            parts.agent.network, state.params, data, parts.config.error_fit_steps
        ))  # fmt: skip
    state = State(key, params, optimizer, env_state, statistics, buffer, state.iteration + 1)
    return state, metrics | reported


def _update(
    parts: Parts, key: Key, state: State, samples: Sample, hparams: HParams
) -> tuple[PyTree, Any, Metrics]:
    """PPO's epochs of shuffled minibatches."""
    config = parts.config
    rate = agents.learning_rate(hparams, state.iteration, config.num_envs * config.num_steps)
    optimizer = optim.adam(rate, hparams.max_grad_norm)
    loss = functools.partial(props_update.loss, parts, hparams)
    rows = minibatches.shuffled(
        key, config.buffer_size, 1, config.num_epochs, config.num_minibatches
    )
    update = minibatches.update(
        optimizer, loss, lambda r: sharding.shard_batch(jax.tree.map(lambda x: x[r], samples))
    )
    start = state.params, state.optimizer
    end, reported = minibatches.descend_until(update, start, rows, "kl", hparams.target_kl)
    return *end, reported
