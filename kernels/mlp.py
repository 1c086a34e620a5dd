"""Dense layers with an activation between them, several networks at once.

    policy, value = mlp.apply((x, x), (policy_layers, value_layers), activation="tanh")

XLA runs each layer as an operation of its own over the whole batch, on CPU with its matrix
product on one thread where it is small.  The numba kernels take a block of rows through all layers
while it is in the cache, forwards and backwards, and share networks and rows out among the threads.
How the rows are divided depends on their number only, so results do not depend on the machine's
threads.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from fastrl.kernels import _numba_ffi

Array = jax.Array
Layers = Sequence[tuple[Array, Array]]  # weights [K, N] and biases [N], from input to output

ACTIVATIONS = {"tanh": jnp.tanh, "relu": lambda x: jnp.maximum(x, 0.0)}
WIDEST = 4096  # units of a layer
LANES = 8  # floats of a vector


def reference(inputs: Sequence[Array], networks: Sequence[Layers], activation: str) -> list[Array]:
    """`inputs` `[B, K]` through their networks: outputs `[B, N]`, linear in the last layer."""
    return [_hidden(x, layers, activation)[-1] for x, layers in zip(inputs, networks, strict=True)]


def apply(inputs: Sequence[Array], networks: Sequence[Layers], activation: str) -> list[Array]:
    """As `reference`, by the kernels where they serve; see `serves`."""
    if not serves(inputs, networks, activation):
        return reference(inputs, networks, activation)
    return _apply(activation, tuple(inputs), tuple(map(tuple, networks)))


def serves(inputs: Sequence[Array], networks: Sequence[Layers], activation: str) -> bool:
    """Whether the kernels can do this: float32, at least one hidden layer, all of a multiple of 8
    units, none of more than `WIDEST`, and up to seven networks."""
    arrays = [*inputs, *jax.tree.leaves(networks)]
    hidden = [b.size for layers in networks for _, b in layers[:-1]]
    deep = all(len(layers) > 1 for layers in networks)
    widths = [*(x.shape[-1] for x in inputs), *(b.size for n in networks for _, b in n)]
    return (
        activation in ACTIVATIONS
        and deep
        and all(x.dtype == jnp.float32 for x in arrays)
        and all(x.ndim == 2 and len(x) == len(inputs[0]) > 0 for x in inputs)
        and all(n % LANES == 0 for n in hidden)
        and max(widths) <= WIDEST - LANES
        and len(networks) * _groups(len(inputs[0])) <= _numba_ffi.MOST_TASKS
    )


def _hidden(x: Array, layers: Layers, activation: str) -> list[Array]:
    """The outputs of all layers."""
    found = []
    for i, (w, b) in enumerate(layers):
        x = x @ w + b[None]
        x = x if i == len(layers) - 1 else ACTIVATIONS[activation](x)
        found.append(x)
    return found


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _apply(activation: str, inputs: tuple[Array, ...], networks: Sequence[Layers]) -> list[Array]:
    return [outputs[-1] for outputs in _forward(activation, inputs, networks)]


def _apply_forward(activation: str, inputs: tuple[Array, ...], networks: Sequence[Layers]) -> Any:
    outputs = _forward(activation, inputs, networks)
    return [y[-1] for y in outputs], (inputs, networks, [y[:-1] for y in outputs])


def _apply_backward(activation: str, kept: Any, derivatives: list[Array]) -> Any:
    inputs, networks, hidden = kept
    found = _backward(activation, inputs, networks, hidden, derivatives)
    by_input = [d @ layers[0][0].T for (_, d), layers in zip(found, networks, strict=True)]
    return tuple(by_input), tuple(tuple(layers) for layers, _ in found)


_apply.defvjp(_apply_forward, _apply_backward)


def _forward(activation: str, inputs: Sequence[Array], networks: Sequence[Layers]) -> Any:
    """The outputs of all layers of all networks."""
    depths, rows = tuple(map(len, networks)), len(inputs[0])
    arrays = []
    for x, layers in zip(inputs, networks, strict=True):
        arrays += [x, *(part for w, b in layers for part in (w, b[None]))]

    def in_jnp(*flat: Array) -> list[Array]:
        found = []
        for (x, *parts), n in zip(_split(flat, [1 + 2 * n for n in depths]), depths, strict=True):
            layers = [(parts[2 * i], parts[2 * i + 1][0]) for i in range(n)]
            found += _hidden(x, layers, activation)
        return found

    shapes = [_floats(rows, b.size) for layers in networks for _, b in layers]
    return _split(_call("forward", in_jnp, shapes, arrays, networks, activation), depths)


def _backward(
    activation: str, inputs: Sequence[Array], networks: Sequence[Layers],
    hidden: Sequence[Sequence[Array]], derivatives: Sequence[Array],
) -> Any:  # fmt: skip
    """Of each network: derivatives by its layers, and by what the first gives its activation."""
    depths, rows = tuple(map(len, networks)), len(inputs[0])
    groups = _groups(rows)
    arrays, shapes = [], []
    for x, layers, h, d in zip(inputs, networks, hidden, derivatives, strict=True):
        arrays += [x, *h, *(w for w, _ in layers), d]
        for w, b in layers:
            shapes += [_floats(groups * len(w), b.size), _floats(groups, b.size)]
        shapes += [_floats(rows, b.size) for _, b in layers[:-1]]

    def in_jnp(*flat: Array) -> list[Array]:
        parts = zip(_split(flat, [2 * n + 1 for n in depths]), depths, strict=True)
        return [y for part, n in parts for y in _backward_in_jnp(part, n, groups, activation)]

    found, flat = [], _call("backward", in_jnp, shapes, arrays, networks, activation)
    for part, d in zip(_split(flat, [3 * n - 1 for n in depths]), derivatives, strict=True):
        n = (len(part) + 1) // 3
        sums = [x.reshape(groups, -1, x.shape[-1]).sum(0) for x in part[: 2 * n]]
        layers = [(w, b[0]) for w, b in zip(sums[::2], sums[1::2], strict=True)]
        found.append((layers, part[2 * n] if n > 1 else d))
    return found


def _backward_in_jnp(part: Sequence[Array], n: int, groups: int, activation: str) -> list[Array]:
    """What the backward kernel does for one network of `n` layers."""
    x, weights, d = part[:n], part[n:-1], part[-1]
    layers, before = [], []
    for i in range(n - 1, -1, -1):
        x_, d_ = (y.reshape(groups, -1, y.shape[-1]) for y in (x[i], d))
        by_weights = jnp.einsum("grk,grn->gkn", x_, d_)
        layers = [by_weights.reshape(-1, d.shape[-1]), d_.sum(1), *layers]
        if i:
            slope = 1 - x[i] ** 2 if activation == "tanh" else x[i] > 0
            d = (d @ weights[i].T) * slope
            before = [d, *before]
    return [*layers, *before]


def _call(
    direction: str, in_jnp: Callable[..., list[Array]], shapes: list[Any], arrays: list[Array],
    networks: Sequence[Layers], activation: str,
) -> list[Array]:  # fmt: skip
    """The kernel's results, with the derivatives of `in_jnp`."""
    depths, groups = tuple(map(len, networks)), _groups(len(arrays[0]))
    kernel = _kernel(direction, depths, activation)
    own = [_scratch(direction, [w.shape for w, _ in layers]) for layers in networks]
    scratch = _floats(groups * len(depths), max(own))

    def fallback(*flat: Array) -> list[Array]:
        return [*in_jnp(*flat), jnp.zeros(scratch.shape)]

    def in_numba(*flat: Array) -> list[Array]:
        call = _numba_ffi.numba_call
        return call(kernel, [*shapes, scratch], *flat, fallback=fallback, tasks=True)[:-1]

    @jax.custom_jvp
    def fast(*flat: Array) -> list[Array]:
        return jax.lax.platform_dependent(*flat, cpu=in_numba, default=in_jnp)

    @fast.defjvp
    def _(primals: Any, tangents: Any) -> Any:
        return fast(*primals), jax.jvp(in_jnp, primals, tangents)[1]

    return fast(*arrays)


def _groups(rows: int) -> int:
    """Into how many parts the batch is divided."""
    return next(n for n in (4, 2, 1) if n == 1 or (rows >= 256 * n and rows % n == 0))


def _scratch(direction: str, shapes: Sequence[Any]) -> int:
    from fastrl.kernels import _mlp_numba  # imports numba

    return _mlp_numba.scratch(direction, shapes)


@functools.cache
def _kernel(direction: str, depths: tuple[int, ...], activation: str) -> Any:
    from fastrl.kernels import _mlp_numba  # imports numba

    return getattr(_mlp_numba, direction)(depths=depths, activation=activation)


def _floats(rows: int, columns: int) -> Any:
    return jax.ShapeDtypeStruct((rows, columns), jnp.float32)


def _split(flat: Sequence[Any], lengths: Sequence[int]) -> list[Any]:
    ends = [sum(lengths[: i + 1]) for i in range(len(lengths))]
    return [list(flat[end - n : end]) for end, n in zip(ends, lengths, strict=True)]
