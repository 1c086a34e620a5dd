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
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from fastrl import buffers, door
from fastrl import metrics as fm
from fastrl import reset as resets
from fastrl.buffers import ring
from fastrl.meta import disco_agent_network, lpg_optimizer
from fastrl.meta.disco import Inputs, Weights
from fastrl.meta.disco_agent_network import Network
from fastrl.meta.disco_cmpo import CMPO
from fastrl.meta.lpg_agent import ROLLOUT
from fastrl.meta.lpg_types import Regularisers
from fastrl.meta.meta_gradient_inner import Advanced, View
from fastrl.metrics import Metrics
from fastrl.networks import NetworkConfig
from fastrl.types import (
    Algorithm,
    Array,
    Env,
    Key,
    PyTree,
    Recipe,
    ResetFactory,
    Scalar,
    Transition,
)
from fastrl.vec import VecEnv, VecState, rollout

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


class Seen(NamedTuple):
    """A rollout and the log-probabilities of its policy, `[T, N, ...]`."""

    transition: Transition
    behaviour: Array  # [T, N, A]


class State(NamedTuple):
    """All there is to go on with."""

    key: Key
    params: PyTree
    target: PyTree  # parameters of the target network
    optimizer: Any
    memory: PyTree  # of the rule
    buffer: Any  # rollouts `[L, N, T, ...]`; () without
    env: VecState


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
    door.environment(env)
    door.record("config", config, Config)
    for name in ("init", "memory", "targets", "loss"):
        door.function(f"objective.{name}", getattr(objective, name, None), f"disco.Disco().{name}")
    return _make(env, config, objective, reset or resets.default(env))


@functools.lru_cache(maxsize=256)
def _make(env: Env, config: Config, rule: Any, reset: ResetFactory) -> Algorithm:
    parts = _parts(env, config, rule, reset)
    policy = parts.network.policy

    def act(state: State, carry: Any, observation: Any, key: Key | None) -> tuple[Array, Any]:
        said = policy(state.params, observation)
        return said.mode() if key is None else said.sample(key), carry

    def step(state: State, hparams: HParams, task: Any) -> tuple[State, Metrics]:
        done = _advance(parts, state, hparams, task)
        return done.state, done.metrics

    return Algorithm(
        functools.partial(_init, parts), step, act, config.num_envs * config.num_steps,
        HParams(), env,
        parameters=lambda state: state.params, check=_check,
        recipe=Recipe("disco_agent", env, config, reset, rule),
    )  # fmt: skip


@functools.lru_cache(maxsize=256)
def view(inner: Algorithm) -> View:
    """How `meta_gradient` looks into such an agent: its argument `view`.

    Raises ValueError for another algorithm.
    """
    recipe = inner.recipe
    if recipe is None or not isinstance(recipe.config, Config) or recipe.reset is None:
        raise ValueError("inner is no disco_agent: pass the view that belongs to it")
    parts = _parts(recipe.env, recipe.config, recipe.objective, recipe.reset)

    def collect(key: Key, state: State, task: Any) -> tuple[State, Transition, Metrics]:
        state, seen, metrics = _collect(parts, key, state, task)
        return state, seen.transition, metrics

    return View(
        functools.partial(_advance, parts), collect,
        lambda state, x: parts.network.policy(state.params, x), inner.steps_per_iteration,
    )  # fmt: skip


class _Parts(NamedTuple):
    """What is closed over."""

    config: Config
    rule: Any
    network: Network
    vec_env: VecEnv
    buffer: buffers.Buffer | None


def _parts(env: Env, config: Config, rule: Any, reset: ResetFactory) -> _Parts:
    task = env.default_params()
    network = disco_agent_network.network(
        env.observation_space(task), env.action_space(task), rule.heads,
        config.hidden_sizes, config.model_size, config.head_sizes,
    )  # fmt: skip
    size = config.buffer_size
    buffer = buffers.uniform(size, config.num_envs) if size else None
    return _Parts(config, rule, network, VecEnv(env, config.num_envs, reset(env)), buffer)


def _init(parts: _Parts, key: Key, hparams: HParams, task: Any) -> State:
    key, network_key, env_key = jax.random.split(key, 3)
    params = parts.network.init(network_key)
    optimizer = lpg_optimizer.optimizer("adam").init(params)
    memory = parts.rule.memory(hparams.objective, params)
    state = State(key, params, params, optimizer, memory, (), parts.vec_env.init(env_key, task))
    if parts.buffer is None:
        return state
    shapes = jax.eval_shape(functools.partial(_collect, parts), key, state, task)[1]
    item = jax.tree.map(lambda x: jax.ShapeDtypeStruct((x.shape[0], *x.shape[2:]), x.dtype), shapes)
    return state._replace(buffer=parts.buffer.init(item))


def _advance(parts: _Parts, state: State, hparams: HParams, task: Any) -> Advanced:
    """One iteration; differentiable in `hparams.objective` and the parameters."""
    key, rollout_key, draw_key = jax.random.split(state.key, 3)
    state, seen, metrics = _collect(parts, rollout_key, state._replace(key=key), task)
    if parts.buffer is None:
        after, regularisers, told = _update(parts, state, seen, hparams)
        return Advanced(after, seen.transition, regularisers, metrics | told)
    block = jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1)[None], seen)
    state = state._replace(buffer=parts.buffer.add(state.buffer, block))
    size = parts.config.batch_size
    draw = parts.buffer.sample(state.buffer, draw_key, size)
    batch = ring.take(state.buffer.items, draw.row, draw.env)
    batch = jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), batch)
    after, regularisers, told = _update(parts, state, batch, hparams)
    enough = state.buffer.size * parts.config.num_envs >= size
    learned = lambda s: (s.params, s.target, s.optimizer, s.memory)  # noqa: E731
    pick = lambda a, b: jnp.where(enough, a, b)  # noqa: E731
    kept = jax.tree.map(pick, learned(after), learned(state))
    names = ("params", "target", "optimizer", "memory")
    state = state._replace(**dict(zip(names, kept, strict=True)))
    return Advanced(state, seen.transition, regularisers, metrics | told)


def _collect(parts: _Parts, key: Key, state: State, task: Any) -> tuple[State, Seen, Metrics]:
    """A rollout of the policy, which nothing is differentiated through."""
    params = jax.lax.stop_gradient(state.params)

    def policy(key: Key, observation: Any) -> tuple[Array, Array]:
        said: Any = parts.network.policy(params, observation)
        return said.sample(key), said.log_p

    env, seen, metrics = rollout(
        parts.vec_env, policy, key, state.env, task, parts.config.num_steps, keep=Seen
    )
    return state._replace(env=env), checkpoint_name(seen, ROLLOUT), metrics


def _update(
    parts: _Parts, state: State, seen: Seen, hparams: HParams
) -> tuple[State, Regularisers, Metrics]:
    """One step on the rule's loss."""
    rule, eta, (t, behaviour), apply = parts.rule, hparams.objective, seen, parts.network.apply
    see = lambda params: apply(params, t.observation)  # noqa: E731
    outputs, pull_back = jax.vjp(see, state.params)
    inputs = Inputs(
        t.action, t.reward, t.terminated, t.truncated, outputs,
        apply(state.params, t.next_observation), see(state.target),
        apply(state.target, t.next_observation), behaviour, hparams.gamma, hparams.td_lambda,
    )  # fmt: skip
    targets, memory = rule.targets(eta, state.memory, inputs)

    def loss(outputs: Any) -> tuple[Array, dict[str, Array]]:
        each, reported = rule.loss(eta, outputs, inputs, targets, hparams.weights)
        return each.mean(), reported

    errors, reported = jax.grad(loss, has_aux=True)(outputs)
    (gradient,) = pull_back(errors)
    optimizer, params = _stepped(state, gradient, hparams)
    mix = lambda old, new: hparams.target_decay * old + (1.0 - hparams.target_decay) * new  # noqa: E731
    target = jax.tree.map(mix, state.target, state.params)
    regularisers = rule.regularisers(see(params), targets)
    reported = reported | {"entropy": regularisers.policy_entropy}
    metrics = {name: fm.mean(jax.lax.stop_gradient(x)) for name, x in reported.items()}
    state = state._replace(params=params, target=target, optimizer=optimizer, memory=memory)
    return state, regularisers, metrics


def _stepped(state: State, gradient: PyTree, hparams: HParams) -> tuple[Any, PyTree]:
    """Adam, with each entry of its step clipped."""
    adam = lpg_optimizer.optimizer("adam")
    zeros = jax.tree.map(jnp.zeros_like, state.params)
    optimizer, move = adam.apply(state.optimizer, zeros, gradient, 1.0)
    limit, rate = hparams.max_update, hparams.learning_rate
    step = lambda p, m: p + rate * jnp.clip(m, -limit, limit)  # noqa: E731
    return optimizer, jax.tree.map(step, state.params, move)


def _check(hparams: HParams) -> None:
    door.ranges(hparams, RANGES)
    door.ranges(hparams.weights, dict.fromkeys(Weights._fields, door.Range(0.0)))
