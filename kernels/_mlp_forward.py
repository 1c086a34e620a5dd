"""Multilayer perceptrons forwards in numba: see `_mlp_calls.py`, which calls this."""

from collections.abc import Callable
from typing import Any

import numba

from fastrl.kernels import _sparse
from fastrl.kernels._activations import by_name
from fastrl.kernels._activations import norm as norms
from fastrl.kernels._buffers import matrix
from fastrl.kernels._mlp_parts import (
    Form,
    ahead,
    dense,
    layer_of,
    outputs,
    row_of,
    starts,
    task_of,
    wide,
)


def forward(*, form: Form, keep: bool) -> Callable[..., None]:
    """Arguments of each chain: x `[B, K]`, then weights `[E K, N]` and bias `[E, N]` of its layers,
    and scale and shift `[E, N]` of normalised ones.  Results: with `keep` of each hidden layer its
    output `[E B, N]`, and if normalised what the norm gave before scale and shift and the inverse
    deviations `[E B, 1]`; outputs of the last layer; then scratch."""
    depths, rows_at_once, hidden = form.depths, form.block, _hidden(form, keep)
    each, kept = (4, 3) if form.norm else (2, 1)
    inputs = starts([1 + each * n - (each - 2) for n in depths])
    results_at = starts([kept * (n - 1) + 1 if keep else 1 for n in depths])

    def mlp_forward(task, arguments, results, index):
        batch, tasks = matrix(arguments, 0, index)[1], matrix(results, results_at[-1], index)[1]
        chain, member, count, group, groups = task_of(
            task, tasks, batch, results, results_at, index
        )
        at, last = inputs[chain], depths[chain] - 1
        x0, _, k0 = matrix(arguments, at, index)
        place = at + 1 + each * last
        w, k_last, units = layer_of(arguments, place, index, member, count)
        b = row_of(arguments, place + 1, index, member)
        full, widest = wide(units), 0
        for layer in range(last):
            _, _, n = layer_of(arguments, at + 1 + each * layer, index, member, count)
            widest = max(widest, n)
        w_full = row_of(results, results_at[-1], index, task)
        b_full = ahead(w_full, full * k_last)
        h_full = ahead(b_full, full)
        pre = ahead(h_full, full * rows_at_once)
        inverse = ahead(pre, widest * rows_at_once)
        first, end = batch * group // groups, batch * (group + 1) // groups
        for r in range(first, end, rows_at_once):
            m, row = min(rows_at_once, end - r), member * batch + r
            x, k, free = x0 + 4 * r * k0, k0, ahead(inverse, rows_at_once)
            for layer in range(last):
                x, k = hidden(
                    arguments, results, index, at + 1 + each * layer,
                    results_at[chain] + kept * layer, member, count, x, k, m, row, pre, inverse,
                    free, layer,
                )  # fmt: skip
                free = ahead(free, rows_at_once * k)
            y = row_of(results, results_at[chain + 1] - 1, index, row)
            outputs(y, x, w, b, w_full, b_full, h_full, m, units, k, r == first)

    return mlp_forward


def _hidden(form: Form, keep: bool) -> Any:
    """A hidden layer for a block of rows; returns its output, which is the next one's input."""
    norm, sparse, activate = form.norm, form.activation == "relu", by_name(form.activation)[0]
    rows_at_once = form.block
    # What is None is not reached, and numba leaves it out.
    sparse_product: Any = _sparse.product() if sparse else None
    norm_forward: Any = norms()[0] if norm else None

    @numba.njit
    def hidden(
        arguments, results, index, place, to, member, members, x, k, m, row, pre, inverse, free,
        layer,
    ):  # fmt: skip
        w, _, n = layer_of(arguments, place, index, member, members)
        b = row_of(arguments, place + 1, index, member)
        h, z, own = free, pre, ahead(free, rows_at_once * n)
        if keep:
            h, own = row_of(results, to, index, row), free
        if keep and norm:
            z = row_of(results, to + 1, index, row)
            inverse = row_of(results, to + 2, index, row)
        if sparse and layer > 0:
            sparse_product(b, 0, z, n, x, k, w, n, m, n, k, own)
        else:
            dense(b, 0, z, n, x, k, w, m, k)
        if norm:
            scale = row_of(arguments, place + 2, index, member)
            shift = row_of(arguments, place + 3, index, member)
            norm_forward(z, pre, inverse, scale, shift, m, n)
        activate(h, pre, m * n)
        return h, n

    return hidden
