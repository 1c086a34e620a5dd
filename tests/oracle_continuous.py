"""Updates of the off-policy actor-critics in float64 NumPy, their gradients by differences.

Networks are lists of layers of an ensemble, as `layers` takes them from fastrl's variables; hidden
layers are tanh.  A loss is a function of one such list, so no gradient is derived by hand.
"""

from typing import Any

import numpy as np

LOG_2PI = np.log(2 * np.pi)


def numbers(tree: Any) -> Any:
    """Nested dicts of arrays, in float64."""
    if isinstance(tree, dict):
        return {k: numbers(v) for k, v in tree.items()}
    return np.asarray(tree, np.float64)


def forward(params: Any, x: Any, norm: str = "none", statistics: Any = None) -> tuple[Any, Any]:
    """The outputs `[E, B, K]` of an ensemble for `[B, D]`, and the batch's own statistics.

    `statistics`: running ones to normalise by; without them a batch is normalised by its own.
    """
    dense = sorted((k for k in params if k.startswith("_Dense")), key=lambda k: int(k[7:]))
    members = params[dense[0]]["kernel"].shape[0]
    h, own = np.broadcast_to(x, (members, *x.shape)), {}

    def batch_norm(i, h):
        name = f"BatchRenorm_{i}"
        own[name] = h.mean(1, keepdims=True), h.var(1, keepdims=True)
        mean, variance = own[name]
        if statistics is not None:
            mean, variance = statistics[name]["mean"], statistics[name]["variance"]
        p = params[name]
        return (h - mean) / np.sqrt(variance + 1e-3) * p["scale"] + p["bias"]

    if norm == "batch":
        h = batch_norm(0, h)
    for i, name in enumerate(dense):
        h = np.einsum("ebi,eio->ebo", h, params[name]["kernel"]) + params[name]["bias"][:, None]
        if i == len(dense) - 1:
            return h, own
        if norm == "layer":
            p, centred = params[f"_LayerNorm_{i}"], h - h.mean(-1, keepdims=True)
            h = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
            h = h * p["scale"] + p["bias"]
        h = np.tanh(h)
        if norm == "batch":
            h = batch_norm(i + 1, h)
    raise AssertionError("no layers")


def squashed(outputs: Any, noise: Any) -> tuple[Any, Any]:
    """Actions and log-probabilities of a policy with `outputs` `[1, B, 2A]` at `noise` `[B, A]`."""
    mean, spread = np.split(outputs[0], 2, axis=-1)
    log_std = -5.0 + 3.5 * (np.tanh(spread) + 1.0)
    u = mean + np.exp(log_std) * noise
    density = -0.5 * noise**2 - log_std - 0.5 * LOG_2PI
    return np.tanh(u), (density - np.log(1.0 - np.tanh(u) ** 2)).sum(-1)


def values(params: Any, x: Any, action: Any, **norm: Any) -> tuple[Any, Any]:
    """`[E, B]`, and the batch's own statistics."""
    out, own = forward(params, np.concatenate([x, action], -1), **norm)
    return out[..., 0], own


def gradient(loss: Any, params: Any, size: float = 1e-5) -> Any:
    """Of a scalar `loss(params)`, by central differences."""

    def at(tree, path, change):
        if not path:
            return tree + change
        return {**tree, path[0]: at(tree[path[0]], path[1:], change)}

    def walk(tree, path):
        if isinstance(tree, dict):
            return {k: walk(v, (*path, k)) for k, v in tree.items()}
        grads = np.zeros_like(tree)
        for index in np.ndindex(tree.shape):
            change = np.zeros_like(tree)
            change[index] = size
            grads[index] = (loss(at(params, path, change)) - loss(at(params, path, -change))) / (
                2 * size
            )
        return grads

    return walk(params, ())


def mapped(f: Any, tree: Any, *rest: Any) -> Any:
    if isinstance(tree, dict):
        return {k: mapped(f, v, *(r[k] for r in rest)) for k, v in tree.items()}
    return f(tree, *rest)


class Adam:
    """Adam with epsilon 1e-8."""

    def __init__(self, params, rate, beta1=0.9):
        self.rate, self.beta1, self.count = rate, beta1, 0
        self.first = mapped(np.zeros_like, params)
        self.second = mapped(np.zeros_like, params)

    def step(self, params: Any, grads: Any) -> Any:
        self.count += 1
        b1, b2 = self.beta1, 0.999
        self.first = mapped(lambda m, g: b1 * m + (1 - b1) * g, self.first, grads)
        self.second = mapped(lambda v, g: b2 * v + (1 - b2) * g**2, self.second, grads)
        unbiased = 1 - b1**self.count, 1 - b2**self.count
        return mapped(
            lambda p, m, v: p
            - self.rate * (m / unbiased[0]) / (np.sqrt(v / unbiased[1]) + 1e-8),
            params, self.first, self.second,
        )  # fmt: skip


def follow(target: Any, params: Any, tau: float) -> Any:
    return mapped(lambda t, p: (1 - tau) * t + tau * p, target, params)


def critic_loss(predicted: Any, target: Any, weight: Any) -> Any:
    return 0.5 * (weight * ((predicted - target) ** 2).sum(0)).mean()
