"""Spaces of Gymnasium and of fastrl, and values of one as values of the other."""

from collections.abc import Callable
from typing import Any, NamedTuple

import gymnasium
import numpy as np

from fastrl.spaces import Box, Discrete, MultiDiscrete, Space
from fastrl.spaces import is_leaf as is_leaf

_KINDS = "Box, Discrete, MultiDiscrete, MultiBinary, Dict, Tuple"


class Link(NamedTuple):
    """A space of Gymnasium's as one of ours, and its values as those of the leaves of ours."""

    space: Space
    leaves: Callable[[Any], list[Any]]  # Gymnasium's value -> one number or array per leaf
    value: Callable[[list[Any]], Any]  # arrays of the leaves -> Gymnasium's value


def ours(space: gymnasium.Space, what: str) -> Link:
    """The space of fastrl's that `space` is. Numbers become float32 and int32 at most.

    Dictionaries are ordered by their keys, as JAX does. Raises ValueError for spaces whose
    members differ in shape (text, graphs, sequences), naming `what`.
    """
    match space:
        case gymnasium.spaces.Discrete():
            return _discrete(space)
        case gymnasium.spaces.MultiDiscrete() | gymnasium.spaces.MultiBinary():
            return _several(space)
        case gymnasium.spaces.Box():
            return _box(space)
        case gymnasium.spaces.Dict():
            names = sorted(space.spaces)
            inner = {name: ours(space.spaces[name], what) for name in names}
            made = _joined(list(inner.values()), lambda v: [v[n] for n in names],
                           lambda parts: dict(zip(names, parts, strict=True)))  # fmt: skip
            return made._replace(space={n: link.space for n, link in inner.items()})
        case gymnasium.spaces.Tuple():
            parts = [ours(s, what) for s in space.spaces]
            made = _joined(parts, list, tuple)
            return made._replace(space=tuple(link.space for link in parts))
    raise ValueError(
        f"{what} is {space}, whose members have no fixed shape: fastrl takes {_KINDS}; "
        "wrap the environment in a gymnasium.ObservationWrapper or ActionWrapper"
    )


def _discrete(space: gymnasium.spaces.Discrete[Any]) -> Link:
    start = int(space.start)
    return Link(
        Discrete(int(space.n)),
        lambda v: [int(v) - start],
        lambda x: np.int64(int(x[0]) + start),
    )


def _several(space: Any) -> Link:
    """MultiDiscrete and MultiBinary of any shape, as one row of integers."""
    binary = isinstance(space, gymnasium.spaces.MultiBinary)
    nvec = np.full(space.shape, 2) if binary else np.asarray(space.nvec)
    start = np.int64(0) if binary else np.asarray(space.start)
    shape, dtype = nvec.shape, space.dtype

    def leaves(v: Any) -> list[Any]:
        return [(np.asarray(v) - start).ravel()]

    def value(x: list[Any]) -> Any:
        return (np.reshape(x[0], shape) + start).astype(dtype)

    return Link(MultiDiscrete(tuple(nvec.ravel().tolist())), leaves, value)


def _box(space: gymnasium.spaces.Box) -> Link:
    given = np.dtype(space.dtype)
    dtype = np.dtype(np.float32) if given.kind == "f" else _integers(given)
    low, high = (_within(bound, dtype) for bound in (space.low, space.high))
    return Link(
        Box(_short(low), _short(high), space.shape, dtype),
        lambda v: [v],
        lambda x: np.asarray(x[0], given),
    )


def _integers(given: np.dtype) -> np.dtype:
    small = given.itemsize < 8
    return given if small else np.dtype(np.int32 if given.kind == "i" else np.uint32)


def _within(bound: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """`bound` as `dtype`; what is beyond its range becomes its end."""
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            return bound.astype(dtype)
    if dtype.kind == "b":
        return bound
    limits = np.iinfo(dtype)
    return np.clip(bound, limits.min, limits.max).astype(dtype)


def _short(bound: np.ndarray) -> Any:
    """One number if all are equal."""
    same = bound.size > 0 and (bound == bound.flat[0]).all()
    return bound.flat[0].item() if same else bound


def _joined(
    parts: list[Link], split: Callable[[Any], list[Any]], join: Callable[[list[Any]], Any]
) -> Link:
    """Several links side by side: `split` takes a value apart, `join` puts one together."""
    import jax

    counts = [len(jax.tree.leaves(link.space, is_leaf=is_leaf)) for link in parts]
    ends = np.cumsum([0, *counts]).tolist()

    def leaves(v: Any) -> list[Any]:
        return [x for link, part in zip(parts, split(v), strict=True) for x in link.leaves(part)]

    def value(x: list[Any]) -> Any:
        return join([link.value(x[a:b]) for link, a, b in zip(parts, ends, ends[1:], strict=False)])

    return Link(None, leaves, value)


def theirs(space: Space) -> gymnasium.Space:
    """The space of Gymnasium's that our `space` is. Records become dictionaries by field."""
    match space:
        case Discrete(n):
            return gymnasium.spaces.Discrete(n)
        case MultiDiscrete(nvec):
            return gymnasium.spaces.MultiDiscrete(list(nvec), dtype=np.int32)
        case Box():
            low, high = space.bounds()
            if space.dtype == np.bool_:
                return gymnasium.spaces.MultiBinary(space.shape)
            return gymnasium.spaces.Box(low, high, space.shape, space.dtype.type)
    if isinstance(space, dict) or hasattr(space, "_asdict"):
        return gymnasium.spaces.Dict({name: theirs(s) for name, s in _fields(space).items()})
    if isinstance(space, tuple):
        return gymnasium.spaces.Tuple(tuple(theirs(s) for s in space))
    raise ValueError(f"{space!r:.80} is no space that Gymnasium has: use {_KINDS}")


def to_theirs(space: Space, value: Any) -> Any:
    """A value of our `space`, or a batch of them, on the host, as Gymnasium has it."""
    if is_leaf(space):
        array = np.asarray(value)
        if space.dtype == np.bool_:
            return array.astype(np.int8)
        return array if array.ndim or not isinstance(space, Discrete) else np.int64(array)
    if isinstance(space, dict) or hasattr(space, "_asdict"):
        values = _fields(value)
        return {name: to_theirs(s, values[name]) for name, s in _fields(space).items()}
    return tuple(to_theirs(s, v) for s, v in zip(space, value, strict=True))


def to_ours(space: Space, value: Any, batch: tuple[int, ...] = ()) -> Any:
    """A value of Gymnasium's form of our `space`, with `batch` in front, as ours.

    Raises ValueError for another shape and for numbers that are no choice. Numbers outside a Box
    are the environment's business, as they are in Gymnasium.
    """
    if is_leaf(space):
        return _leaf_of(space, value, batch)
    try:
        if isinstance(space, dict) or hasattr(space, "_asdict"):
            parts = {name: to_ours(s, value[name], batch) for name, s in _fields(space).items()}
            return parts if isinstance(space, dict) else type(space)(**parts)
        return tuple(to_ours(s, v, batch) for s, v in zip(space, value, strict=True))
    except (KeyError, IndexError, TypeError) as error:
        raise ValueError(f"{value!r} is not structured like {space!r} ({error})") from error


def _leaf_of(space: Any, value: Any, batch: tuple[int, ...]) -> np.ndarray:
    given = np.asarray(value)
    if given.shape != batch + space.shape:
        raise ValueError(f"its shape is {given.shape}, not {batch + space.shape}")
    if isinstance(space, Box):
        return given.astype(space.dtype)
    most = np.asarray(space.n if isinstance(space, Discrete) else space.nvec)
    if given.dtype.kind not in "iub" or not ((given >= 0) & (given < most)).all():
        raise ValueError(f"{given} is not a choice of 0 to {(most - 1).tolist()}")
    return given.astype(space.dtype)


def _fields(record: Any) -> dict[str, Any]:
    return record if isinstance(record, dict) else record._asdict()
