"""REINFORCE with a learned baseline (Williams 1992; Sutton and Barto 2018, section 13.4).

Monte Carlo policy gradients: every action is weighted by the whole discounted return that
followed it, less a baseline that does not depend on the action:

    loss = mean[ -(G_t - b(s_t)) log pi(a_t | s_t) + c_b 1/2 (G_t - b(s_t))^2 - c_e H ]
    G_t  = r_t + gamma r_{t+1} + ...   up to the end of the episode

One gradient step of Adam for each rollout, which holds many episodes: `num_steps` should be no
less than an episode takes.  Where data end before the episode does, at a time limit or at the end
of the rollout, the baseline of what follows stands for the rest; nowhere else is bootstrapped.
The factor gamma^t of the book, which discounts what is learned late in an episode, is left out.
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

    num_envs: int = 8
    num_steps: int = 128  # of every environment, per gradient step
    hidden_sizes: tuple[int, ...] = (64, 64)
    activation: Activation = "tanh"
    torso: Literal["mlp", "conv"] = "mlp"
    baseline: bool = True  # without one, b = 0 where returns are compared with it
    normalize_observation: bool = False  # by running mean and variance
    normalize_reward: bool = False  # by the running std of the discounted return
    normalize_advantage: bool = True  # over the rollout: mean 0, deviation 1

    def __post_init__(self) -> None:
        for name in ("num_envs", "num_steps"):
            door.integer(name, getattr(self, name), 1)
        door.flags(self)
        object.__setattr__(self, "hidden_sizes", self.network.hidden_sizes)

    @property
    def network(self) -> NetworkConfig:
        """The network's share of this: policy and baseline apart."""
        return NetworkConfig(self.hidden_sizes, self.activation, self.torso)


class HParams(NamedTuple):
    """Traced numbers: another value compiles nothing."""

    learning_rate: Scalar = 3e-3
    gamma: Scalar = 0.99  # discount
    entropy_coefficient: Scalar = 0.0
    baseline_coefficient: Scalar = 1.0
    max_grad_norm: Scalar = float("inf")
    reward_scale: Scalar = 1.0
    anneal_steps: Scalar = float("inf")  # environment steps until the rate below is reached
    final_learning_rate: Scalar = 0.0


RANGES = ranges.of(HParams)


def make(
    env: Env, config: Config = Config(), *, reset: ResetFactory | None = None
) -> Algorithm[HParams, State]:
    """REINFORCE on `env`. The same arguments give the same Algorithm, so nothing compiles twice.

    `reset` says where episodes start: by default `fastrl.reset.default(env)`.
    Raises TypeError or ValueError for what does not fit, before anything is compiled.
    """
    return _make(env, config, arguments.checked(env, config, Config, reset))


@functools.lru_cache(maxsize=256)
def _make(env: Env, config: Config, reset: ResetFactory) -> Algorithm:
    learner = Learner(_optimizer, _loss, HParams(), RANGES)
    return whole_rollout.algorithm("reinforce", env, config, reset, learner)


def _optimizer(hparams: HParams, learning_rate: Scalar) -> optax.GradientTransformation:
    return optim.adam(learning_rate, hparams.max_grad_norm)


def _loss(
    agent: Agent, config: Config, hparams: HParams, params: Any, rollout: Rollout
) -> tuple[Array, Metrics]:
    """Policy, baseline and entropy loss of a rollout."""
    samples = rollout.samples
    policy, baseline = agent.network.apply(params, samples.observation)
    known = jax.lax.stop_gradient(baseline)
    last_value = agent.network.value(jax.lax.stop_gradient(params), rollout.last_observation)
    gains = returns.lambda_returns(
        samples.reward, agents.next_values(samples, known, last_value),
        samples.terminated, samples.truncated, hparams.gamma, 1.0,
    )  # fmt: skip
    advantage = gains - known if config.baseline else gains
    if config.normalize_advantage:
        advantage = normalize.standardised(advantage)
    entropy = policy.entropy()
    policy_loss = -policy.log_prob(samples.action) * advantage
    baseline_loss = 0.5 * (baseline - gains) ** 2
    loss = (
        policy_loss.mean()
        + hparams.baseline_coefficient * baseline_loss.mean()
        - hparams.entropy_coefficient * entropy.mean()
    )
    metrics = {
        "loss": loss, "policy_loss": policy_loss, "baseline_loss": baseline_loss,
        "entropy": entropy, "explained_variance": agents.explained_variance(known, gains),
    }  # fmt: skip
    return loss, {name: fm.mean(jax.lax.stop_gradient(x)) for name, x in metrics.items()}
