"""IMPALA: an actor-critic whose data were made by an older policy, corrected by V-trace
(Espeholt et al. 2018, arXiv:1802.01561, equations 1 to 4).

The actors of the paper lag behind the learner by some updates.  Here the lag is a number, the same
in every run: the policy `mu` that acts is the learned one of `policy_lag` iterations ago, and a
rollout is learned from `num_epochs` times in `num_minibatches` parts, each some environments over
the whole time.  With `rho_t = min(rho_bar, pi / mu)` and `c_t = lambda min(c_bar, pi / mu)`,
evaluated with the parameters of each gradient step (`fastrl.returns.vtrace`):

    v_t  = V(s_t) + delta_t + gamma c_t (v_{t+1} - V(s_{t+1}))
    loss = mean[ -rho_t (r_t + gamma v_{t+1} - V(s_t)) log pi(a_t | s_t)
                 + c_v 1/2 (v_t - V(s_t))^2 - c_e H(pi(. | s_t)) ]

RMSprop after clipping the global norm, as in the paper, whose losses are sums where these are
means.  The successor of a step that was truncated is valued by the parameters of before the
first gradient step.
"""

import dataclasses
import functools
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fastrl import arguments, door, optim, returns
from fastrl import metrics as fm
from fastrl.algorithms import agent as agents
from fastrl.algorithms import minibatches, ranges
from fastrl.algorithms.agent import Agent, Rollout, Statistics
from fastrl.metrics import Metrics
from fastrl.networks import Activation, NetworkConfig
from fastrl.types import Algorithm, Array, Env, Key, PyTree, ResetFactory, Scalar
from fastrl.vec import VecState


@dataclasses.dataclass(frozen=True)
class Config:
    """What shapes the program. An iteration takes `num_envs * num_steps` environment steps."""

    num_envs: int = 16
    num_steps: int = 20  # of every environment, per iteration
    policy_lag: int = 1  # iterations by which the acting policy is behind the learned one
    num_epochs: int = 1  # passes over the rollout
    num_minibatches: int = 2  # per pass, of whole environments
    hidden_sizes: tuple[int, ...] = (64, 64)
    activation: Activation = "tanh"
    torso: Literal["mlp", "conv"] = "mlp"
    shared_torso: bool = False  # one torso for policy and value
    normalize_observation: bool = False  # by running mean and variance
    normalize_reward: bool = False  # by the running std of the discounted return

    def __post_init__(self) -> None:
        for name in ("num_envs", "num_steps", "num_epochs", "num_minibatches"):
            door.integer(name, getattr(self, name), 1)
        door.integer("policy_lag", self.policy_lag, 0)
        door.flags(self)
        minibatches.check_whole(self.num_envs, self.num_minibatches)
        object.__setattr__(self, "hidden_sizes", self.network.hidden_sizes)

    @property
    def network(self) -> NetworkConfig:
        """The network's share of this."""
        return NetworkConfig(
            self.hidden_sizes, self.activation, self.torso, shared_torso=self.shared_torso
        )


class HParams(NamedTuple):
    """Traced numbers: another value compiles nothing."""

    learning_rate: Scalar = 1e-3
    gamma: Scalar = 0.99  # discount
    vtrace_lambda: Scalar = 1.0
    rho_bar: Scalar = 1.0  # above which ratios are cut: where the values converge
    c_bar: Scalar = 1.0  # above which traces are cut: how fast
    entropy_coefficient: Scalar = 0.01
    value_coefficient: Scalar = 1.0
    max_grad_norm: Scalar = 0.5
    rms_decay: Scalar = 0.99
    rms_epsilon: Scalar = 1e-5
    reward_scale: Scalar = 1.0
    anneal_steps: Scalar = float("inf")  # environment steps until the rate below is reached
    final_learning_rate: Scalar = 0.0


RANGES = ranges.of(HParams, rho_bar=ranges.NOT_NEGATIVE, c_bar=ranges.NOT_NEGATIVE)


class State(NamedTuple):
    """All there is to go on with."""

    key: Key
    params: Any
    older: Any  # the params of the last `policy_lag` iterations, leaves `[L, ...]`, a ring
    optimizer: optax.OptState
    env: VecState
    statistics: Statistics
    iteration: Array


def make(
    env: Env, config: Config = Config(), *, reset: ResetFactory | None = None
) -> Algorithm[HParams, State]:
    """IMPALA on `env`. The same arguments give the same Algorithm, so nothing compiles twice.

    `reset` says where episodes start: by default `fastrl.reset.default(env)`.
    Raises TypeError or ValueError for what does not fit, before anything is compiled.
    """
    return _make(env, config, arguments.checked(env, config, Config, reset))


@functools.lru_cache(maxsize=256)
def _make(env: Env, config: Config, reset: ResetFactory) -> Algorithm:
    agent = agents.build(env, config, config.network, reset)

    def init(key: Key, hparams: HParams, task: Any) -> State:
        key, network_key, env_key = jax.random.split(key, 3)
        params = agent.network.init(network_key)
        lag = config.policy_lag
        older = jax.tree.map(lambda x: jnp.broadcast_to(x, (lag, *x.shape)), params) if lag else ()
        return State(
            key, params, older, _optimizer(hparams, hparams.learning_rate).init(params),
            agent.vec_env.init(env_key, task), agent.statistics(), jnp.int32(0),
        )  # fmt: skip

    step = functools.partial(_iterate, agent, config)
    return agents.algorithm("impala", env, config, reset, agent, init, step, HParams(), RANGES)


def _optimizer(hparams: HParams, learning_rate: Scalar) -> optax.GradientTransformation:
    return optim.rmsprop(
        learning_rate, hparams.max_grad_norm, hparams.rms_decay, hparams.rms_epsilon
    )


def _iterate(
    agent: Agent, config: Config, state: State, hparams: HParams, task: Any
) -> tuple[State, Metrics]:
    """One iteration: a rollout of the older policy, and `num_epochs` passes of minibatches."""
    key, rollout_key, shuffle_key = jax.random.split(state.key, 3)
    acting, older = _swapped(config, state)
    env_state, statistics, rollout, metrics = agent.collect(
        rollout_key, state, hparams, task, config.num_steps, acting
    )
    batch_size = config.num_envs * config.num_steps
    optimizer = _optimizer(hparams, agents.learning_rate(hparams, state.iteration, batch_size))
    update = minibatches.update(
        optimizer, functools.partial(_loss, agent, hparams),
        functools.partial(agents.of_envs, rollout),
    )  # fmt: skip
    envs = minibatches.shuffled(
        shuffle_key, 1, config.num_envs, config.num_epochs, config.num_minibatches
    )
    (params, optimizer_state), update_metrics = minibatches.descend(
        update, (state.params, state.optimizer), envs
    )
    state = State(
        key, params, older, optimizer_state, env_state, statistics, state.iteration + 1
    )  # fmt: skip
    return state, metrics | update_metrics


def _swapped(config: Config, state: State) -> tuple[PyTree, PyTree]:
    """The parameters of `policy_lag` iterations ago, and the ring with the present ones in it."""
    if not config.policy_lag:
        return state.params, ()
    at = state.iteration % config.policy_lag
    acting = jax.tree.map(lambda ring: ring[at], state.older)
    return acting, jax.tree.map(lambda ring, x: ring.at[at].set(x), state.older, state.params)


def _loss(agent: Agent, hparams: HParams, params: Any, rollout: Rollout) -> tuple[Array, Metrics]:
    """Policy, value and entropy loss of whole trajectories `[T, B]`."""
    samples = rollout.samples
    policy, value = agent.network.apply(params, samples.observation)
    log_prob, entropy, known = policy.log_prob(samples.action), policy.entropy(), value
    log_ratio, known = jax.lax.stop_gradient((log_prob - samples.log_prob, known))
    last_value = agent.network.value(jax.lax.stop_gradient(params), rollout.last_observation)
    targets, advantages = returns.vtrace(
        samples.reward, known, agents.next_values(samples, known, last_value),
        samples.terminated, samples.truncated, jnp.exp(log_ratio), hparams.gamma,
        hparams.vtrace_lambda, hparams.rho_bar, hparams.c_bar,
    )  # fmt: skip
    policy_loss = -log_prob * advantages
    value_loss = 0.5 * (value - targets) ** 2
    loss = (
        policy_loss.mean()
        + hparams.value_coefficient * value_loss.mean()
        - hparams.entropy_coefficient * entropy.mean()
    )
    metrics = {
        "loss": loss, "policy_loss": policy_loss, "value_loss": value_loss, "entropy": entropy,
        "approximate_kl": jnp.expm1(log_ratio) - log_ratio,  # of mu from pi, as in PPO
        "explained_variance": agents.explained_variance(known, targets),
    }  # fmt: skip
    return loss, {name: fm.mean(jax.lax.stop_gradient(x)) for name, x in metrics.items()}
