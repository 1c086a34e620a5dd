"""The network of an agent that learns by DiscoRL's rule: heads on states, and on actions."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from fastrl import distributions, spaces
from fastrl.meta.lpg_types import Head, Outputs
from fastrl.networks import encoder, split_views
from fastrl.spaces import Discrete, Space
from fastrl.types import Array, Key, Observation, PyTree

_HEAD = nn.initializers.truncated_normal(1e-2)


class Network(NamedTuple):
    """All outputs of an agent; leading axes are the batch."""

    init: Callable[[Key], PyTree]
    apply: Callable[[PyTree, Observation], Outputs]
    policy: Callable[[PyTree, Observation], Any]


class _Module(nn.Module):
    """The policy's logits `[..., A]`, heads on states `[..., K]`, on actions `[..., A, K]`."""

    num_actions: int
    heads: tuple[Head, ...]
    hidden_sizes: tuple[int, ...]
    model_size: int
    head_sizes: tuple[int, ...]

    def setup(self) -> None:
        self.torso = [nn.Dense(n) for n in self.hidden_sizes]
        self.policy_head = nn.Dense(self.num_actions, kernel_init=_HEAD)
        self.state_heads = {
            h.name: nn.Dense(h.size, kernel_init=_HEAD) for h in self.heads if not h.per_action
        }
        self.root = nn.Dense(self.model_size)
        self.actions = nn.Dense(4 * self.model_size)
        self.recurrent = nn.Dense(4 * self.model_size, use_bias=False)
        self.action_heads = {
            h.name: [nn.Dense(n) for n in (*self.head_sizes, h.size or self.num_actions)]
            for h in self.heads if h.per_action
        }  # fmt: skip

    def policy(self, x: Array) -> Array:
        return self.policy_head(_through(self.torso, x))

    def __call__(self, x: Array) -> tuple[Array, dict[str, Array]]:
        x = _through(self.torso, x)
        outputs = {name: head(x) for name, head in self.state_heads.items()}
        moved = self._moved(self.root(x))
        outputs |= {name: _through(layers, moved) for name, layers in self.action_heads.items()}
        return self.policy_head(x), outputs

    def _moved(self, cell: Array) -> Array:
        """The LSTM's output for each action, from the state that `cell` stands for."""
        own = self.actions(jnp.eye(self.num_actions))
        past = self.recurrent(jnp.tanh(cell))[..., None, :]
        shape = (*cell.shape[:-1], self.num_actions, own.shape[-1])
        gates = jnp.broadcast_to(past, shape) + jnp.broadcast_to(own, shape)
        i, g, f, o = jnp.split(gates, 4, -1)
        kept = jax.nn.sigmoid(f + 1.0) * jnp.broadcast_to(cell[..., None, :], f.shape)
        return jax.nn.sigmoid(o) * jnp.tanh(kept + jax.nn.sigmoid(i) * jnp.tanh(g))


def network(
    observation_space: Space, action_space: Space, heads: tuple[Head, ...],
    hidden_sizes: tuple[int, ...], model_size: int, head_sizes: tuple[int, ...],
) -> Network:  # fmt: skip
    """The network with these outputs; a head of size 0 has one entry per action.

    Raises ValueError for actions that are not discrete.
    """
    if not isinstance(action_space, Discrete):
        raise ValueError(f"Disco needs discrete actions, not {action_space}")
    view, _, _ = split_views(observation_space)
    encode = encoder(view)
    module = _Module(action_space.n, heads, hidden_sizes, model_size, head_sizes)
    run: Callable[..., Any] = module.apply

    def apply(params: PyTree, observation: Observation) -> Outputs:
        seen, _, mask = split_views(observation)
        logits, outputs = run(params, encode(seen))
        return Outputs(distributions.categorical(logits, mask), outputs)

    def policy(params: PyTree, observation: Observation) -> Any:
        seen, _, mask = split_views(observation)
        return distributions.categorical(run(params, encode(seen), method="policy"), mask)

    return Network(lambda key: module.init(key, encode(spaces.zeros(view))), apply, policy)


def _through(layers: list[nn.Dense], x: Array) -> Array:
    """Layers with relu between them."""
    for layer in layers[:-1]:
        x = nn.relu(layer(x))
    return layers[-1](x)
