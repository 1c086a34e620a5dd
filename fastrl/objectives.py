"""Policy objectives: pure functions with parameters of their own.

An objective is `(eta, inputs, hparams) -> (loss [...], metrics)`.  `eta` is
`hparams.objective`: () for the hand-written ones here, the parameters of a network for the
learned ones of `fastrl.meta`.  The learner does not know whether it is differentiated,
perturbed by an evolution strategy, or constant.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp

from fastrl.types import Array


class Inputs(NamedTuple):
    """What an objective may look at, one entry per sample: `[...]` each."""

    log_prob: Array  # of the action taken, under the policy that is being updated
    behaviour_log_prob: Array  # under the policy that took it
    advantage: Array
    entropy: Array  # of the policy that is being updated
    reward: Array
    terminated: Array
    truncated: Array
    progress: Array  # scalar: share of the lifetime that has passed


Objective = Callable[[Any, Inputs, Any], tuple[Array, dict[str, Array]]]


def clip(eta: Any, inputs: Inputs, hparams: Any) -> tuple[Array, dict[str, Array]]:
    """PPO's clipped surrogate (Schulman et al. 2017, equation 7), negated.

    Uses `hparams.clip`.  Reports the share of samples whose ratio is outside the clip range.
    """
    ratio = jnp.exp(inputs.log_prob - inputs.behaviour_log_prob)
    clipped = jnp.clip(ratio, 1.0 - hparams.clip, 1.0 + hparams.clip)
    loss = -jnp.minimum(ratio * inputs.advantage, clipped * inputs.advantage)
    outside = jnp.abs(ratio - 1.0) > hparams.clip
    return loss, {"clip_fraction": outside.astype(jnp.float32)}
