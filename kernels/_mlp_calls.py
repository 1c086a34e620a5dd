"""The calls of the kernels forwards and backwards, with what they do in jnp beside them.

Networks are ensembles here: all leaves of their layers `[E, ...]`.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from fastrl.kernels import _numba_ffi, mlp
from fastrl.kernels.mlp import ACTIVATIONS, Array, Layers


def forward(
    activation: str, inputs: Sequence[Array], networks: Sequence[Layers], *, keep: bool
) -> list[list[Array]]:
    """Of each network the output `[E, B, N]`; with `keep` before it, of each hidden layer, what a
    backward pass reads: outputs, and if normalised what the norm gave and inverse deviations."""
    norm, rows = _is_normed(networks), len(inputs[0])
    arrays, shapes, lengths = [], [], []
    for x, layers in zip(inputs, networks, strict=True):
        arrays += [x, *(_flat(part) for layer in layers for part in layer)]
        lengths.append(1 + sum(map(len, layers)))
        for i, (w, b, *_) in enumerate(layers):
            many, n = len(w) * rows, b.shape[-1]
            if i == len(layers) - 1 or keep:
                shapes.append(_floats(many, n))
            if i < len(layers) - 1 and keep and norm:
                shapes += [_floats(many, n), _floats(many, 1)]

    def in_jnp(*flat: Array) -> list[Array]:
        found = []
        for part, layers in zip(_split(flat, lengths), networks, strict=True):
            found += _forward_in_jnp(part[0], _as(part[1:], layers), activation, keep)
        return found

    call = _call("forward", activation, networks, rows, keep=keep)
    found, each = call(in_jnp, shapes, arrays), 3 if norm else 1
    counts = [each * (len(layers) - 1) + 1 if keep else 1 for layers in networks]
    parts = zip(_split(found, counts), networks, strict=True)
    return [[y.reshape(len(layers[0][0]), rows, -1) for y in part] for part, layers in parts]


def _forward_in_jnp(x: Array, layers: Layers, activation: str, keep: bool) -> list[Array]:
    found = []
    for w, b, *norm in layers[:-1]:
        x = x @ w + b[:, None]
        more = ()
        if norm:
            more = mlp.normed(x)
            x = more[0] * norm[0][:, None] + norm[1][:, None]
        x = ACTIVATIONS[activation](x)
        found += [x, *more] if keep else []
    w, b = layers[-1]
    return [_flat(y) for y in (*found, x @ w + b[:, None])]


def backward(
    activation: str, inputs: Sequence[Array], networks: Sequence[Layers],
    found: Sequence[Sequence[Array]], derivatives: Sequence[Array],
    *, by_layers: bool, by_inputs: bool,
) -> tuple[Any, Any]:  # fmt: skip
    """Derivatives by the layers of each network, and by its input; see `forward` for `found`."""
    norm, rows = _is_normed(networks), len(inputs[0])
    groups = mlp.groups(rows)
    arrays, shapes, lengths = [], [], []
    for x, layers, h, d in zip(inputs, networks, found, derivatives, strict=True):
        scales = [layer[2] for layer in layers[:-1]] if norm else []
        own = [x, *map(_flat, (*h, *(layer[0] for layer in layers), *scales, d))]
        arrays, lengths = [*arrays, *own], [*lengths, len(own)]
        if by_layers:
            parts = [part for layer in layers for part in layer]
            shapes += [_floats(groups * p.size // p.shape[-1], p.shape[-1]) for p in parts]
        shapes += [_floats(len(layers[0][0]) * rows, x.shape[-1])] if by_inputs else []

    def in_jnp(*flat: Array) -> list[Array]:
        results = []
        for part, layers in zip(_split(flat, lengths), networks, strict=True):
            members = len(layers[0][0])
            stacked = [part[0], *(y.reshape(members, -1, y.shape[-1]) for y in part[1:])]
            sums, x = _backward_in_jnp(stacked, len(layers), groups, activation, norm)
            results += map(_flat, (*(sums if by_layers else []), *([x] if by_inputs else [])))
        return results

    call = _call("backward", activation, networks, rows, by_layers=by_layers, by_inputs=by_inputs)
    flat = call(in_jnp, shapes, arrays)
    counts = [by_layers * sum(map(len, layers)) + by_inputs for layers in networks]
    by_networks, by_x = [], []
    for part, layers, x in zip(_split(flat, counts), networks, inputs, strict=True):
        if by_inputs:
            by_x.append(part.pop().reshape(-1, *x.shape).sum(0))
        by_networks.append(_as([_summed(y, groups, len(layers[0][0])) for y in part], layers))
    return tuple(by_networks), tuple(by_x)


def _summed(y: Array, groups: int, members: int) -> Array:
    """Over the groups: `[E groups K, N] -> [E, K, N]`."""
    return y.reshape(members, groups, -1, y.shape[-1]).sum(1)


def _backward_in_jnp(
    part: Sequence[Array], n: int, groups: int, activation: str, norm: bool
) -> tuple[list[Array], Array]:
    """What the backward kernel does for one network of `n` layers: both kinds of derivatives."""
    each = 3 if norm else 1
    x, *rest = part
    found, weights, scales, d = (
        rest[: each * (n - 1)], rest[each * (n - 1) :][:n], rest[each * (n - 1) + n : -1], rest[-1]
    )  # fmt: skip
    sums, before = [], []
    apart = lambda y: y.reshape(len(y), groups, -1, y.shape[-1])  # noqa: E731
    for i in range(n - 1, -1, -1):
        seen = found[each * (i - 1)] if i else jnp.broadcast_to(x, (len(d), *x.shape))
        by_weights = jnp.einsum("egrk,egrn->egkn", apart(seen), apart(d))
        sums = [by_weights, apart(d).sum(2), *before, *sums]
        d = d @ jnp.swapaxes(weights[i], 1, 2)
        if i:
            d = d * (1 - seen**2 if activation == "tanh" else seen > 0)
        if i and norm:
            z, inverse = found[each * (i - 1) + 1 :][:2]
            before = [apart(d * z).sum(2), apart(d).sum(2)]
            d = d * scales[i - 1]
            along = (d * z).mean(-1, keepdims=True)
            d = inverse * (d - d.mean(-1, keepdims=True) - along * z)
    return sums, d


def _call(
    direction: str, activation: str, networks: Sequence[Layers], rows: int, **static: bool
) -> Callable[..., list[Array]]:
    """`(in_jnp, shapes, arrays)` to the kernel's results, with the derivatives of `in_jnp`."""
    from fastrl.kernels import _mlp_parts  # imports numba

    shapes: Any = [[layer[0].shape[1:] for layer in layers] for layers in networks]
    block = _mlp_parts.block(activation, max(n for of in shapes for _, n in of[:-1]))
    members = sum(len(layers[0][0]) for layers in networks)
    form = _mlp_parts.Form(tuple(map(len, networks)), activation, _is_normed(networks), block)
    own = max(_mlp_parts.scratch(direction, of, block) for of in shapes)
    scratch = _floats(mlp.groups(rows) * members, own + -own % 16)
    kernel = _kernel(direction, form=form, **static)

    def call(in_jnp: Callable[..., list[Array]], shapes: list[Any], arrays: Any) -> list[Array]:
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

    return call


@functools.cache
def _kernel(direction: str, **static: Any) -> Any:
    from fastrl.kernels import _mlp_backward, _mlp_forward  # import numba

    make = {"forward": _mlp_forward.forward, "backward": _mlp_backward.backward}[direction]
    return make(**static)


def _is_normed(networks: Sequence[Layers]) -> bool:
    return len(networks[0][0]) == 4


def _flat(x: Array) -> Array:
    """`[..., N]` as a matrix."""
    return x.reshape(-1, x.shape[-1])


def _as(flat: Sequence[Array], layers: Layers) -> Any:
    """In the shapes of `layers`, as a tuple for each."""
    parts = iter(flat)
    return tuple(
        tuple(next(parts).reshape(x.shape) for x in layer) for layer in layers[: len(flat)]
    )


def _floats(rows: int, columns: int) -> Any:
    return jax.ShapeDtypeStruct((rows, columns), jnp.float32)


def _split(flat: Sequence[Any], lengths: Sequence[int]) -> list[Any]:
    ends = [sum(lengths[: i + 1]) for i in range(len(lengths))]
    return [list(flat[end - n : end]) for end, n in zip(ends, lengths, strict=True)]
