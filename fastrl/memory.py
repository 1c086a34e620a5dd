"""Policies and value functions with memory: a torso, a cell, heads.

The cells are GRU and LSTM (`fastrl.cells`) and a transformer (`fastrl.transformer`).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from fastrl import distributions, spaces
from fastrl.cells import Cell, Gru, Lstm, MemoryConfig
from fastrl.distributions import Distribution
from fastrl.networks import NetworkConfig, Torso, encoder, split_views
from fastrl.spaces import Box, Space
from fastrl.transformer import Transformer
from fastrl.types import Array, Key, Observation, PyTree

_CELLS: dict[Cell, Any] = {"gru": Gru, "lstm": Lstm, "transformer": Transformer}


class Recurrent(NamedTuple):
    """A policy and a value function with memory; sequences are `[T, ...]`."""

    init: Callable[[Key], Any]  # (key) -> params
    # (params, carry, observations [T, ...], start [T, ...]) -> carry, policy and value [T, ...]
    unroll: Callable[[Any, PyTree, Observation, Array], tuple[PyTree, Distribution, Array]]
    initial_carry: Callable[[tuple[int, ...]], PyTree]

    def step(
        self, params: Any, carry: PyTree, observation: Observation, start: Array
    ) -> tuple[PyTree, Distribution, Array]:
        """One time step: the same on observations and `start` `[...]`."""
        one = jax.tree.map(lambda x: x[None], (observation, start))
        carry, policy, value = self.unroll(params, carry, *one)
        return carry, *jax.tree.map(lambda x: x[0], (policy, value))


class _Network(nn.Module):
    """Outputs of the policy head, log standard deviations, values; one memory or one for each."""

    torso: NetworkConfig
    memory: MemoryConfig
    num_outputs: int
    continuous: bool

    @nn.compact
    def __call__(
        self, carries: tuple[PyTree, ...], x: Array, critic_x: Array, start: Array
    ) -> tuple[tuple[PyTree, ...], Array, Array | None, Array]:
        after, streams = [], []
        inputs = (("actor", x), ("critic", critic_x))
        for carry, (name, seen) in zip(carries, inputs, strict=False):
            hidden = Torso(self.torso, name=f"{name}_torso")(seen)
            cell = _CELLS[self.memory.cell](self.memory, name=f"{name}_memory")
            carry, hidden = cell(carry, hidden, start)
            after.append(carry)
            streams.append(hidden)
        orthogonal = nn.initializers.orthogonal
        outputs = nn.Dense(self.num_outputs, kernel_init=orthogonal(0.01), name="actor_head")
        value = nn.Dense(1, kernel_init=orthogonal(1.0), name="critic_head")
        log_std = None
        if self.continuous:
            log_std = self.param("log_std", nn.initializers.zeros, (self.num_outputs,))
        return tuple(after), outputs(streams[0]), log_std, value(streams[-1])[..., 0]


def recurrent(
    observation_space: Space, action_space: Space, torso: NetworkConfig, memory: MemoryConfig
) -> Recurrent:
    """The actor-critic with memory for these spaces.

    Policy and value share torso and memory, or with `torso.shared_torso=False` have their own.
    Raises ValueError where a space does not fit the network, before anything is compiled.
    """
    actor_space, critic_space, _ = split_views(observation_space)
    if torso.shared_torso and actor_space != critic_space:
        raise ValueError("shared_torso=true: a critic with a view of its own needs its own torso")
    image = torso.torso == "conv"
    encode, encode_critic = encoder(actor_space, image), encoder(critic_space, image)
    num_outputs = distributions.num_outputs(action_space)
    network = _Network(torso, memory, num_outputs, isinstance(action_space, Box))
    outputs_of: Callable[..., Any] = network.apply

    def initial_carry(batch_shape: tuple[int, ...]) -> PyTree:
        return (memory.initial_carry(batch_shape),) * (1 if torso.shared_torso else 2)

    def init(key: Key) -> Any:
        actor, critic, _ = split_views(spaces.zeros(observation_space, (1,)))
        start = jnp.ones(1, bool)
        return network.init(key, initial_carry(()), encode(actor), encode_critic(critic), start)

    def unroll(
        params: Any, carry: PyTree, observation: Observation, start: Array
    ) -> tuple[PyTree, Distribution, Array]:
        actor, critic, mask = split_views(observation)
        carry, outputs, log_std, value = outputs_of(
            params, carry, encode(actor), encode_critic(critic), start
        )
        return carry, distributions.from_outputs(action_space, outputs, log_std, mask), value

    return Recurrent(init, unroll, initial_carry)
