"""Optimisers built inside the trace, so that every number of theirs can be traced."""

import jax.numpy as jnp
import optax

from fastrl.types import Array


def adam(
    learning_rate: Array | float, max_grad_norm: Array | float, epsilon: float = 1e-5
) -> optax.GradientTransformation:
    """Adam after clipping the global norm; `epsilon` as PPO implementations have it."""
    return optax.chain(
        optax.clip_by_global_norm(max_grad_norm),  # type: ignore[arg-type]
        optax.adam(learning_rate, eps=epsilon),
    )


def linear(start: Array | float, end: Array | float, progress: Array) -> Array:
    """From `start` to `end` as `progress` goes from 0 to 1, and `end` from there on."""
    return start + (end - start) * jnp.clip(progress, 0.0, 1.0)
