"""An advantage actor-critic written as a rule: what learned rules are measured against.

The targets of the policy are standardised generalised advantages, that of the value is the
lambda-return (Mnih et al. 2016, arXiv:1602.01783; Schulman et al. 2016, arXiv:1506.02438):

    L = mean over t of  -A_t log pi(a_t | s_t) - c H(pi(s_t)) + 1/2 (V(s_t) - G_t)^2

The antagonist of GROOVE (Jackson et al. 2023, arXiv:2310.02782, appendix G), with its numbers.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fastrl import door, returns
from fastrl.meta.lpg_types import Head, Inputs, Outputs, Regularisers
from fastrl.types import Array, Key, PyTree, Scalar

VALUE = "value"


class Numbers(NamedTuple):
    """Its parameters: `hparams.objective`, where () stands for these."""

    gamma: Scalar = 0.99
    gae_lambda: Scalar = 0.95
    entropy_coefficient: Scalar = 0.01


class Targets(NamedTuple):
    """What the outputs should have been, `[T, N]`."""

    advantage: Array
    value: Array


@dataclasses.dataclass(frozen=True)
class A2C:
    """The rule; `hparams.objective` holds its `Numbers`, or is () for the usual ones."""

    normalize: bool = True  # advantages, over the rollout

    def __post_init__(self) -> None:
        door.flag("normalize", self.normalize)

    @property
    def heads(self) -> tuple[Head, ...]:
        return (Head(VALUE, 1),)

    def init(self, key: Key) -> Numbers:
        """The usual numbers."""
        return Numbers()

    def memory(self, eta: Numbers, params: PyTree) -> PyTree:
        return ()

    def targets(self, eta: Numbers, memory: PyTree, inputs: Inputs) -> tuple[Targets, PyTree]:
        eta = eta or Numbers()
        value, following = (o.heads[VALUE][..., 0] for o in (inputs.outputs, inputs.next_outputs))
        advantage = returns.gae(
            inputs.reward, value, following, inputs.terminated, inputs.truncated,
            eta.gamma, eta.gae_lambda,
        )  # fmt: skip
        return Targets(standardised(advantage) if self.normalize else advantage,
                       advantage + value), memory  # fmt: skip

    def loss(
        self, eta: Numbers, outputs: Outputs, inputs: Inputs, targets: Targets, weight: Any
    ) -> tuple[Array, dict[str, Array]]:
        policy = -targets.advantage * outputs.policy.log_prob(inputs.action)
        value = 0.5 * (outputs.heads[VALUE][..., 0] - targets.value) ** 2
        entropy = outputs.policy.entropy()
        loss = policy - (eta or Numbers()).entropy_coefficient * entropy + value
        return loss, {"policy_loss": policy, "value_loss": value}

    def regularisers(self, outputs: Outputs, targets: Targets) -> Regularisers:
        nothing = jnp.zeros_like(targets.value, shape=())
        entropy = outputs.policy.entropy().mean()
        return Regularisers(entropy, nothing, (targets.advantage**2).mean(), nothing)


def standardised(x: Array) -> Array:
    """`x` with mean 0 and deviation 1; all 0 where nothing varies."""
    return (x - x.mean()) * jax.lax.rsqrt(x.var() + 1e-8)
