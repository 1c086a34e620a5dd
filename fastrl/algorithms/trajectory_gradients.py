"""Gradients and Hessian-vector products of the return, from whole trajectories.

Phi(tau, x) = sum_t G_t log pi_x(a_t | s_t),   G_t = sum_{h >= t} gamma^h r_h
g(tau, x)   = grad Phi                          (its mean is the gradient of the return)
B(tau, x)   = grad Phi (grad log p(tau | x))^T + grad^2 Phi    (its mean is the Hessian)
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fastrl import distributions
from fastrl.algorithms import trajectories
from fastrl.metrics import Metrics
from fastrl.networks import ActorCritic
from fastrl.types import Action, Array, Key, Observation, PyTree
from fastrl.vec import VecEnv


class Parts(NamedTuple):
    """What is closed over."""

    config: Any
    network: ActorCritic
    vec_env: VecEnv
    action_space: Any


def fixed_deviation(network: ActorCritic, config: Any) -> ActorCritic:
    """`network` whose deviations are those of `config`, if it fixes them."""
    if not config.std:
        return network
    log_std = math.log(config.std)

    def fixed(params: PyTree, observation: Observation) -> distributions.Distribution:
        layers = params["params"]
        if "log_std" in layers:
            layers = layers | {"log_std": jnp.full_like(layers["log_std"], log_std)}
        return network.policy({"params": layers}, observation)

    return network._replace(policy=fixed)


class Trajectories(NamedTuple):
    """Complete first episodes of a batch, `[H, N, ...]`; after the end nothing counts."""

    observation: Observation
    action: Action
    weight: Array  # G_t less the baseline, 0 after the end
    alive: Array  # float32: 1 up to the end


def hessian_vector(phi: Any, log_p: Any, params: PyTree, vector: PyTree) -> PyTree:
    """`B v`, the mean over trajectories of `grad Phi (grad log p . v) + grad^2 Phi v`.

    `phi(x, w)` is the mean of `w Phi` and `log_p(x)` `[N]`.  With `w(x)` the likelihood ratio
    of each trajectory to the one at which it was played, the derivative of `grad_x phi(x, w(x))`
    along `v` has both terms.
    """
    here = jax.lax.stop_gradient(log_p(params))

    def gradient(x: PyTree) -> PyTree:
        return jax.grad(phi)(x, jnp.exp(log_p(x) - here))

    return jax.jvp(gradient, (params,), (vector,))[1]


def phi(parts: Parts, seen: Trajectories, params: PyTree, ratio: Any = 1.0) -> Array:
    """The mean over trajectories of `ratio Phi`."""
    log_prob = parts.network.policy(params, seen.observation).log_prob(seen.action)
    return (ratio * (seen.weight * log_prob).sum(0)).mean()


def log_p(parts: Parts, seen: Trajectories, params: PyTree) -> Array:
    """The policy's share of `log p(tau)`, `[N]`."""
    log_prob = parts.network.policy(params, seen.observation).log_prob(seen.action)
    return (seen.alive * log_prob).sum(0)


def play(
    parts: Parts, key: Key, params: PyTree, state: Any, hparams: Any, task: Any
) -> tuple[Trajectories, PyTree, Metrics]:
    """`N` trajectories from their starts, the Reset's memory after them, and their metrics."""
    config = parts.config
    played, memory, metrics = trajectories.play(
        parts.vec_env, parts.network, parts.action_space, config.horizon, key, params,
        state.memory, task,
    )  # fmt: skip
    discounts = hparams.gamma ** jnp.arange(config.horizon, dtype=jnp.float32)[:, None]
    followed = trajectories.to_go(discounts * played.reward)
    weight = played.alive * (followed - state.baseline[:, None])
    return Trajectories(played.observation, played.action, weight, played.alive), memory, metrics


def followed_baseline(baseline: Array, seen: Trajectories, hparams: Any) -> Array:
    """The running mean of `G_t`, `[H]`, of those trajectories that were alive at `t`."""
    alive = seen.alive.sum(1)
    error = seen.weight.sum(1) / jnp.maximum(alive, 1.0)
    return baseline + hparams.baseline_rate * error
