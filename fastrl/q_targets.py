"""What values of actions should become, and how optimistic they are: parts of Q-learning's loss.

Outputs are `[B, A, K]`: `K` numbers for each action, see `fastrl.value_distributions`.
"""

import jax
import jax.numpy as jnp

from fastrl.types import Array, Scalar


def chosen(outputs: Array, action: Array) -> Array:
    """The outputs `[..., K]` of `action` `[...]`, of `[..., A, K]`."""
    return (jax.nn.one_hot(action, outputs.shape[-2])[..., None] * outputs).sum(-2)


def following(outputs: Array, choice: Array) -> Array:
    """The outputs `[..., K]` of the action that is best by the values `choice` `[..., A]`.

    With `choice` from the network that is learned and `outputs` from the target network this is
    double Q-learning (van Hasselt et al. 2016), with both from the latter Q-learning.
    """
    return chosen(outputs, jnp.argmax(choice, -1))


def soft_following(outputs: Array, values: Array, temperature: Scalar) -> Array:
    """`sum_a pi(a) (Z(a) - temperature log pi(a))`, `[..., K]`, of what follows.

    `pi` is the softmax of `values / temperature` (Vieillard et al. 2020, equations 1 and 2).
    """
    log_policy = jax.nn.log_softmax(values / temperature)
    entropic = outputs - temperature * log_policy[..., None]
    return (jnp.exp(log_policy)[..., None] * entropic).sum(-2)


def munchausen(values: Array, action: Array, temperature: Scalar, least: Scalar) -> Array:
    """`temperature log pi(a)`, from `least` to 0: what Munchausen adds to the reward, `[...]`."""
    log_policy = temperature * jax.nn.log_softmax(values / temperature)
    return jnp.clip(chosen(log_policy[..., None], action)[..., 0], least, 0.0)


def soft_value(values: Array) -> Array:
    """`log sum_a exp Q(a)`, `[...]`: raised, the values of actions rise that were seldom taken."""
    return jax.nn.logsumexp(values, -1)


def gap(values: Array) -> Array:
    """By how far the best value is above the soft one, `[...]`: never above 0."""
    return values.max(-1) - soft_value(values)
