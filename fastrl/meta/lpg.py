"""Learned policy gradient: a recurrent rule that says what policy and predictions should be.

LPG (Oh et al. 2020, "Discovering Reinforcement Learning Algorithms", arXiv:2007.08794) in the
form of GROOVE's released code (Jackson et al. 2023, arXiv:2310.02782; a GRU, 8 bins), and TA-LPG
(Jackson et al. 2024, arXiv:2402.05828), which also sees the agent's age and lifetime.  An agent
has a policy and a categorical prediction y(s) of `m` bins without a meaning of its own.  Over a
rollout, backwards in time,

    e(y) = w2 . relu(W1 y + b1) + b2
    x_t  = [r_t, d_t, pi(a_t | s_t), e(y(s_t)), (1 - d_t) e(y(s'_t)), (n/N, log N)]
    h_t  = GRU(h_{t+1}, x_t)                        h_{t+1} = 0 where an episode ends
    policy target  p_t = w . relu(h_t) + b          a number
    prediction     q_t = softmax(W relu(h_t) + c)   of `m` bins

and the agent takes a step of gradient descent on

    L = mean over t of  -p_t log pi(a_t | s_t) + alpha KL(y(s_t) || q_t)

with the targets as constants.  The sign is the paper's: a positive p_t makes the action likelier
(the released code has the opposite one).  `d_t` is a termination: where an episode was cut
off, the true successor is seen, and only the recurrence ends.

The rule is evaluated outside of the agent's loss, under the parameters from before the step, so
a meta-gradient also flows through pi and y into the rule: without that the predictions get none,
and no bootstrapping can be discovered (the released code stops it).
"""

import dataclasses
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from fastrl import door
from fastrl.meta import lpg_gru
from fastrl.meta.lpg_types import Head, Inputs, Outputs, Regularisers
from fastrl.types import Array, Key, PyTree

PREDICTION = "prediction"


class Dense(NamedTuple):
    """One layer."""

    weights: Array  # [D, H]
    bias: Array  # [H]

    def __call__(self, x: Array) -> Array:
        bias = self.bias.reshape((1,) * (x.ndim - 1) + self.bias.shape)
        return x @ self.weights + bias


class Parameters(NamedTuple):
    """Weights of the rule: what is learned."""

    embedding: tuple[Dense, Dense]  # m -> 16 -> 1
    recurrence: lpg_gru.Parameters
    policy: Dense
    prediction: Dense


class Targets(NamedTuple):
    """What the outputs should have been."""

    policy: Array  # [T, N]: along which log pi(a_t | s_t) is moved
    prediction: Array  # [T, N, m]: log-probabilities


@dataclasses.dataclass(frozen=True)
class LPG:
    """The rule; `hparams.objective` holds its `Parameters`."""

    hidden_size: int = 256
    embedding_size: int = 16
    num_bins: int = 8
    temporal: bool = False  # TA-LPG: it sees n/N and log N

    def __post_init__(self) -> None:
        for name in ("hidden_size", "embedding_size", "num_bins"):
            door.integer(name, getattr(self, name), 1)
        door.flag("temporal", self.temporal)

    @property
    def heads(self) -> tuple[Head, ...]:
        return (Head(PREDICTION, self.num_bins),)

    @property
    def num_inputs(self) -> int:
        """Columns of x_t."""
        return 7 if self.temporal else 5

    def init(self, key: Key) -> Parameters:
        """Random parameters. Consumes `key`."""
        first, second, recurrence, policy, prediction = jax.random.split(key, 5)
        return Parameters(
            (
                _dense(first, self.num_bins, self.embedding_size),
                _dense(second, self.embedding_size, 1),
            ),
            lpg_gru.init(recurrence, self.num_inputs, self.hidden_size),
            _dense(policy, self.hidden_size, 1),
            _dense(prediction, self.hidden_size, self.num_bins),
        )

    def memory(self, eta: Parameters, params: PyTree) -> PyTree:
        return ()

    def targets(self, eta: Parameters, memory: PyTree, inputs: Inputs) -> tuple[Targets, PyTree]:
        self._check(eta)
        done = inputs.terminated | inputs.truncated
        h = lpg_gru.backwards(eta.recurrence, self.features(eta, inputs), done)
        h = jax.nn.relu(h)
        prediction = jax.nn.log_softmax(eta.prediction(h))
        return Targets(eta.policy(h)[..., 0], prediction), memory

    def features(self, eta: Parameters, inputs: Inputs) -> Array:
        """x `[T, N, 5]`, or with age and lifetime `[T, N, 7]`."""
        probability = jnp.exp(inputs.outputs.policy.log_prob(inputs.action))
        now = _embed(eta, inputs.outputs)
        following = jnp.where(inputs.terminated, 0.0, _embed(eta, inputs.next_outputs))
        reward, ends = (a.astype(now.dtype) for a in (inputs.reward, inputs.terminated))
        columns = [reward, ends, probability, now, following]
        if self.temporal:
            columns += [jnp.clip(inputs.progress, 0.0, 1.0), jnp.log(inputs.lifetime)]
        return jnp.stack([jnp.broadcast_to(c, now.shape) for c in columns], -1)

    def loss(
        self, eta: Parameters, outputs: Outputs, inputs: Inputs, targets: Targets, weight: Any
    ) -> tuple[Array, dict[str, Array]]:
        policy = -targets.policy * outputs.policy.log_prob(inputs.action)
        divergence = kl(outputs.heads[PREDICTION], targets.prediction)
        return policy + weight * divergence, {"policy_loss": policy, "divergence": divergence}

    def regularisers(self, outputs: Outputs, targets: Targets) -> Regularisers:
        log_y = jax.nn.log_softmax(outputs.heads[PREDICTION])
        return Regularisers(
            outputs.policy.entropy().mean(),
            -(jnp.exp(log_y) * log_y).sum(-1).mean(),
            (targets.policy**2).mean(),
            jnp.exp(2 * targets.prediction).sum(-1).mean(),
        )

    def _check(self, eta: Any) -> None:
        """Raises ValueError unless `eta` holds parameters of this rule."""
        wanted = jax.tree.map(lambda x: x.shape, jax.eval_shape(self.init, jax.random.key(0)))
        got = jax.tree.map(jnp.shape, eta)
        if got != wanted:
            short = f"{got}"[:200] or "()"
            raise ValueError(
                f"hparams.objective has the shapes {short}: {self} needs lpg.Parameters, such as "
                "its init(key)"
            )


def kl(logits: Array, target: Array) -> Array:
    """KL(y || q) `[...]` of y = softmax(`logits`) against log q = `target`: the agent first."""
    log_y = jax.nn.log_softmax(logits)
    return (jnp.exp(log_y) * (log_y - target)).sum(-1)


def _embed(eta: Parameters, outputs: Outputs) -> Array:
    """e(y(s)) `[...]`."""
    first, second = eta.embedding
    return second(jax.nn.relu(first(jax.nn.softmax(outputs.heads[PREDICTION]))))[..., 0]


def _dense(key: Key, num_inputs: int, size: int) -> Dense:
    weights = nn.initializers.lecun_normal()(key, (num_inputs, size))
    return Dense(weights, jnp.zeros(size))
