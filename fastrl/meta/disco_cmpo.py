"""An actor-critic written as a rule for `disco_agent`: what DiscoRL's is measured against.

The policy is drawn to the clipped improvement of the target network's, the target of Muesli's
regulariser (Hessel et al. 2021, arXiv:2104.06159, section 3.2),

    p(b | s) proportional to pi_target(b | s) exp(clip(A(s, b), -c, c)),

with A = Q - V in deviations from 0, by KL(p || pi); action values are those of DiscoRL, with
Retrace targets.  There is no model and no policy gradient beside it.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fastrl import door
from fastrl.meta import disco_values as values
from fastrl.meta.disco import NEVER, Inputs, Q, Weights, action_values, kl, log_p
from fastrl.meta.lpg_types import Head, Outputs, Regularisers
from fastrl.types import Array, Key, PyTree, Scalar


class Numbers(NamedTuple):
    """Its parameters: `hparams.objective`, where () stands for these."""

    clip: Scalar = 1.0


class Targets(NamedTuple):
    """What the outputs should have been."""

    policy: Array  # [T, N, A]: log-probabilities
    value: Array  # [T, N]


@dataclasses.dataclass(frozen=True)
class CMPO:
    """The rule; `hparams.objective` holds its `Numbers`, or is () for the usual ones."""

    num_bins: int = 601  # of q
    max_value: float = 300.0  # the outermost bin, on the squashed scale
    decay: float = 0.99  # of the running moments of advantages

    def __post_init__(self) -> None:
        door.integer("num_bins", self.num_bins, 2)
        for name in ("max_value", "decay"):
            door.number(name, getattr(self, name), 0.0)

    @property
    def heads(self) -> tuple[Head, ...]:
        return (Head(Q, self.num_bins, per_action=True),)

    def init(self, key: Key) -> Numbers:
        """The usual numbers."""
        return Numbers()

    def memory(self, eta: Numbers, params: PyTree) -> values.Moments:
        return values.Moments.zero()

    def targets(
        self, eta: Numbers, memory: values.Moments, inputs: Inputs
    ) -> tuple[Targets, values.Moments]:
        clip = (eta or Numbers()).clip
        estimates = action_values(inputs, self.max_value)
        memory = memory.after(estimates.advantage, self.decay)
        scale = jax.lax.rsqrt(memory.second / (1.0 - memory.rest) + 1e-12)
        prior = log_p(inputs.target_outputs)
        improved = prior + jnp.clip(scale * estimates.gap, -clip, clip)
        improved = jnp.where(prior < 0.1 * NEVER, NEVER, improved)
        return Targets(jax.nn.log_softmax(improved), estimates.target), memory

    def loss(
        self, eta: Numbers, outputs: Outputs, inputs: Inputs, targets: Targets, weight: Weights
    ) -> tuple[Array, dict[str, Array]]:
        policy = kl(targets.policy, log_p(outputs))
        chosen = values.select(outputs.heads[Q], inputs.action)
        value = values.cross_entropy(chosen, targets.value, self.max_value)
        return weight.policy * policy + weight.value * value, {
            "policy_loss": policy, "value_loss": value,
        }  # fmt: skip

    def regularisers(self, outputs: Outputs, targets: Any) -> Regularisers:
        nothing = jnp.zeros_like(targets.value, shape=())
        return Regularisers(outputs.policy.entropy().mean(), nothing, nothing, nothing)
