"""AVG, action value gradient: an incremental soft actor-critic, from one transition at a time.

Vasan et al. 2024 (arXiv:2411.15370), algorithm 1: no replay, no target network, no trace.  A
squashed normal policy, one critic, and at every transition, with a' ~ pi(.|s') and sigma from
`ErrorScale`,

    delta = (r + gamma (1 - terminated) (Q(s', a') - alpha log pi(a'|s')) - Q(s, a)) / sigma
    Q  <- down delta^2                                  by Adam
    pi <- down alpha log pi(a|s) - Q(s, a)              by Adam, through the action that was taken

What keeps that stable are three normalisations: of observations by running statistics, of the last
hidden layers to length 1, and of the error by sigma.  Both gradients are those at the weights
before the update.  A time limit is no end: there the value of the true successor counts.

The authors clip actions in [-1, 1] to the bounds of the environment; here the Box is [-1, 1],
as in `fastrl.sac`.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fastrl import arguments, distributions, door
from fastrl import metrics as fm
from fastrl.continuous_networks import box
from fastrl.distributions import DiagonalNormal, SquashedNormal
from fastrl.metrics import Metrics
from fastrl.spaces import Box
from fastrl.streaming import config as configs
from fastrl.streaming import networks, statistics
from fastrl.streaming import stream as streams
from fastrl.streaming.networks import Network, Shape
from fastrl.streaming.statistics import Statistics
from fastrl.streaming.stream import Outcome, Parts, Stream
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

LOG_STD = -20.0, 2.0  # to which log standard deviations are clipped


@dataclasses.dataclass(frozen=True)
class Config:
    """What shapes the program; the defaults are the authors'."""

    num_steps: int = 1000  # transitions in one iteration
    hidden_sizes: tuple[int, ...] = (256, 256)  # of policy and critic, each
    normalize_observation: bool = True  # by running mean and variance
    normalize_features: bool = True  # the last hidden layers to length 1
    scale_error: bool = True  # by a running estimate of its deviation
    time_feature: bool = False  # one more input: how far the episode is

    def __post_init__(self) -> None:
        for name in ("normalize_features", "scale_error"):
            door.flag(name, getattr(self, name))
        object.__setattr__(self, "hidden_sizes", self.stream.hidden_sizes)

    @property
    def stream(self) -> configs.Config:
        """How the stream is seen: raw rewards, and a cut is no end."""
        return configs.Config(
            self.num_steps, self.hidden_sizes, normalize_observation=self.normalize_observation,
            scale_reward=False, truncation="bootstraps", time_feature=self.time_feature,
        )  # fmt: skip


class HParams(NamedTuple):
    """Traced numbers: another value compiles nothing. Rates of the authors for HalfCheetah."""

    learning_rate: Scalar = 0.0063  # of the policy
    critic_learning_rate: Scalar = 0.0087
    gamma: Scalar = 0.99  # discount
    temperature: Scalar = 0.07  # alpha
    first_decay: Scalar = 0.0  # of Adam's running mean of gradients: 0 for none
    second_decay: Scalar = 0.999
    time_limit: Scalar = 1000.0  # steps in which the time feature grows by 1


RANGES = {
    "learning_rate": door.Range(0.0), "critic_learning_rate": door.Range(0.0),
    "gamma": door.Range(0.0, 1.0), "temperature": door.Range(0.0),
    "first_decay": door.Range(0.0, 1.0), "second_decay": door.Range(0.0, 1.0),
    "time_limit": door.Range(0.0, open=True),
}  # fmt: skip


class ErrorScale(NamedTuple):
    """What the error's deviation is estimated from (Schaul et al. 2021, arXiv:2105.05347).

        sigma^2 = Var[r'] + Var[gamma'] E[G^2],    r' = r - alpha log pi(a|s)

    with gamma' = gamma, or 0 at a termination, and G the plain sum of r' since the last one: a cut
    neither ends nor counts it.
    """

    rewards: Statistics  # of r'
    discounts: Statistics  # of gamma'
    squares: Statistics  # of G^2
    total: Array  # float32: G so far

    def updated(self, reward: Array, outcome: Outcome) -> "ErrorScale":
        """With one more `r'`."""
        total, ended = self.total + reward, outcome.terminated
        pushed = statistics.update(self.squares, jnp.square(total))
        squares = jax.tree.map(lambda new, old: jnp.where(ended, new, old), pushed, self.squares)
        return ErrorScale(
            statistics.update(self.rewards, reward),
            statistics.update(self.discounts, outcome.discount),
            squares, jnp.where(ended, 0.0, total),
        )  # fmt: skip

    def sigma(self) -> Array:
        """At least 0.01; 1 while nothing has ended and rewards hardly differ."""
        variance = self.rewards.variance + self.discounts.variance * self.squares.mean
        early = (variance <= 0.01) & (self.squares.count == 0)
        return jnp.where(early, 1.0, jnp.sqrt(jnp.maximum(variance, 1e-4)))


class State(NamedTuple):
    """All there is to go on with; parameters and optimisers are of policy and critic."""

    key: Key
    params: tuple[networks.Params, networks.Params]
    optimizers: tuple[optax.OptState, optax.OptState]
    scale: ErrorScale
    stream: Stream
    time_limit: Array


class _Learner(NamedTuple):
    """What is closed over."""

    stream: Parts
    scale_error: bool
    space: Box  # of actions
    policy: Network
    critic: Network

    def distribution(self, params: networks.Params, x: Array) -> SquashedNormal:
        """Over actions in units where the Box is [-1, 1]."""
        mean, log_std = self.policy.apply(params, x)
        shape = self.space.shape
        return SquashedNormal(
            DiagonalNormal(
                mean.reshape(shape), jnp.clip(log_std, *LOG_STD).reshape(shape), len(shape)
            )
        )

    def q(self, params: networks.Params, x: Array, action: Array) -> Array:
        return self.critic.apply(params, jnp.concatenate([x, action.reshape(-1)]))[0][0]

    def act(
        self, state: State, carry: PyTree, observation: Observation, key: Key | None
    ) -> tuple[Action, PyTree]:
        """The policy, as `Algorithm.act` has it."""
        one = lambda x, o: self.distribution(state.params[0], x)  # noqa: E731
        policy, carry = self.stream.act_on(one, state, carry, observation)
        action = policy.mode() if key is None else policy.sample(key)
        return distributions.to_environment(self.space, action), carry

    def value(self, state: State, observation: Observation) -> Array:
        """What the critic expects of the policy's mode, `[...]`; as at a first step."""

        def one(x: Array, _: Observation) -> Array:
            return self.q(state.params[1], x, self.distribution(state.params[0], x).mode())

        return self.stream.first(one, state, observation)


def make(
    env: Env, config: Config = Config(), *, reset: ResetFactory | None = None
) -> Algorithm[HParams, State]:
    """AVG on `env`. The same arguments give the same Algorithm.

    Raises TypeError or ValueError for what does not fit, before anything is compiled.
    """
    return _make(env, config, arguments.checked(env, config, Config, reset))


@functools.lru_cache(maxsize=256)
def _make(env: Env, config: Config, reset: ResetFactory) -> Algorithm:
    space = box(env.action_space(env.default_params()))
    parts = streams.parts(env, config.stream, reset)
    size = distributions.num_outputs(space)
    (width,) = parts.input_shape
    shapes = [parts.shape((size, size)), Shape((width + size,), config.hidden_sizes, (1,))]
    made = networks.networks(shapes, "orthogonal", 0.0, False, config.normalize_features)
    learner = _Learner(parts, config.scale_error, space, *made)
    return streams.algorithm(
        Recipe("avg", env, config, reset), learner, _init, _one, env, HParams(), RANGES,
        parts.carry, streams.side_by_side(shapes),
    )  # fmt: skip


def _optimizers(hparams: HParams) -> tuple[optax.GradientTransformation, ...]:
    """Of policy and critic."""
    decays = {"b1": hparams.first_decay, "b2": hparams.second_decay}
    rates = hparams.learning_rate, hparams.critic_learning_rate
    return tuple(optax.adam(rate, **decays) for rate in rates)  # type: ignore[arg-type]


def _init(learner: _Learner, key: Key, hparams: HParams, task: Any) -> State:
    key, policy_key, critic_key, stream_key = jax.random.split(key, 4)
    params = learner.policy.init(policy_key), learner.critic.init(critic_key)
    of_policy, of_critic = _optimizers(hparams)
    nothing = statistics.init()
    scale = ErrorScale(nothing, nothing, nothing, jnp.float32(0.0))
    stream = learner.stream.begin(stream_key, task)
    return State(
        key, params, (of_policy.init(params[0]), of_critic.init(params[1])), scale, stream,
        jnp.float32(hparams.time_limit),
    )  # fmt: skip


def _one(learner: _Learner, state: State, hparams: HParams, task: Any) -> tuple[State, Metrics]:
    """One transition and the updates on it."""
    key, action_key, next_key, env_key = jax.random.split(state.key, 4)
    (theta, w), x = state.params, state.stream.x
    (action, log_prob), through_action = jax.vjp(
        lambda p: learner.distribution(p, x).sample_and_log_prob(action_key), theta
    )
    q_t, through_critic = jax.vjp(lambda p, a: learner.q(p, x, a), w, action)
    taken = distributions.to_environment(learner.space, action)
    stream, outcome, metrics = learner.stream.advance(env_key, state.stream, taken, hparams, task)
    alpha = hparams.temperature
    scale = state.scale.updated(outcome.reward - alpha * log_prob, outcome)
    sigma = scale.sigma() if learner.scale_error else jnp.float32(1.0)
    following, log_prob_tp1 = learner.distribution(theta, outcome.x).sample_and_log_prob(next_key)
    v_tp1 = learner.q(w, outcome.x, following) - alpha * log_prob_tp1
    delta = (outcome.reward + outcome.discount * v_tp1 - q_t) / sigma
    of_weights, of_action = through_critic(jnp.ones_like(q_t))
    (policy_gradient,) = through_action((-of_action, alpha * jnp.ones_like(log_prob)))
    critic_gradient = jax.tree.map(lambda g: -2.0 * delta / sigma * g, of_weights)
    params, states = [], []
    for optimizer, before, own, gradient in zip(
        _optimizers(hparams), state.params, state.optimizers, (policy_gradient, critic_gradient),
        strict=True,
    ):  # fmt: skip
        updates, after = optimizer.update(gradient, own, before)
        params.append(optax.apply_updates(before, updates))
        states.append(after)
    limit = jnp.float32(hparams.time_limit)
    reports = streams.learned(q_t, delta) | {
        "entropy": fm.each(-log_prob), "error_scale": fm.each(sigma),
    }  # fmt: skip
    state = State(key, (params[0], params[1]), (states[0], states[1]), scale, stream, limit)
    return state, metrics | reports
