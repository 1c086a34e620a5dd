"""The cases of `kernels.py` that are about small networks: their gradients, and Adam."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

import fastrl
from fastrl import optim
from fastrl.kernels import mlp

Run = Callable[[], Any]  # one round's work, not waited for


def layers(rows: int, steps: int) -> tuple[Run, Run]:
    """Policy and value on rows of 4 numbers: their squares' gradient, and a step down it."""
    keys = iter(jax.random.split(fastrl.key(5), 8))

    def network(outputs: int) -> list[tuple[jax.Array, jax.Array]]:
        shapes = [(4, 64), (64, 64), (64, outputs)]
        return [(jax.random.normal(next(keys), s) / s[0] ** 0.5, jnp.zeros(s[1])) for s in shapes]

    x, start = jax.random.normal(next(keys), (rows, 4)), [network(2), network(1)]

    def loop(apply: Callable[..., list[jax.Array]]) -> Run:
        def loss(networks: Any) -> jax.Array:
            policy, value = apply((x, x), networks, "tanh")
            return (policy**2).mean() + (value**2).mean()

        def step(networks: Any, _: None) -> tuple[Any, None]:
            return jax.tree.map(lambda p, g: p - 1e-3 * g, networks, jax.grad(loss)(networks)), None

        run = jax.jit(lambda networks: jax.lax.scan(step, networks, None, steps)[0])
        return functools.partial(run, start)

    return loop(mlp.apply), loop(mlp.reference)


def descent(steps: int) -> tuple[Run, Run]:
    """Adam with clipping on the parameters of `layers`; gradients are multiples of them."""
    keys = iter(jax.random.split(fastrl.key(5), 12))
    torso = [(4, 64), (64,), (64, 64), (64,)]
    shapes = [*torso, (64, 2), (2,), *torso, (64, 1), (1,)]
    start = [jax.random.normal(next(keys), shape) for shape in shapes]

    def loop(make: Callable[..., Any]) -> Run:
        optimizer = make(1e-3, 0.5)

        def step(carry: Any, _: None) -> tuple[Any, None]:
            params, state = carry
            gradients = jax.tree.map(lambda p: 0.1 * p, params)
            return optim.step(optimizer, gradients, state, params), None

        run = jax.jit(lambda carry: jax.lax.scan(step, carry, None, steps)[0])
        return functools.partial(run, (start, optimizer.init(start)))

    return loop(optim.adam_in_place), loop(optim.adam)
