"""Which policy should collect next, so that the data look as if the target policy had: PROPS, ROS.

Corrado and Hanna 2023, "On-Policy Policy Gradient Reinforcement Learning Without On-Policy
Sampling" (arXiv:2311.08290).  With data D that a target policy pi_theta is to be trained on as if
it were its own, and r = pi_phi(a|s) / pi_theta(a|s),

    PROPS  phi starts at theta and minimises, in minibatches,
           mean_D max(r, clip(r, 1 - eps, 1 + eps)) + lambda mean_D KL(pi_theta || pi_phi)
           until an estimate of that KL, mean((r - 1) - log r), exceeds a target
    ROS    phi = theta - alpha grad mean_D log pi_theta     (Zhong et al. 2022, arXiv:2111.14552)

The first is PPO's clipped loss with advantage -1 for every sample: actions that D has already
become less likely, so those that it lacks become more likely, but by no more than `eps`.

How far D is from on-policy is its sampling error: KL(D) = mean_D [log pi_D - log pi_theta] with the
empirical policy pi_D, the most likely one for D (equation 8 of the paper).
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fastrl import distributions, optim, sharding
from fastrl import metrics as fm
from fastrl.algorithms import minibatches
from fastrl.algorithms.agent import Agent
from fastrl.distributions import Categorical, DiagonalNormal, Distribution, Product
from fastrl.metrics import Metrics
from fastrl.networks import ActorCritic
from fastrl.types import Action, Array, Key, Observation, PyTree, Transition
from fastrl.vec import VecState, rollout


class Data(NamedTuple):
    """Samples `[B, ...]`, of which those with weight 1 count and those with weight 0 do not."""

    observation: Observation  # as the network sees it
    action: Action
    weight: Array  # float32


def collect(
    config: Any, agent: Agent, key: Key, state: Any, hparams: Any, task: Any
) -> tuple[VecState, Transition, Array, Metrics]:
    """A rollout in parts, each by a policy that fills the gaps of the buffer. Consumes `key`.

    `config`, `state` and `hparams` are those of `props`.  Returns the environments, the buffer
    with the rollout in the place of the oldest, which of its rows hold something, and metrics.
    """
    see = functools.partial(agent.see, state)
    newest = (config.buffer_rollouts - 1) * config.num_steps
    rows = jnp.arange(newest + config.num_steps)
    kept = jnp.minimum(state.iteration, config.buffer_rollouts - 1) * config.num_steps
    buffer = jax.tree.map(lambda x: jnp.roll(x, -config.num_steps, axis=0), state.buffer)

    def segment(carry: Any, now: Any) -> Any:
        (env_state, buffer), (key, at) = carry, now
        behaviour_key, rollout_key = jax.random.split(key)
        held = (rows >= newest - kept) & (rows < at)
        acting, reported = _acting(
            config, agent, behaviour_key, see, state.params, buffer, held, hparams
        )

        def policy(key: Key, observation: Observation) -> tuple[Action, Action]:
            action = agent.network.policy(acting, see(observation)).sample(key)
            return distributions.to_environment(agent.action_space, action), action

        env_state, played, metrics = rollout(
            agent.vec_env, policy, rollout_key, env_state, task, config.behaviour_steps,
            lambda t, action: t._replace(action=action),
        )  # fmt: skip
        put = functools.partial(jax.lax.dynamic_update_slice_in_dim, start_index=at, axis=0)
        buffer = jax.tree.map(lambda x, new: put(x, new), buffer, sharding.collect(played))
        return (env_state, buffer), metrics | reported

    starts = newest + jnp.arange(0, config.num_steps, config.behaviour_steps)
    keys = jax.random.split(key, len(starts))
    (env_state, buffer), metrics = jax.lax.scan(segment, (state.env, buffer), (keys, starts))
    return env_state, buffer, rows >= newest - kept, fm.fold(metrics)


def _acting(
    config: Any, agent: Agent, key: Key, see: Any, params: PyTree, buffer: Transition,
    held: Array, hparams: Any,
) -> tuple[PyTree, Metrics]:  # fmt: skip
    """The parameters that act next, given what the buffer holds."""
    network = agent.network
    if config.sampler == "on_policy":
        return params, {}
    weight = jnp.broadcast_to(held[:, None], buffer.reward.shape).astype(jnp.float32)
    data = flat(Data(see(buffer.observation), buffer.action, weight))
    if config.sampler == "ros":
        rate = hparams.behaviour_learning_rate
        return against_data(network, params, data, rate), {}
    return behaviour(
        network, params, data, key, hparams, config.behaviour_epochs, config.behaviour_minibatches
    )


def flat(tree: PyTree) -> PyTree:
    """Time and environment as one axis."""
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), tree)


def behaviour(
    network: ActorCritic, target: PyTree, data: Data, key: Key, hparams: Any,
    epochs: int, num_minibatches: int,
) -> tuple[PyTree, Metrics]:  # fmt: skip
    """PROPS' phi for the target parameters theta. Without data it is theta. Consumes `key`.

    `hparams` has `behaviour_learning_rate`, `behaviour_clip`, `behaviour_kl` and
    `behaviour_penalty`.  Adam starts anew, as phi does.
    """
    optimizer = optim.adam(hparams.behaviour_learning_rate, hparams.max_grad_norm)
    loss = functools.partial(_loss, network, target, hparams)
    rows = minibatches.shuffled(key, data.weight.shape[0], 1, epochs, num_minibatches)
    update = minibatches.update(optimizer, loss, lambda rows: jax.tree.map(lambda x: x[rows], data))
    start = target, optimizer.init(target)
    (params, _), reported = minibatches.descend_until(
        update, start, rows, "kl", hparams.behaviour_kl
    )
    return params, {f"behaviour_{name}": x for name, x in reported.items()}


def _loss(
    network: ActorCritic, target: PyTree, hparams: Any, params: PyTree, batch: Data
) -> tuple[Array, Metrics]:
    aim = network.policy(target, batch.observation)
    policy = network.policy(params, batch.observation)
    log_ratio = policy.log_prob(batch.action) - aim.log_prob(batch.action)
    ratio = jnp.exp(log_ratio)
    clipped = jnp.clip(ratio, 1.0 - hparams.behaviour_clip, 1.0 + hparams.behaviour_clip)
    kept_near = hparams.behaviour_penalty * divergence(aim, policy)
    each = jnp.maximum(ratio, clipped) + kept_near
    reported = {"loss": each, "kl": ratio - 1.0 - log_ratio}
    reported = jax.lax.stop_gradient(reported)
    return weighted_mean(each, batch.weight), {
        name: fm.mean(x, batch.weight > 0) for name, x in reported.items()
    }


def against_data(network: ActorCritic, target: PyTree, data: Data, rate: Any) -> PyTree:
    """ROS' phi: one step from theta that makes the data less likely."""

    def log_likelihood(params: PyTree) -> Array:
        log_prob = network.policy(params, data.observation).log_prob(data.action)
        return weighted_mean(log_prob, data.weight)

    gradient = jax.grad(log_likelihood)(target)
    return jax.tree.map(lambda x, g: x - rate * g, target, gradient)


def sampling_error(
    network: ActorCritic, params: PyTree, data: Data, steps: int = 500, rate: float = 0.03
) -> Array:
    """KL(D) of `data` for the policy `params`; 0 without data.

    The empirical policy starts from the policy, and Adam fits its head alone in `steps` steps
    at a rate that falls to 0, as the paper's code does; so this is a lower bound, which is near
    where features of the network are few.
    """
    layers = params["params"]
    head = {name: x for name, x in layers.items() if name in ("actor_head", "log_std")}
    optimizer = optax.adam(optax.linear_schedule(rate, 0.0, steps))
    log_target = network.policy(params, data.observation).log_prob(data.action)

    def error(head: PyTree) -> Array:
        fitted = network.policy({"params": layers | head}, data.observation)
        return weighted_mean(fitted.log_prob(data.action) - log_target, data.weight)

    def fit(carry: Any, _: Any) -> Any:
        head, state = carry
        updates, state = optimizer.update(jax.grad(lambda h: -error(h))(head), state)
        return (optax.apply_updates(head, updates), state), None

    (head, _), _ = jax.lax.scan(fit, (head, optimizer.init(head)), None, steps)
    return error(head)


def weighted_mean(x: Array, weight: Array) -> Array:
    """The mean of those entries that count; 0 where none does."""
    return (x * weight).sum() / jnp.maximum(weight.sum(), 1.0)


def divergence(p: Distribution, q: Distribution) -> Array:
    """KL(p || q), `[...]`."""
    match p, q:
        case Categorical(), Categorical():
            return (jnp.exp(p.log_p) * (p.log_p - q.log_p)).sum(-1)
        case Product(), Product():
            return sum(map(divergence, p.parts, q.parts))  # type: ignore[return-value]
        case DiagonalNormal(), DiagonalNormal():
            ratio = jnp.exp(2.0 * (p.log_std - q.log_std))
            apart = ((p.mean - q.mean) * jnp.exp(-q.log_std)) ** 2
            each = 0.5 * (ratio + apart - 1.0) - (p.log_std - q.log_std)
            return each.sum(axis=tuple(range(-p.event_ndim, 0)))
    raise ValueError(f"no divergence between {type(p).__name__} and {type(q).__name__}")
