"""Values of configs and flags: one check against a type, and text to and from values.

A type is an annotation of a `Config`, `HParams` or `Params` field: float, int, bool, str, a
Literal, `X | None`, a tuple of these.  A place is what an error names: "hparams.gamma".
"""

import math
import tomllib
import types
from collections.abc import Sequence
from typing import Any, Literal, Union, get_args, get_origin

import numpy as np

_WORDS = {float: "a number", int: "an integer", bool: "true or false", str: "text"}
_PLAIN = (*_WORDS, type(None), tuple)


def check(value: Any, hint: Any, place: str) -> Any:
    """`value` as a member of the type `hint`: 1 is a number, 5e5 an integer, [1, 2] a tuple.

    Raises ValueError that names the place, the value and what was expected.
    """
    kinds = members(hint)
    for member in kinds:
        converted = _convert(value, member)
        if converted is not _NO:
            return converted
    if isinstance(value, float) and math.isnan(value):
        raise ValueError(f"{place} = nan: is not a number")
    raise ValueError(f"{place} = {show(value)}: expected {words(hint)}{_way_out(value, kinds)}")


def members(hint: Any) -> tuple[Any, ...]:
    """The types of a union that a config can hold (so not arrays); any other type alone."""
    if get_origin(hint) not in (Union, types.UnionType):
        return (hint,)
    return tuple(m for m in get_args(hint) if get_origin(m) or m in _PLAIN)


def words(hint: Any) -> str:
    """The type `hint` in words, for errors."""
    arguments = get_args(hint)
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(words(a) for a in members(hint))
    if get_origin(hint) is Literal:
        return _or([repr(a) for a in arguments])
    if _is_tuple(hint):
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return f"a list, each {words(arguments[0])}"
        return "a list: " + ", ".join(map(words, arguments))
    if hint is type(None):
        return "none"
    return _WORDS.get(hint, getattr(hint, "__name__", str(hint)))


def read(words_given: Sequence[str], hint: Any, place: str) -> Any:
    """The `hint` that words on the command line stand for; `check` says what is wrong."""
    kinds = members(hint)
    if any(_is_tuple(m) for m in kinds) and not "".join(words_given).startswith("["):
        value = [literal(w) for w in words_given]
        return check(None if value == [None] else value, hint, place)
    text = words_given[0]
    taken_as_is = any(_convert(text, m) is not _NO for m in kinds)
    return check(text if taken_as_is else literal(text), hint, place)


def literal(text: str) -> Any:
    """The value that `text` stands for before any type is asked for; lists as in TOML."""
    plain = text.strip().lower()
    if plain.startswith("["):
        try:
            return tomllib.loads(f"x = {text}")["x"]
        except (tomllib.TOMLDecodeError, RecursionError):
            return text
    if plain in ("true", "false"):
        return plain == "true"
    if plain == "none":
        return None
    for number in (int, float):
        try:
            return number(plain)
        except ValueError:
            continue
    return text


def show(value: Any) -> str:
    """`value` as an error shows it, as in TOML: true, 'fast', [1, 2]; shortened if it is long."""
    if isinstance(value, bool):
        return str(value).lower()
    text = repr(list(value) if isinstance(value, tuple) else value)
    return text if len(text) <= 80 else text[:77] + "..."


def same(value: Any, default: Any) -> bool:
    """Whether a run takes the same numbers from both; traced numbers are float32."""
    if isinstance(default, (str, tuple, type(None))) or isinstance(value, (str, tuple, type(None))):
        return type(value) is type(default) and value == default
    a, b = _as_traced(value), _as_traced(default)
    return a.shape == b.shape and a.dtype.kind == b.dtype.kind and bool((a == b).all())


def plain(value: Any) -> Any:
    """`value` as TOML can hold it, exactly: arrays become numbers or lists, tuples lists.

    A float32 is written with the fewest digits that give the same float32 again.
    Raises TypeError for what TOML cannot hold.
    """
    if value is None:
        return "none"  # TOML has no null
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)  # np.float64 is a float, but not to a writer of TOML
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if _is_numeric(value):  # an array or a scalar of JAX or NumPy
        host = np.asarray(value)
        return [plain(v) for v in host] if host.ndim else _scalar(host)
    raise TypeError(f"{show(value)} cannot be written to a config")


_NO = object()  # "not of this type"


def _way_out(value: Any, kinds: tuple[Any, ...]) -> str:
    several = isinstance(value, (list, tuple)) or (isinstance(value, str) and "," in value)
    if several and not any(_is_tuple(m) for m in kinds):
        return " (several values are a sweep: `fastrl sweep`)"
    quoted = isinstance(value, str) and any(_convert(literal(value), m) is not _NO for m in kinds)
    return " (without quotes)" if quoted else ""


def _convert(value: Any, hint: Any) -> Any:
    """`value` as a `hint` that is no union, or `_NO`."""
    if get_origin(hint) is Literal:
        return value if any(value == a and type(value) is type(a) for a in get_args(hint)) else _NO
    if _is_tuple(hint):
        return _convert_tuple(value, get_args(hint))
    if hint is type(None):
        return None if value is None or value == "none" else _NO
    if hint is Any:
        return _frozen(value)
    if isinstance(value, bool) or hint is bool:
        return value if isinstance(value, bool) and hint is bool else _NO
    if hint is str:
        return value if isinstance(value, str) else _NO
    if hint is int and isinstance(value, float) and math.isfinite(value) and value == int(value):
        return int(value)
    if hint is int:
        return value if isinstance(value, int) else _NO
    if hint is float and isinstance(value, (int, float)) and not math.isnan(value):
        return _float(value)
    return _NO


def _convert_tuple(value: Any, hints: tuple[Any, ...]) -> Any:
    if not isinstance(value, (list, tuple)):
        return _NO
    if len(hints) == 2 and hints[1] is Ellipsis:
        hints = (hints[0],) * len(value)
    if len(hints) != len(value):
        return _NO
    converted = tuple(_convert(v, h) for v, h in zip(value, hints, strict=True))
    return _NO if any(c is _NO for c in converted) else converted


def _float(value: Any) -> Any:
    try:
        return float(value)
    except OverflowError:  # an integer of hundreds of digits
        return _NO


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def _is_tuple(hint: Any) -> bool:
    return hint is tuple or get_origin(hint) is tuple


def _is_numeric(value: Any) -> bool:
    return getattr(value, "dtype", np.dtype(object)).kind in "biuf"


def _as_traced(value: Any) -> np.ndarray:
    host = np.asarray(value)
    return host.astype(np.float32) if host.dtype.kind == "f" else host


def _scalar(host: np.ndarray) -> Any:
    if host.dtype.kind == "f" and host.dtype.itemsize < 8:
        return float(str(host[()]))  # the shortest text that gives the same number again
    return host.item()


def _or(items: list[str]) -> str:
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " or " + items[-1]
