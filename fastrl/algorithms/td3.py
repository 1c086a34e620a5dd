"""TD3 (Fujimoto et al. 2018, arXiv:1802.09477): twin critics, delayed and smoothed.

    a' = clip(pibar(s') + clip(sigma noise, -c, c), -1, 1)
    y = r + gamma^k (1 - terminated) min_i Qbar_i(s', a')
    Q_i <- down mean (Q_i(s, a) - y)^2 / 2
    pi <- up mean Q_1(s, pi(s)),   Qbar, pibar follow        at every `policy_delay`-th update

with noise in units where the Box is [-1, 1].  A time limit is no end: where an episode was cut off
the value of the true successor counts.  DDPG (`fastrl.algorithms.ddpg`) is this without any of it.

With `optimism` the critics maximise to explore (MEX, Liu et al. 2023, arXiv:2305.18258): their loss
falls by `eta` times

    O = mean sum_i [ Q_i(s, pi(s)) - log sum exp (Q_i(s, a), Q_i(s, pi(s')), Q_i(s, uniform)) ]

the value of the policy over a baseline, without which values would grow everywhere.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fastrl import arguments, door
from fastrl import continuous_networks as networks
from fastrl import metrics as fm
from fastrl.algorithms import continuous, off_policy, ranges
from fastrl.algorithms.continuous import Agent, Trained
from fastrl.algorithms.off_policy import Learner
from fastrl.algorithms.replay import Batch
from fastrl.continuous_networks import Actor, Critic
from fastrl.distributions import from_environment, to_environment
from fastrl.metrics import Metrics
from fastrl.spaces import Box
from fastrl.types import Action, Algorithm, Array, Env, Key, Observation, ResetFactory, Scalar


@dataclasses.dataclass(frozen=True)
class Config(continuous.Config):
    """What shapes the program; the fields of `continuous.Config` and these."""

    learning_starts: int = 25_000
    num_critics: int = 2
    policy_delay: int = 2  # updates of the critics before each of policy and targets
    smoothing: bool = True  # noise on the targets' actions
    optimism: bool = False  # MEX, by hparams.eta
    fused_mlp: bool = False  # on CPU: faster updates by kernels; compiles for seconds more

    def __post_init__(self) -> None:
        super().__post_init__()
        door.integer("num_critics", self.num_critics, 1)
        door.integer("policy_delay", self.policy_delay, 1)


class HParams(NamedTuple):
    """Traced numbers: another value compiles nothing."""

    learning_rate: Scalar = 3e-4  # of the policy
    critic_learning_rate: Scalar = 3e-4
    gamma: Scalar = 0.99  # discount
    tau: Scalar = 0.005  # share of the networks that the targets take on
    noise: Scalar = 0.1  # of actions taken, in units where the Box is [-1, 1], like the next two
    target_noise: Scalar = 0.2  # of actions in targets
    target_noise_clip: Scalar = 0.5
    eta: Scalar = 0.005  # weight of optimism


RANGES = ranges.of(
    HParams, noise=ranges.NOT_NEGATIVE, target_noise=ranges.NOT_NEGATIVE,
    target_noise_clip=ranges.NOT_NEGATIVE, eta=ranges.NOT_NEGATIVE,
)  # fmt: skip


class Learned(NamedTuple):
    """Networks and optimisers."""

    actor: Trained
    critic: Trained
    targets: tuple[Any, Any]  # variables of actor and critics, some time ago
    updates: Array  # int32


class Parts(NamedTuple):
    """What is closed over."""

    config: Config
    space: Box
    actor: Actor
    critic: Critic
    first: Critic  # the first of its members alone


def make(
    env: Env, config: Config = Config(), *, reset: ResetFactory | None = None
) -> Algorithm[HParams, off_policy.State]:
    """TD3 on `env`. The same arguments give the same Algorithm, so nothing compiles twice.

    Raises TypeError or ValueError for what does not fit, before anything is compiled.
    """
    return _make(env, config, arguments.checked(env, config, Config, reset))


@functools.lru_cache(maxsize=256)
def _make(env: Env, config: Config, reset: ResetFactory) -> Algorithm:
    return continuous.algorithm("td3", env, config, reset, agent(env, config), HParams(), RANGES)


def agent(env: Env, config: Config) -> Agent:
    """The learner with the choices of `config`; reads of the hparams what these ask for."""
    task = env.default_params()
    space, seen = networks.box(env.action_space(task)), env.observation_space(task)
    sizes, activation, fused = config.hidden_sizes, config.activation, config.fused_mlp
    actor = networks.actor(seen, space, sizes, activation, deterministic=True, fused_mlp=fused)
    critic = networks.critic(seen, space, config.num_critics, sizes, activation, fused_mlp=fused)
    first = networks.critic(seen, space, 1, sizes, activation, fused_mlp=fused)
    parts = Parts(config, space, actor, critic, first)
    return Agent(
        Learner(
            functools.partial(_init, parts),
            functools.partial(_explore, parts),
            functools.partial(_update, parts),
        ),
        functools.partial(_act, parts),
        functools.partial(_value, parts),
        lambda learned: learned.actor.variables,
    )


def _init(parts: Parts, key: Key, hparams: Any) -> Learned:
    actor_key, critic_key = jax.random.split(key)
    actor, critic = parts.actor.init(actor_key), parts.critic.init(critic_key)
    return Learned(
        continuous.trained(actor, optax.adam(hparams.learning_rate)),
        continuous.trained(critic, optax.adam(hparams.critic_learning_rate)),
        jax.tree.map(jnp.copy, (actor, critic)),
        jnp.int32(0),
    )


def _explore(
    parts: Parts, learned: Learned, observation: Observation, key: Key, hparams: Any, steps: Array
) -> Action:
    noise_key, random_key = jax.random.split(key)
    action = parts.actor.mode(learned.actor.variables, observation)
    action = action + hparams.noise * jax.random.normal(noise_key, action.shape)
    return continuous.explored(parts.config, parts.space, action, random_key, steps)


def _act(parts: Parts, learned: Learned, observation: Observation, key: Key | None) -> Action:
    """The policy is deterministic: the same with a key."""
    return to_environment(parts.space, parts.actor.mode(learned.actor.variables, observation))


def _update(
    parts: Parts, learned: Learned, batch: Batch, key: Key, hparams: Any, steps: Array
) -> tuple[Learned, Metrics, Array]:
    noise_key, optimism_key = jax.random.split(key)
    target = batch.reward + batch.discount * _next_value(parts, learned, batch, noise_key, hparams)
    action = from_environment(parts.space, batch.action)

    def loss(variables: Any) -> tuple[Array, Array]:
        values = parts.critic.apply(variables, batch.observation, action, None)
        error = continuous.squared_error(values, target, batch.weight)
        if parts.config.optimism:
            gain = _optimism(parts, learned, variables, batch, values, optimism_key)
            error = error - hparams.eta * gain
        return error, values

    optimizer = optax.adam(hparams.critic_learning_rate)
    critic, values = continuous.descend(learned.critic, loss, optimizer)
    count = learned.updates + 1
    (actor, targets), metrics = continuous.every(
        parts.config.policy_delay, count,
        lambda state: _improve(parts, state[0], state[1], critic.variables, batch, hparams),
        (learned.actor, learned.targets),
    )  # fmt: skip
    reported, error = continuous.critic_metrics(values, target)
    return Learned(actor, critic, targets, count), reported | metrics, error


def _next_value(parts: Parts, learned: Learned, batch: Batch, key: Key, hparams: Any) -> Array:
    """The least of the target critics at the target policy's action, which is smoothed."""
    actor, critic = learned.targets
    action = parts.actor.mode(actor, batch.next_observation)
    if parts.config.smoothing:
        noise = hparams.target_noise * jax.random.normal(key, action.shape)
        limit = hparams.target_noise_clip
        action = jnp.clip(action + jnp.clip(noise, -limit, limit), -1.0, 1.0)
    return parts.critic.apply(critic, batch.next_observation, action, None).min(0)


def _improve(
    parts: Parts, actor: Trained, targets: tuple[Any, Any], critic: Any, batch: Batch, hparams: Any
) -> tuple[tuple[Trained, tuple[Any, Any]], Metrics]:
    """A step of the policy up the first critic; the targets follow."""

    def loss(variables: Any) -> tuple[Array, None]:
        action = parts.actor.mode(variables, batch.observation)
        return -parts.first.apply(first, batch.observation, action, None).mean(), None

    first = jax.tree.map(lambda x: x[:1], critic)
    actor, _ = continuous.descend(actor, loss, optax.adam(hparams.learning_rate))
    targets = continuous.follow(targets, (actor.variables, critic), hparams.tau)
    return (actor, targets), {"policy_updates": fm.mean(jnp.float32(1.0))}


def _optimism(
    parts: Parts, learned: Learned, variables: Any, batch: Batch, values: Array, key: Key
) -> Array:
    """The mean of the policy's values over a baseline, summed over the critics.

    All at `s`, the policy's action at `s'` too, as in MEX's code; one pass for three actions.
    Consumes `key`.
    """
    both = jax.tree.map(lambda *x: jnp.stack(x), batch.observation, batch.next_observation)
    chosen = jax.lax.stop_gradient(parts.actor.mode(learned.actor.variables, both))
    uniform = jax.random.uniform(key, chosen[0].shape, minval=-1.0, maxval=1.0)
    actions = jnp.concatenate([chosen, uniform[None]])
    seen = jax.tree.map(lambda x: jnp.stack([x, x, x]), batch.observation)
    own, following, other = jnp.moveaxis(parts.critic.apply(variables, seen, actions, None), 1, 0)
    baseline = jax.nn.logsumexp(jnp.stack([values, following, other]), axis=0)
    return (own - baseline).sum(0).mean()


def _value(parts: Parts, learned: Learned, observation: Observation) -> Array:
    """The least of the critics' values of the policy's action."""
    action = parts.actor.mode(learned.actor.variables, observation)
    return parts.critic.apply(learned.critic.variables, observation, action, None).min(0)
