"""The loops of Adam for numba: see `adam.py`."""

from collections.abc import Callable

import numba
import numpy as np


@numba.njit(fastmath={"reassoc", "contract", "nsz"})
def _squares(x):
    total = np.float32(0.0)
    for i in range(x.size):
        total += x[i] * x[i]
    return total


def step(*, decays: tuple[float, float], epsilon: float) -> Callable[..., None]:
    """Arguments: mean, square, parameters of every leaf, gradients of every leaf, numbers; results:
    mean, square, parameters, which share the memory of the arguments."""
    keep, keep_square = map(np.float32, decays)
    share, share_square = (np.float32(1 - decay) for decay in decays)
    little, one = np.float32(epsilon), np.float32(1.0)

    def adam_step(*arrays):
        leaves = (len(arrays) - 5) // 3
        given = 2 + 2 * leaves
        rate, of_square, max_norm = arrays[given]
        mean, square = arrays[given + 1], arrays[given + 2]
        total = np.float32(0.0)
        for leaf in range(leaves):
            total += _squares(arrays[2 + leaves + leaf])
        norm = np.sqrt(total)
        scale = one if norm < max_norm else max_norm / norm
        at = 0
        for leaf in range(leaves):
            p, gradient = arrays[given + 3 + leaf], arrays[2 + leaves + leaf]
            m, v = mean[at : at + p.size], square[at : at + p.size]
            for i in range(p.size):
                g = gradient[i] * scale
                m[i] = keep * m[i] + share * g
                v[i] = keep_square * v[i] + share_square * g * g
                p[i] -= rate * m[i] / (np.sqrt(of_square * v[i]) + little)
            at += p.size

    return adam_step
