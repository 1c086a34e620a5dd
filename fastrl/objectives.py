"""Policy objectives: pure functions with parameters of their own.

An objective is `(eta, inputs, hparams) -> (loss [...], metrics)`.  `eta` is
`hparams.objective`: () for the hand-written ones here, the parameters of a network for the
learned ones of `fastrl.meta`.  The learner does not know whether it is differentiated,
perturbed by an evolution strategy, or constant.

Mirror learning (Kuba et al. 2022, arXiv:2208.01682) has a template for many of them: maximise
`r A - D(r, A)` with the ratio `r = pi / pi_old`, the advantage `A` and a drift `D`.  Every step
improves the policy if D is nowhere negative, 0 at r = 1, and flat there.  `Mirror(drift)` is
the objective of a drift.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fastrl.types import Array, Scalar


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


class At(NamedTuple):
    """Where a drift is asked for."""

    log_ratio: Array  # [...]
    advantage: Array  # [...]
    progress: Array  # scalar: share of the lifetime that has passed


Objective = Callable[[Any, Inputs, Any], tuple[Array, dict[str, Array]]]
Drift = Callable[[Any, At, Any], Array]  # (eta, at, hparams) -> [...]


def clip(eta: Any, inputs: Inputs, hparams: Any) -> tuple[Array, dict[str, Array]]:
    """PPO's clipped surrogate (Schulman et al. 2017, equation 7), negated.

    Uses `hparams.clip`.  Reports the share of samples whose ratio is outside the clip range.
    """
    ratio = jnp.exp(inputs.log_prob - inputs.behaviour_log_prob)
    clipped = jnp.clip(ratio, 1.0 - hparams.clip, 1.0 + hparams.clip)
    loss = -jnp.minimum(ratio * inputs.advantage, clipped * inputs.advantage)
    outside = jnp.abs(ratio - 1.0) > hparams.clip
    return loss, {"clip_fraction": outside.astype(jnp.float32)}


def a2c(eta: Any, inputs: Inputs, hparams: Any) -> tuple[Array, dict[str, Array]]:
    """The policy gradient of actor-critic (Mnih et al. 2016): `-log pi(a|s) A`.

    It knows no old policy: right for the first step on a rollout, off-policy after it.
    """
    return -inputs.log_prob * inputs.advantage, {}


class Awr(NamedTuple):
    """Numbers of `awr`."""

    temperature: Scalar = 1.0  # the beta of the paper, for standardised advantages
    max_weight: Scalar = 20.0


def awr(eta: Any, inputs: Inputs, hparams: Any) -> tuple[Array, dict[str, Array]]:
    """Advantage-weighted regression (Peng et al. 2019, arXiv:1910.00177, equation 12).

    `-log pi(a|s) min(exp(A / temperature), max_weight)`; other numbers than the defaults as
    `hparams.objective`, an `Awr`.  On the learner's advantages, of the behaviour policy.
    """
    numbers: Awr = eta or Awr()
    limit = jnp.log(jnp.asarray(numbers.max_weight))  # before exp, which may overflow
    weight = jnp.exp(jnp.minimum(inputs.advantage / numbers.temperature, limit))
    return -inputs.log_prob * weight, {"weight": weight}


@dataclasses.dataclass(frozen=True)
class Mirror:
    """The objective `-(r A - D(r, A))` of a drift D. Equal by value, so nothing compiles twice.

    Reports the drift.
    """

    drift: Drift

    def __call__(self, eta: Any, inputs: Inputs, hparams: Any) -> tuple[Array, dict[str, Array]]:
        log_ratio = inputs.log_prob - inputs.behaviour_log_prob
        drift = self.drift(eta, At(log_ratio, inputs.advantage, inputs.progress), hparams)
        return drift - jnp.exp(log_ratio) * inputs.advantage, {"drift": drift}


def no_drift(eta: Any, at: At, hparams: Any) -> Array:
    """0: the plain surrogate `r A` of the policy gradient."""
    return jnp.zeros_like(at.advantage)


def clip_drift(eta: Any, at: At, hparams: Any) -> Array:
    """PPO's: `relu((r - clip(r, 1 - c, 1 + c)) A)` with c = `hparams.clip`.

    `r A` minus this is `min(r A, clip(r) A)`.
    """
    ratio = jnp.exp(at.log_ratio)
    clipped = jnp.clip(ratio, 1.0 - hparams.clip, 1.0 + hparams.clip)
    return jax.nn.relu((ratio - clipped) * at.advantage)


class Dpo(NamedTuple):
    """Numbers of `dpo_drift`, those of the paper."""

    alpha: Scalar = 2.0  # where the advantage is positive
    beta: Scalar = 0.6  # where it is negative


def dpo_drift(eta: Any, at: At, hparams: Any) -> Array:
    """Discovered policy optimisation (Lu et al. 2022, arXiv:2210.05639), the closed form.

    With x = (r - 1) A where A >= 0, relu(x - alpha tanh(x / alpha)); with x = A log r where
    A < 0, relu(x - beta tanh(x / beta)).  Other numbers as `hparams.objective`, a `Dpo`.
    """
    numbers: Dpo = eta or Dpo()

    def beyond(x: Array, scale: Scalar) -> Array:
        return jax.nn.relu(x - scale * jnp.tanh(x / scale))

    better = beyond(jnp.expm1(at.log_ratio) * at.advantage, numbers.alpha)
    worse = beyond(at.log_ratio * at.advantage, numbers.beta)
    return jnp.where(at.advantage >= 0.0, better, worse)


def spo_drift(eta: Any, at: At, hparams: Any) -> Array:
    """Simple policy optimisation (Xie et al. 2024, arXiv:2401.16025): `|A| (r - 1)^2 / (2 c)`.

    With c = `hparams.clip`: for an advantage of either sign the best ratio is 1 +- c.
    """
    return jnp.abs(at.advantage) * jnp.expm1(at.log_ratio) ** 2 / (2.0 * hparams.clip)


policy_gradient = Mirror(no_drift)
dpo = Mirror(dpo_drift)
spo = Mirror(spo_drift)
