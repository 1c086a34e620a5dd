"""DiscoRL: a rule with predictions of its own meaning, per state and per action, and a value.

Oh et al. 2025, "Discovering state-of-the-art reinforcement learning algorithms", Nature 648, with
the settings of the released code (google-deepmind/disco_rl).  An agent says a policy pi(s), a
prediction y(s) and for every action b a prediction z(s, b), both categoricals without a meaning
of their own, an action value q(s, b) (`disco_values`) and p(s, b), the policy in the next state.
The meta-network (`disco_network`) sees a rollout, the predictions of the agent and of a slow
copy of it, and values and advantages, and says pi^, y^ and z^.  The agent takes a step on

    KL(pi^ || pi) + KL(y^ || y) + KL(z^ || z(., a)) + (1 - d) KL(pi(s') || p(s, a))
        + 0.2 CE(Retrace target, q(s, a))

with all targets as constants; targets come first in each divergence.  Policies, values and
advantages are constants for the meta-gradient too; y and z are not, so that predictions can be
discovered.  Where an episode is cut off, the true successor is seen and bootstrapped from, and
only the recurrence ends (the released code takes cuts for terminations).

The agent that learns by it is `disco_agent`; `disco_weights` reads the published parameters.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fastrl import door
from fastrl.leaves import described, named
from fastrl.meta import disco_network as network
from fastrl.meta import disco_values as values
from fastrl.meta.disco_network import Pair, Parameters, Recurrent, Seen
from fastrl.meta.lpg_types import Head, Outputs, Regularisers
from fastrl.types import Array, Key, PyTree, Scalar

Y, Z, Q, NEXT_POLICY = "y", "z", "q", "next_policy"
NEVER = -1e9  # the logit of an action that is masked out


class Inputs(NamedTuple):
    """What the rule sees of a rollout, `[T, N, ...]`, under the parameters before the update."""

    action: Array
    reward: Array
    terminated: Array
    truncated: Array
    outputs: Outputs  # in the states
    next_outputs: Outputs  # in their true successors, before any reset
    target_outputs: Outputs  # the same two of the target network
    next_target_outputs: Outputs
    behaviour: Array  # [T, N, A]: log-probabilities of the policy that acted
    gamma: Scalar
    td_lambda: Scalar  # of Retrace


class Memory(NamedTuple):
    """What is kept from update to update."""

    lifetime: Recurrent  # [H]
    advantage: values.Moments


class Targets(NamedTuple):
    """What the outputs should have been; log-probabilities but for the value."""

    policy: Array  # [T, N, A]
    y: Array  # [T, N, K]
    z: Array  # [T, N, K]
    value: Array  # [T, N]
    drift: Array  # [T, N]: KL of the target network's policy from `policy`
    size: Array  # squares of the mean logits of y^ and z^, summed


class Weights(NamedTuple):
    """Of the terms of the loss."""

    policy: Scalar = 1.0
    y: Scalar = 1.0
    z: Scalar = 1.0
    next_policy: Scalar = 1.0
    value: Scalar = 0.2


@dataclasses.dataclass(frozen=True)
class Disco:
    """The rule; `hparams.objective` holds its `Parameters`. Defaults are those of Disco103."""

    prediction_size: int = 600  # of y and z
    num_bins: int = 601  # of q
    max_value: float = 300.0  # the outermost bin, on the squashed scale
    hidden_size: int = 256  # of the recurrence over the rollout
    lifetime_size: int = 128  # of the recurrence over updates
    embedding_size: int = 16
    decay: float = 0.99  # of the running moments of advantages

    def __post_init__(self) -> None:
        for name in ("prediction_size", "hidden_size", "lifetime_size", "embedding_size"):
            door.integer(name, getattr(self, name), 1)
        door.integer("num_bins", self.num_bins, 2)
        for name in ("max_value", "decay"):
            door.number(name, getattr(self, name), 0.0)
        if not self.max_value > 0 or not self.decay < 1:
            raise ValueError(
                f"max_value={self.max_value} and decay={self.decay}: needs max_value above 0 and "
                "decay below 1"
            )

    @property
    def heads(self) -> tuple[Head, ...]:
        """Outputs beside the policy; `next_policy`, of size 0 here, has the size of the policy."""
        return (
            Head(Y, self.prediction_size),
            Head(Z, self.prediction_size, per_action=True),
            Head(Q, self.num_bins, per_action=True),
            Head(NEXT_POLICY, 0, per_action=True),
        )

    def init(self, key: Key) -> Parameters:
        """Random parameters. Consumes `key`."""
        return network.init(
            key, self.prediction_size, self.hidden_size, self.lifetime_size, self.embedding_size
        )

    def memory(self, eta: Parameters, params: PyTree) -> Memory:
        return Memory(Recurrent.zero(self.lifetime_size), values.Moments.zero())

    def targets(self, eta: Parameters, memory: Memory, inputs: Inputs) -> tuple[Targets, Memory]:
        self._check(eta, inputs)
        estimates = action_values(inputs, self.max_value)
        moments = memory.advantage.after(estimates.advantage, self.decay)
        said, lifetime = network.apply(eta, memory.lifetime, _seen(inputs, estimates, moments))
        masked = log_p(inputs.outputs) < 0.1 * NEVER
        policy = jnp.where(masked, NEVER, said.policy)
        policy, y, z = (jax.nn.log_softmax(x) for x in (policy, said.y, said.z))
        drift = kl(log_p(inputs.target_outputs), policy)
        size = said.y.mean() ** 2 + said.z.mean() ** 2
        return Targets(policy, y, z, estimates.target, drift, size), Memory(lifetime, moments)

    def loss(
        self, eta: Parameters, outputs: Outputs, inputs: Inputs, targets: Targets, weight: Weights
    ) -> tuple[Array, dict[str, Array]]:
        heads, action = outputs.heads, inputs.action
        chosen = {name: values.select(heads[name], action) for name in (Z, Q, NEXT_POLICY)}
        following = jax.lax.stop_gradient(log_p(inputs.next_outputs))
        ahead = kl(following, jax.nn.log_softmax(chosen[NEXT_POLICY]))
        terms = {
            "policy_loss": kl(targets.policy, log_p(outputs)),
            "y_loss": kl(targets.y, jax.nn.log_softmax(heads[Y])),
            "z_loss": kl(targets.z, jax.nn.log_softmax(chosen[Z])),
            "next_policy_loss": jnp.where(inputs.terminated, 0.0, ahead),
            "value_loss": values.cross_entropy(chosen[Q], targets.value, self.max_value),
        }
        weighted = [w * term for w, term in zip(weight, terms.values(), strict=True)]
        return sum(weighted[1:], start=weighted[0]), terms

    def regularisers(self, outputs: Outputs, targets: Targets) -> Regularisers:
        """The size of the policy's target is its divergence from the target network's policy."""
        entropy = _entropy(outputs.heads[Y]) + _entropy(outputs.heads[Z])
        return Regularisers(
            outputs.policy.entropy().mean(), entropy, targets.drift.mean(), targets.size
        )

    def _check(self, eta: Any, inputs: Any) -> None:
        """Raises ValueError unless `eta` holds parameters of this rule."""
        if not isinstance(inputs, Inputs):
            raise ValueError("Disco needs an agent with a target network: disco_agent.make")
        wanted = described(jax.eval_shape(self.init, jax.random.key(0)))
        got = {k: f"[{','.join(map(str, jnp.shape(x)))}]" for k, x in named(eta).items()}
        for name, shape in wanted.items():
            if not shape.endswith(got.get(name, "none")):
                raise ValueError(
                    f"hparams.objective has {got.get(name, 'nothing')} for {name}, not {shape}: "
                    f"{self} needs disco_network.Parameters, such as its init(key)"
                )


def action_values(inputs: Inputs, bound: float) -> values.Estimates:
    """What the head q says of the rollout."""
    of = lambda outputs: values.scalar(outputs.heads[Q], bound)  # noqa: E731
    views = values.Views(
        of(inputs.outputs), of(inputs.next_outputs), of(inputs.target_outputs),
        of(inputs.next_target_outputs),
    )  # fmt: skip
    policy, next_policy = (jnp.exp(log_p(o)) for o in (inputs.outputs, inputs.next_outputs))
    return values.estimates(
        views, policy, next_policy, jnp.exp(inputs.behaviour), inputs.action, inputs.reward,
        inputs.terminated, inputs.truncated, inputs.gamma, inputs.td_lambda,
    )  # fmt: skip


def _seen(inputs: Inputs, estimates: values.Estimates, moments: values.Moments) -> Seen:
    """What the meta-network looks at; constants, but for y and z."""
    now, following, slow = inputs.outputs, inputs.next_outputs, inputs.target_outputs
    logs = log_p(now), log_p(following), inputs.behaviour, log_p(slow)
    policy, next_policy, behaviour, target = (jnp.exp(jax.lax.stop_gradient(x)) for x in logs)
    e, dtype = estimates, policy.dtype
    numbers = (
        _log(inputs.reward.astype(dtype)), 1.0 - inputs.terminated.astype(dtype), _log(e.value),
        _log(e.next_value), _log(e.advantage), moments.normalized(e.advantage),
    )  # fmt: skip
    return Seen(
        inputs.action, inputs.terminated | inputs.truncated, policy, next_policy, behaviour, target,
        jax.lax.stop_gradient(numbers),
        jax.lax.stop_gradient((_log(e.target_q), _log(e.gap), moments.normalized(e.gap))),
        _pair(inputs.outputs, inputs.next_outputs),
        _pair(inputs.target_outputs, inputs.next_target_outputs),
    )  # fmt: skip


def _pair(now: Outputs, following: Outputs) -> Pair:
    y, z = ([jax.nn.softmax(o.heads[name]) for o in (now, following)] for name in (Y, Z))
    return Pair(*y, *z)


def log_p(outputs: Outputs) -> Array:
    """Log-probabilities of all actions, `[..., A]`."""
    policy: Any = outputs.policy
    return policy.log_p


def _log(x: Array) -> Array:
    return jnp.sign(x) * jnp.log1p(jnp.abs(x))


def kl(target: Array, log_q: Array) -> Array:
    """KL(p || q) `[...]` of log p = `target` against log q."""
    return (jnp.exp(target) * (target - log_q)).sum(-1)


def _entropy(logits: Array) -> Array:
    log_p = jax.nn.log_softmax(logits)
    return -(jnp.exp(log_p) * log_p).sum(-1).mean()
