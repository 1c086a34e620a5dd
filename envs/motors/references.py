"""Reference generators: what a quantity is to follow, in shares of its limit.

A generator goes by sub-episodes: after a random number of steps it draws new parameters, and a
Wiener process walks on from where it is. Shapes, ranges and the order of draws are those of
gym-electric-motor 3.0.3 (reference_generators), so that the same uniform numbers give the same
references. Each step is given `words` uniform numbers (the first `start_words`), of which most
serve only when a sub-episode ends.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fastrl.types import Array, Scalar

Words = tuple[Array, ...]  # uniform in [0, 1)


class Signal(NamedTuple):
    """Numbers of a generator; those that its kind does not use are without effect."""

    low: Scalar  # bounds of the reference, in shares of the quantity's limit
    high: Scalar
    weight: Scalar = 1.0  # of the error in the reward
    length_low: Scalar = 500.0  # steps of a sub-episode, drawn uniformly
    length_high: Scalar = 2000.0
    sigma_low: Scalar = 1e-3  # of a step of the Wiener process, drawn log-uniformly
    sigma_high: Scalar = 1e-1
    amplitude_low: Scalar = 0.0  # of waves, drawn uniformly, within the bounds
    amplitude_high: Scalar = 1.0
    frequency_low: Scalar = 1.0  # hertz
    frequency_high: Scalar = 10.0
    offset_low: Scalar = -1.0
    offset_high: Scalar = 1.0
    value: Scalar = 0.5  # of "constant"


class Constant(NamedTuple):
    value: Array


class Walk(NamedTuple):
    value: Array
    left: Array  # int32, further steps of this sub-episode
    sigma: Array


class Wave(NamedTuple):
    value: Array
    time: Array  # int32, steps since the sub-episode's start
    length: Array  # int32
    amplitude: Array
    frequency: Array
    offset: Array
    phase: Array  # in periods
    width: Array  # share of the period before the edge


class Generator(NamedTuple):
    """`start` and `advance` give a record whose `value` is the next reference."""

    start_words: int
    words: int
    start: Callable[[Words, Signal, Any], Any]  # (words, signal, tau)
    advance: Callable[[Words, Any, Signal, Any], Any]  # (words, record, signal, tau)


def _between(word: Array, low: Any, high: Any) -> Array:
    return low + (high - low) * word


def _length(word: Array, signal: Signal) -> Array:
    return _between(word, signal.length_low, signal.length_high).astype(jnp.int32)


def _normal(word: Array) -> Array:
    """A standard normal number from a uniform one, by the inverse of its distribution."""
    return math.sqrt(2) * jax.lax.erf_inv(jnp.maximum(2 * word - 1, -1 + 2**-23))


def _constant_start(words: Words, signal: Signal, tau: Any) -> Constant:
    return Constant(jnp.asarray(signal.value, jnp.float32))


def _constant_advance(words: Words, record: Constant, signal: Signal, tau: Any) -> Constant:
    return _constant_start(words, signal, tau)


def _walk_start(words: Words, signal: Signal, tau: Any) -> Walk:
    value = _between(words[3], signal.low, signal.high)
    return _walk_advance(words[:3], Walk(value, jnp.int32(0), value), signal, tau)


def _walk_advance(words: Words, record: Walk, signal: Signal, tau: Any) -> Walk:
    length, spread, step = words
    new = record.left <= 0
    exponent = _between(spread, jnp.log(signal.sigma_low), jnp.log(signal.sigma_high))
    sigma = jnp.where(new, jnp.exp(exponent), record.sigma)
    value = jnp.clip(record.value + sigma * _normal(step), signal.low, signal.high)
    return Walk(value, jnp.where(new, _length(length, signal), record.left) - 1, sigma)


def _sine(wave: Wave, periods: Array) -> Array:
    return jnp.sin(2 * math.pi * (periods + wave.phase))


def _triangle(wave: Wave, periods: Array) -> Array:
    x, width = jnp.mod(periods + wave.phase, 1.0), wave.width
    rising = 2 * x / jnp.maximum(width, 1e-6) - 1
    falling = (width + 1 - 2 * x) / jnp.maximum(1 - width, 1e-6)
    return jnp.where(x < width, rising, falling)


def _sawtooth(wave: Wave, periods: Array) -> Array:
    return 2 * jnp.mod(periods + wave.phase, 1.0) - 1


def _square(wave: Wave, periods: Array) -> Array:
    return jnp.sign(jnp.mod(periods, 1.0) - wave.width)


def _wave(shape: Callable[[Wave, Array], Array], *, rolled: bool = False) -> Generator:
    """A periodic `shape`. `rolled`: the phase rolls the whole sub-episode, as one array."""

    def drawn(words: Words, signal: Signal) -> Wave:
        length, size, pace, shift, phase, width, width2 = words
        room = (signal.high - signal.low) / 2
        amplitude = _between(
            size, *(jnp.clip(a, 0.0, room) for a in (signal.amplitude_low, signal.amplitude_high))
        )
        # The original's bounds: symmetrical ones for all but steps.
        least = (signal.low if rolled else -signal.high) + amplitude
        offsets = (
            jnp.minimum(jnp.maximum(jnp.clip(o, signal.low, signal.high), least),
                        signal.high - amplitude)
            for o in (signal.offset_low, signal.offset_high)
        )  # fmt: skip
        frequency = _between(pace, signal.frequency_low, signal.frequency_high)
        # Steps: a triangular distribution around a half, which is the mean of two uniform ones.
        width = 0.5 * (width + width2) if rolled else width
        steps, zero = _length(length, signal), jnp.int32(0)
        offset = _between(shift, *offsets)
        return Wave(amplitude, zero, steps, amplitude, frequency, offset, phase, width)

    def valued(wave: Wave, signal: Signal, tau: Any) -> Wave:
        time = wave.time
        if rolled:
            shift = (wave.phase / (wave.frequency * tau)).astype(jnp.int32)
            time = jnp.mod(time - shift, jnp.maximum(wave.length, 1))
        value = wave.amplitude * shape(wave, wave.frequency * (time * tau)) + wave.offset
        return wave._replace(value=jnp.clip(value, signal.low, signal.high))

    def start(words: Words, signal: Signal, tau: Any) -> Wave:
        return valued(drawn(words, signal), signal, tau)

    def advance(words: Words, record: Wave, signal: Signal, tau: Any) -> Wave:
        new = record.time + 1 >= record.length
        going = record._replace(time=record.time + 1)
        wave = jax.tree.map(lambda a, b: jnp.where(new, a, b), drawn(words, signal), going)
        return valued(wave, signal, tau)

    return Generator(7, 7, start, advance)


GENERATORS: dict[str, Generator] = {
    "constant": Generator(0, 0, _constant_start, _constant_advance),
    "wiener": Generator(4, 3, _walk_start, _walk_advance),
    "sinusoidal": _wave(_sine),
    "step": _wave(_square, rolled=True),
    "triangular": _wave(_triangle),
    "sawtooth": _wave(_sawtooth),
}
