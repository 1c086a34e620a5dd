"""Dense layers with an activation between them, several networks at once.

    policy, value = mlp.apply((x, x), (policy_layers, value_layers), activation="tanh")

XLA runs each layer as an operation of its own over the whole batch, on CPU with its matrix
product on one thread where it is small.  The numba kernels take a block of rows through all layers
while it is in the cache, forwards and backwards, and share networks and rows out among the threads;
after a relu they leave out what is zero.  How the rows are divided depends on their number only, so
results do not depend on the machine's threads.

What is not asked for is not computed: derivatives by the inputs, or by the layers, or neither.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from fastrl.kernels import _numba_ffi

Array = jax.Array
# From input to output: weights [K, N] and biases [N], and where hidden layers are normalised scale
# and shift [N] of these.  An ensemble has an axis for its members in front of all.
Layers = Sequence[tuple[Array, ...]]

ACTIVATIONS = {"tanh": jnp.tanh, "relu": lambda x: jnp.maximum(x, 0.0)}
WIDEST = 4096  # units of a layer
LANES = 8  # floats of a vector
EPSILON = 1e-6  # added to the variance that a normalised layer is divided by the root of


def reference(inputs: Sequence[Array], networks: Sequence[Layers], activation: str) -> list[Array]:
    """`inputs` `[B, K]` through their networks: outputs `[B, N]`, linear in the last layer; of an
    ensemble `[E, B, N]`."""
    return [hidden(x, layers, activation)[-1] for x, layers in zip(inputs, networks, strict=True)]


def apply(inputs: Sequence[Array], networks: Sequence[Layers], activation: str) -> list[Array]:
    """As `reference`, by the kernels where they serve; see `serves`."""
    if not serves(inputs, networks, activation):
        return reference(inputs, networks, activation)
    alone = [layers[0][0].ndim == 2 for layers in networks]
    stacked = tuple(
        tuple(tuple(x[None] if one else x for x in layer) for layer in layers)
        for layers, one in zip(networks, alone, strict=True)
    )
    outputs: Any = _apply(activation, tuple(inputs), stacked)
    return [y[0] if one else y for y, one in zip(outputs, alone, strict=True)]


def serves(inputs: Sequence[Array], networks: Sequence[Layers], activation: str) -> bool:
    """Whether the kernels can do this: float32, at least one hidden layer, all of a multiple of 8
    units, none of more than `WIDEST`, all normalised or none, and up to 31 tasks: a network or
    member of an ensemble is up to four, see `groups`."""
    arrays = [*inputs, *jax.tree.leaves(networks)]
    units = [[layer[1].shape[-1] for layer in layers] for layers in networks]
    widths = [*(x.shape[-1] for x in inputs), *(n for of in units for n in of)]
    normed = {len(layer) == 4 for layers in networks for layer in layers[:-1]}
    return (
        activation in ACTIVATIONS
        and all(len(layers) > 1 for layers in networks)
        and len(normed) == 1
        and all(x.dtype == jnp.float32 for x in arrays)
        and all(x.ndim == 2 and len(x) == len(inputs[0]) > 0 for x in inputs)
        and all(n % LANES == 0 for of in units for n in of[:-1])
        and max(widths) <= WIDEST - LANES
        and sum(map(_members, networks)) * groups(len(inputs[0])) <= _numba_ffi.MOST_TASKS
    )


def _members(layers: Layers) -> int:
    return len(layers[0][0]) if layers[0][0].ndim == 3 else 1


def groups(rows: int) -> int:
    """Into how many parts the batch is divided."""
    return next(n for n in (4, 2, 1) if n == 1 or (rows >= 256 * n and rows % n == 0))


def hidden(x: Array, layers: Layers, activation: str) -> list[Array]:
    """The outputs of all layers."""
    found = []
    for i, (w, b, *norm) in enumerate(layers):
        x = x @ w + b[..., None, :]
        if i < len(layers) - 1:
            x = normed(x)[0] * norm[0][..., None, :] + norm[1][..., None, :] if norm else x
            x = ACTIVATIONS[activation](x)
        found.append(x)
    return found


def normed(x: Array) -> tuple[Array, Array]:
    """Rows of `[..., N]` with mean 0 and variance 1, and the inverse standard deviations."""
    x = x - x.mean(-1, keepdims=True)
    inverse = jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + EPSILON)
    return x * inverse, inverse


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _apply(activation: str, inputs: tuple[Array, ...], networks: Any) -> list[Array]:
    from fastrl.kernels import _mlp_calls

    return [y for (y,) in _mlp_calls.forward(activation, inputs, networks, keep=False)]


def _apply_forward(activation: str, inputs: Any, networks: Any) -> Any:
    """The arguments are known with whether a derivative by each is asked for."""
    from fastrl.kernels import _mlp_calls

    is_leaf = lambda x: hasattr(x, "perturbed")  # noqa: E731
    wanted = [
        any(x.perturbed for x in jax.tree.leaves(tree, is_leaf=is_leaf))
        for tree in (networks, inputs)
    ]
    inputs, networks = jax.tree.map(lambda x: x.value, (inputs, networks), is_leaf=is_leaf)
    found = _mlp_calls.forward(activation, inputs, networks, keep=True)
    kept = inputs, networks, [y[:-1] for y in found]
    # Of what is kept for the derivative only the structure says what is wanted.
    return [y[-1] for y in found], (kept, *(() if want else None for want in wanted))


def _apply_backward(activation: str, kept: Any, derivatives: list[Any]) -> Any:
    from fastrl.kernels import _mlp_calls

    (inputs, networks, found), *wanted = kept
    by_layers, by_inputs = (want is not None for want in wanted)
    given = [jnp.zeros(d.shape) if isinstance(d, SymbolicZero) else d for d in derivatives]
    layers, x = _mlp_calls.backward(
        activation, inputs, networks, found, given, by_layers=by_layers, by_inputs=by_inputs
    )
    return x if by_inputs else None, layers if by_layers else None


_apply.defvjp(_apply_forward, _apply_backward, symbolic_zeros=True)
