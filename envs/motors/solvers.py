"""Fixed-step integration of `y' = slopes(y)` over records of scalars, for a kernel to trace too."""

from collections.abc import Callable
from typing import Any

import jax

Slopes = Callable[[Any], Any]  # y -> its derivative, a record alike


def _along(y: Any, slope: Any, time: Any) -> Any:
    return jax.tree.map(lambda a, b: a + time * b, y, slope)


def euler(slopes: Slopes, y: Any, time: Any) -> Any:
    """One explicit Euler step."""
    return _along(y, slopes(y), time)


def rk4(slopes: Slopes, y: Any, time: Any) -> Any:
    """One step of the classical Runge-Kutta method of order 4."""
    k1 = slopes(y)
    k2 = slopes(_along(y, k1, 0.5 * time))
    k3 = slopes(_along(y, k2, 0.5 * time))
    k4 = slopes(_along(y, k3, time))
    mean = jax.tree.map(lambda a, b, c, d: (a + 2 * (b + c) + d) / 6, k1, k2, k3, k4)
    return _along(y, mean, time)


SOLVERS = {"rk4": rk4, "euler": euler}


def integrate(solver: str, slopes: Slopes, y: Any, time: Any, substeps: int) -> Any:
    """`y` after `time`, in `substeps` equal steps."""
    for _ in range(substeps):
        y = SOLVERS[solver](slopes, y, time / substeps)
    return y
