"""The actor-critic of `fastrl.networks` inside the kernel: dense layers on a block of observations.

The first layer is a sum of outer products, for observations are too short for a matrix product;
hidden layers are products of blocks; heads are sums over a row of weights per output.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

Struct = jax.ShapeDtypeStruct


def _tanh(x: jax.Array) -> jax.Array:
    """By one exponential, off by 1e-7: the GPU's own function takes several times as long."""
    return 1.0 - 2.0 / (jnp.exp(2.0 * x) + 1.0)


_PLAIN: dict[str, Callable[[jax.Array], jax.Array]] = {
    "tanh": jnp.tanh, "relu": lambda x: jnp.maximum(x, 0.0),
}  # fmt: skip
_ACTIVATIONS = _PLAIN | {"tanh": _tanh}  # in the kernel
SIZES = (16, 32, 64, 128)  # of hidden layers: Triton's products need 16, registers end after 128


class NetworkSpec(Protocol):
    """What is read of a network's shape; a `fastrl.networks.NetworkConfig` is one."""

    @property
    def hidden_sizes(self) -> tuple[int, ...]: ...
    @property
    def activation(self) -> str: ...
    @property
    def shared_torso(self) -> bool: ...


class Layer(NamedTuple):
    """`x kernel + bias`; `kernel` is `[inputs, outputs]`, the head's transposed in the kernel."""

    kernel: Any
    bias: Any


class Weights(NamedTuple):
    """An actor-critic. `critic` is () with a shared torso, `critic_head` None without critic."""

    actor: tuple[Layer, ...]
    actor_head: Layer
    log_std: Any  # [outputs], None for discrete actions
    critic: tuple[Layer, ...]
    critic_head: Layer | None


def from_flax(params: Mapping[str, Any]) -> Weights:
    """The weights in `params` as `fastrl.networks.actor_critic` makes them."""
    modules = params["params"]

    def torso(name: str) -> tuple[Layer, ...]:
        layers = modules.get(name, {})
        return tuple(Layer(**layers[f"Dense_{i}"]) for i in range(len(layers)))

    head = modules.get("critic_head")
    return Weights(
        torso("actor_torso"),
        Layer(**modules["actor_head"]),
        modules.get("log_std"),
        torso("critic_torso"),
        None if head is None else Layer(**head),
    )


def flax_structs(spec: NetworkSpec, inputs: int, outputs: int, continuous: bool) -> Any:
    """Shapes of the params of `fastrl.networks.actor_critic` for so many inputs and outputs."""

    def layer(n: int, m: int) -> dict[str, Struct]:
        return {"kernel": Struct((n, m), np.float32), "bias": Struct((m,), np.float32)}

    sizes = (inputs, *spec.hidden_sizes)
    torso = {f"Dense_{i}": layer(n, m) for i, (n, m) in enumerate(itertools.pairwise(sizes))}
    modules: dict[str, Any] = {"actor_torso": torso, "actor_head": layer(sizes[-1], outputs)}
    modules["critic_head"] = layer(sizes[-1], 1)
    if not spec.shared_torso:
        modules["critic_torso"] = torso
    if continuous:
        modules["log_std"] = Struct((outputs,), np.float32)
    return {"params": modules}


def reason(spec: Any) -> str | None:
    """Why a network of this shape cannot be in the kernel; None if it can."""
    if getattr(spec, "torso", "mlp") != "mlp" or getattr(spec, "layer_norm", False):
        return "the network is no plain MLP (torso='mlp' without layer_norm)"
    if spec.activation not in _ACTIVATIONS:
        return f"activation={spec.activation!r}: the kernel has {' and '.join(_ACTIVATIONS)}"
    sizes = tuple(spec.hidden_sizes)
    if not sizes or not set(sizes) <= set(SIZES):
        return f"hidden_sizes={sizes}: the kernel takes one or more of {SIZES}"
    return None


class Network(NamedTuple):
    """Weights in memory and how to use them.

    Observations and outputs are lists of vectors `[B]`.  Weights are read where they are used, at
    every step, which after the first means from the cache: held over the loop they fill the
    registers (64-64 tanh, blocks of 64, 8 warps: 3,100 bytes spilled instead of 348).
    """

    spec: NetworkSpec
    weights: Weights  # references
    dot: Callable[[jax.Array, jax.Array], jax.Array]

    @property
    def log_std(self) -> list[jax.Array] | None:
        """One number per output; None for discrete actions."""
        log_std = self.weights.log_std
        return None if log_std is None else [log_std[k] for k in range(log_std.shape[0])]

    def apply(self, x: list[jax.Array], value: bool) -> tuple[list[jax.Array], jax.Array | None]:
        """Outputs of the policy head, and the critic's value if it is asked for."""
        hidden = self._torso(x, self.weights.actor)
        outputs = _head(hidden, self.weights.actor_head)
        return outputs, self._value(x, hidden) if value else None

    def value(self, x: list[jax.Array]) -> jax.Array:
        """The critic's `[B]`."""
        return self._value(x, None)

    def _value(self, x: list[jax.Array], hidden: jax.Array | None) -> jax.Array:
        head = self.weights.critic_head
        assert head is not None
        if not self.spec.shared_torso:
            hidden = self._torso(x, self.weights.critic)
        elif hidden is None:
            hidden = self._torso(x, self.weights.actor)
        return _head(hidden, head)[0]

    def _torso(self, x: list[jax.Array], layers: tuple[Layer, ...]) -> jax.Array:
        activation = _ACTIVATIONS[self.spec.activation]
        first, *others = layers
        products = [v[:, None] * first.kernel[d, :][None, :] for d, v in enumerate(x)]
        hidden = activation(_sum(products) + first.bias[:][None, :])
        for kernel, bias in others:
            hidden = activation(self.dot(hidden, kernel[:, :]) + bias[:][None, :])
        return hidden


def _head(hidden: jax.Array, layer: Layer) -> list[jax.Array]:
    return [
        jnp.sum(hidden * layer.kernel[k, :][None, :], axis=1) + layer.bias[k]
        for k in range(layer.kernel.shape[0])
    ]


def _sum(terms: Sequence[jax.Array]) -> jax.Array:
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def dense(spec: NetworkSpec, weights: Weights, x: jax.Array) -> tuple[jax.Array, jax.Array | None]:
    """The same network as plain JAX: `x` `[N, D]` to outputs `[N, A]` and values `[N]`."""

    def torso(layers: tuple[Layer, ...]) -> jax.Array:
        hidden = x
        for layer in layers:
            hidden = _PLAIN[spec.activation](hidden @ layer.kernel + layer.bias[None])
        return hidden

    def head(hidden: jax.Array, layer: Layer) -> jax.Array:
        return hidden @ layer.kernel + layer.bias[None]

    hidden = torso(weights.actor)
    outputs = head(hidden, weights.actor_head)
    if weights.critic_head is None:
        return outputs, None
    hidden = hidden if spec.shared_torso else torso(weights.critic)
    return outputs, head(hidden, weights.critic_head)[:, 0]
