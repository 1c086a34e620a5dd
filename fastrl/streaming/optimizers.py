"""Optimisers for one transition at a time: eligibility traces and a step of bounded size.

Each is a pair of pure functions over a tree of parameters, built inside the trace, so that every
number may be traced.  An update takes the *positive* gradient `g` of what is learned (a value, or
the log-probability of an action) and the scalar TD error `delta`; `z` is the trace, `decay` is
gamma lambda.  Norms run over all parameters of one network.

`obgd`, `adaptive_obgd`: Elsayed, Vasan and Mahmood 2024 (arXiv:2410.14606), algorithm 3 and its
variant with second moments.  `streaming`: the optimiser of that paper's revision of 2026, as public
descriptions have it.  `intentional`: Sharifnassab et al. 2026 (arXiv:2604.19033).  `adam` and `sgd`
bound nothing: they are what the others are compared with.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fastrl.types import Array, PyTree, Scalar


class Optimizer(NamedTuple):
    """A pair of functions; states are NamedTuples with a field `trace`, see `cleared`."""

    init: Callable[[PyTree], Any]  # (params) -> state
    # (gradient, state, delta) -> (what to add to the parameters, state)
    update: Callable[[PyTree, Any, Array], tuple[PyTree, Any]]


class Trace(NamedTuple):
    """The state of `obgd`."""

    trace: PyTree


class AdaptiveTrace(NamedTuple):
    """The state of `adaptive_obgd`."""

    trace: PyTree
    square: PyTree  # running mean of (delta z)^2
    count: Array  # type: ignore[override]  # int32, updates


class PeakTrace(NamedTuple):
    """The state of `streaming`."""

    trace: PyTree
    peak: PyTree  # decayed maximum of |delta z|


class AdamTrace(NamedTuple):
    """The state of `adam`."""

    trace: PyTree
    mean: PyTree  # running mean of delta z
    square: PyTree  # and of its square
    count: Array  # type: ignore[override]  # int32, updates


class IntentionalTrace(NamedTuple):
    """The state of `intentional`."""

    trace: PyTree
    square: PyTree  # running mean of g^2
    strength: Array  # running mean of the sum of g^2 D
    error: Array  # running mean of delta^2
    magnitude: Array  # running mean of |clipped delta|, of a policy
    count: Array  # type: ignore[override]  # int32, updates


def cleared(state: Any, where: Array) -> Any:
    """The state with its trace at zero where that is so; all else is kept."""
    zeroed = jax.tree.map(lambda z: jnp.where(where, 0.0, z), state.trace)
    return state._replace(trace=zeroed)


def apply(params: PyTree, updates: PyTree) -> PyTree:
    """`params` with `updates` added."""
    return jax.tree.map(jnp.add, params, updates)


def obgd(learning_rate: Scalar, kappa: Scalar, decay: Scalar) -> Optimizer:
    """Overshooting-bounded gradient descent.

        z <- decay z + g;   M = alpha kappa max(|delta|, 1) |z|_1
        theta <- theta + alpha / max(M, 1) delta z

    An update is no longer than `1 / kappa` in the L1 norm wherever the bound is active.
    """

    def update(gradient: PyTree, state: Trace, delta: Array) -> tuple[PyTree, Trace]:
        trace = _decayed(decay, state.trace, gradient)
        step = delta * _bounded(learning_rate, kappa, delta, _sum(jax.tree.map(jnp.abs, trace)))
        return jax.tree.map(lambda z: step * z, trace), Trace(trace)

    return Optimizer(lambda params: Trace(_zeros(params)), update)


def adaptive_obgd(
    learning_rate: Scalar, kappa: Scalar, decay: Scalar, second_decay: Scalar = 0.999
) -> Optimizer:
    """`obgd` with every coordinate divided by the root of the running mean of (delta z)^2.

    m <- b m + (1 - b) (delta z)^2;   D = 1 / sqrt(m / (1 - b^k) + 1e-8)
    M = alpha kappa max(|delta|, 1) |D z|_1;   theta <- theta + alpha / max(M, 1) delta D z
    """

    second_decay = _single(second_decay)

    def init(params: PyTree) -> AdaptiveTrace:
        return AdaptiveTrace(_zeros(params), _zeros(params), jnp.int32(0))

    def update(
        gradient: PyTree, state: AdaptiveTrace, delta: Array
    ) -> tuple[PyTree, AdaptiveTrace]:
        count = state.count + 1
        trace = _decayed(decay, state.trace, gradient)
        square = jax.tree.map(
            lambda m, z: second_decay * m + (1 - second_decay) * jnp.square(delta * z),
            state.square, trace,
        )  # fmt: skip
        seen = _seen(second_decay, count)
        scaled = jax.tree.map(lambda z, m: z / jnp.sqrt(m / seen + 1e-8), trace, square)
        step = delta * _bounded(learning_rate, kappa, delta, _sum(jax.tree.map(jnp.abs, scaled)))
        return jax.tree.map(lambda z: step * z, scaled), AdaptiveTrace(trace, square, count)

    return Optimizer(init, update)


def streaming(step_size: Scalar, decay: Scalar, peak_decay: Scalar = 0.99995) -> Optimizer:
    """Every coordinate divided by its decayed maximum: none moves by more than `step_size`.

    u = delta z;   v <- max(b v, |u|);   theta <- theta + alpha u / (v + 1e-8)
    """

    def update(gradient: PyTree, state: PeakTrace, delta: Array) -> tuple[PyTree, PeakTrace]:
        trace = _decayed(decay, state.trace, gradient)
        peak = jax.tree.map(
            lambda v, z: jnp.maximum(peak_decay * v, jnp.abs(delta * z)), state.peak, trace
        )
        updates = jax.tree.map(lambda z, v: step_size * delta * z / (v + 1e-8), trace, peak)
        return updates, PeakTrace(trace, peak)

    return Optimizer(lambda params: PeakTrace(_zeros(params), _zeros(params)), update)


def sgd(learning_rate: Scalar, decay: Scalar) -> Optimizer:
    """Plain semi-gradient steps, `theta <- theta + alpha delta z`: `obgd` without its bound."""
    return obgd(learning_rate, 0.0, decay)


def adam(learning_rate: Scalar, decay: Scalar, second_decay: Scalar = 0.999) -> Optimizer:
    """Adam (Kingma and Ba 2015, arXiv:1412.6980) on `delta z`, with a first decay of 0.9."""
    first_decay, second_decay = _single(0.9), _single(second_decay)

    def init(params: PyTree) -> AdamTrace:
        return AdamTrace(_zeros(params), _zeros(params), _zeros(params), jnp.int32(0))

    def update(gradient: PyTree, state: AdamTrace, delta: Array) -> tuple[PyTree, AdamTrace]:
        count = state.count + 1
        trace = _decayed(decay, state.trace, gradient)
        running = lambda b, old, x: b * old + (1 - b) * x  # noqa: E731
        mean = jax.tree.map(lambda m, z: running(first_decay, m, delta * z), state.mean, trace)
        square = jax.tree.map(
            lambda v, z: running(second_decay, v, jnp.square(delta * z)), state.square, trace
        )
        step, seen = learning_rate / _seen(first_decay, count), _seen(second_decay, count)
        updates = jax.tree.map(
            lambda m, v: step * m / (jnp.sqrt(v / seen) + 1e-8), mean, square
        )  # fmt: skip
        return updates, AdamTrace(trace, mean, square, count)

    return Optimizer(init, update)


def intentional(
    eta: Scalar,
    decay: Scalar,
    second_decay: Scalar = 0.999,
    clip: Scalar = 20.0,
    clip_decay: Scalar = 0.9998,
    *,
    policy: bool = False,
) -> Optimizer:
    """The step that changes the *output* by a wanted amount: a share `eta` of delta.

        n <- b n + (1 - b) g^2;   D = 1 / (sqrt(n / (1 - b^t)) + 1e-8)
        s <- s + (1 - q) (sum g^2 D - s);   z <- q z + g
        step = eta / sqrt(s / (1 - q^t) sum z^2 D)
        c <- b' c + (1 - b') delta^2;   delta clipped to +- clip sqrt(c / (1 - b'^t))
        theta <- theta + step delta D z

    with q = decay.  For a `policy` delta is also divided by the running mean of its size: the
    change of log pi is about `eta`.  As in the official code c starts at 1, not 0, which leaves
    errors unclipped at first.
    """

    second_decay, clip_decay = _single(second_decay), _single(clip_decay)

    def init(params: PyTree) -> IntentionalTrace:
        nothing, one = jnp.float32(0.0), jnp.float32(1.0)
        start = _zeros(params), _zeros(params)
        return IntentionalTrace(*start, nothing, one, nothing, jnp.int32(0))

    def update(
        gradient: PyTree, state: IntentionalTrace, delta: Array
    ) -> tuple[PyTree, IntentionalTrace]:
        count = state.count + 1
        square = jax.tree.map(
            lambda n, g: second_decay * n + (1 - second_decay) * jnp.square(g),
            state.square, gradient,
        )  # fmt: skip
        seen = _seen(second_decay, count)
        scale = jax.tree.map(lambda n: 1.0 / (jnp.sqrt(n / seen) + 1e-8), square)
        now = _sum(jax.tree.map(lambda g, d: jnp.square(g) * d, gradient, scale))
        strength = state.strength + (1 - decay) * (now - state.strength)
        trace = _decayed(decay, state.trace, gradient)
        size = _sum(jax.tree.map(lambda z, d: jnp.square(z) * d, trace, scale))
        mean_strength = strength / (1 - jnp.power(decay, count.astype(jnp.float32)))
        step = eta / jnp.maximum(jnp.sqrt(mean_strength * size), 1e-8)
        error = clip_decay * state.error + (1 - clip_decay) * jnp.square(delta)
        limit = clip * jnp.sqrt(error / _seen(clip_decay, count))
        used, magnitude = jnp.clip(delta, -limit, limit), state.magnitude
        if policy:
            magnitude = clip_decay * magnitude + (1 - clip_decay) * jnp.abs(used)
            used = used / jnp.maximum(magnitude / _seen(clip_decay, count), 1e-12)
        updates = jax.tree.map(lambda z, d: step * used * d * z, trace, scale)
        return updates, IntentionalTrace(trace, square, strength, error, magnitude, count)

    return Optimizer(init, update)


def _zeros(params: PyTree) -> PyTree:
    return jax.tree.map(jnp.zeros_like, params)


def _decayed(decay: Scalar, trace: PyTree, gradient: PyTree) -> PyTree:
    return jax.tree.map(lambda z, g: decay * z + g, trace, gradient)


def _sum(tree: PyTree) -> Array:
    """One number: the sum over all parameters."""
    return jnp.stack([x.sum() for x in jax.tree.leaves(tree)]).sum()


def _bounded(learning_rate: Scalar, kappa: Scalar, delta: Array, norm: Array) -> Array:
    """The step size under the bound. A trace of zeros leaves it as it is."""
    bound = learning_rate * kappa * jnp.maximum(jnp.abs(delta), 1.0) * norm
    return learning_rate / jnp.maximum(bound, 1.0)


def _single(decay: Scalar) -> Array:
    """`decay` in float32: `1 - decay` must have its rounding too, wherever it is used."""
    return jnp.asarray(decay, jnp.float32)


def _seen(decay: Array, count: Array) -> Array:
    """`1 - decay^count`, right for decays close to 1 too."""
    return -jnp.expm1(count.astype(jnp.float32) * jnp.log(decay))
