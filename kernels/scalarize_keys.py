"""Rules of `fastrl.kernels.scalarize` for `jax.random` on `hash32` keys.

A key is two words (`KeyCell`), and what it gives is addressed by counters: the functions here
give the words that `fastrl.kernels.prng` gives, one counter at a time.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fastrl.kernels import prng
from fastrl.kernels.scalarize_cells import Cells, KeyCell, Rule, constant, make


def key_struct(shape: tuple[int, ...] = ()) -> jax.ShapeDtypeStruct:
    """Shape and type of `hash32` keys."""
    return jax.eval_shape(lambda: jax.random.split(jax.random.key(0, impl=prng.HASH32), shape))


def draw(key: KeyCell, counter: Any) -> Any:
    """Word number `counter` (uint32) of those that `jax.random.bits(key, ...)` gives."""
    return _words(key, counter, prng._DRAW)[0]


def split(key: KeyCell, counter: Any) -> KeyCell:
    """Child number `counter` (uint32) of those that `jax.random.split(key, ...)` gives."""
    return KeyCell(*_words(key, counter, prng._SPLIT))


def _words(key: KeyCell, counter: Any, use: np.uint32) -> tuple[Any, Any]:
    """As arrays of JAX, whose integers wrap without a warning."""
    return prng._words(KeyCell(*map(jnp.asarray, key)), jnp.asarray(counter), use)


def _counters(shape: tuple[int, ...]) -> Cells:
    return constant(np.arange(int(np.prod(shape)), dtype=np.uint32).reshape(shape))


def _random_bits(equation: Any, inputs: list[Cells]) -> list[Cells]:
    """The draws of `prng.HASH32`: counters in row-major order."""
    keys, shape, width = inputs[0], equation.params["shape"], equation.params["bit_width"]
    counters = _counters(shape)

    def cell(i: tuple[int, ...]) -> Any:
        bits = draw(keys[i[: keys.ndim]], counters[i[keys.ndim :]])
        return bits if width == 32 else (bits >> np.uint32(32 - width)).astype(f"uint{width}")

    return [make((*keys.shape, *shape), cell)]


def _random_split(equation: Any, inputs: list[Cells]) -> list[Cells]:
    keys, shape = inputs[0], equation.params["shape"]
    counters = _counters(shape)

    def cell(i: tuple[int, ...]) -> KeyCell:
        return split(keys[i[: keys.ndim]], counters[i[keys.ndim :]])

    return [make((*keys.shape, *shape), cell)]


def _random_fold_in(equation: Any, inputs: list[Cells]) -> list[Cells]:
    keys, data = np.broadcast_arrays(*inputs)

    def cell(i: tuple[int, ...]) -> KeyCell:
        return KeyCell(*_words(keys[i], jnp.asarray(data[i]).astype(np.uint32), prng._FOLD))

    return [make(keys.shape, cell)]


def _from_words(words: Cells) -> Cells:
    return make(words.shape[:-1], lambda i: KeyCell(*words[i]))


def _to_words(keys: Cells) -> Cells:
    return make((*keys.shape, 2), lambda i: keys[i[:-1]][i[-1]])


RULES: dict[str, Rule] = {
    "random_bits": _random_bits, "random_split": _random_split,
    "random_fold_in": _random_fold_in,
    "random_wrap": lambda _, inputs: [_from_words(inputs[0])],
    "random_unwrap": lambda _, inputs: [_to_words(inputs[0])],
}  # fmt: skip
