"""PPO with memory: the policy and the value function carry a state from step to step.

Objective, advantages and numbers are those of `fastrl.algorithms.ppo`; what memory changes is (the
five LSTM details of "The 37 implementation details of PPO", Huang et al. 2022):

* the memory is a GRU, an LSTM or a small transformer with a bounded cache (`fastrl.memory`);
* it forgets at both kinds of end, inside of the cell, so rollouts run across episodes;
* an update starts from the memory as it was when the rollout began, and recomputes it from there
  with the parameters of each gradient step (backpropagation through `num_steps` steps);
* minibatches are some environments over the whole time, never pieces of time.

The value of the true successor, where an episode was truncated, is that of the memory that has
seen it.
"""

import dataclasses
import functools
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fastrl import (
    arguments,
    distributions,
    door,
    memory,
    normalize,
    objectives,
    optim,
    returns,
    sharding,
    spaces,
    storage,
)
from fastrl.algorithms import agent as agents
from fastrl.algorithms import minibatches, ppo_update, recurrent
from fastrl.algorithms.ppo import RANGES, HParams
from fastrl.algorithms.recurrent import Remembered, Trajectories
from fastrl.cells import Cell, MemoryConfig
from fastrl.memory import Recurrent
from fastrl.metrics import Metrics
from fastrl.networks import Activation, NetworkConfig
from fastrl.objectives import Objective
from fastrl.spaces import Space
from fastrl.types import (
    Action,
    Algorithm,
    Array,
    Env,
    Key,
    Observation,
    Recipe,
    ResetFactory,
)
from fastrl.vec import VecEnv, VecState

__all__ = ["Config", "HParams", "State", "make"]


@dataclasses.dataclass(frozen=True)
class Config:
    """What shapes the program. An iteration takes `num_envs * num_steps` environment steps."""

    num_envs: int = 32
    num_steps: int = 64  # of every environment, per iteration: as far as gradients reach back
    num_epochs: int = 4  # passes over the rollout
    num_minibatches: int = 4  # per pass, of whole environments
    cell: Cell = "gru"
    memory_size: int = 64
    window: int = 32  # transformer: how many entries it remembers
    heads: int = 2  # transformer
    layers: int = 1  # transformer
    sinks: int = 0  # transformer: learned keys and values beside those of the entries
    hidden_sizes: tuple[int, ...] = (64,)  # before the memory
    activation: Activation = "tanh"
    torso: Literal["mlp", "conv"] = "mlp"
    shared_torso: bool = True  # one torso and memory for policy and value
    normalize_observation: bool = False  # by running mean and variance
    normalize_reward: bool = False  # by the running std of the discounted return
    normalize_advantage: bool = True  # per minibatch

    def __post_init__(self) -> None:
        for name in ("num_envs", "num_steps", "num_epochs", "num_minibatches"):
            door.integer(name, getattr(self, name), 1)
        door.flags(self)
        minibatches.check_whole(self.num_envs, self.num_minibatches)
        door.integer("memory_size", self.memory_size, 1)
        _ = self.memory
        object.__setattr__(self, "hidden_sizes", self.network.hidden_sizes)

    @property
    def network(self) -> NetworkConfig:
        """The torsos' share of this."""
        return NetworkConfig(
            self.hidden_sizes, self.activation, self.torso, shared_torso=self.shared_torso
        )

    @property
    def memory(self) -> MemoryConfig:
        """The memory's share of this."""
        return MemoryConfig(
            self.cell, self.memory_size, self.window, self.heads, self.layers, self.sinks
        )


class State(NamedTuple):
    """All there is to go on with."""

    key: Key
    params: Any
    optimizer: optax.OptState
    env: VecState
    remembered: Remembered
    observations: normalize.RunningStatistics
    rewards: normalize.ReturnScale
    iteration: Array


class _Parts(NamedTuple):
    """What is closed over."""

    config: Config
    network: Recurrent
    objective: Objective
    vec_env: VecEnv
    action_space: Space
    storage: storage.Storage

    def see(self, state: State, observation: Observation) -> Observation:
        """The observation as the network sees it."""
        return normalize.seen(self.config, state, observation)


def make(
    env: Env,
    config: Config = Config(),
    *,
    objective: Objective = objectives.clip,
    reset: ResetFactory | None = None,
) -> Algorithm[HParams, State]:
    """PPO with memory on `env`. The same arguments give the same Algorithm.

    `reset` says where episodes start: by default `fastrl.reset.default(env)`.
    Raises TypeError or ValueError for what does not fit, before anything is compiled.
    """
    reset = arguments.checked(env, config, Config, reset)
    door.function("objective", objective, "fastrl.objectives.clip")
    return _make(env, config, objective, reset)


@functools.lru_cache(maxsize=256)
def _make(env: Env, config: Config, objective: Objective, reset: ResetFactory) -> Algorithm:
    task = env.default_params()
    space, action_space = env.observation_space(task), env.action_space(task)
    network = memory.recurrent(space, action_space, config.network, config.memory)
    vec_env = VecEnv(env, config.num_envs, arguments.starts(env, reset))
    parts = _Parts(config, network, objective, vec_env, action_space, storage.storage(space))

    def init(key: Key, hparams: HParams, task: Any) -> State:
        key, network_key, env_key = jax.random.split(key, 3)
        params = network.init(network_key)
        n = config.num_envs
        remembered = Remembered(network.initial_carry((n,)), jnp.ones(n, bool))
        return State(
            key, params, optim.adam(hparams.learning_rate, hparams.max_grad_norm).init(params),
            vec_env.init(env_key, task), sharding.shard_envs(remembered, n),
            normalize.init(space), normalize.init_return_scale(n), jnp.int32(0),
        )  # fmt: skip

    def act(
        state: State, carry: Any, observation: Observation, key: Key | None
    ) -> tuple[Action, Any]:
        going = jnp.zeros(_batch_shape(space, observation), bool)
        seen = parts.see(state, observation)
        carry, policy, _ = network.step(state.params, carry, seen, going)
        action = policy.mode() if key is None else policy.sample(key)
        return distributions.to_environment(action_space, action), carry

    def value(state: State, observation: Observation) -> Array:
        """Of the first observation of an episode."""
        batch = _batch_shape(space, observation)
        seen = parts.see(state, observation)
        start = jnp.ones(batch, bool)
        return network.step(state.params, network.initial_carry(batch), seen, start)[2]

    return Algorithm(
        init, functools.partial(_iterate, parts), act, config.num_envs * config.num_steps,
        HParams(), env, value, parameters=lambda state: state.params,
        check=functools.partial(door.ranges, allowed=RANGES), initial_carry=network.initial_carry,
        recipe=Recipe("ppo_memory", env, config, reset, objective),
    )  # fmt: skip


def _batch_shape(space: Space, observation: Observation) -> tuple[int, ...]:
    """The leading axes of `observation`."""
    leaf, like = jax.tree.leaves(observation)[0], jax.tree.leaves(space, is_leaf=spaces.is_leaf)[0]
    return leaf.shape[: leaf.ndim - len(like.shape)]


def _iterate(parts: _Parts, state: State, hparams: HParams, task: Any) -> tuple[State, Metrics]:
    """One iteration: a rollout, its advantages, and `num_epochs` passes of minibatches."""
    config, network = parts.config, parts.network
    key, rollout_key, shuffle_key = jax.random.split(state.key, 3)
    see = functools.partial(parts.see, state)
    env_state, remembered, collected, metrics = recurrent.collect(
        parts.vec_env, network, see, parts.storage.pack, parts.action_space, rollout_key,
        state.params, state.env, state.remembered, task, config.num_steps,
    )  # fmt: skip
    samples = collected.samples
    observation = parts.storage.unpack(samples.observation)
    reward, rewards = samples.reward * hparams.reward_scale, state.rewards
    if config.normalize_reward:
        done = samples.terminated | samples.truncated
        rewards, reward = normalize.scale_rewards(rewards, reward, done, hparams.gamma)
    (carry, start), last = sharding.collect((remembered, env_state.observation))
    last_value = network.step(state.params, carry, see(last), start)[2]
    advantage = returns.gae(
        reward, samples.value, agents.next_values(samples, samples.value, last_value),
        samples.terminated, samples.truncated, hparams.gamma, hparams.gae_lambda,
    )  # fmt: skip
    samples = samples._replace(
        observation=see(observation), reward=reward, advantage=advantage,
        target=advantage + samples.value,
    )  # fmt: skip
    whole = collected._replace(samples=samples)

    def outputs(params: Any, batch: Trajectories) -> Any:
        observation = batch.samples.observation
        _, policy, value = network.unroll(params, batch.carry, observation, batch.start)
        return policy, value, batch.samples

    envs = minibatches.shuffled(
        shuffle_key, 1, config.num_envs, config.num_epochs, config.num_minibatches
    )
    params, optimizer, update_metrics = ppo_update.update(
        parts.objective, config, outputs, whole.of, envs, state, samples, hparams
    )
    observations = state.observations
    if config.normalize_observation:
        observations = normalize.update(observations, observation)
    state = State(
        key, params, optimizer, env_state, remembered, observations, rewards, state.iteration + 1
    )  # fmt: skip
    return state, metrics | update_metrics
