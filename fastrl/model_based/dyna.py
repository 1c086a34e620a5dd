"""Dyna-Q: values of actions from what a model of the world imagines, learned as it happens.

Sutton 1990, "Integrated architectures for learning, planning, and reacting", with a network of
values.  After each step of the environment the model takes in what happened, as

    (s, a) -> (s' - s, r, terminated)

and then come `num_planning` updates of Q-learning, each on a batch of one real transition, the
newest, and imagined ones, from states that were seen and actions by chance:

    Q(s, a) -> r + gamma (1 - terminated) max_b Q_target(s', b)

The model is Losse (`fastrl.model_based.losse`), or a network with or without replay.  Of the past
only the model, the values, and some states to plan from are kept.
"""

import dataclasses
import functools
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from fastrl import arguments, buffers, door, networks, optim
from fastrl import metrics as fm
from fastrl.metrics import Metrics
from fastrl.model_based import losse, mlp_model, planning
from fastrl.model_based import model as models
from fastrl.model_based.model import Model
from fastrl.model_based.planning import Imagined, Planner, Values, plan
from fastrl.networks import Activation, NetworkConfig
from fastrl.q_network import discrete, epsilon_greedy, q_network
from fastrl.spaces import Box
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

ModelName = Literal["losse", "mlp", "mlp_replay"]


@dataclasses.dataclass(frozen=True)
class Config:
    """What shapes the program."""

    num_steps: int = 500  # environment steps in one iteration
    num_planning: int = 1  # updates of the values after each of them
    batch_size: int = 32  # transitions of an update, all but one imagined
    num_starts: int = 10_000  # states to plan from: the newest
    learning_starts: int = 100  # environment steps before the first update
    hidden_sizes: tuple[int, ...] = (64, 64)  # of the values
    activation: Activation = "relu"
    model: ModelName = "losse"
    grids: int = 50  # Losse: G
    bins: int = 5
    dimensions: int = 2
    model_hidden_sizes: tuple[int, ...] = (64, 64)  # of a network as the model
    model_batch_size: int = 32  # mlp_replay: old pairs beside the newest
    model_buffer_size: int = 10_000  # mlp_replay: pairs

    def __post_init__(self) -> None:
        for name in ("num_steps", "num_planning", "num_starts", "model_batch_size"):
            door.integer(name, getattr(self, name), 1)
        door.integer("batch_size", self.batch_size, 2)
        door.integer("learning_starts", self.learning_starts, 0)
        door.choice("model", self.model, ("losse", "mlp", "mlp_replay"))
        object.__setattr__(self, "hidden_sizes", self.network.hidden_sizes)
        self.world(1, 1)

    @property
    def network(self) -> NetworkConfig:
        """Of the values."""
        return NetworkConfig(self.hidden_sizes, self.activation)

    def world(self, num_inputs: int, num_outputs: int) -> Model:
        """The model of the world."""
        if self.model == "losse":
            grids = losse.Grids(num_inputs, self.grids, self.bins, self.dimensions)
            return losse.model(grids, num_outputs)
        replayed = self.model_batch_size if self.model == "mlp_replay" else 0
        shape = mlp_model.Shape(
            num_inputs, num_outputs, tuple(self.model_hidden_sizes), replayed,
            self.model_buffer_size,
        )  # fmt: skip
        return mlp_model.model(shape)


class HParams(NamedTuple):
    """Traced numbers: another value compiles nothing."""

    learning_rate: Scalar = 1e-3  # of the values, by Adam
    gamma: Scalar = 0.99
    epsilon: Scalar = 1.0  # chance of a random action at the start
    final_epsilon: Scalar = 0.05
    exploration_steps: Scalar = 2_000.0  # environment steps from the first epsilon to the last
    tau: Scalar = 0.01  # share of the values that goes into their target at each update
    max_grad_norm: Scalar = 10.0
    ridge: Scalar = 1e-4  # see `model.ModelHParams`
    gain: Scalar = 4.0
    model_learning_rate: Scalar = 1e-3


_SHARE, _POSITIVE = door.Range(0.0, 1.0), door.Range(0.0, open=True)
RANGES = models.RANGES | {
    "learning_rate": door.Range(0.0), "gamma": _SHARE, "epsilon": _SHARE, "final_epsilon": _SHARE,
    "tau": _SHARE, "exploration_steps": _POSITIVE, "max_grad_norm": _POSITIVE,
}  # fmt: skip


class State(NamedTuple):
    """All there is to go on with."""

    key: Key
    values: Values
    model: PyTree
    starts: PyTree  # a ring of states as vectors [D]
    env: VecState
    steps: Array  # int32: environment steps so far


class _Parts(NamedTuple):
    """What is closed over."""

    config: Config
    vec_env: VecEnv
    planner: Planner


def make(
    env: Env, config: Config = Config(), *, reset: ResetFactory | None = None
) -> Algorithm[HParams, State]:
    """Dyna-Q on `env`. The same arguments give the same Algorithm.

    Raises TypeError or ValueError for what does not fit, before anything is compiled.
    """
    return _make(env, config, arguments.checked(env, config, Config, reset))


@functools.lru_cache(maxsize=256)
def _make(env: Env, config: Config, reset: ResetFactory) -> Algorithm:
    starts = arguments.starts(env, reset)
    plans = planner(env, config)
    parts = _Parts(config, VecEnv(env, 1, starts), plans)

    def values(state: State, observation: Observation) -> Array:
        return plans.q(state.values.params, plans.encode(observation))

    def act(
        state: State, carry: Any, observation: Observation, key: Key | None
    ) -> tuple[Action, Any]:
        return jnp.argmax(values(state, observation), -1).astype(jnp.int32), carry

    return Algorithm(
        functools.partial(_init, parts), functools.partial(_iterate, parts), act,
        config.num_steps, HParams(), env,
        value=lambda state, observation: values(state, observation).max(-1),
        parameters=lambda state: (state.values.params, state.model),
        check=functools.partial(door.ranges, allowed=RANGES),
        recipe=Recipe("dyna", env, config, reset),
    )  # fmt: skip


def planner(env: Env, config: Config) -> Planner:
    """What plans on `env`. Raises ValueError for observations or actions that do not fit."""
    task = env.default_params()
    space, actions = env.observation_space(task), discrete(env.action_space(task))
    view, critic, mask = networks.split_views(space)
    if mask is not None or critic != view:
        raise ValueError("Dyna imagines observations: they can't have an action_mask or a critic")
    encoder = networks.encoder(view)
    middle, reach = planning.ranges(view)
    width = len(middle)
    return Planner(
        lambda observation: encoder(networks.split_views(observation)[0]), width, middle, reach,
        q_network(Box(-jnp.inf, jnp.inf, (width,)), actions, config.network),
        config.world(width + actions.n, width + 2), buffers.uniform(config.num_starts, 1),
        config.num_planning, config.batch_size,
    )  # fmt: skip


def _init(parts: _Parts, key: Key, hparams: HParams, task: Any) -> State:
    key, q_key, model_key, env_key = jax.random.split(key, 4)
    plans = parts.planner
    params = plans.network.init(q_key)
    optimizer = optim.adam(hparams.learning_rate, hparams.max_grad_norm).init(params)
    values = Values(params, jax.tree.map(jnp.copy, params), optimizer)
    starts = plans.starts.init(jnp.zeros(plans.width))
    model = plans.world.init(model_key, hparams)
    return State(key, values, model, starts, parts.vec_env.init(env_key, task), jnp.int32(0))


def _iterate(parts: _Parts, state: State, hparams: HParams, task: Any) -> tuple[State, Metrics]:
    body = lambda state, _: _one(parts, state, hparams, task)  # noqa: E731
    state, metrics = jax.lax.scan(body, state, None, parts.config.num_steps)
    return state, fm.summed(metrics)


def _one(parts: _Parts, state: State, hparams: HParams, task: Any) -> tuple[State, Metrics]:
    """One step of the environment, what the model learns of it, and the planning after it."""
    key, action_key, env_key, model_key, plan_key = jax.random.split(state.key, 5)
    plans = parts.planner
    x = plans.encode(state.env.observation)
    q_t = plans.q(state.values.params, x)
    progress = state.steps.astype(jnp.float32) / hparams.exploration_steps
    epsilon = optim.linear(hparams.epsilon, hparams.final_epsilon, progress)
    action = epsilon_greedy(action_key, q_t, epsilon, x)
    env, seen, metrics = parts.vec_env.step(env_key, state.env, action, task)
    after = plans.encode(seen.next_observation)
    end = seen.terminated.astype(jnp.float32)
    real = Imagined(x, action, after, seen.reward, end)
    told = jnp.concatenate([after - x, seen.reward[:, None], end[:, None]], -1)
    pair = plans.pair(x, action)
    surprise = jnp.square(plans.world.predict(state.model, pair) - told).mean()
    model = plans.world.update(model_key, state.model, pair[0], told[0], hparams)
    starts = plans.starts.add(state.starts, x[None])
    steps = state.steps + 1
    values, loss = jax.lax.cond(
        steps > parts.config.learning_starts,
        lambda: plan(plans, plan_key, state.values, model, starts, real, hparams),
        lambda: (state.values, jnp.float32(0.0)),
    )
    metrics |= {
        "loss": fm.each(loss, steps > parts.config.learning_starts),
        "q_value": fm.each(q_t.max()), "model_error": fm.each(surprise),
    }  # fmt: skip
    return State(key, values, model, starts, env, steps), metrics
