"""A gated recurrence that runs backwards in time, with a gradient that suits a CPU.

    r_t = sigmoid(W_r x_t + U_r h' + b_r)        z_t = sigmoid(W_z x_t + U_z h' + b_z)
    n_t = tanh(W_n x_t + b_n + r_t (U_n h' + c))
    h_t = (1 - z_t) n_t + z_t h'                 h' = h_{t+1}, or 0 where a step ends an episode

(Cho et al. 2014, in the variant of cuDNN and flax).  Differentiated by JAX, a scan adds to the
gradient of U at every step, a product with few rows; here the steps' errors are kept and one
product over all of time follows.  The activations that the gradient needs carry the name
`ACTIVATIONS`, for the policies of `jax.checkpoint`.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from fastrl.types import Array, Key

ACTIVATIONS = "gru_activations"


class Parameters(NamedTuple):
    """Weights; the gates are r, z, n side by side."""

    inputs: Array  # W [D, 3H]
    bias: Array  # b [3H]
    recurrent: Array  # U [H, 3H]
    reset_bias: Array  # c [H]


def init(key: Key, num_inputs: int, hidden_size: int) -> Parameters:
    """Inputs with variance 1 / D, orthogonal recurrence for each gate, no bias."""
    input_key, recurrent_key = jax.random.split(key)
    orthogonal = nn.initializers.orthogonal()
    gates = [orthogonal(k, (hidden_size,) * 2) for k in jax.random.split(recurrent_key, 3)]
    inputs = nn.initializers.lecun_normal()(input_key, (num_inputs, 3 * hidden_size))
    bias = jnp.zeros(3 * hidden_size)
    return Parameters(inputs, bias, jnp.concatenate(gates, 1), jnp.zeros(hidden_size))


@jax.custom_vjp
def backwards(p: Parameters, x: Array, done: Array) -> Array:
    """h `[T, ..., H]` of `x` `[T, ..., D]`; `done` `[T, ...]` marks steps that nothing follows."""
    return _forward(p, x, done)[0]


def _forward(p: Parameters, x: Array, done: Array) -> tuple[Array, Any]:
    size = p.reset_bias.shape[0]

    def step(h: Array, now: tuple[Array, Array]) -> tuple[Array, Any]:
        x_t, done_t = now
        h = jnp.where(done_t[..., None], 0.0, h)
        own, past = x_t @ p.inputs + _like(p.bias, h), h @ p.recurrent
        r = jax.nn.sigmoid(own[..., :size] + past[..., :size])
        z = jax.nn.sigmoid(own[..., size : 2 * size] + past[..., size : 2 * size])
        q = past[..., 2 * size :] + _like(p.reset_bias, h)
        n = jnp.tanh(own[..., 2 * size :] + r * q)
        h = n + z * (h - n)
        return h, (h, r, z, n, q)

    start = jnp.zeros((*x.shape[1:-1], size), x.dtype)
    _, kept = jax.lax.scan(step, start, (x, done), reverse=True)
    kept = checkpoint_name(kept, ACTIVATIONS)
    return kept[0], (p, x, done, kept)


def _backward(residuals: Any, errors: Array) -> tuple[Parameters, Array, None]:
    p, x, done, (h, r, z, n, q) = residuals
    before = jnp.concatenate([h[1:], jnp.zeros_like(h[:1])])  # h' of every step
    before = jnp.where(done[..., None], 0.0, before)

    def step(beyond: Array, now: Any) -> tuple[Array, Any]:
        error_t, done_t, before_t, r_t, z_t, n_t, q_t = now
        dh = error_t + beyond
        dn = dh * (1 - z_t) * (1 - n_t * n_t)
        dz = dh * (before_t - n_t) * z_t * (1 - z_t)
        dr = dn * q_t * r_t * (1 - r_t)
        gates = jnp.concatenate([dr, dz, dn * r_t], -1)
        beyond = dh * z_t + gates @ p.recurrent.T
        return jnp.where(done_t[..., None], 0.0, beyond), (gates, dn)

    start = jnp.zeros_like(errors[0])
    _, (gates, dn) = jax.lax.scan(step, start, (errors, done, before, r, z, n, q))
    own = jnp.concatenate([gates[..., : -dn.shape[-1]], dn], -1)
    rows = lambda a: a.reshape(-1, a.shape[-1])  # noqa: E731
    gradient = Parameters(
        rows(x).T @ rows(own), rows(own).sum(0), rows(before).T @ rows(gates),
        rows(gates)[:, -dn.shape[-1] :].sum(0),
    )  # fmt: skip
    return gradient, own @ p.inputs.T, None


backwards.defvjp(_forward, _backward)


def _like(bias: Array, h: Array) -> Array:
    return bias.reshape((1,) * (h.ndim - 1) + bias.shape)
