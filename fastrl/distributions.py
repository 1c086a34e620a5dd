"""Distributions over actions, as pytrees with `sample`, `mode`, `log_prob` and `entropy`.

Made from the outputs of a network by `from_outputs`. Leading axes of any number are the batch.
"""

from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from fastrl import struct
from fastrl.kernels import categorical as categorical_draws
from fastrl.spaces import Box, Discrete, MultiDiscrete, Space
from fastrl.types import Action, Array, Key

_NEVER = -1e9  # the logit of an action that is masked out
_LOG_2PI = float(np.log(2 * np.pi))
_LOG_2 = float(np.log(2))
_INSIDE = 1.0 - 1e-6  # the greatest action whose arctanh float32 holds well
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(16)
_HERMITE = _NODES.tolist(), (_WEIGHTS / _WEIGHTS.sum()).tolist()  # for a standard normal


class Distribution(Protocol):
    """What learners ask of a policy. Actions are `[..., *]`, the numbers `[...]`."""

    def sample(self, key: Key) -> Action: ...
    def mode(self) -> Action: ...
    def log_prob(self, action: Action) -> Array: ...
    def entropy(self) -> Array: ...


@struct.dataclass
class Categorical:
    """One of `A` actions with log-probabilities `log_p` `[..., A]`; see `categorical`."""

    log_p: Array

    def sample(self, key: Key) -> Array:
        """int32 `[...]`. An action of probability 0 is never drawn."""
        return categorical_draws.sample(key, self.log_p)

    def mode(self) -> Array:
        return jnp.argmax(self.log_p, axis=-1).astype(jnp.int32)

    def log_prob(self, action: Array) -> Array:
        chosen = jax.nn.one_hot(action, self.log_p.shape[-1], dtype=bool)
        return jnp.sum(jnp.where(chosen, self.log_p, 0.0), axis=-1)

    def entropy(self) -> Array:
        return -jnp.sum(jnp.exp(self.log_p) * self.log_p, axis=-1)


def categorical(logits: Array, mask: Array | None = None) -> Categorical:
    """The softmax of `logits` `[..., A]` over those actions that `mask` (bool) allows."""
    if mask is not None:
        logits = jnp.where(mask, logits, _NEVER)
    return Categorical(jax.nn.log_softmax(logits))


@struct.dataclass
class Product:
    """Independent categoricals: actions are int32 `[..., len(parts)]`."""

    parts: tuple[Categorical, ...]

    def sample(self, key: Key) -> Array:
        keys = jax.random.split(key, len(self.parts))
        return jnp.stack([p.sample(k) for p, k in zip(self.parts, keys, strict=True)], -1)

    def mode(self) -> Array:
        return jnp.stack([p.mode() for p in self.parts], -1)

    def log_prob(self, action: Array) -> Array:
        return sum(p.log_prob(action[..., i]) for i, p in enumerate(self.parts))  # type: ignore[return-value]

    def entropy(self) -> Array:
        return sum(p.entropy() for p in self.parts)  # type: ignore[return-value]


@struct.dataclass
class DiagonalNormal:
    """Independent normals; `mean` and `log_std` are `[..., *event]`."""

    mean: Array
    log_std: Array
    event_ndim: int = struct.static(default=1)

    def sample(self, key: Key) -> Array:
        return self.mean + jnp.exp(self.log_std) * jax.random.normal(key, self.mean.shape)

    def mode(self) -> Array:
        return self.mean

    def log_prob(self, action: Array) -> Array:
        z = (action - self.mean) * jnp.exp(-self.log_std)
        return self._sum(-0.5 * z**2 - self.log_std - 0.5 * _LOG_2PI)

    def entropy(self) -> Array:
        return self._sum(self.log_std + 0.5 * (1 + _LOG_2PI))

    def _sum(self, x: Array) -> Array:
        return x.sum(axis=tuple(range(-self.event_ndim, 0)))


@struct.dataclass
class SquashedNormal:
    """The tanh of independent normals: actions in (-1, 1) (Haarnoja et al. 2018, appendix C).

        log p(a) = log N(u) - sum log (1 - tanh(u)^2),   a = tanh(u)

    with the logarithm as `2 (log 2 - u - softplus(-2u))`, which is exact for any `u`.
    """

    normal: DiagonalNormal

    def sample(self, key: Key) -> Array:
        return jnp.tanh(self.normal.sample(key))

    def sample_and_log_prob(self, key: Key) -> tuple[Array, Array]:
        """An action and its log-probability, differentiable in the parameters."""
        u = self.normal.sample(key)
        return jnp.tanh(u), self._log_prob_of(u)

    def mode(self) -> Array:
        """The tanh of the mean: what is used for the best action, though its density is not."""
        return jnp.tanh(self.normal.mode())

    def log_prob(self, action: Array) -> Array:
        """Of actions in [-1, 1]; those at the bounds count as the nearest number inside."""
        return self._log_prob_of(jnp.arctanh(jnp.clip(action, -_INSIDE, _INSIDE)))

    def entropy(self) -> Array:
        """By Gauss-Hermite quadrature: there is no closed form."""
        normal = self.normal
        change = jnp.zeros_like(normal.mean)
        for node, weight in zip(*_HERMITE, strict=True):
            u = normal.mean + node * jnp.exp(normal.log_std)
            change = change + weight * _log_slope(u)
        return normal.entropy() + normal._sum(change)

    def _log_prob_of(self, u: Array) -> Array:
        return self.normal.log_prob(u) - self.normal._sum(_log_slope(u))


def _log_slope(u: Array) -> Array:
    """The logarithm of the slope of tanh."""
    return 2.0 * (_LOG_2 - u - jax.nn.softplus(-2.0 * u))


def num_outputs(space: Space) -> int:
    """How many numbers a network must put out per action of `space`.

    Raises ValueError for spaces that no distribution here covers.
    """
    match space:
        case Discrete(n):
            return n
        case MultiDiscrete(nvec):
            return sum(nvec)
        case Box() if np.issubdtype(space.dtype, np.floating):
            return int(np.prod(space.shape))
    raise ValueError(
        f"action space {space}: policies cover Discrete, MultiDiscrete and Box of floats; "
        "put several actions into one MultiDiscrete or one Box"
    )


def from_outputs(
    space: Space, outputs: Array, log_std: Array | None = None, mask: Array | None = None
) -> Distribution:
    """The distribution over `space` with network outputs `[..., num_outputs(space)]`.

    For a Box they are the means, in units where the box is [-1, 1] (see `to_environment`),
    and `log_std` `[num_outputs]` goes with them.  `mask` (bool, as `outputs`) marks the
    actions that are allowed; several at once for MultiDiscrete, one after the other.
    """
    if mask is not None and mask.shape[-1] != outputs.shape[-1]:
        raise ValueError(
            f"the action mask has {mask.shape[-1]} entries, {space} needs {outputs.shape[-1]}"
        )
    if isinstance(space, Discrete):
        return categorical(outputs, mask)
    if isinstance(space, MultiDiscrete):
        cuts = list(np.cumsum(space.nvec)[:-1])
        logits = jnp.split(outputs, cuts, axis=-1)
        masks = [None] * len(logits) if mask is None else jnp.split(mask, cuts, axis=-1)
        return Product(tuple(map(categorical, logits, masks)))
    if mask is not None or log_std is None:
        raise ValueError(f"{space}: a continuous policy takes a log_std and no action mask")
    shape = space.shape
    mean = outputs.reshape(*outputs.shape[:-1], *shape)
    log_std = jnp.broadcast_to(log_std.reshape(shape), mean.shape)
    return DiagonalNormal(mean, log_std, event_ndim=len(shape))


def to_environment(space: Space, action: Any) -> Any:
    """A policy's action as the environment takes it.

    For a bounded Box the policy acts in [-1, 1]: clipped, then scaled to the box.  The
    unclipped action is the one whose log-probability counts.  In a Box with open sides it acts in
    the box's own units, clipped to the bounds that there are.  Other spaces: unchanged.
    """
    if not isinstance(space, Box):
        return action
    low, high = (jnp.broadcast_to(b, action.shape) for b in space.bounds())
    if not space.bounded:
        return jnp.clip(action, low, high)
    return low + (jnp.clip(action, -1.0, 1.0) + 1.0) * (0.5 * (high - low))


def from_environment(space: Box, action: Array) -> Array:
    """An action of the bounded Box `space` in the units of a policy, where the box is [-1, 1].

    The inverse of `to_environment`; sides of length 0 give 0.
    """
    low, high = (jnp.broadcast_to(b, action.shape) for b in space.bounds())
    span = high - low
    return jnp.where(span > 0, (action - low) * (2.0 / jnp.where(span > 0, span, 1.0)) - 1.0, 0.0)
