"""Networks that give a value, or several numbers, for every discrete action."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from fastrl import spaces
from fastrl.convolution import convolutions
from fastrl.kernels import mlp
from fastrl.networks import ACTIVATIONS, NetworkConfig, Torso, encoder, layers, split_views
from fastrl.products import dot_general
from fastrl.spaces import Discrete, Space
from fastrl.types import Array, Key, Observation

_NEVER = -1e9  # the value of an action that is masked out


class QNetwork(NamedTuple):
    """Numbers of every action; leading axes of any number are the batch."""

    init: Callable[[Key], Any]  # (key) -> params
    apply: Callable[[Any, Observation], Array]  # (params, observation) -> [..., A, K]
    num_actions: int


class Head(nn.Module):
    """`[..., H] -> [..., A, K]`."""

    num_actions: int
    num_outputs: int
    dueling: bool

    @nn.compact
    def __call__(self, x: Array) -> Array:
        advantage = nn.Dense(self.num_actions * self.num_outputs, name="advantage")(x)
        advantage = advantage.reshape(*x.shape[:-1], self.num_actions, self.num_outputs)
        if not self.dueling:
            return advantage
        value = nn.Dense(self.num_outputs, name="value")(x)[..., None, :]
        return _dueling(advantage, value)


class _Network(nn.Module):
    config: NetworkConfig
    num_actions: int
    num_outputs: int
    dueling: bool

    @nn.compact
    def __call__(self, x: Array) -> Array:
        config = self.config
        if config.torso == "conv":
            activation = ACTIVATIONS[config.activation]
            x = convolutions(x, config.conv_features, activation, config.layer_norm, "conv")
            config = dataclasses.replace(config, torso="mlp")
        x = Torso(config, dot_general, name="torso")(x)
        return Head(self.num_actions, self.num_outputs, self.dueling, name="head")(x)


def q_network(
    observation_space: Space,
    action_space: Space,
    config: NetworkConfig,
    *,
    num_outputs: int = 1,
    dueling: bool = False,
) -> QNetwork:
    """`num_outputs` numbers for each action: one value, or the numbers of a distribution.

    `dueling` (Wang et al. 2016, arXiv:1511.06581, equation 9): value plus advantage less its mean.
    Raises ValueError where a space does not fit, before anything is compiled.
    """
    num_actions = discrete(action_space).n
    actor_space, _, _ = split_views(observation_space)
    encode = encoder(actor_space, config.torso == "conv")
    network = _Network(config, num_actions, num_outputs, dueling)
    outputs_of: Callable[..., Any] = _fused(network) if config.fused_mlp else network.apply

    def init(key: Key) -> Any:
        return network.init(key, encode(split_views(spaces.zeros(observation_space))[0]))

    def apply(params: Any, observation: Observation) -> Array:
        return outputs_of(params, encode(split_views(observation)[0]))

    return QNetwork(init, apply, num_actions)


def _fused(network: _Network) -> Callable[..., Array]:
    """`network.apply` with the dense layers as one operation, `kernels.mlp`."""
    width = network.num_outputs

    def apply(variables: Any, x: Array) -> Array:
        torso, head = variables["params"]["torso"], variables["params"]["head"]
        last = head["advantage"]
        if network.dueling:
            last = jax.tree.map(lambda *x: jnp.concatenate(x, -1), last, head["value"])
        rows = x.reshape(-1, x.shape[-1])
        (out,) = mlp.apply([rows], [layers(torso, last)], network.config.activation)
        out = out.reshape(*x.shape[:-1], -1, width)
        return out if not network.dueling else _dueling(out[..., :-1, :], out[..., -1:, :])

    return apply


def _dueling(advantage: Array, value: Array) -> Array:
    """`[..., A, K]` and `[..., 1, K]`."""
    return value + advantage - advantage.mean(-2, keepdims=True)


def discrete(action_space: Space) -> Discrete:
    """`action_space`. Raises ValueError unless its actions can be listed."""
    if not isinstance(action_space, Discrete):
        raise ValueError(f"the actions are {action_space}: values of actions need Discrete ones")
    return action_space


def allowed(observation: Observation, values: Array) -> Array:
    """`values` `[..., A]` with those of actions masked out by the observation far below all."""
    mask = split_views(observation)[2]
    return values if mask is None else jnp.where(mask, values, _NEVER)


def epsilon_greedy(
    key: Key, values: Array, epsilon: Array | float, observation: Observation
) -> Array:
    """int32 `[...]`: an allowed action by chance with probability `epsilon`, else the best.

    Consumes `key`.
    """
    choose_key, uniform_key = jax.random.split(key)
    mask = split_views(observation)[2]
    shape = values.shape[:-1]
    if mask is None:
        other = jax.random.randint(choose_key, shape, 0, values.shape[-1])
    else:
        other = jax.random.categorical(choose_key, jnp.where(mask, 0.0, _NEVER))
    explore = jax.random.uniform(uniform_key, shape) < epsilon
    best = jnp.argmax(allowed(observation, values), -1)
    return jnp.where(explore, other, best).astype(jnp.int32)
