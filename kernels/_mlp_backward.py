"""Multilayer perceptrons backwards in numba: see `_mlp_calls.py`, which calls this."""

from collections.abc import Callable
from typing import Any

import numba

from fastrl.kernels import _sparse
from fastrl.kernels._activations import add_rows, by_name
from fastrl.kernels._activations import norm as norms
from fastrl.kernels._buffers import matrix
from fastrl.kernels._mlp_parts import (
    ZEROS,
    Form,
    add_last_layer,
    ahead,
    dense,
    layer_of,
    row_of,
    starts,
    task_of,
    wide,
)
from fastrl.kernels._tile import narrow, product
from fastrl.kernels._transpose import transpose


def backward(*, form: Form, by_layers: bool, by_inputs: bool) -> Callable[..., None]:
    """Arguments of each chain: x `[B, K]`, what `forward` kept of hidden layers, the weights of all
    layers, the scales of normalised ones, derivatives by the output `[E B, N]`.  Results: with
    `by_layers` derivatives by weights `[E groups K, N]`, bias `[E groups, N]`, scale and shift of
    each layer, a part of the sum from each group; with `by_inputs` those by x `[E B, K]`; then
    scratch.  A chain has a hidden layer."""
    depths, norm, rows_at_once = form.depths, form.norm, form.block
    each, kept = (4, 3) if norm else (2, 1)
    inputs = starts([2 + kept * (n - 1) + n + (n - 1 if norm else 0) for n in depths])
    layers = [each * n - (each - 2) if by_layers else 0 for n in depths]
    results_at = starts([n + by_inputs for n in layers])
    lowest = 0 if by_inputs else 1  # the last layer through which derivatives go
    add_layer, through = _add_layer(form), _through(form)
    through_norm: Any = _through_norm(by_layers) if norm else None  # numba leaves it out

    def mlp_backward(task, arguments, results, index):
        batch, tasks = matrix(arguments, 0, index)[1], matrix(results, results_at[-1], index)[1]
        chain, member, count, group, groups = task_of(task, tasks, batch, arguments, inputs, index)
        at, to, depth = inputs[chain], results_at[chain], depths[chain]
        weights, part = at + 1 + kept * (depth - 1), member * groups + group
        x0, _, k0 = matrix(arguments, at, index)
        by_output, _, units = matrix(arguments, inputs[chain + 1] - 1, index)
        _, last, _ = layer_of(arguments, weights + depth - 1, index, member, count)
        sums = row_of(results, results_at[-1], index, task)
        turned_weights = ahead(sums, units * last)
        t, widest = turned_weights, 0
        for layer in range(depth - 1, lowest - 1, -1):
            w, k, n = layer_of(arguments, weights + layer, index, member, count)
            transpose(t, wide(k), w, n, k, n)
            t, widest = ahead(t, wide(k) * n), max(widest, wide(k))
        turned = t
        one = ahead(turned, widest * wide(rows_at_once))
        two = ahead(one, widest * rows_at_once)
        own = ahead(two, widest * rows_at_once)
        first, end = batch * group // groups, batch * (group + 1) // groups
        for r in range(first, end, rows_at_once):
            m, row, fresh = min(rows_at_once, end - r), member * batch + r, r == first
            d, n, t = by_output + 4 * row * units, units, turned_weights
            for layer in range(depth - 1, -1, -1):
                before, x, k = two if d == one else one, x0 + 4 * r * k0, k0
                if layer > 0:
                    seen = at + 1 + kept * (layer - 1)
                    x, k = row_of(arguments, seen, index, row), matrix(arguments, seen, index)[2]
                if by_layers:
                    add_rows(row_of(results, to + each * layer + 1, index, part), d, n, m, fresh)
                    if layer == depth - 1:
                        add_last_layer(sums, x, d, m, k, n, fresh)
                    else:
                        by_w = row_of(results, to + each * layer, index, part * k)
                        add_layer(by_w, x, d, m, k, n, fresh, turned, own, layer)
                if layer >= lowest:
                    through(before, d, t, x, m, k, n, own, layer, depth)
                    t = ahead(t, wide(k) * n)
                    if layer == 0:
                        narrow(row_of(results, results_at[chain + 1] - 1, index, row), before, k, m)
                    elif norm:
                        scale = row_of(arguments, weights + depth + layer - 1, index, member)
                        through_norm(
                            arguments, results, index, before, scale, m, k, row, part, fresh,
                            at + 2 + kept * (layer - 1), to + each * (layer - 1) + 2,
                        )  # fmt: skip
                d, n = before, k
        if by_layers:
            by_w = row_of(results, to + each * (depth - 1), index, part * last)
            transpose(by_w, units, sums, last, units, last)

    return mlp_backward


def _add_layer(form: Form) -> Any:
    """Adds `x[m, k]^T d[m, n]`, of a layer that is not the last."""
    sparse = form.activation == "relu"
    sparse_product: Any = _sparse.product() if sparse else None  # numba leaves it out

    @numba.njit
    def add_layer(to, x, d, m, k, n, fresh, turned, own, layer):
        start, row = (ZEROS.ctypes.data, 0) if fresh else (to, n)
        if sparse and layer > 0:
            high = wide(m)
            transpose(turned, high, x, k, m, k)
            sparse_product(start, row, to, n, turned, high, d, n, k, n, m, own)
        else:
            product(start, row, to, n, x, 1, k, d, n, k, n, m)

    return add_layer


def _through(form: Form) -> Any:
    """Derivatives `d[m, n]` through a layer's weights, as `t[n, k]`, and through the activation
    that gave x, if the layer has one before it."""
    sparse = form.activation == "relu" and not form.norm  # with norms derivatives are full
    slope = by_name(form.activation)[1]
    sparse_product: Any = _sparse.product() if sparse else None  # numba leaves it out

    @numba.njit
    def through(before, d, t, x, m, k, n, own, layer, depth):
        full, zero = wide(k), ZEROS.ctypes.data
        if sparse and 0 < layer < depth - 1:
            sparse_product(zero, 0, before, full, d, n, t, full, m, full, n, own)
        else:
            dense(zero, 0, before, full, d, n, t, m, n)
        if layer > 0:
            slope(before, x, m * k)

    return through


def _through_norm(by_layers: bool) -> Any:
    """Derivatives through a norm, whose results are arguments from number `normed`; those by scale
    and shift are results from number `sums`."""
    norm_backward = norms()[1]

    @numba.njit
    def through_norm(arguments, results, index, d, scale, m, n, row, part, fresh, normed, sums):
        z = row_of(arguments, normed, index, row)
        inverse = row_of(arguments, normed + 1, index, row)
        by_scale = by_shift = d
        if by_layers:
            by_scale = row_of(results, sums, index, part)
            by_shift = row_of(results, sums + 1, index, part)
        norm_backward(d, z, inverse, scale, by_scale, by_shift, m, n, fresh, by_layers)

    return through_norm
