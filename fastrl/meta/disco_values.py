"""The value function of DiscoRL: categorical action values, off-policy targets, running moments.

An action value is a categorical over `K` bins that lie evenly from -bound to bound on the scale

    h(x) = sign(x) (sqrt(|x| + 1) - 1) + 0.001 x

(Pohlen et al. 2018, arXiv:1805.11593): q = h^-1(mean of the bins).  It is regressed on Retrace
targets (Munos et al. 2016) as two neighbouring bins, by cross-entropy.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from fastrl import returns
from fastrl.types import Array, Scalar

_SLOPE = 1e-3


def squashed(x: Array) -> Array:
    """h(x)."""
    return jnp.sign(x) * (jnp.sqrt(jnp.abs(x) + 1.0) - 1.0) + _SLOPE * x


def unsquashed(x: Array) -> Array:
    """h^-1(x)."""
    root = jnp.sqrt(1.0 + 4.0 * _SLOPE * (_SLOPE + 1.0 + jnp.abs(x)))
    return jnp.sign(x) * (((root - 1.0) / (2.0 * _SLOPE)) ** 2 - 1.0)


def scalar(logits: Array, bound: float) -> Array:
    """The value `[...]` of `logits` `[..., K]`."""
    return unsquashed(jax.nn.softmax(logits) @ _bins(logits.shape[-1], bound))


def cross_entropy(logits: Array, value: Array, bound: float) -> Array:
    """`[...]`: of `logits` `[..., K]` to the two bins around h(`value`), in proportion."""
    size = logits.shape[-1]
    place = (jnp.clip(squashed(value), -bound, bound) + bound) * ((size - 1) / (2.0 * bound))
    index = jnp.arange(size).reshape((1,) * value.ndim + (size,))
    share = jnp.maximum(1.0 - jnp.abs(place[..., None] - index), 0.0)
    return -(share * jax.nn.log_softmax(logits)).sum(-1)


def _bins(size: int, bound: float) -> Array:
    return (jnp.arange(size) - 0.5 * (size - 1)) * (2.0 * bound / (size - 1))


class Moments(NamedTuple):
    """Running mean and mean square, without the bias of their start at 0."""

    first: Array
    second: Array
    rest: Array  # how much of them is still that start

    @classmethod
    def zero(cls) -> "Moments":
        return cls(jnp.float32(0), jnp.float32(0), jnp.float32(1))

    def after(self, x: Array, decay: float) -> "Moments":
        """With the entries of `x`."""
        mix = lambda old, new: decay * old + (1.0 - decay) * new.mean()  # noqa: E731
        return Moments(mix(self.first, x), mix(self.second, x**2), decay * self.rest)

    def normalized(self, x: Array) -> Array:
        """`x` less the mean, over the deviation."""
        mean, square = self.first / (1.0 - self.rest), self.second / (1.0 - self.rest)
        variance = jnp.maximum(square - mean**2, 0.0)
        return (x - mean) / (jnp.sqrt(variance + 1e-12) + 1e-6)


class Estimates(NamedTuple):
    """What the action values say of a rollout, all constants."""

    value: Array  # [T, N]: V(s_t) of the agent
    next_value: Array  # [T, N]: V(s'_t)
    target: Array  # [T, N]: Retrace target of Q(s_t, a_t)
    advantage: Array  # [T, N]: target less V(s_t) of the target network
    target_q: Array  # [T, N, A]: of the target network
    gap: Array  # [T, N, A]: Q - V of the target network


class Views(NamedTuple):
    """Action values `[T, N, A]` of the agent and of its target network."""

    q: Array
    next_q: Array
    target_q: Array
    next_target_q: Array


def estimates(
    views: Views, policy: Array, next_policy: Array, behaviour: Array, action: Array,
    reward: Array, terminated: Array, truncated: Array, gamma: Scalar, lambda_: Scalar,
) -> Estimates:  # fmt: skip
    """Targets and advantages; policies are probabilities `[T, N, A]`, `action` int32 `[T, N]`.

    Values are means over the agent's policy, also those of the target network.
    """
    chosen = lambda x: select(x, action)  # noqa: E731
    mean = lambda p, q: (p * q).sum(-1)  # noqa: E731
    base = mean(policy, views.target_q)
    target = returns.retrace(
        reward, chosen(views.target_q), mean(next_policy, views.next_target_q), terminated,
        truncated, chosen(policy) / chosen(behaviour), gamma, lambda_,
    )  # fmt: skip
    found = Estimates(
        mean(policy, views.q), mean(next_policy, views.next_q), target, target - base,
        views.target_q, views.target_q - base[..., None],
    )  # fmt: skip
    return jax.lax.stop_gradient(found)


def select(x: Array, action: Array) -> Array:
    """The entries of `x` `[T, N, A]` or `[T, N, A, K]` at `action` `[T, N]`.

    As a sum: XLA's CPU compiler (of jaxlib 0.10.2) fails on gathers in a gradient of gradients.
    """
    taken = jax.nn.one_hot(action, x.shape[2], dtype=bool)
    taken = taken.reshape(taken.shape + (1,) * (x.ndim - taken.ndim))
    return jnp.where(taken, x, 0.0).sum(2)
