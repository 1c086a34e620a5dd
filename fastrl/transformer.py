"""A small transformer with a bounded cache, as a memory (see `fastrl.cells`)."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fastrl.cells import MemoryConfig
from fastrl.types import Array, PyTree


class Transformer(nn.Module):
    """Attention to the last `window` entries of the episode (Dai et al. 2019, Transformer-XL).

    The carry is a cache of the layers' inputs, oldest first, and which of them are valid.  Layers
    are normalised before attention and before the perceptron (GTrXL's reordering, Parisotto et
    al. 2020); where an entry stands is a learned number for each head and age.  No gradient
    reaches back into the cache.  All times are computed at once, and give what one after
    the other would.
    """

    config: MemoryConfig

    @nn.compact
    def __call__(self, carry: PyTree, x: Array, start: Array) -> tuple[PyTree, Array]:
        window, (valid, *caches) = self.config.window, carry
        allowed, valid = _allowed(valid, start, window)
        x = nn.Dense(self.config.size, name="inputs")(x)
        after = []
        for i, cache in enumerate(caches):
            kept = jnp.moveaxis(jax.lax.stop_gradient(cache), -2, 0)
            entries = jnp.concatenate([kept, x])  # [W + T, ..., H]
            after.append(jnp.moveaxis(entries[-window:], 0, -2))
            x = x + self._attention(i, x, entries, allowed)
            inner = nn.Dense(2 * self.config.size, name=f"wide_{i}")(nn.LayerNorm(name=f"b_{i}")(x))
            x = x + nn.Dense(self.config.size, name=f"narrow_{i}")(nn.relu(inner))
        return (valid, *after), nn.LayerNorm(name="last")(x)

    def _attention(self, i: int, x: Array, entries: Array, allowed: Array) -> Array:
        """`[T, ..., H]`: what each of the last T entries draws from those before it."""
        size, heads, window = self.config.size, self.config.heads, self.config.window
        norm = nn.LayerNorm(name=f"a_{i}")
        entries, x = norm(entries), norm(x)
        split = lambda y: y.reshape(*y.shape[:-1], heads, size // heads)  # noqa: E731
        query = split(nn.Dense(size, name=f"query_{i}")(x))
        projected = [
            nn.Dense(size, name=f"{n}_{i}", use_bias=False)(entries) for n in ("key", "value")
        ]
        key, value = map(split, projected)
        bias = self.param(f"age_{i}", nn.initializers.zeros, (heads, window))
        age = _ages(len(x), window)
        by_age = bias[:, np.clip(age, 0, window - 1)]  # [h, T, W + T]
        scores = jnp.einsum("t...hd,s...hd->...hts", query, key) / np.sqrt(size // heads)
        scores = scores + by_age.reshape((1,) * (scores.ndim - 3) + by_age.shape)
        weights = jax.nn.softmax(jnp.where(allowed[..., None, :, :], scores, -1e9))
        mixed = jnp.einsum("...hts,s...hd->t...hd", weights, value)
        return nn.Dense(size, name=f"output_{i}")(mixed.reshape(*x.shape[:-1], size))


def _ages(steps: int, window: int) -> np.ndarray:
    """How long before the entry at `t` that at `s` of cache and sequence was: int `[T, W + T]`."""
    return (window + np.arange(steps))[:, None] - np.arange(window + steps)[None]


def _allowed(valid: Array, start: Array, window: int) -> tuple[Array, Array]:
    """Which entries each one may see, bool `[..., T, W + T]`, and what of the next cache is valid.

    Those of the same episode, itself and `window - 1` before it.
    """
    episode = jnp.moveaxis(jnp.cumsum(start, axis=0), 0, -1)  # [..., T]; 0 goes on from the cache
    of_entry = jnp.concatenate([jnp.where(valid, 0, -1), episode], axis=-1)
    age = _ages(len(start), window)
    near = np.broadcast_to((age >= 0) & (age < window), (*episode.shape, of_entry.shape[-1]))
    same = episode[..., :, None] == of_entry[..., None, :]
    return same & near, of_entry[..., -window:] == episode[..., -1:]
