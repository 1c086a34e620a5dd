"""Noisy networks for exploration (Fortunato et al. 2018, arXiv:1706.10295), factorised noise.

The noise is a function of parameters, so any network can have it: a dense layer's weights are
`mean + deviation * f(e_in) f(e_out)^T` and its bias `mean + deviation * f(e_out)`, where
`f(e) = sign(e) sqrt(|e|)` of normal `e` (equations 10 and 11).  A draw is shared by a batch.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fastrl.types import Array, Key, PyTree, Scalar


class Noisy(NamedTuple):
    """The parameters of a network, and deviations of those of its dense layers."""

    mean: PyTree
    deviation: dict[str, Any]  # path of a dense layer -> its leaves


def init(params: PyTree, sigma: Scalar) -> Noisy:
    """`params` with deviations `sigma / sqrt(inputs)`; the paper's sigma is 0.5."""
    deviation = {}
    for path, layer in _dense(params):
        scale = sigma / jnp.sqrt(jnp.float32(layer["kernel"].shape[0]))
        deviation[path] = jax.tree.map(lambda x, s=scale: jnp.full(x.shape, s, x.dtype), layer)
    return Noisy(params, deviation)


def sample(noisy: Noisy, key: Key) -> PyTree:
    """Parameters for the network, drawn anew. Consumes `key`."""
    layers = dict(_dense(noisy.mean))
    sizes = [n for path in layers for n in layers[path]["kernel"].shape]
    normal = jax.random.normal(key, (sum(sizes),))
    noise = jnp.sign(normal) * jnp.sqrt(jnp.abs(normal))
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    parts = iter([noise[end - n : end] for n, end in zip(sizes, ends, strict=True)])
    changed = {}
    for path, layer in layers.items():
        changed[path] = _moved(layer, noisy.deviation[path], next(parts), next(parts))
    return _replaced(noisy.mean, changed)


def _moved(layer: Any, deviation: Any, noise_in: Array, noise_out: Array) -> dict[str, Array]:
    noise = {"kernel": noise_in[:, None] * noise_out[None], "bias": noise_out}
    return {name: layer[name] + deviation[name] * noise[name] for name in layer}


def _dense(params: Any, path: str = "") -> list[tuple[str, Any]]:
    """The dense layers in `params`, records of flax: paths, and `{"kernel": ..., "bias": ...}`."""
    if not isinstance(params, Mapping):
        return []
    if "kernel" in params:
        return [(path, dict(params))] if params["kernel"].ndim == 2 else []
    return [layer for name in sorted(params) for layer in _dense(params[name], f"{path}/{name}")]


def _replaced(params: Any, changed: dict[str, Any], path: str = "") -> Any:
    if path in changed:
        return changed[path]
    if not isinstance(params, Mapping):
        return params
    return {name: _replaced(x, changed, f"{path}/{name}") for name, x in params.items()}
