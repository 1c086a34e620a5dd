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
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fastrl import arguments, door, optim, returns, sharding, spaces
from fastrl import metrics as fm
from fastrl.algorithms import ranges
from fastrl.algorithms.sqirl_regression import Batch, Regression, known, network, table
from fastrl.metrics import Metrics
from fastrl.networks import Activation, NetworkConfig
from fastrl.spaces import Discrete, Space
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


RANGES = ranges.of(HParams)


class State(NamedTuple):
    """All there is to go on with."""

    key: Key
    params: PyTree  # of the regression
    optimizer: optax.OptState
    frozen: PyTree  # the parameters of pi_0 .. pi_{T-1}, leaves [T, ...]
    memory: PyTree  # of the Reset
    iteration: Array  # t


def make(
    env: Env, config: Config = Config(), *, reset: ResetFactory | None = None
) -> Algorithm[HParams, State]:
    """SQIRL on `env`, which has Discrete actions. The same arguments give the same Algorithm.

    Raises TypeError or ValueError for what does not fit, before anything is compiled.
    """
    return _make(env, config, arguments.checked(env, config, Config, reset))


@functools.lru_cache(maxsize=256)
def _make(env: Env, config: Config, reset: ResetFactory) -> Algorithm:
    task = env.default_params()
    space, actions = env.observation_space(task), env.action_space(task)
    if not isinstance(actions, Discrete):
        raise ValueError(f"action space {actions}: SQIRL takes one Discrete action")
    make_regression = network if config.regression == "network" else table
    parts = _Parts(
        config, VecEnv(env, config.num_episodes, arguments.starts(env, reset)),
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

    def fit() -> Any:
        return parts.regression.fit(state.params, state.optimizer, batch, fit_key, hparams)

    nothing = fm.zeros_like(jax.eval_shape(fit)[2])
    params, optimizer, reported = jax.lax.cond(
        state.iteration < parts.config.horizon, fit,
        lambda: (state.params, state.optimizer, nothing),
    )  # fmt: skip
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
    at_random = known(parts.regression.values(params, seen.next_observation)[..., 0, :]).mean(-1)
    followed = returns.lambda_returns(
        seen.reward, at_random, seen.terminated, seen.truncated, hparams.gamma, 1.0
    )
    return Batch(
        seen.observation, seen.action, seen.reward, seen.terminated, seen.next_observation,
        followed, weight,
    )  # fmt: skip
