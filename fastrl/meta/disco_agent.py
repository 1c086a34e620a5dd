"""An agent that learns by DiscoRL's rule: policy, predictions and values, with a target network.

An iteration is a rollout of `num_steps` steps of `num_envs` environments and one step of Adam on
the rule's loss.  With `buffer_size` it learns from rollouts of before too, `batch_size` of them
drawn uniformly; the rule corrects for the policy that acted.  The target network, which the rule
sees, is a running mean of the parameters.

The network is that of the released code (google-deepmind/disco_rl): dense layers without an
activation at their end, linear heads for what depends on the state; for what depends on the
action an LSTM whose state comes from the dense layers takes one step for every action, and a
network for each output follows.  Adam's denominator is a constant for meta-gradients, and each
entry of a step is at most `max_update` learning rates.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax

from fastrl import buffers, door
from fastrl import reset as resets
from fastrl.meta import disco_agent_learning as learning
from fastrl.meta import disco_agent_network, lpg_optimizer
from fastrl.meta.disco import Weights
from fastrl.meta.disco_agent_learning import Parts, State
from fastrl.meta.disco_cmpo import CMPO
from fastrl.metrics import Metrics
from fastrl.networks import NetworkConfig
from fastrl.types import (
    Algorithm,
    Array,
    Env,
    Key,
    Recipe,
    ResetFactory,
    Scalar,
    Transition,
)
from fastrl.vec import VecEnv

_CMPO = CMPO()


@dataclasses.dataclass(frozen=True)
class Config:
    """What shapes the program. An iteration takes `num_envs * num_steps` environment steps."""

    num_envs: int = 64
    num_steps: int = 29
    buffer_size: int = 0  # rollouts of one environment that are kept; 0: the newest of all
    batch_size: int = 64  # of these in an update; without buffer, all environments'
    hidden_sizes: tuple[int, ...] = (512, 512)
    model_size: int = 128  # of the LSTM that takes an action
    head_sizes: tuple[int, ...] = (128,)  # of the outputs that depend on the action

    def __post_init__(self) -> None:
        for name in ("num_envs", "num_steps", "batch_size", "model_size"):
            door.integer(name, getattr(self, name), 1)
        door.integer("buffer_size", self.buffer_size, 0)
        for name in ("hidden_sizes", "head_sizes"):
            sizes = NetworkConfig(getattr(self, name)).hidden_sizes
            object.__setattr__(self, name, sizes)
        if not self.hidden_sizes:
            raise ValueError("hidden_sizes=(): needs a layer at least")
        if self.buffer_size and self.buffer_size < max(self.batch_size, self.num_envs):
            raise ValueError(
                f"buffer_size={self.buffer_size} is below batch_size={self.batch_size} or "
                f"num_envs={self.num_envs}: 0 learns from the newest rollout only"
            )


class HParams(NamedTuple):
    """Traced numbers: another value compiles nothing. Defaults are those of the released code."""

    learning_rate: Scalar = 3e-4
    max_update: Scalar = 1.0  # of an entry, in learning rates
    gamma: Scalar = 0.997
    td_lambda: Scalar = 0.95
    target_decay: Scalar = 0.9  # of the target network, per update
    weights: Weights = Weights()  # of the terms of the loss
    objective: Any = ()  # parameters of the rule


RANGES = {
    "learning_rate": door.Range(0.0), "max_update": door.Range(0.0, open=True),
    "gamma": door.Range(0.0, 1.0), "td_lambda": door.Range(0.0, 1.0),
    "target_decay": door.Range(0.0, 1.0),
}  # fmt: skip


class Agent(NamedTuple):
    """The Algorithm, and the pieces of its `step` for those who look inside."""

    algorithm: Algorithm
    # (state, hparams, task) -> (state, Transition [T, N], Regularisers, metrics): one iteration
    advance: Any
    # (key, state, task) -> (state, Transition [T, N], metrics): a rollout of the policy
    collect: Any
    policy: Any  # (state, observation) -> Distribution


def make(
    env: Env, config: Config = Config(), *, objective: Any = _CMPO,
    reset: ResetFactory | None = None,
) -> Algorithm[HParams, State]:  # fmt: skip
    """An agent that learns on `env` by the rule `objective`, with discrete actions.

        rule = disco.Disco(prediction_size=16, hidden_size=32)
        algorithm = disco_agent.make(env, objective=rule)
        hparams = disco_agent.HParams(objective=rule.init(key))

    The default, `disco_cmpo.CMPO`, is written by hand and has no parameters.  Raises TypeError or
    ValueError for what does not fit, before anything is compiled.
    """
    return agent(env, config, objective=objective, reset=reset).algorithm


def agent(
    env: Env, config: Config = Config(), *, objective: Any = _CMPO,
    reset: ResetFactory | None = None,
) -> Agent:  # fmt: skip
    """The same with its pieces. Equal arguments give the same Agent: nothing compiles twice."""
    door.environment(env)
    door.record("config", config, Config)
    for name in ("init", "memory", "targets", "loss"):
        door.function(f"objective.{name}", getattr(objective, name, None), f"disco.Disco().{name}")
    return _make(env, config, objective, reset or resets.default(env))


@functools.lru_cache(maxsize=256)
def _make(env: Env, config: Config, rule: Any, reset: ResetFactory) -> Agent:
    parts = _parts(env, config, rule, reset)
    network = parts.network

    def act(state: State, carry: Any, observation: Any, key: Key | None) -> tuple[Array, Any]:
        said = network.policy(state.params, observation)
        return said.mode() if key is None else said.sample(key), carry

    def step(state: State, hparams: HParams, task: Any) -> tuple[State, Metrics]:
        state, _, _, metrics = learning.advance(parts, state, hparams, task)
        return state, metrics

    def collect(key: Key, state: State, task: Any) -> tuple[State, Transition, Metrics]:
        state, seen, metrics = learning.collect(parts, key, state, task)
        return state, seen.transition, metrics

    algorithm = Algorithm(
        functools.partial(_init, parts), step, act, config.num_envs * config.num_steps,
        HParams(), env,
        parameters=lambda state: state.params, check=_check,
        recipe=Recipe("disco_agent", env, config, reset, rule),
    )  # fmt: skip
    return Agent(
        algorithm, functools.partial(learning.advance, parts), collect,
        lambda state, x: network.policy(state.params, x),
    )  # fmt: skip


def _parts(env: Env, config: Config, rule: Any, reset: ResetFactory) -> Parts:
    task = env.default_params()
    network = disco_agent_network.network(
        env.observation_space(task), env.action_space(task), rule.heads,
        config.hidden_sizes, config.model_size, config.head_sizes,
    )  # fmt: skip
    size = config.buffer_size
    buffer = buffers.uniform(size, config.num_envs) if size else None
    return Parts(config, rule, network, VecEnv(env, config.num_envs, reset(env)), buffer)


def _init(parts: Parts, key: Key, hparams: HParams, task: Any) -> State:
    key, network_key, env_key = jax.random.split(key, 3)
    params = parts.network.init(network_key)
    optimizer = lpg_optimizer.optimizer("adam").init(params)
    memory = parts.rule.memory(hparams.objective, params)
    state = State(key, params, params, optimizer, memory, (), parts.vec_env.init(env_key, task))
    if parts.buffer is None:
        return state
    shapes = jax.eval_shape(functools.partial(learning.collect, parts), key, state, task)[1]
    item = jax.tree.map(lambda x: jax.ShapeDtypeStruct((x.shape[0], *x.shape[2:]), x.dtype), shapes)
    return state._replace(buffer=parts.buffer.init(item))


def _check(hparams: HParams) -> None:
    door.ranges(hparams, RANGES)
    door.ranges(hparams.weights, dict.fromkeys(Weights._fields, door.Range(0.0)))
