"""Networks of off-policy learners: critics, and policies over a bounded Box.

Critics are an ensemble (`fastrl.ensembles`), a policy is an ensemble of one.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fastrl import spaces
from fastrl.distributions import DiagonalNormal, SquashedNormal
from fastrl.ensembles import Dropout, EnsembleConfig, Norm, ensemble
from fastrl.networks import Activation, encoder, split_views
from fastrl.spaces import Box, Space
from fastrl.types import Action, Array, Key, Observation

LOG_STD = -5.0, 2.0  # between which log standard deviations are squashed


class Actor(NamedTuple):
    """A policy over a bounded Box, in units where that is [-1, 1]; actions `[..., *space]`."""

    init: Callable[[Key], Any]
    policy: Callable[[Any, Observation], SquashedNormal]  # (variables, observation)
    mode: Callable[[Any, Observation], Array]  # (variables, observation) -> action
    # by the statistics of the batch `[B, *]`: the policy, and the variables after it
    train: Callable[[Any, Observation], tuple[SquashedNormal, Any]]
    num_actions: int


class Critic(NamedTuple):
    """`E` values of an observation and an action (in [-1, 1])."""

    init: Callable[[Key], Any]
    # (variables, observation, action, dropout | None) -> [E, ...]
    apply: Callable[[Any, Observation, Action, Dropout | None], Array]
    # by the statistics of the batch: values [E, B], and the variables after it
    train: Callable[[Any, Observation, Action], tuple[Array, Any]]


def box(action_space: Space) -> Box:
    """`action_space`. Raises ValueError unless it is a bounded Box of floats."""
    is_float = isinstance(action_space, Box) and np.issubdtype(action_space.dtype, np.floating)
    if not is_float or not action_space.shape:
        raise ValueError(
            f"the actions are {action_space}: this learner needs a Box of floats with an axis, "
            "such as Box(-1.0, 1.0, (2,)); for discrete ones take sac_discrete or dqn"
        )
    if not action_space.bounded:
        raise ValueError(
            f"the actions are {action_space}: this learner needs finite bounds; "
            "transforms.RescaleAction of an environment with bounds has them"
        )
    return action_space


def actor(
    observation_space: Space, action_space: Box, hidden_sizes: tuple[int, ...],
    activation: Activation = "relu", *, norm: Norm = "none", deterministic: bool = False,
    fused_mlp: bool = False,
) -> Actor:  # fmt: skip
    """A policy with a mean, and unless `deterministic` a deviation, for each action."""
    view, _, _ = split_views(observation_space)
    encode, shape = encoder(view), action_space.shape
    count = int(np.prod(shape))
    outputs = count * (1 if deterministic else 2)
    config = EnsembleConfig(1, hidden_sizes, outputs, activation, norm, fused_mlp)
    network = ensemble(width(view), config)
    inputs = lambda observation: encode(split_views(observation)[0])  # noqa: E731

    def policy_of(out: Array) -> SquashedNormal:
        low, high = LOG_STD
        squashed = low + 0.5 * (high - low) * (jnp.tanh(out[..., count:]) + 1.0)
        mean, log_std = (x.reshape(*x.shape[:-1], *shape) for x in (out[..., :count], squashed))
        return SquashedNormal(DiagonalNormal(mean, log_std, event_ndim=len(shape)))

    def policy(variables: Any, observation: Observation) -> SquashedNormal:
        return policy_of(network.apply(variables, inputs(observation), None)[0])

    def mode(variables: Any, observation: Observation) -> Array:
        if not deterministic:
            return policy(variables, observation).mode()
        out = network.apply(variables, inputs(observation), None)[0]
        return jnp.tanh(out).reshape(*out.shape[:-1], *shape)

    def train(variables: Any, observation: Observation) -> tuple[SquashedNormal, Any]:
        out, variables = network.train(variables, inputs(observation))
        return policy_of(out[0]), variables

    return Actor(network.init, policy, mode, train, count)


def critic(
    observation_space: Space, action_space: Box, members: int, hidden_sizes: tuple[int, ...],
    activation: Activation = "relu", *, norm: Norm = "none", fused_mlp: bool = False,
) -> Critic:  # fmt: skip
    """An ensemble of `members` action values."""
    _, view, _ = split_views(observation_space)
    encode, rank = encoder(view), len(action_space.shape)
    num_inputs = width(view) + int(np.prod(action_space.shape))
    config = EnsembleConfig(members, hidden_sizes, 1, activation, norm, fused_mlp)
    network = ensemble(num_inputs, config)

    def inputs(observation: Observation, action: Array) -> Array:
        flat = action.reshape(*action.shape[: action.ndim - rank], -1)
        return jnp.concatenate([encode(split_views(observation)[1]), flat], axis=-1)

    def apply(
        variables: Any, observation: Observation, action: Array, dropout: Dropout | None = None
    ) -> Array:
        return network.apply(variables, inputs(observation, action), dropout)[..., 0]

    def train(variables: Any, observation: Observation, action: Array) -> tuple[Array, Any]:
        out, variables = network.train(variables, inputs(observation, action))
        return out[..., 0], variables

    return Critic(network.init, apply, train)


def width(space: Space) -> int:
    """The entries of an observation of `space` as one vector."""
    return jax.eval_shape(encoder(space), spaces.zeros(space)).shape[-1]
