"""SQIRL: shallow Q-iteration via random exploration, one time step after the other.

Laidlaw, Zhu, Russell and Dragan 2024, "The Effective Horizon Explains Deep RL Performance in
Stochastic Environments" (arXiv:2312.08369), algorithm 1, in the form of its code.  For an episode
of at most T steps, iteration t = 0 .. T - 1 plays a batch of episodes: before step t by the
policies that were found so far, pi_0 .. pi_{t-1}, from there on uniformly at random; then fits on
the random part, by regression,

    Q^1(s_j, a_j)      to the return that followed, sum_i gamma^i r_{j+i}
    Q^{i+1}(s_j, a_j)  to r_j + gamma (1 - term_j) max_a Q^i(s_{j+1}, a)       i = 1 .. k - 1

and freezes pi_t, greedy on Q^k.  No exploration but random play, and no more than k - 1 steps of
value iteration: it solves what is k-QVI-solvable (see `fastrl.effective_horizon`).

Regression is by a network with k heads for each action, all trained at once, or by the mean of
every observation and action (`regression="table"`, for discrete observations, exact).  Only a
termination has nothing after it: a return that was cut off goes on with what Q^1 says of random
play.  After T iterations nothing more is learned.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from fastrl import door, optim, returns, sharding, spaces
from fastrl import metrics as fm
from fastrl.algorithms import agent as agents
from fastrl.kernels.permutation import permutation
from fastrl.metrics import Metrics
from fastrl.networks import Activation, NetworkConfig, Torso, encoder
from fastrl.spaces import Discrete, MultiDiscrete, Space
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
    Transition,
)
from fastrl.vec import VecEnv, VecState

_UNSEEN = -1e9  # the value of an action that a table knows nothing of


@dataclasses.dataclass(frozen=True)
class Config:
    """What shapes the program. An iteration takes `num_episodes * horizon` environment steps."""

    k: int = 1  # Q^k is acted on: k - 1 steps of value iteration
    num_episodes: int = 64  # at once, in every iteration
    horizon: int = 100  # T: steps that get a policy of their own, and of a batch of episodes
    num_epochs: int = 10  # passes over the random part of a batch
    batch_size: int = 256
    hidden_sizes: tuple[int, ...] = (64, 64)
    activation: Activation = "relu"
    regression: Literal["network", "table"] = "network"

    def __post_init__(self) -> None:
        for name in ("k", "num_episodes", "horizon", "num_epochs", "batch_size"):
            door.integer(name, getattr(self, name), 1)
        door.choice("regression", self.regression, ("network", "table"))
        size = self.num_episodes * self.horizon
        if self.regression == "network" and size % self.batch_size:
            raise ValueError(
                f"num_episodes*horizon={size} is not divisible by batch_size={self.batch_size}"
            )
        object.__setattr__(self, "hidden_sizes", self.network.hidden_sizes)

    @property
    def network(self) -> NetworkConfig:
        """The network's share of this."""
        return NetworkConfig(self.hidden_sizes, self.activation)


class HParams(NamedTuple):
    """Traced numbers: another value compiles nothing."""

    learning_rate: Scalar = 1e-3  # of Adam; the code has 1e-4
    gamma: Scalar = 1.0  # discount
    max_grad_norm: Scalar = 10.0


RANGES = {
    "learning_rate": door.Range(0.0), "gamma": door.Range(0.0, 1.0),
    "max_grad_norm": door.Range(0.0, open=True),
}  # fmt: skip


class State(NamedTuple):
    """All there is to go on with."""

    key: Key
    params: PyTree  # of the regression
    optimizer: optax.OptState
    frozen: PyTree  # the parameters of pi_0 .. pi_{T-1}, leaves [T, ...]
    memory: PyTree  # of the Reset
    iteration: Array  # t


class Regression(NamedTuple):
    """Values of all depths; leading axes are the batch."""

    init: Callable[[Key], PyTree]
    values: Callable[[PyTree, Observation], Array]  # -> Q^1 .. Q^k, [..., k, A]


class Batch(NamedTuple):
    """What is fitted, `[B, ...]`; only steps of weight 1 count."""

    observation: Observation
    action: Array
    reward: Array
    terminated: Array
    next_observation: Observation
    return_: Array
    weight: Array


def make(
    env: Env, config: Config = Config(), *, reset: ResetFactory | None = None
) -> Algorithm[HParams, State]:
    """SQIRL on `env`, which has Discrete actions. The same arguments give the same Algorithm.

    Raises TypeError or ValueError for what does not fit, before anything is compiled.
    """
    return _make(env, config, agents.checked(env, config, Config, reset))


@functools.lru_cache(maxsize=256)
def _make(env: Env, config: Config, reset: ResetFactory) -> Algorithm:
    task = env.default_params()
    space, actions = env.observation_space(task), env.action_space(task)
    if not isinstance(actions, Discrete):
        raise ValueError(f"action space {actions}: SQIRL takes one Discrete action")
    make_regression = _network if config.regression == "network" else _table
    parts = _Parts(
        config, VecEnv(env, config.num_episodes, reset(env)),
        make_regression(config, space, actions.n), actions.n,
    )  # fmt: skip

    def init(key: Key, hparams: HParams, task: Any) -> State:
        key, network_key, reset_key = jax.random.split(key, 3)
        params = parts.regression.init(network_key)
        optimizer = optim.adam(hparams.learning_rate, hparams.max_grad_norm).init(params)
        frozen = jax.tree.map(lambda x: jnp.stack([x] * config.horizon), params)
        memory = parts.vec_env.reset.init(reset_key, task, config.num_episodes)
        return State(key, params, optimizer, frozen, memory, jnp.int32(0))

    def act(
        state: State, carry: Array, observation: Observation, key: Key | None
    ) -> tuple[Action, Array]:
        """Greedy, also with a key; `carry` is the time."""
        flat, shape = _batched(space, observation, carry)
        action = _greedy(parts, state, flat, carry.reshape(-1))
        return action.reshape(shape), carry + 1

    def value(state: State, observation: Observation) -> Array:
        return parts.regression.values(state.params, observation)[..., -1, :].max(-1)

    return Algorithm(
        init, functools.partial(_iterate, parts), act, config.num_episodes * config.horizon,
        HParams(), env, value,
        parameters=lambda state: state.params,
        check=functools.partial(door.ranges, allowed=RANGES),
        initial_carry=lambda batch_shape: jnp.zeros(batch_shape, jnp.int32),
        recipe=Recipe("sqirl", env, config, reset),
    )  # fmt: skip


class _Parts(NamedTuple):
    """What is closed over."""

    config: Config
    vec_env: VecEnv
    regression: Regression
    num_actions: int


class _Heads(nn.Module):
    """Values of `k` depths for each of `A` actions, `[..., k, A]`."""

    config: NetworkConfig
    k: int
    num_actions: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        out = nn.Dense(self.k * self.num_actions)(Torso(self.config)(x))
        return out.reshape(*out.shape[:-1], self.k, self.num_actions)


def _network(config: Config, space: Space, num_actions: int) -> Regression:
    encode, heads = encoder(space), _Heads(config.network, config.k, num_actions)
    apply: Callable[..., Any] = heads.apply
    return Regression(
        lambda key: heads.init(key, encode(spaces.zeros(space))),
        lambda params, observation: apply(params, encode(observation)),
    )


def _table(config: Config, space: Space, num_actions: int) -> Regression:
    """A value for every observation; such as nothing is known of are `_UNSEEN`."""
    index, size = _numbered(space)
    shape = size, config.k, num_actions
    return Regression(
        lambda key: jnp.full(shape, _UNSEEN), lambda table, observation: table[index(observation)]
    )


def _numbered(space: Space) -> tuple[Callable[[Observation], Array], int]:
    """The number of an observation among all of `space`, and how many there are."""
    match space:
        case Discrete(n):
            return lambda x: x, n
        case MultiDiscrete(nvec):
            strides = np.cumprod((1, *nvec[:0:-1]))[::-1].astype(np.int32)
            return lambda x: jnp.tensordot(x, jnp.asarray(strides), 1), int(np.prod(nvec))
    raise ValueError(
        f"regression='table' needs Discrete or MultiDiscrete observations, not {space}: "
        "use regression='network'"
    )


def _batched(space: Space, observation: Observation, carry: Array) -> Any:
    """The observation with one leading axis, and the shape of the axes that it had."""
    shape = jnp.shape(carry)
    flat = spaces.tree_map(lambda s, x: jnp.reshape(x, (-1, *s.shape)), space, observation)
    return flat, shape


def _greedy(parts: _Parts, state: State, observation: Observation, time: Array) -> Array:
    """The action of pi_time, int32 `[N]`; from T on, and where there is none yet, of the newest."""
    newest = jnp.clip(state.iteration - 1, 0, parts.config.horizon - 1)

    def one(observation: Observation, time: Array) -> Array:
        params = jax.tree.map(lambda x: x[jnp.minimum(time, newest)], state.frozen)
        return parts.regression.values(params, observation)[-1].argmax()

    return jax.vmap(one)(observation, time).astype(jnp.int32)


def _iterate(parts: _Parts, state: State, hparams: HParams, task: Any) -> tuple[State, Metrics]:
    """A batch of episodes, a fit of its random part, and one more policy."""
    key, play_key, fit_key = jax.random.split(state.key, 3)
    batch, memory, metrics = _play(parts, play_key, state, hparams, task)
    fit = _fit_table if parts.config.regression == "table" else _fit_network
    fit = functools.partial(fit, parts, fit_key, hparams=hparams)
    going = state.iteration < parts.config.horizon
    shapes = jax.eval_shape(fit, state, batch)[2]
    params, optimizer, reported = jax.lax.cond(
        going, fit, lambda s, _: (s.params, s.optimizer, fm.zeros_like(shapes)), state, batch
    )
    at = jnp.minimum(state.iteration, parts.config.horizon - 1)
    frozen = jax.tree.map(lambda x, new: x.at[at].set(new), state.frozen, params)
    iteration = jnp.minimum(state.iteration + 1, parts.config.horizon)
    state = State(key, params, optimizer, frozen, memory, iteration)
    return state, metrics | reported


def _play(
    parts: _Parts, key: Key, state: State, hparams: HParams, task: Any
) -> tuple[Batch, PyTree, Metrics]:
    """`T` steps of every environment from a fresh start, flat; the random part has weight 1."""
    config, vec_env = parts.config, parts.vec_env
    start_key, play_key = jax.random.split(key)
    count = config.num_episodes
    first = vec_env.reset.draw(start_key, state.memory, task, jnp.ones(count, bool))
    start = VecState(*first, jnp.zeros(count, jnp.float32), jnp.zeros(count, jnp.int32))

    def body(env_state: VecState, key: Key) -> Any:
        action_key, step_key = jax.random.split(key)
        time = env_state.episode_length
        at_random = time >= state.iteration
        action = jnp.where(
            at_random,
            jax.random.randint(action_key, (count,), 0, parts.num_actions),
            _greedy(parts, state, env_state.observation, time),
        )
        env_state, seen, metrics = vec_env.step(step_key, env_state, action, task)
        return env_state, (seen, at_random.astype(jnp.float32), metrics)

    start = sharding.shard_envs(start, count)
    after, (seen, weight, metrics) = jax.lax.scan(
        body, start, jax.random.split(play_key, config.horizon)
    )
    seen, weight = sharding.collect((seen, weight))
    batch = _with_returns(parts, state.params, seen, weight, hparams)
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), batch)
    return flat, after.memory, fm.fold(metrics)


def _with_returns(
    parts: _Parts, params: PyTree, seen: Transition, weight: Array, hparams: HParams
) -> Batch:
    """The batch with the returns that followed; those that were cut off go on by Q^1."""
    after = parts.regression.values(params, seen.next_observation)[..., 0, :]
    at_random = jnp.where(after > 0.5 * _UNSEEN, after, 0.0).mean(-1)
    followed = returns.lambda_returns(
        seen.reward, at_random, seen.terminated, seen.truncated, hparams.gamma, 1.0
    )
    return Batch(
        seen.observation, seen.action, seen.reward, seen.terminated, seen.next_observation,
        followed, weight,
    )  # fmt: skip


def _targets(parts: _Parts, params: PyTree, batch: Batch, gamma: Scalar) -> Array:
    """What Q^1 .. Q^k are fitted to, `[B, k]`."""
    after = parts.regression.values(params, batch.next_observation)[..., :-1, :].max(-1)
    after = jnp.where(after > 0.5 * _UNSEEN, after, 0.0)  # [B, k - 1]
    after = jnp.where(batch.terminated[:, None], 0.0, after)
    deeper = batch.reward[:, None] + gamma * after
    return jax.lax.stop_gradient(jnp.concatenate([batch.return_[:, None], deeper], axis=1))


def _fit_network(
    parts: _Parts, key: Key, state: State, batch: Batch, hparams: HParams
) -> tuple[PyTree, Any, Metrics]:
    """`num_epochs` passes of Adam; all depths at once, the targets of one from the one below."""
    config = parts.config
    optimizer = optim.adam(hparams.learning_rate, hparams.max_grad_norm)
    size = config.num_episodes * config.horizon
    shuffle = functools.partial(permutation, a=config.horizon, b=config.num_episodes)
    order = jax.vmap(shuffle)(jax.random.split(key, config.num_epochs))

    def loss(params: PyTree, batch: Batch) -> tuple[Array, Metrics]:
        values = parts.regression.values(params, batch.observation)  # [B, k, A]
        chosen = jnp.take_along_axis(values, batch.action[:, None, None], -1)[..., 0]
        error = (chosen - _targets(parts, params, batch, hparams.gamma)) ** 2
        count = jnp.maximum(batch.weight.sum(), 1.0)
        reported = {"loss": fm.mean(error.mean(1), batch.weight > 0)}
        return (error.mean(1) * batch.weight).sum() / count, reported

    def minibatch(carry: Any, index: Array) -> Any:
        params, optimizer_state = carry
        part = sharding.shard_batch(jax.tree.map(lambda x: x[index], batch))
        gradient, reported = jax.grad(loss, has_aux=True)(params, part)
        updates, optimizer_state = optimizer.update(gradient, optimizer_state, params)
        return (optax.apply_updates(params, updates), optimizer_state), reported

    indices = order.reshape(config.num_epochs * size // config.batch_size, -1)
    start = state.params, state.optimizer
    (params, optimizer_state), reported = jax.lax.scan(minibatch, start, indices)
    return params, optimizer_state, fm.fold(jax.lax.stop_gradient(reported))


def _fit_table(
    parts: _Parts, key: Key, state: State, batch: Batch, hparams: HParams
) -> tuple[PyTree, Any, Metrics]:
    """The means of all targets, depth by depth; the table keeps what this batch did not meet."""
    del key
    space = parts.vec_env.env.observation_space(parts.vec_env.env.default_params())
    rows, _ = _numbered(space)
    at = rows(batch.observation), batch.action
    table = state.params
    counts = jnp.zeros(table.shape[::2]).at[at].add(batch.weight)  # [observations, A]

    def depth(i: int, table: Array) -> Array:
        target = jax.lax.dynamic_index_in_dim(
            _targets(parts, table, batch, hparams.gamma), i, 1, keepdims=False
        )
        sums = jnp.zeros(counts.shape).at[at].add(batch.weight * target)
        fitted = jnp.where(counts > 0, sums / jnp.maximum(counts, 1.0), table[:, i])
        return table.at[:, i].set(fitted)

    table = jax.lax.fori_loop(0, parts.config.k, depth, table)
    chosen = table[at[0], :, at[1]]
    error = ((chosen - _targets(parts, table, batch, hparams.gamma)) ** 2).mean(1)
    return table, state.optimizer, {"loss": fm.mean(error, batch.weight > 0)}
