"""A policy and the other outputs that a rule wants, each with parameters of its own.

Without hidden layers an output is linear in the observation, and numbers out of `n` pick a row:
that is a table where the observation is one such number, at the cost of one row and not of
`n`.  A linear layer on the one-hot vector gives the same.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from fastrl import distributions, spaces
from fastrl.meta.lpg_types import Head, Outputs
from fastrl.networks import ACTIVATIONS, Activation, encoder, split_views
from fastrl.spaces import Discrete, MultiDiscrete, Space
from fastrl.types import Array, Key, Observation, PyTree

POLICY = "policy"


class Function(NamedTuple):
    """From an observation `[..., *]` to `[..., size]`."""

    init: Callable[[Key], PyTree]
    apply: Callable[[PyTree, Observation], Array]


class Network(NamedTuple):
    """All outputs of an agent; parameters are a dict with an entry for each."""

    init: Callable[[Key], dict[str, PyTree]]
    apply: Callable[[dict[str, PyTree], Observation], Outputs]
    policy: Callable[[dict[str, PyTree], Observation], Any]


def network(
    observation_space: Space, action_space: Space, heads: tuple[Head, ...],
    hidden_sizes: tuple[int, ...], activation: Activation,
) -> Network:  # fmt: skip
    """The network with these outputs. Raises ValueError for actions that are not discrete."""
    if not isinstance(action_space, Discrete):
        raise ValueError(f"rules that make targets need discrete actions, not {action_space}")
    view, _, _ = split_views(observation_space)
    num_actions = action_space.n
    functions = {POLICY: function(view, num_actions, hidden_sizes, activation)}
    for head in heads:
        size = head.size * (num_actions if head.per_action else 1)
        functions[head.name] = function(view, size, hidden_sizes, activation)

    def init(key: Key) -> dict[str, PyTree]:
        keys = jax.random.split(key, len(functions))
        return {name: f.init(k) for (name, f), k in zip(functions.items(), keys, strict=True)}

    def policy(params: dict[str, PyTree], observation: Observation) -> Any:
        seen, _, mask = split_views(observation)
        logits = functions[POLICY].apply(params[POLICY], seen)
        return distributions.from_outputs(action_space, logits, None, mask)

    def apply(params: dict[str, PyTree], observation: Observation) -> Outputs:
        seen, _, _ = split_views(observation)
        outputs = {}
        for head in heads:
            x = functions[head.name].apply(params[head.name], seen)
            shape = (*x.shape[:-1], num_actions, head.size)
            outputs[head.name] = x.reshape(shape) if head.per_action else x
        return Outputs(policy(params, observation), outputs)

    return Network(init, apply, policy)


def function(
    space: Space, size: int, hidden_sizes: tuple[int, ...], activation: Activation = "relu"
) -> Function:
    """Dense layers on observations of `space`, or without any a linear map by rows."""
    return _dense(space, size, hidden_sizes, activation) if hidden_sizes else _linear(space, size)


class _Layers(nn.Module):
    hidden_sizes: tuple[int, ...]
    activation: Activation
    size: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        for width in self.hidden_sizes:
            x = ACTIVATIONS[self.activation](nn.Dense(width)(x))
        return nn.Dense(self.size)(x)


def _dense(space: Space, size: int, hidden_sizes: tuple[int, ...], activation: Any) -> Function:
    layers, encode = _Layers(hidden_sizes, activation, size), encoder(space)
    example = spaces.zeros(space)
    apply: Callable[..., Any] = layers.apply
    return Function(
        lambda key: layers.init(key, encode(example)), lambda params, x: apply(params, encode(x))
    )


@dataclasses.dataclass(frozen=True)
class _Leaf:
    """A part of the observation: where it begins in the one-hot vector, and how long it is."""

    space: Any

    @property
    def length(self) -> int:
        if isinstance(self.space, Discrete):
            return self.space.n
        if isinstance(self.space, MultiDiscrete):
            return sum(self.space.nvec)
        return math.prod(self.space.shape)

    def __call__(self, weights: Array, x: Array) -> Array:
        """This part's share of the output `[..., size]`."""
        if isinstance(self.space, Discrete):
            return _row(weights, x)
        if isinstance(self.space, MultiDiscrete):
            offsets = [sum(self.space.nvec[:i]) for i in range(len(self.space.nvec))]
            return sum(_row(weights, x[..., i] + o) for i, o in enumerate(offsets))  # type: ignore
        return encoder(self.space)(x) @ weights


def _linear(space: Space, size: int) -> Function:
    """Variance 1 / length as flax's layers have it, no bias."""
    leaves = [_Leaf(s) for s in jax.tree.leaves(space, is_leaf=spaces.is_leaf)]
    scale = sum(leaf.length for leaf in leaves) ** -0.5

    def init(key: Key) -> list[Array]:
        keys = jax.random.split(key, len(leaves))
        draw = lambda k, leaf: scale * jax.random.normal(k, (leaf.length, size))  # noqa: E731
        return [draw(k, leaf) for k, leaf in zip(keys, leaves, strict=True)]

    def apply(params: list[Array], observation: Observation) -> Array:
        parts = zip(leaves, params, jax.tree.leaves(observation), strict=True)
        shares = [leaf(weights, x) for leaf, weights, x in parts]
        return sum(shares[1:], start=shares[0])

    return Function(init, apply)


def _row(table: Array, index: Array) -> Array:
    return jnp.take(table, index, axis=0, mode="clip")
