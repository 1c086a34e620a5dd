"""Optimisers built inside the trace, so that every number of theirs can be traced.

They see the parameters as one vector: an update is then a few operations instead of a few for
every leaf, which on small networks is a tenth of the time of PPO and a fifth of its compilation.
"""

from typing import Any

import jax.numpy as jnp
import optax

from fastrl.types import Array


def adam(
    learning_rate: Array | float, max_grad_norm: Array | float, epsilon: float = 1e-5
) -> optax.GradientTransformation:
    """Adam after clipping the global norm; `epsilon` as PPO implementations have it."""
    return _clipped(max_grad_norm, optax.adam(learning_rate, eps=epsilon))


def rmsprop(
    learning_rate: Array | float, max_grad_norm: Array | float, decay: Any, epsilon: Any
) -> optax.GradientTransformation:
    """RMSprop after clipping the global norm; `epsilon` outside of the root, as in PyTorch."""
    rule = optax.rmsprop(learning_rate, decay, epsilon, eps_in_sqrt=False)
    return _clipped(max_grad_norm, rule)


def radam(
    learning_rate: Array | float, max_grad_norm: Array | float
) -> optax.GradientTransformation:
    """Rectified Adam (Liu et al. 2020) after clipping the global norm."""
    return _clipped(max_grad_norm, optax.radam(learning_rate))


def _clipped(
    max_grad_norm: Array | float, rule: optax.GradientTransformation
) -> optax.GradientTransformation:
    clip = optax.clip_by_global_norm(max_grad_norm)  # type: ignore[arg-type]
    return optax.flatten(optax.chain(clip, rule))


def linear(start: Array | float, end: Array | float, progress: Array) -> Array:
    """From `start` to `end` as `progress` goes from 0 to 1, and `end` from there on."""
    return start + (end - start) * jnp.clip(progress, 0.0, 1.0)
