"""Advantage actor-critic (Mnih et al. 2016, arXiv:1602.01783), synchronous: A2C.

A rollout of `n` steps of every environment, then one gradient step on all of it
(section 4 and algorithm S3 of the paper; many workers in step instead of asynchronous threads):

    R_t   = r_t + gamma r_{t+1} + ... + gamma^k V(s_{t+k})       k <= n steps to a boundary
    loss  = mean[ -A_t log pi(a_t | s_t) + c_v 1/2 (R_t - V(s_t))^2 - c_e H(pi(. | s_t)) ]

with `A_t = R_t - V(s_t)`, a constant, not standardised.  `gae_lambda` below 1 mixes shorter
returns (Schulman et al. 2016).  Defaults are those of Stable-Baselines3: n = 5, RMSprop with
rate 7e-4, decay 0.99 and epsilon 1e-5 outside of the root, c_v (1/2 (R - V)^2) = 1/2 (R - V)^2.
"""

import dataclasses
import functools
from typing import Any, Literal, NamedTuple

import jax
import optax

from fastrl import arguments, door, normalize, optim, returns
from fastrl import metrics as fm
from fastrl.algorithms import agent as agents
from fastrl.algorithms import ranges, whole_rollout
from fastrl.algorithms.agent import Agent, Rollout
from fastrl.algorithms.whole_rollout import Learner, State
from fastrl.metrics import Metrics
from fastrl.networks import Activation, NetworkConfig
from fastrl.types import Algorithm, Array, Env, ResetFactory, Scalar


@dataclasses.dataclass(frozen=True)
class Config:
    """What shapes the program. An iteration takes `num_envs * num_steps` environment steps."""

    num_envs: int = 16
    num_steps: int = 5  # of every environment, per gradient step
    hidden_sizes: tuple[int, ...] = (64, 64)
    activation: Activation = "tanh"
    torso: Literal["mlp", "conv"] = "mlp"
    shared_torso: bool = False  # one torso for policy and value
    normalize_observation: bool = False  # by running mean and variance
    normalize_reward: bool = False  # by the running std of the discounted return
    normalize_advantage: bool = False  # over the rollout

    def __post_init__(self) -> None:
        for name in ("num_envs", "num_steps"):
            door.integer(name, getattr(self, name), 1)
        door.flags(self)
        object.__setattr__(self, "hidden_sizes", self.network.hidden_sizes)

    @property
    def network(self) -> NetworkConfig:
        """The network's share of this."""
        return NetworkConfig(
            self.hidden_sizes, self.activation, self.torso, shared_torso=self.shared_torso
        )


class HParams(NamedTuple):
    """Traced numbers: another value compiles nothing."""

    learning_rate: Scalar = 7e-4
    gamma: Scalar = 0.99  # discount
    gae_lambda: Scalar = 1.0
    entropy_coefficient: Scalar = 0.0
    value_coefficient: Scalar = 1.0
    max_grad_norm: Scalar = 0.5
    rms_decay: Scalar = 0.99
    rms_epsilon: Scalar = 1e-5
    reward_scale: Scalar = 1.0
    anneal_steps: Scalar = float("inf")  # environment steps until the rate below is reached
    final_learning_rate: Scalar = 0.0


RANGES = ranges.of(HParams)


def make(
    env: Env, config: Config = Config(), *, reset: ResetFactory | None = None
) -> Algorithm[HParams, State]:
    """A2C on `env`. The same arguments give the same Algorithm, so nothing compiles twice.

    `reset` says where episodes start: by default `fastrl.reset.default(env)`.
    Raises TypeError or ValueError for what does not fit, before anything is compiled.
    """
    return _make(env, config, arguments.checked(env, config, Config, reset))


@functools.lru_cache(maxsize=256)
def _make(env: Env, config: Config, reset: ResetFactory) -> Algorithm:
    learner = Learner(_optimizer, _loss, HParams(), RANGES)
    return whole_rollout.algorithm("a2c", env, config, reset, learner)


def _optimizer(hparams: HParams, learning_rate: Scalar) -> optax.GradientTransformation:
    return optim.rmsprop(
        learning_rate, hparams.max_grad_norm, hparams.rms_decay, hparams.rms_epsilon
    )


def _loss(
    agent: Agent, config: Config, hparams: HParams, params: Any, rollout: Rollout
) -> tuple[Array, Metrics]:
    """Policy, value and entropy loss of a rollout; its returns come from the same pass."""
    samples = rollout.samples
    policy, value = agent.network.apply(params, samples.observation)
    known = jax.lax.stop_gradient(value)
    last_value = agent.network.value(jax.lax.stop_gradient(params), rollout.last_observation)
    advantage = returns.gae(
        samples.reward, known, agents.next_values(samples, known, last_value),
        samples.terminated, samples.truncated, hparams.gamma, hparams.gae_lambda,
    )  # fmt: skip
    target, entropy = advantage + known, policy.entropy()
    explained = agents.explained_variance(known, target)
    if config.normalize_advantage:
        advantage = normalize.standardised(advantage)
    policy_loss = -policy.log_prob(samples.action) * advantage
    value_loss = 0.5 * (value - target) ** 2
    loss = (
        policy_loss.mean()
        + hparams.value_coefficient * value_loss.mean()
        - hparams.entropy_coefficient * entropy.mean()
    )
    metrics = {
        "loss": loss, "policy_loss": policy_loss, "value_loss": value_loss, "entropy": entropy,
        "explained_variance": explained,
    }  # fmt: skip
    return loss, {name: fm.mean(jax.lax.stop_gradient(x)) for name, x in metrics.items()}
