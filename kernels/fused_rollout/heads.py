"""Observations into the network and actions out of it, entry by entry.

The same numbers as `fastrl.networks.encoder` and `fastrl.distributions` give: those work on arrays
with an axis of entries, which a kernel does not have; these work on lists of vectors over
environments, of any shape.
"""

import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fastrl.kernels.scalarize_cells import Cells
from fastrl.spaces import Box, Discrete, MultiDiscrete, is_leaf

# (draw number, integer in the second place: which entry of the environment's own) -> uint32 word
Words = Callable[[int, int], jax.Array]
_LONGEST = 64  # entries of an encoded observation: each is a vector in registers
_MOST_OUTPUTS = 64
_LOG_2PI = float(np.log(2 * np.pi))
_LOW = np.nextafter(np.float32(-1.0), np.float32(0.0))  # normals: uniforms in [_LOW, 1)


def observation_reason(space: Any) -> str | None:
    """Why observations of `space` cannot enter the kernel's network; None if they can."""
    names = getattr(space, "_fields", ()) or (space if isinstance(space, dict) else ())
    if not is_leaf(space) and {"action_mask", "critic"} & set(names):
        return "the observation has an action mask or a view for the critic alone"
    leaves = jax.tree.leaves(space, is_leaf=is_leaf)
    if not leaves or not all(map(is_leaf, leaves)):
        return f"observations of {space}"
    size = num_inputs(space)
    if size > _LONGEST:
        return f"observations enter the network as {size} numbers, the kernel takes {_LONGEST}"
    return None


def num_inputs(space: Any) -> int:
    """How many numbers an observation is to the network."""
    return sum(map(_size, jax.tree.leaves(space, is_leaf=is_leaf)))


def num_outputs(space: Any) -> int:
    """How many numbers the policy puts out for an action."""
    return _size(space)


def _size(space: Any) -> int:
    match space:
        case Discrete(n):
            return n
        case MultiDiscrete(nvec):
            return sum(nvec)
    return math.prod(space.shape)


def action_reason(space: Any) -> str | None:
    """Why actions of `space` cannot be drawn in the kernel; None if they can."""
    real = isinstance(space, Box) and np.issubdtype(space.dtype, np.floating)
    if not real and not isinstance(space, (Discrete, MultiDiscrete)):
        return f"actions of {space}"
    outputs = num_outputs(space)
    if outputs > _MOST_OUTPUTS:
        return f"the policy has {outputs} outputs, the kernel takes {_MOST_OUTPUTS}"
    return None


def encode(space: Any, observation: Any) -> list[jax.Array]:
    """The network's inputs; `observation` is a pytree of cells."""
    leaves = jax.tree.leaves(space, is_leaf=is_leaf)
    inputs = []
    for part, cells in zip(leaves, jax.tree.leaves(observation), strict=True):
        entries = [cells[i] for i in np.ndindex(cells.shape)]
        counts = [part.n] if isinstance(part, Discrete) else getattr(part, "nvec", None)
        if counts is None:
            scale = 255.0 if part.dtype == np.uint8 else 1.0
            inputs += [jnp.asarray(x).astype(jnp.float32) / scale for x in entries]
        else:
            pairs = zip(entries, counts, strict=True)
            inputs += [(x == k).astype(jnp.float32) for x, n in pairs for k in range(n)]
    return inputs


class Drawn(NamedTuple):
    """Actions as a list of entries, and the logarithm of their probability (density)."""

    action: list[jax.Array]
    log_prob: jax.Array


def sample(space: Any, outputs: list[jax.Array], log_std: Any, words: Words) -> Drawn:
    """Draws from the policy with these network outputs.

    `words(part, entry)` is the random word of one entry of the environment's own draws, for part
    `part` of a MultiDiscrete (else -1), as `jax.random` would use it.
    """
    if isinstance(space, Discrete):
        action, log_prob = _categorical(outputs, uniform(words(-1, 0)))
        return Drawn([action], log_prob)
    if isinstance(space, MultiDiscrete):
        ends = list(itertools.accumulate(space.nvec))
        logits = [outputs[end - n : end] for n, end in zip(space.nvec, ends, strict=True)]
        drawn = [_categorical(x, uniform(words(i, 0))) for i, x in enumerate(logits)]
        return Drawn([a for a, _ in drawn], sum(log_p for _, log_p in drawn))  # type: ignore[arg-type]
    noise = [normal(words(-1, k)) for k in range(len(outputs))]
    drawn = [_normal(*x) for x in zip(outputs, log_std, noise, strict=True)]
    log_prob = drawn[0][1]
    for _, term in drawn[1:]:
        log_prob = log_prob + term
    return Drawn([a for a, _ in drawn], log_prob)


def _categorical(logits: list[jax.Array], u: jax.Array) -> tuple[jax.Array, jax.Array]:
    """By inverting the distribution function, as `fastrl.distributions.Categorical` does."""
    highest = logits[0]
    for logit in logits[1:]:
        highest = jnp.maximum(highest, logit)
    shifted = [logit - highest for logit in logits]
    total = jnp.exp(shifted[0])
    for term in shifted[1:]:
        total = total + jnp.exp(term)
    log_p = [x - jnp.log(total) for x in shifted]
    cumulative = list(itertools.accumulate((jnp.exp(x) for x in log_p), jnp.add))
    threshold = u * cumulative[-1]
    action = jnp.zeros(u.shape, jnp.int32)
    for c in cumulative[:-1]:  # the threshold is below the last
        action = action + (threshold >= c).astype(jnp.int32)
    chosen = log_p[0]
    for k, x in enumerate(log_p[1:], 1):
        chosen = jnp.where(action == k, x, chosen)
    return action, chosen


def _normal(mean: jax.Array, log_std: Any, noise: jax.Array) -> tuple[jax.Array, jax.Array]:
    action = mean + jnp.exp(log_std) * noise
    z = (action - mean) * jnp.exp(-log_std)
    return action, -0.5 * (z * z) - log_std - 0.5 * _LOG_2PI


def to_environment(space: Any, action: list[jax.Array]) -> Cells:
    """The cells that the environment's `step` takes, clipped and scaled to the box."""
    if isinstance(space, Box):
        low, high = (bound.ravel() for bound in space.bounds())
        if space.bounded:
            action = [
                a + (jnp.clip(x, -1.0, 1.0) + 1.0) * (np.float32(0.5) * (b - a))
                for x, a, b in zip(action, low, high, strict=True)
            ]
        else:
            action = [jnp.clip(x, a, b) for x, a, b in zip(action, low, high, strict=True)]
    cells = np.empty(len(action), object)
    for k, x in enumerate(action):
        cells[k] = x
    return cells.reshape(space.shape)


def uniform(word: jax.Array) -> jax.Array:
    """float32 in [0, 1) from a uint32, the bits that `jax.random.uniform` takes."""
    bits = (word >> np.uint32(9)) | np.uint32(0x3F800000)
    return jax.lax.bitcast_convert_type(bits, jnp.float32) - 1.0


def normal(word: jax.Array) -> jax.Array:
    """A standard normal from a uint32, the one that `jax.random.normal` makes of it."""
    u = uniform(word) * (np.float32(1.0) - _LOW) + _LOW
    return np.float32(np.sqrt(2)) * jax.lax.erf_inv(jnp.maximum(_LOW, u))
