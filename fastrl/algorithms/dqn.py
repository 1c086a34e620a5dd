"""Deep Q-learning (Mnih et al. 2015) with what has been found since as switches.

Double (van Hasselt et al. 2016, arXiv:1509.06461), dueling (Wang et al. 2016, arXiv:1511.06581),
n-step targets, prioritised replay (Schaul et al. 2016, arXiv:1511.05952), distributions of returns
(`fastrl.value_distributions`: C51, QR-DQN) and noisy networks (`fastrl.noisy`): all of them, with
C51, are Rainbow (Hessel et al. 2018, arXiv:1710.02298).  Munchausen targets (Vieillard et al.
2020, arXiv:2007.14430) and optimism in the loss (MEX, Liu et al. 2023, arXiv:2305.18258) besides.
"""

import dataclasses
import functools
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from fastrl import arguments, door, noisy, normalize, q_targets
from fastrl import metrics as fm
from fastrl.algorithms import dqn_parts, off_policy, q_learning, ranges, replay
from fastrl.algorithms.dqn_parts import Parts
from fastrl.algorithms.off_policy import Learner
from fastrl.algorithms.replay import Batch
from fastrl.metrics import Metrics
from fastrl.networks import Activation, NetworkConfig
from fastrl.q_network import allowed, epsilon_greedy
from fastrl.types import (
    Action,
    Algorithm,
    Array,
    Env,
    Key,
    Observation,
    Recipe,
    ResetFactory,
    Scalar,
)

Torso = Literal["mlp", "conv"]


@dataclasses.dataclass(frozen=True)
class Config(off_policy.Config):
    """What shapes the program; the fields of `off_policy.Config` and these."""

    num_steps: int = 10
    batch_size: int = 128
    buffer_size: int = 10_000
    learning_starts: int = 10_000
    hidden_sizes: tuple[int, ...] = (120, 84)
    activation: Activation = "relu"
    torso: Torso = "mlp"
    layer_norm: bool = False
    double: bool = False
    dueling: bool = False
    prioritised: bool = False
    noisy: bool = False  # explores by noise in the weights, beside hparams.epsilon
    distribution: Literal["none", "categorical", "quantile"] = "none"  # C51, QR-DQN
    num_atoms: int = 51  # of a distribution: atoms, or quantiles
    munchausen: bool = False
    optimism: Literal["none", "value", "gap"] = "none"  # MEX, by hparams.eta

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "hidden_sizes", self.network.hidden_sizes)
        door.choice("distribution", self.distribution, ("none", "categorical", "quantile"))
        door.choice("optimism", self.optimism, ("none", "value", "gap"))
        door.integer("num_atoms", self.num_atoms, 2)
        wrong = self.double or self.n_step > 1 or self.distribution == "categorical"
        if self.munchausen and wrong:
            raise ValueError(
                f"munchausen=true goes with double=false (has {str(self.double).lower()}: there is "
                f"no best action to choose), n_step=1 (has {self.n_step}) and "
                f"distribution='none' or 'quantile' (has {self.distribution!r})"
            )

    @property
    def network(self) -> NetworkConfig:
        """The network's share of this."""
        return NetworkConfig(
            self.hidden_sizes, self.activation, self.torso, layer_norm=self.layer_norm
        )


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
    huber: Scalar = float("inf")  # errors beyond it count linearly; inf: squared error
    kappa: Scalar = 1.0  # the same of quantiles
    value_min: Scalar = -100.0  # the outermost atoms of the categorical distribution
    value_max: Scalar = 100.0
    alpha: Scalar = 0.6  # exponent of priorities
    beta: Scalar = 0.4  # exponent of importance weights at the start
    beta_steps: Scalar = 500_000  # environment steps until it is 1
    sigma: Scalar = 0.5  # of noisy networks, at the start
    eta: Scalar = 0.005  # weight of optimism
    temperature: Scalar = 0.03  # of Munchausen's policy
    munchausen_scale: Scalar = 0.9  # of the log-policy in the reward
    log_policy_min: Scalar = -1.0  # where that is clipped, temperature included
    anneal_steps: Scalar = float("inf")  # until the rate below is reached
    final_learning_rate: Scalar = 0.0


RANGES = ranges.of(
    HParams, sigma=ranges.NOT_NEGATIVE, munchausen_scale=ranges.SHARE, huber=ranges.POSITIVE,
    kappa=ranges.POSITIVE, log_policy_min=door.Range(most=0.0),
)  # fmt: skip
_OPTIMISM = {"value": q_targets.soft_value, "gap": q_targets.gap}


class Learned(NamedTuple):
    """What an update changes."""

    networks: q_learning.Learned  # parameters are `fastrl.noisy.Noisy` if config.noisy
    bounds: Array  # float32 [2]: hparams.value_min, value_max


def make(
    env: Env, config: Config = Config(), *, reset: ResetFactory | None = None
) -> Algorithm[HParams, off_policy.State]:
    """DQN on `env`. The same arguments give the same Algorithm, so nothing compiles twice.

    Raises TypeError or ValueError for what does not fit, before anything is compiled.
    """
    return _make(env, config, arguments.checked(env, config, Config, reset))


@functools.lru_cache(maxsize=256)
def _make(env: Env, config: Config, reset: ResetFactory) -> Algorithm:
    task = env.default_params()
    starts = arguments.starts(env, reset)
    own = dqn_parts.parts(env.observation_space(task), env.action_space(task), config)
    learner = Learner(
        functools.partial(_init, own), functools.partial(_explore, own),
        functools.partial(_update, own),
    )  # fmt: skip
    prioritised = {"priority": replay.proportional, "beta": replay.annealed}
    parts = off_policy.parts(
        env, config, starts, learner, **(prioritised if config.prioritised else {})
    )
    init, step = off_policy.algorithm_functions(parts)

    def values(state: off_policy.State, observation: Observation) -> Array:
        view, learned = normalize.seen(config, state, observation), state.learned
        outputs = own.network.apply(own.weights(learned.networks.params), view)
        return allowed(view, own.distribution.mean(outputs, learned.bounds))

    def act(
        state: off_policy.State, carry: Any, observation: Observation, key: Key | None
    ) -> tuple[Action, Any]:
        return jnp.argmax(values(state, observation), -1).astype(jnp.int32), carry

    return Algorithm(
        init, step, act, config.steps_per_round * config.num_rounds, HParams(), env,
        value=lambda state, observation: values(state, observation).max(-1),
        parameters=lambda state: state.learned.networks.params, check=_check,
        recipe=Recipe("dqn", env, config, reset),
    )  # fmt: skip


def _check(hparams: HParams) -> None:
    door.ranges(hparams, RANGES)
    bounds = hparams.value_min, hparams.value_max
    if not any(isinstance(x, Tracer) for x in bounds) and not np.all(np.less(*bounds)):
        raise ValueError(f"hparams.value_min={bounds[0]!r} must be below value_max={bounds[1]!r}")


def _init(parts: Parts, key: Key, hparams: HParams) -> Learned:
    params = parts.network.init(key)
    if parts.config.noisy:
        params = noisy.init(params, hparams.sigma)
    return Learned(q_learning.started(params, hparams), dqn_parts.bounds(hparams))


def _explore(
    parts: Parts, learned: Learned, observation: Observation, key: Key, hparams: HParams,
    steps: Array,
) -> Action:  # fmt: skip
    noise_key, action_key = jax.random.split(key)
    weights = parts.weights(learned.networks.params, noise_key)
    outputs = parts.network.apply(weights, observation)
    values = parts.distribution.mean(outputs, learned.bounds)
    epsilon = q_learning.epsilon(hparams, steps)
    return epsilon_greedy(action_key, values, epsilon, observation)


def _update(
    parts: Parts, learned: Learned, batch: Batch, key: Key, hparams: HParams, steps: Array
) -> tuple[Learned, Metrics, Array]:
    """One gradient update and, every so often, a copy into the target network."""
    config, distribution, bounds = parts.config, parts.distribution, dqn_parts.bounds(hparams)
    loss_key, target_key = jax.random.split(key)
    target = jax.lax.stop_gradient(
        dqn_parts.target(parts, learned.networks, batch, target_key, hparams)
    )
    kappa = hparams.kappa if config.distribution == "quantile" else hparams.huber

    def loss(params: Any) -> tuple[Array, tuple[Array, Array]]:
        outputs = parts.network.apply(parts.weights(params, loss_key), batch.observation)
        chosen = q_targets.chosen(outputs, batch.action)
        each, error = distribution.loss(chosen, target, kappa)
        total = (batch.weight * each).mean()
        if config.optimism != "none":
            values = allowed(batch.observation, distribution.mean(outputs, bounds))
            total = total - hparams.eta * _OPTIMISM[config.optimism](values).mean()
        return total, (error, distribution.mean(chosen, bounds))

    gradient = jax.value_and_grad(loss, has_aux=True)
    (value, (error, chosen)), grads = gradient(learned.networks.params)
    networks = q_learning.descended(learned.networks, grads, hparams, steps)
    return Learned(networks, bounds), {"loss": fm.mean(value), "q_value": fm.mean(chosen)}, error
