"""Rules that make targets: what they ask of an agent, what they see, what they give back.

An objective as `fastrl.objectives` has it turns the samples of a rollout into a loss, each by
itself.  A rule looks at the whole rollout instead and says what the agent's outputs should have
been; the agent then takes a step of a loss between outputs and targets.  A rule declares the
outputs that it wants beside the policy, so LPG's one categorical prediction, the value of an
actor-critic, and DiscoRL's predictions per state and per action, its auxiliary policy
prediction, its recurrence over updates and its target network (both in `memory`) are one
interface: see `Rule`.
"""

from typing import Any, NamedTuple, Protocol

from fastrl.distributions import Distribution
from fastrl.types import Action, Array, Key, PyTree


class Head(NamedTuple):
    """An output that a rule wants from the agent, with parameters of its own."""

    name: str
    size: int
    per_action: bool = False  # `[..., A, size]`, and not `[..., size]`


class Outputs(NamedTuple):
    """What an agent says in some states; leading axes are the batch."""

    policy: Distribution
    heads: dict[str, Array]  # what the rule's heads give, by name, without any activation


class Inputs(NamedTuple):
    """What a rule sees of a rollout, `[T, N, ...]`, under the parameters that acted in it."""

    action: Action
    reward: Array
    terminated: Array
    truncated: Array
    outputs: Outputs  # in the states
    next_outputs: Outputs  # in their true successors, before any reset
    progress: Array  # scalar: n/N, the share of the lifetime's updates that are done
    lifetime: Array  # scalar: N, the lifetime in updates


class Regularisers(NamedTuple):
    """What a meta-objective may reward or punish beside the return; scalars."""

    policy_entropy: Array  # of the policy after the update, in the states of the rollout
    prediction_entropy: Array  # of the other outputs
    policy_target: Array  # size of the targets: mean square of the policy's
    prediction_target: Array  # and of the others'


class Rule(Protocol):
    """How an agent learns: a frozen dataclass, whose parameters are `eta = hparams.objective`."""

    @property
    def heads(self) -> tuple[Head, ...]:
        """The outputs that it wants beside the policy."""
        ...

    def init(self, key: Key) -> PyTree:
        """An eta to start from. Consumes `key`."""
        ...

    def memory(self, eta: PyTree, params: PyTree) -> PyTree:
        """What it keeps from update to update of an agent whose parameters are `params`: () if
        nothing, else a recurrent state over updates, averages, a target network."""
        ...

    def targets(self, eta: PyTree, memory: PyTree, inputs: Inputs) -> tuple[PyTree, PyTree]:
        """What the outputs should have been, and the next memory.

        Differentiable in eta and in the outputs.  The agent takes the targets for constants.
        """
        ...

    def loss(
        self, eta: PyTree, outputs: Outputs, inputs: Inputs, targets: PyTree, weight: Any
    ) -> tuple[Array, dict[str, Array]]:
        """The loss `[T, N]` of outputs against their targets, and numbers for logs.

        `weight` is that of the predictions beside the policy.
        """
        ...

    def regularisers(self, outputs: Outputs, targets: PyTree) -> Regularisers:
        """Of the outputs after the update."""
        ...
