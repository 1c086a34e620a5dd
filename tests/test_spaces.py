"""Samples of spaces: every member is reached, nothing outside is."""

from typing import Any

import jax
import numpy as np
import pytest

from fastrl import spaces
from fastrl.kernels import prng
from fastrl.spaces import Box, Discrete, MultiDiscrete

UINT8, INT32, BOOL = (np.dtype(t) for t in ("uint8", "int32", "bool"))


@pytest.mark.parametrize(
    "space",
    [
        Discrete(3),
        MultiDiscrete((2, 5)),
        Box(0, 255, (2, 3), UINT8),
        Box(False, True, (2,), BOOL),
        Box((-5, 0), (1, 10), (2,), INT32),
        Box(-(2**31), 2**31 - 1, (2,), INT32),
        Box((-1.0, 0.0), (1.0, 10.0), (2,)),
        Box((0.0, -np.inf), (np.inf, 1.0), (2,)),
    ],
    ids=str,
)
def test_samples_are_members_and_reach_the_ends(space: Any) -> None:
    """Bounds that overflow their type, and bounds of each entry under a batch."""
    one = spaces.sample(prng.key(0), space)
    assert spaces.explain(space, one) == ""
    many = np.asarray(spaces.sample(prng.key(1), space, (4000,)))
    assert many.shape == (4000, *space.shape)
    assert all(spaces.contains(space, x) for x in many[:50])
    if not isinstance(space, Box):
        low, high = np.zeros(space.shape), np.asarray(getattr(space, "nvec", space.shape or 3)) - 1
    else:
        low, high = (np.asarray(b, np.float64) for b in space.bounds())
    span = np.where(np.isfinite(high - low), high - low, 20.0)
    assert (many.min(0) <= np.where(np.isfinite(low), low, -1.0) + 0.01 * span).all()
    assert (many.max(0) >= np.where(np.isfinite(high), high, 1.0) - 0.01 * span).all()


@pytest.mark.parametrize("n", [2, 3, 7, 4096])
def test_integers_are_uniform(n: int) -> None:
    """A remainder of too few bits would favour the small ones."""
    x = np.asarray(jax.jit(lambda k: spaces.sample(k, Discrete(n), (200_000,)))(prng.key(2)))
    counts = np.bincount(x, minlength=n)
    chi2 = ((counts - x.size / n) ** 2 / (x.size / n)).sum()
    assert abs(chi2 - (n - 1)) < 5 * np.sqrt(2 * (n - 1)) + 5
