"""Stream learners with memory: what `recurrent_q` and `recurrent_td` share.

The observation, as the learner sees it, goes through a cell (`recurrent_cells`), and its features
beside the observation into the network of the other stream learners.  The gradient of a value
reaches the cell's parameters as the cell has it: exactly, for the diagonal unit, up to the changes
of the weights on the way.  Nothing of the past is stored but the memory, and its sensitivities.
The memory forgets at both kinds of end; the value of a true successor where an episode was cut off
is that of the memory that has seen it.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fastrl import door
from fastrl.streaming import config as configs
from fastrl.streaming import networks, recurrent_cells
from fastrl.streaming import stream as streams
from fastrl.streaming.networks import Network, Shape
from fastrl.streaming.recurrent_cells import Cell, CellName, Memory
from fastrl.streaming.stream import Parts
from fastrl.types import Array, Key, Observation, PyTree


@dataclasses.dataclass(frozen=True)
class Config(configs.Config):
    """The fields of `config.Config` and these; a memory needs no time feature to count with."""

    cell: CellName = "diagonal"
    memory_size: int = 32  # units: of the diagonal cell complex numbers
    time_feature: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        door.choice("cell", self.cell, ("diagonal", "gru"))
        door.integer("memory_size", self.memory_size, 1)
        if self.torso != "mlp":
            raise ValueError(f"torso={self.torso!r}: stream learners with memory have 'mlp' only")


class Params(NamedTuple):
    """What is learned."""

    cell: Any
    network: networks.Params


class Carry(NamedTuple):
    """What `act` carries along."""

    memory: Memory
    steps: Array  # int32, of the episode


class Model(NamedTuple):
    """A cell with a network on top."""

    cell: Cell
    network: Network

    def init(self, key: Key) -> Params:
        """Consumes `key`."""
        cell_key, network_key = jax.random.split(key)
        return Params(self.cell.init(cell_key), self.network.init(network_key))

    def apply(self, params: Params, memory: Memory, x: Array) -> tuple[Array, Memory]:
        """The outputs `[units]` of the first head, and the memory that has seen `x`."""
        memory, features = self.cell.step(params.cell, memory, x)
        return self.network.apply(params.network, jnp.concatenate([features, x]))[0], memory

    def start(self) -> Memory:
        """The memory of nothing, of a learner."""
        return self.cell.start(True)

    def forget(self, memory: Memory, where: Array) -> Memory:
        """`memory`, that of nothing where that is so."""
        return jax.tree.map(lambda x: jnp.where(where, jnp.zeros_like(x), x), memory)


class Recurrent(NamedTuple):
    """A model on one stream."""

    stream: Parts
    model: Model
    side_by_side: int  # as `Algorithm` has it

    def carry(self, batch_shape: tuple[int, ...]) -> Carry:
        """What `act` starts from."""
        start = Carry(self.model.cell.start(False), jnp.int32(0))
        return jax.tree.map(lambda x: jnp.broadcast_to(x, (*batch_shape, *x.shape)), start)

    def act_on(
        self, f: Callable[[Array, Observation], Any], state: Any, carry: PyTree,
        observation: Observation,
    ) -> tuple[Any, Carry]:  # fmt: skip
        """`f(outputs, observation)` of every observation `[..., *]`, and the next carry."""
        seen, limit = state.stream.observations, state.time_limit

        def one(observation: Observation, carry: Carry) -> tuple[Any, Carry]:
            x = self.stream.view(seen, observation, carry.steps, limit)
            outputs, memory = self.model.apply(state.params, carry.memory, x)
            return f(outputs, observation), Carry(memory, carry.steps + 1)

        return self.stream.batched(one, observation)(observation, carry)

    def first(
        self, f: Callable[[Array, Observation], Any], state: Any, observation: Observation
    ) -> Any:
        """The same as at a first step, with nothing remembered."""
        lead = self.stream.batched(lambda o: jnp.int32(0), observation)(observation).shape
        return self.act_on(f, state, self.carry(lead), observation)[0]


def build(parts: Parts, config: Config, num_outputs: int) -> Recurrent:
    """The cell and the network for a stream."""
    (width,) = parts.input_shape
    made, shape = model(config, width, num_outputs)
    return Recurrent(parts, made, streams.side_by_side([shape]))


def model(config: Config, width: int, num_outputs: int) -> tuple[Model, Shape]:
    """The cell and the network for inputs of `width` numbers, and the network's shape."""
    cell = recurrent_cells.cell(config.cell, width, config.memory_size)
    shape = Shape((cell.num_features + width,), config.hidden_sizes, (num_outputs,))
    (network,) = networks.networks([shape], config.initializer, config.sparsity, config.layer_norm)
    return Model(cell, network), shape
