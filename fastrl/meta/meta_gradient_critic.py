"""The value function of one lifetime, which only the outer learner looks at.

It estimates the returns of the inner agent's policy and learns from every rollout of the
lifetime; nothing of it is differentiated by the rule.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fastrl import returns
from fastrl.meta import lpg_network, lpg_optimizer
from fastrl.networks import Activation, split_views
from fastrl.spaces import Space
from fastrl.types import Array, Key, PyTree, Scalar, Transition


class Numbers(NamedTuple):
    """What it learns with."""

    gamma: Scalar
    gae_lambda: Scalar
    learning_rate: Scalar
    max_grad_norm: Scalar


class State(NamedTuple):
    """What a lifetime keeps."""

    params: PyTree
    optimizer: Any


class Critic(NamedTuple):
    """A value function and how it learns."""

    init: Callable[[Key], State]
    # (state, Transition [T, N], numbers) -> (state, advantages [T, N], mean square of errors)
    learn: Callable[[State, Transition, Numbers], tuple[State, Array, Array]]


def critic(
    space: Space, hidden_sizes: tuple[int, ...], activation: Activation, name: lpg_optimizer.Name
) -> Critic:
    """For observations of `space`; a table or linear map without `hidden_sizes`."""
    _, view, _ = split_views(space)
    function = lpg_network.function(view, 1, hidden_sizes, activation)
    optimizer = lpg_optimizer.optimizer(name)

    def value(params: PyTree, observation: Any) -> Array:
        return function.apply(params, split_views(observation)[1])[..., 0]

    def init(key: Key) -> State:
        params = function.init(key)
        return State(params, optimizer.init(params))

    def learn(state: State, t: Transition, numbers: Numbers) -> tuple[State, Array, Array]:
        """A step of descent on 1/2 (V - G)^2, G the lambda-returns under V from before it."""
        values, pull_back = jax.vjp(lambda params: value(params, t.observation), state.params)
        advantage = returns.gae(
            t.reward, values, value(state.params, t.next_observation), t.terminated, t.truncated,
            numbers.gamma, numbers.gae_lambda,
        )  # fmt: skip
        (gradient,) = pull_back(-advantage / advantage.size)
        gradient = lpg_optimizer.clipped(gradient, numbers.max_grad_norm)
        stepped = optimizer.apply(state.optimizer, state.params, gradient, numbers.learning_rate)
        return State(stepped[1], stepped[0]), advantage, jnp.mean(advantage**2)

    return Critic(init, learn)
