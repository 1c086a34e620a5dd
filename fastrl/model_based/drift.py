"""A stream whose inputs wander: one pass over a function, place by place, and never back.

What a model knew of the first places at the time, and what it still knows at the end, tells how
much it forgets; all pairs come once, in this order.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fastrl import door
from fastrl.model_based.model import Model
from fastrl.types import Array, Key


class Stream(NamedTuple):
    """Pairs in their order, and pairs to test with from each place."""

    x: Array  # [places, T, S]
    y: Array  # [places, T, O]
    test_x: Array  # [places, B, S]
    test_y: Array  # [places, B, O]


def stream(key: Key, places: int = 8, steps: int = 500, inputs: int = 2, tests: int = 64) -> Stream:
    """Inputs around `places` centres on a circle, outputs a fixed random function of them.

    The function is a sum of 16 sines, of about unit variance; without noise.  Consumes `key`.
    """
    for name, value, least in (("places", places, 2), ("steps", steps, 1), ("inputs", inputs, 2)):
        door.integer(name, value, least)
    plane_key, wave_key, phase_key, x_key, test_key = jax.random.split(key, 5)
    plane = jnp.linalg.qr(jax.random.normal(plane_key, (inputs, 2)))[0]
    angle = 2 * jnp.pi * jnp.arange(places) / places
    centres = 1.5 * jnp.stack([jnp.cos(angle), jnp.sin(angle)], -1) @ plane.T
    waves = 1.5 * jax.random.normal(wave_key, (inputs, 16))
    phases = jax.random.uniform(phase_key, (1, 1, 16), maxval=2 * jnp.pi)

    def outputs(x: Array) -> Array:
        return jnp.sin(x @ waves + phases).sum(-1, keepdims=True) / jnp.sqrt(8.0)

    def around(key: Key, number: int) -> Array:
        noise = jax.random.normal(key, (places, number, inputs))
        return centres[:, None] + 0.3 * noise

    x, test_x = around(x_key, steps), around(test_key, tests)
    return Stream(x, outputs(x), test_x, outputs(test_x))


def errors(model: Model, key: Key, data: Stream, hparams: Any) -> Array:
    """Mean squared errors `[places + 1, places]`: of all places, before and after each one's pairs.

    Row `i` is after `i` places.  Pure: vmap it over keys or `hparams`.  Consumes `key`.
    """
    init_key, update_key = jax.random.split(key)

    def tested(state: Any) -> Array:
        return jnp.square(model.predict(state, data.test_x) - data.test_y).mean((1, 2))

    def pair(state: Any, now: Any) -> tuple[Any, None]:
        key, x, y = now
        return model.update(key, state, x, y, hparams), None

    def place(state: Any, now: Any) -> tuple[Any, Array]:
        key, x, y = now
        state, _ = jax.lax.scan(pair, state, (jax.random.split(key, len(x)), x, y))
        return state, tested(state)

    start = model.init(init_key, hparams)
    keys = jax.random.split(update_key, len(data.x))
    _, after = jax.lax.scan(place, start, (keys, data.x, data.y))
    return jnp.concatenate([tested(start)[None], after])
