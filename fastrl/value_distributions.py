"""What a network says of an action's return: its mean, or the numbers of a distribution.

A network gives `K` numbers for every action.  `ValueDistribution` says what they mean, what they
should become, and by which loss.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fastrl.types import Array, Scalar


class ValueDistribution(NamedTuple):
    """Pure functions of the `K` outputs of an action; `bounds` is float32 `[2]`, see `categorical`.

    Targets are made for a return `reward + discount * Z`, where the outputs describe `Z`.
    """

    num_outputs: int
    mean: Callable[[Array, Array], Array]  # (outputs [..., K], bounds) -> [...]
    # (outputs of what follows [B, K], reward [B], discount [B], bounds) -> [B, K]
    target: Callable[[Array, Array, Array, Array], Array]
    # (outputs [B, K], target [B, K], kappa) -> loss [B], error [B] for priorities, not negative
    loss: Callable[[Array, Array, Scalar], tuple[Array, Array]]


def expected() -> ValueDistribution:
    """One number, the mean (Mnih et al. 2015): squared error, linear beyond `kappa`."""

    def loss(outputs: Array, target: Array, kappa: Scalar) -> tuple[Array, Array]:
        error = outputs[:, 0] - target[:, 0]
        return 2.0 * huber(error, kappa), jnp.abs(error)

    return ValueDistribution(1, lambda outputs, bounds: outputs[..., 0], _shifted, loss)


def categorical(num_atoms: int) -> ValueDistribution:
    """C51 (Bellemare et al. 2017, arXiv:1707.06887): probabilities of `num_atoms` fixed returns.

    The atoms lie evenly from `bounds[0]` to `bounds[1]`; outputs are logits.  The loss is the
    cross-entropy to the projected target (algorithm 1); priorities are by the KL divergence.
    """

    def mean(outputs: Array, bounds: Array) -> Array:
        return jax.nn.softmax(outputs) @ _atoms(bounds, num_atoms)

    def target(outputs: Array, reward: Array, discount: Array, bounds: Array) -> Array:
        atoms = _atoms(bounds, num_atoms)
        moved = reward[:, None] + discount[:, None] * atoms[None]
        return project(jax.nn.softmax(outputs), moved, bounds)

    def loss(outputs: Array, target: Array, kappa: Scalar) -> tuple[Array, Array]:
        cross_entropy = -(target * jax.nn.log_softmax(outputs)).sum(-1)
        entropy = -(target * jnp.log(jnp.maximum(target, 1e-20))).sum(-1)
        return cross_entropy, jnp.maximum(cross_entropy - entropy, 0.0)

    return ValueDistribution(num_atoms, mean, target, loss)


def quantile(num_quantiles: int) -> ValueDistribution:
    """QR-DQN (Dabney et al. 2018, arXiv:1710.10044): the quantiles at `(2i + 1) / 2K`.

    The loss is that of equation 10 and algorithm 1: for every quantile, the mean over the target's
    of `|tau - 1[u < 0]| huber(u, kappa) / kappa`, all summed.
    """
    levels = (2.0 * jnp.arange(num_quantiles) + 1.0) / (2.0 * num_quantiles)

    def loss(outputs: Array, target: Array, kappa: Scalar) -> tuple[Array, Array]:
        error = target[:, :, None] - outputs[:, None, :]  # [B, of the target, of the outputs]
        weight = jnp.abs(levels[None, None] - (error < 0.0))
        each = (weight * huber(error, kappa) / kappa).mean(1).sum(-1)
        return each, each

    return ValueDistribution(
        num_quantiles, lambda outputs, bounds: outputs.mean(-1), _shifted, loss
    )


def project(probabilities: Array, moved: Array, bounds: Array) -> Array:
    """Masses at `moved` `[B, K]`, shared out among the atoms `[B, K]` that are next to them.

    Each goes to its two neighbours, the nearer gets more (Bellemare et al. 2017, equation 7); what
    is beyond the bounds goes to the outermost.  A place that is an atom keeps all of its mass.
    """
    num_atoms = moved.shape[-1]
    width = (bounds[1] - bounds[0]) / (num_atoms - 1)
    place = (jnp.clip(moved, bounds[0], bounds[1]) - bounds[0]) / width
    index = jnp.arange(num_atoms, dtype=jnp.float32)
    share = jnp.clip(1.0 - jnp.abs(place[:, :, None] - index[None, None]), 0.0, 1.0)
    return (probabilities[:, :, None] * share).sum(1)


def huber(error: Array, kappa: Scalar) -> Array:
    """`error^2 / 2` up to `kappa`, linear beyond; `kappa` may be inf."""
    size = jnp.abs(error)
    near = jnp.minimum(size, kappa)
    return near * (size - 0.5 * near)


def _shifted(outputs: Array, reward: Array, discount: Array, bounds: Any) -> Array:
    return reward[:, None] + discount[:, None] * outputs


def _atoms(bounds: Array, num_atoms: int) -> Array:
    return jnp.linspace(bounds[0], bounds[1], num_atoms)
