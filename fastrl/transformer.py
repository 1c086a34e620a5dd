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

    `sinks` are keys and values of each head and layer that are parameters, 0 at first, and can
    always be attended to (Elawady et al. 2024, arXiv:2410.02751): a head that finds nothing among
    the entries need not mix them.  A cache may also be shorter than the window, or have no entries;
    then `x` must fill up the next one.
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
            entries = jnp.concatenate([kept, x])  # [C + T, ..., H]
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
        age = _ages(len(x), len(entries) - len(x))
        by_age = bias[:, np.clip(age, 0, window - 1)]  # [h, T, C + T]
        scores = jnp.einsum("t...hd,s...hd->...hts", query, key) / np.sqrt(size // heads)
        scores = scores + by_age.reshape((1,) * (scores.ndim - 3) + by_age.shape)
        scores = jnp.where(allowed[..., None, :, :], scores, -1e9)
        mixed = self._mixed(i, query, scores, value)
        return nn.Dense(size, name=f"output_{i}")(mixed.reshape(*x.shape[:-1], size))

    def _mixed(self, i: int, query: Array, scores: Array, value: Array) -> Array:
        """`[T, ..., h, d]`: values of the entries by their scores `[..., h, T, S]`, and sinks."""
        sinks, shape = self.config.sinks, (self.config.sinks, *query.shape[-2:])
        if not sinks:
            return jnp.einsum("...hts,s...hd->t...hd", jax.nn.softmax(scores), value)
        keys, values = (
            self.param(f"sink_{n}_{i}", nn.initializers.zeros, shape) for n in ("key", "value")
        )
        always = jnp.einsum("t...hd,nhd->...htn", query, keys) / np.sqrt(query.shape[-1])
        weights = jax.nn.softmax(jnp.concatenate([always, scores], axis=-1))
        mixed = jnp.einsum("...hts,s...hd->t...hd", weights[..., sinks:], value)
        return mixed + jnp.einsum("...htn,nhd->t...hd", weights[..., :sinks], values)


def _ages(steps: int, cached: int) -> np.ndarray:
    """How long before the entry at `t` that at `s` of cache and sequence was: int `[T, C + T]`."""
    return (cached + np.arange(steps))[:, None] - np.arange(cached + steps)[None]


def _allowed(valid: Array, start: Array, window: int) -> tuple[Array, Array]:
    """Which entries each one may see, bool `[..., T, C + T]`, and what of the next cache is valid.

    Those of the same episode, itself and `window - 1` before it.
    """
    episode = jnp.moveaxis(jnp.cumsum(start, axis=0), 0, -1)  # [..., T]; 0 goes on from the cache
    of_entry = jnp.concatenate([jnp.where(valid, 0, -1), episode], axis=-1)
    age = _ages(len(start), valid.shape[-1])
    near = np.broadcast_to((age >= 0) & (age < window), (*episode.shape, of_entry.shape[-1]))
    same = episode[..., :, None] == of_entry[..., None, :]
    return same & near, of_entry[..., -window:] == episode[..., -1:]
