"""Ensembles of dense networks, with layer or batch normalisation and dropout.

An ensemble is one tree of parameters with leaves `[E, ...]`, and a layer of it one batched matrix
product: nothing is compiled E times.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fastrl.kernels import mlp
from fastrl.networks import ACTIVATIONS, Activation
from fastrl.types import Array, Key, Scalar

Norm = Literal["none", "layer", "batch"]


@dataclasses.dataclass(frozen=True)
class EnsembleConfig:
    """The shape of an ensemble."""

    members: int
    hidden_sizes: tuple[int, ...]
    num_outputs: int
    activation: Activation = "relu"
    norm: Norm = "none"  # layer: before each activation; batch: of the input, and after each
    fused_mlp: bool = False  # by `kernels.mlp`, where there is no norm and no dropout


class Dropout(NamedTuple):
    """Entries of hidden layers are 0 with chance `rate`, before the norm (DroQ)."""

    key: Key
    rate: Scalar


class Ensemble(NamedTuple):
    """`E` networks of one shape; `variables` hold parameters, and statistics of batches."""

    init: Callable[[Key], Any]  # (key) -> variables
    # (variables, x [..., D], dropout | None) -> [E, ..., K], by running statistics
    apply: Callable[[Any, Array, Dropout | None], Array]
    # (variables, x [B, D]) -> [E, B, K] by the batch's own statistics, and the variables after it
    train: Callable[[Any, Array], tuple[Array, Any]]


def ensemble(num_inputs: int, config: EnsembleConfig) -> Ensemble:
    """An ensemble of dense networks of vectors `[..., num_inputs]`."""
    network = _Ensemble(config)
    apply_of: Callable[..., Any] = network.apply

    def init(key: Key) -> Any:
        return network.init(key, jnp.zeros((1, num_inputs)), False)

    def apply(variables: Any, x: Array, dropout: Dropout | None = None) -> Array:
        rows = x.reshape(-1, num_inputs)
        if config.fused_mlp and config.norm == "none" and dropout is None:
            out = _fused(config, variables["params"], rows)
        else:
            out = apply_of(variables, rows, False, dropout)
        return out.reshape(config.members, *x.shape[:-1], config.num_outputs)

    def train(variables: Any, x: Array) -> tuple[Array, Any]:
        if config.norm == "none":
            return apply(variables, x), variables
        out, changed = apply_of(variables, x, True, mutable=["statistics"])
        return out, {**variables, **changed}

    return Ensemble(init, apply, train)


def _fused(config: EnsembleConfig, params: Any, x: Array) -> Array:
    """`[B, D] -> [E, B, K]` by the kernels, all members in one operation."""
    parts = (params[f"_Dense_{i}"] for i in range(len(config.hidden_sizes) + 1))
    layers = [(part["kernel"], part["bias"]) for part in parts]
    return mlp.apply([x], [layers], config.activation)[0]


class _Ensemble(nn.Module):
    config: EnsembleConfig

    @nn.compact
    def __call__(self, x: Array, train: bool, dropout: Dropout | None = None) -> Array:
        """`[B, D] -> [E, B, K]`; with `train`, batches are normalised by their own statistics."""
        c = self.config
        activation = ACTIVATIONS[c.activation]
        h = jnp.broadcast_to(x[None], (c.members, *x.shape))
        if c.norm == "batch":
            h = BatchRenorm()(h, train)
        for i, size in enumerate(c.hidden_sizes):
            h = _Dense(c.members, size)(h)
            if dropout is not None:
                h = _dropped(jax.random.fold_in(dropout.key, i), h, dropout.rate)
            if c.norm == "layer":
                h = _LayerNorm()(h)
            h = activation(h)
            if c.norm == "batch":
                h = BatchRenorm()(h, train)
        return _Dense(c.members, c.num_outputs)(h)


class _Dense(nn.Module):
    """`[E, B, D] -> [E, B, K]`, a kernel for each member; LeCun's uniform weights."""

    members: int
    size: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        kernel = self.param("kernel", _uniform, (self.members, x.shape[-1], self.size))
        bias = self.param("bias", nn.initializers.zeros, (self.members, self.size))
        out = jnp.einsum("ebi,eio->ebo", x, kernel)
        return out + jnp.broadcast_to(bias[:, None], out.shape)


def _uniform(key: Key, shape: tuple[int, ...]) -> Array:
    """Of variance 1 / (number of inputs)."""
    limit = np.sqrt(3.0 / shape[-2])
    return jax.random.uniform(key, shape, jnp.float32, -limit, limit)


def _dropped(key: Key, h: Array, rate: Scalar) -> Array:
    keep = jax.random.uniform(key, h.shape) >= rate
    return jnp.where(keep, h / (1.0 - rate), 0.0)


class _LayerNorm(nn.Module):
    """Over the last axis of `[E, B, D]`, scale and bias for each member."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        scale, bias = _scale_and_bias(self, x)
        mean = x.mean(-1, keepdims=True)
        variance = jnp.square(x - mean).mean(-1, keepdims=True)
        return (x - mean) * jax.lax.rsqrt(variance + 1e-6) * scale + bias


class BatchRenorm(nn.Module):
    """Batch renormalisation (Ioffe 2017, arXiv:1702.03275) of `[E, B, D]` over `B`.

    In training a batch is normalised by its own mean and deviation for the first `warm_up`
    batches, thereafter with the corrections

        r = clip(s_batch / s, 1/3, 3),   d = clip((m_batch - m) / s, -5, 5),
        (x - m_batch) / s_batch * r + d

    through which no gradient flows; `m` and `s` are the running ones, which are used as they are
    out of training.  The constants are those of CrossQ's code.
    """

    momentum: float = 0.99
    epsilon: float = 1e-3
    warm_up: int = 100_000

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        scale, bias = _scale_and_bias(self, x)
        shape = x.shape[0], 1, x.shape[-1]
        running = self.variable("statistics", "mean", jnp.zeros, shape)
        spread = self.variable("statistics", "variance", jnp.ones, shape)
        batches = self.variable("statistics", "batches", jnp.int32, 0)
        mean, variance = running.value, spread.value
        if not train:
            return (x - mean) * jax.lax.rsqrt(variance + self.epsilon) * scale + bias
        own_mean = x.mean(1, keepdims=True)
        own_variance = jnp.square(x - own_mean).mean(1, keepdims=True)
        std, own_std = (jnp.sqrt(v + self.epsilon) for v in (variance, own_variance))
        warm = batches.value >= self.warm_up
        r = jnp.where(warm, jnp.clip(own_std / std, 1 / 3, 3.0), 1.0)
        d = jnp.where(warm, jnp.clip((own_mean - mean) / std, -5.0, 5.0), 0.0)
        r, d = jax.lax.stop_gradient((r, d))
        if not self.is_initializing():
            constant = jax.lax.stop_gradient((own_mean, own_variance))
            running.value = mean + (1.0 - self.momentum) * (constant[0] - mean)
            spread.value = variance + (1.0 - self.momentum) * (constant[1] - variance)
            batches.value = batches.value + 1
        return ((x - own_mean) / own_std * r + d) * scale + bias


def _scale_and_bias(module: nn.Module, x: Array) -> tuple[Array, Array]:
    """Of each entry of every member: `[E, 1, D]`, from 1 and 0."""
    shape = x.shape[0], 1, x.shape[-1]
    scale = module.param("scale", nn.initializers.ones, shape)
    return scale, module.param("bias", nn.initializers.zeros, shape)
