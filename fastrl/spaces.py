"""What observations and actions look like: Discrete, MultiDiscrete, Box, and pytrees of them.

A space is a frozen dataclass, compared by value. A dict, tuple or NamedTuple of spaces is
a space too; the functions below take any of them.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


@dataclasses.dataclass(frozen=True)
class Discrete:
    """The integers 0 .. n-1, as an int32 scalar."""

    n: int

    def __post_init__(self) -> None:
        if not isinstance(self.n, (int, np.integer)) or self.n < 1:
            raise ValueError(f"Discrete(n={self.n!r}): n must be an integer of at least 1")

    @property
    def shape(self) -> tuple[int, ...]:
        return ()

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.int32)


@dataclasses.dataclass(frozen=True)
class MultiDiscrete:
    """Several integers at once, the i-th in 0 .. nvec[i]-1, as int32 `[len(nvec)]`."""

    nvec: tuple[int, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "nvec", tuple(int(n) for n in self.nvec))
        if not self.nvec or min(self.nvec) < 1:
            raise ValueError(f"MultiDiscrete(nvec={self.nvec!r}): needs integers of at least 1")

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.nvec),)

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.int32)


@dataclasses.dataclass(frozen=True)
class Box:
    """Arrays of `shape` within [low, high], each a number or one number per entry (a tuple)."""

    low: Any
    high: Any
    shape: tuple[int, ...] = ()
    dtype: np.dtype = dataclasses.field(default_factory=lambda: np.dtype(np.float32))

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        object.__setattr__(self, "dtype", np.dtype(self.dtype))
        for name in ("low", "high"):  # nested tuples, so that boxes hash and compare by value
            object.__setattr__(self, name, _frozen(getattr(self, name), name, self.shape))
        low, high = self.bounds()
        if not (low <= high).all():
            raise ValueError(f"Box(low={self.low!r}, high={self.high!r}): low exceeds high")

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """`low` and `high` as arrays of `shape`."""
        low, high = (np.asarray(b, self.dtype) for b in (self.low, self.high))
        return np.broadcast_to(low, self.shape), np.broadcast_to(high, self.shape)

    @property
    def bounded(self) -> bool:
        """Whether every entry has a finite lower and upper bound."""
        low, high = self.bounds()
        return bool(np.isfinite(low).all() and np.isfinite(high).all())


Space = Any  # Discrete | MultiDiscrete | Box | a pytree of them
LEAVES = (Discrete, MultiDiscrete, Box)


def is_leaf(space: Space) -> bool:
    """Whether `space` is a single space and not a pytree of them."""
    return isinstance(space, LEAVES)


def tree_map(f: Any, space: Space, *rest: Any) -> Any:
    """`jax.tree.map` over a space, its leaves being Discrete, MultiDiscrete and Box."""
    return jax.tree.map(f, space, *rest, is_leaf=is_leaf)


def struct_of(space: Space, batch_shape: tuple[int, ...] = ()) -> Any:
    """The `jax.ShapeDtypeStruct`s of a member of `space` with `batch_shape` in front."""
    return tree_map(lambda s: jax.ShapeDtypeStruct((*batch_shape, *s.shape), s.dtype), space)


def zeros(space: Space, batch_shape: tuple[int, ...] = ()) -> Any:
    """Zeros of the shapes and types of `space`."""
    return tree_map(lambda s: jnp.zeros((*batch_shape, *s.shape), s.dtype), space)


def sample(key: jax.Array, space: Space, batch_shape: tuple[int, ...] = ()) -> Any:
    """Uniform members of `space` (standard normal where a Box is unbounded). Consumes `key`."""
    leaves, treedef = jax.tree.flatten(space, is_leaf=is_leaf)
    keys = jax.random.split(key, max(len(leaves), 1))
    drawn = [_sample(k, s, batch_shape) for k, s in zip(keys, leaves, strict=False)]
    return jax.tree.unflatten(treedef, drawn)


def contains(space: Space, x: Any) -> bool:
    """Whether the concrete value `x` is a member of `space` (shape, type and range)."""
    return explain(space, x) == ""


def explain(space: Space, x: Any) -> str:
    """Why `x` is no member of `space`, in words; empty if it is one."""
    spaces, treedef = jax.tree.flatten(space, is_leaf=is_leaf)
    leaves, got = jax.tree.flatten(x)
    if treedef != got:
        return f"its structure is {got}, not {treedef}"
    for s, leaf in zip(spaces, leaves, strict=True):
        a = np.asarray(leaf)
        if a.shape != s.shape:
            return f"its shape is {a.shape}, not {s.shape}"
        if a.dtype != s.dtype:
            return f"its type is {a.dtype}, not {s.dtype}"
        low, high = _range(s)
        if not ((a >= low) & (a <= high)).all():
            return f"{a} is outside [{low}, {high}]"
    return ""


def _range(space: Space) -> tuple[np.ndarray, np.ndarray]:
    match space:
        case Discrete(n):
            return np.asarray(0), np.asarray(n - 1)
        case MultiDiscrete(nvec):
            return np.zeros(len(nvec)), np.asarray(nvec) - 1
    return space.bounds()


def _sample(key: jax.Array, space: Space, batch_shape: tuple[int, ...]) -> jax.Array:
    shape = (*batch_shape, *space.shape)
    if not np.issubdtype(space.dtype, np.floating):
        return _sample_integers(key, space, shape).astype(space.dtype)
    low, high = (np.broadcast_to(bound, shape) for bound in space.bounds())
    if not space.bounded:
        return jnp.clip(jax.random.normal(key, shape, space.dtype), low, high)
    return jax.random.uniform(key, shape, space.dtype, low, high)


def _sample_integers(key: jax.Array, space: Space, shape: tuple[int, ...]) -> jax.Array:
    low, high = (np.asarray(bound, np.int64) for bound in _range(space))
    count = high - low + 1
    if count.max() <= 2**12:
        # A number from one draw of 32 bits, for a third of the cost of `randint`; no value is
        # more likely than another by more than one part in 2**20.
        bits = jax.random.bits(key, shape, jnp.uint32)
        drawn = jax.lax.rem(bits, jnp.broadcast_to(jnp.asarray(count, jnp.uint32), shape))
        return drawn.astype(jnp.int32) + np.broadcast_to(low.astype(np.int32), shape)
    dtype = np.dtype(np.int32 if low.min() < 0 else np.uint32)
    end = np.minimum(high + 1, np.iinfo(dtype).max)
    low, end = (np.broadcast_to(x, shape).astype(dtype) for x in (low, end))
    return jax.random.randint(key, shape, low, end, dtype)


def _frozen(bound: Any, name: str, shape: tuple[int, ...]) -> Any:
    a = np.asarray(bound)
    if a.ndim == 0:
        return a.item()
    try:
        np.broadcast_to(a, shape)
    except ValueError:
        raise ValueError(f"Box: {name} has shape {a.shape}, the box has shape {shape}") from None
    return _tuple(a.tolist())


def _tuple(x: Any) -> Any:
    return tuple(map(_tuple, x)) if isinstance(x, list) else x
