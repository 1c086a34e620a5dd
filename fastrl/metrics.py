"""Metrics: named sums with weights, so that any number of steps folds into constant memory.

Adding two `Mean`s is exact bookkeeping, in whatever order: over a scan, over devices, over
the chunks of a run.  The mean is taken once, on the host, when it is shown.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Mean(NamedTuple):
    """A weighted sum: `total` of the values and their `weight`."""

    total: jax.Array
    weight: jax.Array

    def __add__(self, other: "Mean") -> "Mean":  # type: ignore[override]
        return Mean(self.total + other.total, self.weight + other.weight)


Metrics = dict[str, Mean]


def mean(values: jax.Array, where: jax.Array | None = None) -> Mean:
    """The `Mean` of `values` of any shape, of those entries only that `where` marks."""
    values = jnp.asarray(values, jnp.float32)
    if where is None:
        return Mean(values.sum(), jnp.float32(values.size))
    return summed({"": each(values, where)})[""]


def each(values: jax.Array, where: jax.Array | None = None) -> Mean:
    """The same entry by entry, not summed yet: a scan stacks it and `summed` reduces it once.

    A reduction at every step costs as much as the step of a small environment does.
    """
    values = jnp.asarray(values, jnp.float32)
    if where is None:
        return Mean(values, jnp.ones(values.shape, bool))
    where = jnp.broadcast_to(where, values.shape)
    return Mean(jnp.where(where, values, 0.0), where)


def summed(metrics: Metrics) -> Metrics:
    """Sums out all axes."""
    return {k: Mean(m.total.sum(), m.weight.sum(dtype=jnp.float32)) for k, m in metrics.items()}


def add(a: Metrics, b: Metrics) -> Metrics:
    """The metrics of both; the names must agree."""
    if a.keys() != b.keys():
        raise ValueError(f"metrics differ in their names: {sorted(a)} and {sorted(b)}")
    return {name: a[name] + b[name] for name in a}


def fold(metrics: Metrics) -> Metrics:
    """Sums out the leading axis: what a scan stacked becomes one record."""
    return {k: Mean(m.total.sum(0), m.weight.sum(0)) for k, m in metrics.items()}


def zeros_like(metrics: Metrics) -> Metrics:
    """The neutral element of `add`; takes shapes (`jax.eval_shape`) as well as arrays."""
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), metrics)


def compute(metrics: Metrics) -> dict[str, np.ndarray]:
    """The means, on the host; NaN where nothing was counted (no episode ended, say)."""
    host = jax.device_get(metrics)
    with np.errstate(invalid="ignore", divide="ignore"):
        return {k: np.asarray(m.total / m.weight) for k, m in host.items()}
