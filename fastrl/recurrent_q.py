"""Values of actions by a network with memory: a torso, a recurrent cell, a head."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from fastrl import spaces
from fastrl.cells import Gru, Lstm, MemoryConfig
from fastrl.networks import NetworkConfig, Torso, encoder, split_views
from fastrl.q_network import Head, discrete
from fastrl.spaces import Space
from fastrl.types import Array, Key, Observation, PyTree

Cell = Literal["gru", "lstm"]
_CELLS: dict[str, Any] = {"gru": Gru, "lstm": Lstm}


class RecurrentQ(NamedTuple):
    """Pure functions; `start` is true where an episode begins, and the carry is forgotten."""

    init: Callable[[Key], Any]  # (key) -> params
    # (params, carry, observation [...], start [...]) -> carry, values [..., A]
    step: Callable[[Any, PyTree, Observation, Array], tuple[PyTree, Array]]
    # (params, carry, observations [T, ...], start [T, ...]) -> carries after each, values
    unroll: Callable[[Any, PyTree, Observation, Array], tuple[PyTree, Array]]
    initial_carry: Callable[[tuple[int, ...]], PyTree]
    num_actions: int


class _Network(nn.Module):
    config: NetworkConfig
    memory: MemoryConfig
    num_actions: int
    dueling: bool

    def setup(self) -> None:
        self.torso = Torso(self.config)
        self.cell = _CELLS[self.memory.cell](self.memory)
        self.head = Head(self.num_actions, 1, self.dueling)

    def see(self, x: Array) -> Array:
        return self.torso(x)

    def remember(self, carry: PyTree, x: Array, start: Array) -> tuple[PyTree, Array]:
        carry, hidden = self.cell(carry, x[None], start[None])
        return carry, hidden[0]

    def value(self, hidden: Array) -> Array:
        return self.head(hidden)[..., 0]

    def __call__(self, carry: PyTree, x: Array, start: Array) -> tuple[PyTree, Array]:
        carry, hidden = self.remember(carry, self.see(x), start)
        return carry, self.value(hidden)


def recurrent_q(
    observation_space: Space,
    action_space: Space,
    config: NetworkConfig,
    memory: MemoryConfig,
    *,
    dueling: bool = False,
) -> RecurrentQ:
    """A value for each action, of all that was seen in the episode.

    Raises ValueError where a space does not fit, before anything is compiled.
    """
    num_actions = discrete(action_space).n
    actor_space, _, _ = split_views(observation_space)
    encode = encoder(actor_space, config.torso == "conv")
    network = _Network(config, memory, num_actions, dueling)
    apply: Callable[..., Any] = network.apply
    view = lambda observation: encode(split_views(observation)[0])  # noqa: E731

    def init(key: Key) -> Any:
        zeros = view(spaces.zeros(observation_space))
        return network.init(key, memory.initial_carry(()), zeros, jnp.bool_(True))

    def step(params: Any, carry: PyTree, observation: Observation, start: Array) -> Any:
        return apply(params, carry, view(observation), start)

    def unroll(params: Any, carry: PyTree, observations: Observation, start: Array) -> Any:
        def body(carry: PyTree, now: tuple[Array, Array]) -> Any:
            carry, hidden = apply(params, carry, *now, method="remember")
            return carry, (carry, hidden)

        seen = apply(params, view(observations), method="see")
        _, (carries, hidden) = jax.lax.scan(body, carry, (seen, start))
        return carries, apply(params, hidden, method="value")

    return RecurrentQ(init, step, unroll, memory.initial_carry, num_actions)


def batch_shape(space: Space, observation: Observation) -> tuple[int, ...]:
    """The leading axes of `observation`."""
    leaf, like = jax.tree.leaves(observation)[0], jax.tree.leaves(space, is_leaf=spaces.is_leaf)[0]
    return leaf.shape[: leaf.ndim - len(like.shape)]
