"""Deep Q-learning (Mnih et al. 2015) with the improvements of Rainbow as switches.

Double (van Hasselt et al. 2016, arXiv:1509.06461), dueling (Wang et al. 2016), n-step targets and
prioritised replay (Schaul et al. 2016).
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fastrl import door, optim
from fastrl import metrics as fm
from fastrl import reset as resets
from fastrl.algorithms import off_policy
from fastrl.algorithms.off_policy import Batch, Learner
from fastrl.metrics import Metrics
from fastrl.networks import Activation, NetworkConfig
from fastrl.q_network import QNetwork, allowed, epsilon_greedy, q_network
from fastrl.types import (
    Action,
    Algorithm,
    Array,
    Env,
    Key,
    Observation,
    Recipe,
    Reset,
    ResetFactory,
    Scalar,
)


@dataclasses.dataclass(frozen=True)
class Config(off_policy.Config):
    """What shapes the program; the fields of `off_policy.Config` and these."""

    num_steps: int = 10
    batch_size: int = 128
    buffer_size: int = 10_000
    learning_starts: int = 10_000
    hidden_sizes: tuple[int, ...] = (120, 84)
    activation: Activation = "relu"
    torso: str = "mlp"
    layer_norm: bool = False
    double: bool = False
    dueling: bool = False
    prioritised: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "hidden_sizes", self.network.hidden_sizes)

    @property
    def network(self) -> NetworkConfig:
        """The network's share of this."""
        return NetworkConfig(
            self.hidden_sizes, self.activation, self.torso,  # type: ignore[arg-type]
            layer_norm=self.layer_norm,
        )  # fmt: skip


class HParams(NamedTuple):
    """Traced numbers: another value compiles nothing."""

    learning_rate: Scalar = 2.5e-4
    gamma: Scalar = 0.99
    epsilon: Scalar = 1.0  # chance of a random action at the start
    final_epsilon: Scalar = 0.05
    exploration_steps: Scalar = 250_000  # environment steps from the first epsilon to the last
    target_period: Scalar = 50  # updates between copies into the target network
    tau: Scalar = 1.0  # share of the network in such a copy
    max_grad_norm: Scalar = float("inf")
    alpha: Scalar = 0.6  # exponent of priorities
    beta: Scalar = 0.4  # exponent of importance weights at the start
    beta_steps: Scalar = 500_000  # environment steps until it is 1
    anneal_steps: Scalar = float("inf")  # until the rate below is reached
    final_learning_rate: Scalar = 0.0


_POSITIVE = door.Range(0.0, open=True)
_SHARE = door.Range(0.0, 1.0)
RANGES = {
    "learning_rate": door.Range(0.0), "final_learning_rate": door.Range(0.0),
    "gamma": _SHARE, "epsilon": _SHARE, "final_epsilon": _SHARE, "tau": _SHARE, "beta": _SHARE,
    "alpha": door.Range(0.0), "exploration_steps": _POSITIVE, "target_period": door.Range(1.0),
    "max_grad_norm": _POSITIVE, "beta_steps": _POSITIVE, "anneal_steps": _POSITIVE,
}  # fmt: skip


class Learned(NamedTuple):
    """Networks and optimiser."""

    params: Any
    target: Any
    optimizer: optax.OptState
    updates: Array  # int32


def make(
    env: Env, config: Config = Config(), *, reset: ResetFactory | None = None
) -> Algorithm[HParams, off_policy.State]:
    """DQN on `env`. The same arguments give the same Algorithm, so nothing compiles twice.

    Raises TypeError or ValueError for what does not fit, before anything is compiled.
    """
    door.environment(env)
    door.record("config", config, Config)
    reset = reset or resets.default(env)
    door.function("reset", reset, "fastrl.reset.pool")
    return _make(env, config, reset)


@functools.lru_cache(maxsize=256)
def _make(env: Env, config: Config, reset: ResetFactory) -> Algorithm:
    task = env.default_params()
    starts = reset(env)
    door.record("what reset(env) returns", starts, Reset)
    network = q_network(
        env.observation_space(task), env.action_space(task), config.network,
        dueling=config.dueling,
    )  # fmt: skip
    learner = Learner(
        functools.partial(_init, network),
        functools.partial(_explore, network),
        functools.partial(_update, config, network),
    )
    prioritised = {"priority": _priority, "beta": _beta} if config.prioritised else {}
    parts = off_policy.parts(env, config, starts, learner, **prioritised)
    init, step = off_policy.algorithm_functions(parts)

    def act(
        state: off_policy.State, carry: Any, observation: Observation, key: Key | None
    ) -> tuple[Action, Any]:
        view = off_policy.seen(config, state, observation)
        values = allowed(view, _values(network, state.learned.params, view))
        return jnp.argmax(values, -1).astype(jnp.int32), carry

    def value(state: off_policy.State, observation: Observation) -> Array:
        view = off_policy.seen(config, state, observation)
        return allowed(view, _values(network, state.learned.params, view)).max(-1)

    return Algorithm(
        init, step, act, config.steps_per_round * config.num_rounds, HParams(), env, value,
        parameters=lambda state: state.learned.params,
        check=functools.partial(door.ranges, allowed=RANGES),
        recipe=Recipe("dqn", env, config, reset),
    )  # fmt: skip


def _init(network: QNetwork, key: Key, hparams: HParams) -> Learned:
    params = network.init(key)
    optimizer = optim.adam(hparams.learning_rate, hparams.max_grad_norm).init(params)
    return Learned(params, jax.tree.map(jnp.copy, params), optimizer, jnp.int32(0))


def _explore(
    network: QNetwork, learned: Learned, observation: Observation, key: Key, hparams: HParams,
    steps: Array,
) -> Action:  # fmt: skip
    progress = steps.astype(jnp.float32) / hparams.exploration_steps
    epsilon = optim.linear(hparams.epsilon, hparams.final_epsilon, progress)
    return epsilon_greedy(key, _values(network, learned.params, observation), epsilon, observation)


def _update(
    config: Config, network: QNetwork, learned: Learned, batch: Batch, key: Key,
    hparams: HParams, steps: Array,
) -> tuple[Learned, Metrics, Array]:  # fmt: skip
    target = batch.reward + batch.discount * _next_value(config, network, learned, batch)

    def loss(params: Any) -> tuple[Array, tuple[Array, Array]]:
        values = _values(network, params, batch.observation)
        chosen = (jax.nn.one_hot(batch.action, network.num_actions) * values).sum(-1)
        error = chosen - target
        return (batch.weight * error**2).mean(), (error, chosen)

    (value, (error, chosen)), grads = jax.value_and_grad(loss, has_aux=True)(learned.params)
    progress = steps.astype(jnp.float32) / hparams.anneal_steps
    rate = optim.linear(hparams.learning_rate, hparams.final_learning_rate, progress)
    updates, optimizer = optim.adam(rate, hparams.max_grad_norm).update(
        grads, learned.optimizer, learned.params
    )
    params = optax.apply_updates(learned.params, updates)
    count = learned.updates + 1
    copies = count % jnp.asarray(hparams.target_period, jnp.int32) == 0
    share = jnp.where(copies, hparams.tau, 0.0)
    target_params = optax.incremental_update(params, learned.target, share)  # type: ignore[arg-type]
    metrics = {"loss": fm.mean(value), "q_value": fm.mean(chosen)}
    return Learned(params, target_params, optimizer, count), metrics, jnp.abs(error)


def _next_value(config: Config, network: QNetwork, learned: Learned, batch: Batch) -> Array:
    """`max_a Q(s', a)`; if double, the target network's value of the action of the other."""
    following = batch.next_observation
    values = _values(network, learned.target, following)
    if not config.double:
        return allowed(following, values).max(-1)
    choice = allowed(following, _values(network, learned.params, following))
    best = jax.nn.one_hot(jnp.argmax(choice, -1), network.num_actions)
    return (best * values).sum(-1)


def _values(network: QNetwork, params: Any, observation: Observation) -> Array:
    return network.apply(params, observation)[..., 0]


def _priority(error: Array, hparams: HParams) -> Array:
    return jnp.power(error + 1e-6, hparams.alpha)


def _beta(hparams: HParams, steps: Array) -> Array:
    return optim.linear(hparams.beta, 1.0, steps.astype(jnp.float32) / hparams.beta_steps)
