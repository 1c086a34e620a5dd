"""Memories for streams, whose gradient needs nothing of the past but numbers carried along.

A cell takes a memory and an input `x` `[D]` to the next memory and features `[F]`.  Differentiated
with respect to its parameters the features have the gradient that an online learner can have:

* "diagonal": a linear recurrent unit, `M` complex numbers that do not mix (Orvieto et al. 2023,
  arXiv:2303.06349; with its magnitude and phase as parameters),

      h <- l h + g W x,   l = exp(-exp(nu) + i exp(theta)),   g = sqrt(1 - |l|^2)

  Since `h` depends on the parameters of its own unit only, the derivatives of `h` by all of them
  are as many numbers as there are parameters, and can be carried along (real-time recurrent
  learning; Zucchet et al. 2023, arXiv:2305.15947, Elelimy et al. 2024, arXiv:2409.01449):

      s_nu    <- l s_nu    + (dl/dnu) h + (dg/dnu) W x
      s_theta <- l s_theta + (dl/dtheta) h
      s_W     <- l s_W     + g x

  With weights that stay, that is the gradient of backpropagation through all of the past.

* "gru": a gated recurrent unit (Cho et al. 2014) whose gradient is truncated to one step: the
  memory before counts as a constant.
"""

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from fastrl.types import Array, Key, PyTree

CellName = Literal["diagonal", "gru"]
R_MIN, R_MAX, MAX_PHASE = 0.5, 0.99, math.pi / 2  # of l at the start


class Memory(NamedTuple):
    """What a cell carries; without `learns` there are no sensitivities, and no gradient."""

    hidden: Array
    sensitivity: PyTree  # derivatives of `hidden`; () where none are carried


class Cell(NamedTuple):
    """Pure functions of one stream."""

    init: Callable[[Key], Any]  # (key) -> params
    start: Callable[[bool], Memory]  # (learns) -> the memory of nothing
    step: Callable[[Any, Memory, Array], tuple[Memory, Array]]  # (params, memory, x [D])
    num_features: int


class Diagonal(NamedTuple):
    """Parameters of the diagonal unit."""

    nu: Array  # [M]
    theta: Array  # [M]
    kernel: Array  # [2, D, M]: W, real and imaginary


class Gru(NamedTuple):
    """Parameters of the gated unit: reset gate, update gate, candidate."""

    kernel: Array  # [D, 3 M]
    recurrent: Array  # [M, 3 M]
    bias: Array  # [3 M]
    candidate_bias: Array  # [M]: of the product that the reset gate multiplies


def cell(name: CellName, num_inputs: int, size: int) -> Cell:
    """The cell called `name`, of `size` units."""
    if name == "gru":
        return _gru(num_inputs, size)

    def init(key: Key) -> Diagonal:
        radius_key, phase_key, kernel_key = jax.random.split(key, 3)
        share = jax.random.uniform(radius_key, (size,))
        radius = jnp.sqrt(R_MIN**2 + share * (R_MAX**2 - R_MIN**2))  # even over the ring
        phase = MAX_PHASE * jax.random.uniform(phase_key, (size,), minval=1e-3)
        kernel = jax.random.normal(kernel_key, (2, num_inputs, size)) / math.sqrt(2 * num_inputs)
        return Diagonal(jnp.log(-jnp.log(radius)), jnp.log(phase), kernel)

    def start(learns: bool) -> Memory:
        nothing = Diagonal(*(jnp.zeros((2, *s)) for s in ((size,), (size,), (num_inputs, size))))
        return Memory(jnp.zeros((2, size)), nothing if learns else ())

    return Cell(init, start, _diagonal_step, 2 * size)


def _diagonal_step(params: Diagonal, memory: Memory, x: Array) -> tuple[Memory, Array]:
    """One step of the unit and of its sensitivities. Complex numbers are pairs `[2, ...]`."""
    fixed = jax.lax.stop_gradient(params)
    damping, turning = jnp.exp(fixed.nu)[None], jnp.exp(fixed.theta)[None]  # [1, M]
    radius = jnp.exp(-damping)
    factor = radius * jnp.concatenate([jnp.cos(turning), jnp.sin(turning)])  # l
    gate = jnp.sqrt(1.0 - jnp.square(radius))
    driven = jnp.einsum("d,cdm->cm", x, fixed.kernel)
    kept = _times(factor, memory.hidden)
    hidden = kept + gate * driven
    if not memory.sensitivity:
        return Memory(hidden, ()), hidden.reshape(-1)
    old: Diagonal = memory.sensitivity
    gate_slope = damping * jnp.square(radius) / gate
    nu = _times(factor, old.nu) - damping * kept + gate_slope * driven
    theta = _times(factor, old.theta) + turning * _i(kept)
    kernel = _times(factor[:, None], old.kernel)
    kernel = kernel.at[0].add(jnp.outer(x, gate[0]))
    sensitivity = Diagonal(nu, theta, kernel)
    return Memory(hidden, sensitivity), _attached(params, hidden, sensitivity).reshape(-1)


@jax.custom_vjp
def _attached(params: Diagonal, hidden: Array, sensitivity: Diagonal) -> Array:
    """`hidden`, whose derivative by `params` is `sensitivity`."""
    return hidden


def _attach(params: Diagonal, hidden: Array, sensitivity: Diagonal) -> tuple[Array, Diagonal]:
    return hidden, sensitivity


def _detach(sensitivity: Diagonal, wanted: Array) -> tuple[Diagonal, Array, Diagonal]:
    """The gradient of `sum(wanted hidden)`: W's imaginary part acts like i times its real one."""
    by_kernel = [(wanted[:, None] * s).sum(0) for s in (sensitivity.kernel, _i(sensitivity.kernel))]
    gradient = Diagonal(
        (wanted * sensitivity.nu).sum(0), (wanted * sensitivity.theta).sum(0), jnp.stack(by_kernel)
    )
    return gradient, jnp.zeros_like(wanted), jax.tree.map(jnp.zeros_like, sensitivity)


_attached.defvjp(_attach, _detach)


def _gru(num_inputs: int, size: int) -> Cell:
    def init(key: Key) -> Gru:
        kernel_key, recurrent_key = jax.random.split(key)

        def uniform(key: Key, fan_in: int) -> Array:
            limit = 1.0 / math.sqrt(fan_in)
            return jax.random.uniform(key, (fan_in, 3 * size), minval=-limit, maxval=limit)

        kernels = uniform(kernel_key, num_inputs), uniform(recurrent_key, size)
        return Gru(*kernels, jnp.zeros(3 * size), jnp.zeros(size))

    def step(params: Gru, memory: Memory, x: Array) -> tuple[Memory, Array]:
        before = jax.lax.stop_gradient(memory.hidden)
        given = jnp.split(x @ params.kernel + params.bias, 3)
        recalled = jnp.split(before @ params.recurrent, 3)
        reset = jax.nn.sigmoid(given[0] + recalled[0])
        update = jax.nn.sigmoid(given[1] + recalled[1])
        candidate = jnp.tanh(given[2] + reset * (recalled[2] + params.candidate_bias))
        hidden = (1.0 - update) * candidate + update * before
        return Memory(jax.lax.stop_gradient(hidden), ()), hidden

    return Cell(init, lambda learns: Memory(jnp.zeros(size), ()), step, size)


def _times(a: Array, b: Array) -> Array:
    """The complex product of pairs."""
    return jnp.stack([a[0] * b[0] - a[1] * b[1], a[0] * b[1] + a[1] * b[0]])


def _i(a: Array) -> Array:
    """`i a`."""
    return jnp.stack([-a[1], a[0]])
