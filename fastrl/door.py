"""What users pass, checked where it comes in: errors name the value and the way out."""

import dataclasses
import math
import numbers
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.core import Tracer

from fastrl.registry import unknown
from fastrl.types import Algorithm

_NUMBERS = (numbers.Real, np.ndarray, jax.Array)
_METHODS = ("default_params", "reset", "step", "observation_space", "action_space")


class Range(NamedTuple):
    """The numbers from `least` to `most`; `open` leaves out `least` itself."""

    least: float = -math.inf
    most: float = math.inf
    open: bool = False


def integer(name: str, value: Any, least: int, most: float = math.inf) -> int:
    """`value`, an integer of at least `least`. Raises ValueError, naming it."""
    is_integer = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not is_integer or not least <= int(value) <= most:
        limit = f" and at most {most:,}" if most < math.inf else ""
        raise ValueError(f"{name}={value!r}: needs an integer of at least {least}{limit}")
    return int(value)


def number(name: str, value: Any, least: float) -> float:
    """`value`, a finite real number of at least `least`. Raises ValueError, naming it."""
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not is_number or not least <= float(value) < math.inf:
        raise ValueError(f"{name}={value!r}: needs a finite number of at least {least}")
    return int(value) if isinstance(value, numbers.Integral) else float(value)


def environment(env: Any) -> None:
    """Raises TypeError unless `env` is an environment, by value hashable."""
    if isinstance(env, str):
        raise TypeError(f"env={env!r} is a name: pass fastrl.make({env!r})")
    if isinstance(env, type):
        raise TypeError(f"env={env.__name__} is a class: pass an instance, {env.__name__}()")
    missing = [m for m in _METHODS if not callable(getattr(env, m, None))]
    if missing:
        raise TypeError(
            f"env is a {type(env).__name__} without {', '.join(missing)}: pass an environment, "
            "such as fastrl.make('CartPole-v1') (fastrl.check_env tells more)"
        )
    try:
        hash(env)
    except TypeError as error:
        raise TypeError(
            f"env {type(env).__name__} can't be hashed ({error}): make it a frozen dataclass "
            "whose fields are numbers, strings and tuples"
        ) from None


def record(name: str, value: Any, cls: type) -> None:
    """Raises TypeError unless `value` is a `cls`; says how to make one of a dict."""
    if isinstance(value, cls):
        return
    module = cls.__module__.rsplit(".", 1)[-1]
    if isinstance(value, Mapping):
        way_out = f"{module}.{cls.__name__}(**{name})"
    else:
        way_out = f"a {module}.{cls.__name__}"
    raise TypeError(f"{name} is a {type(value).__name__}: pass {way_out}")


def function(name: str, value: Any, example: str) -> None:
    """Raises TypeError unless `value` can be called."""
    if not callable(value):
        raise TypeError(f"{name}={value!r} is no function: pass one, such as {example}")


def algorithm(value: Any) -> None:
    """Raises TypeError unless `value` is an Algorithm."""
    if not isinstance(value, Algorithm):
        raise TypeError(
            f"algorithm is a {type(value).__name__}, not an Algorithm: "
            "build one, such as ppo.make(env)"
        )


def flag(name: str, value: Any) -> None:
    """Raises ValueError unless `value` is True or False."""
    if not isinstance(value, (bool, np.bool_)):
        raise ValueError(f"{name}={value!r}: needs true or false")


def flags(config: Any) -> None:
    """Raises ValueError unless the fields of a dataclass that are flags by default are flags."""
    for field in dataclasses.fields(config):
        if isinstance(field.default, bool):
            flag(field.name, getattr(config, field.name))


def choice(name: str, value: Any, known: tuple[str, ...]) -> None:
    """Raises ValueError unless `value` is one of `known`; names the nearest."""
    if value not in known:
        raise ValueError(unknown(name, value, known))


def ranges(hparams: Any, allowed: Mapping[str, Range]) -> None:
    """Raises ValueError for a concrete number in `hparams` outside its allowed range."""
    for name, (least, most, open_) in allowed.items():
        value = getattr(hparams, name)
        if not isinstance(value, _NUMBERS) or isinstance(value, Tracer):
            continue
        x = np.asarray(value)
        if not np.all(((x > least) if open_ else (x >= least)) & (x <= most)):
            bounds = f"{'above' if open_ else 'at least'} {least:g}"
            bounds += f" and at most {most:g}" if most < math.inf else ""
            raise ValueError(f"hparams.{name}={x.tolist()!r}: must be {bounds}")


def time_limits(task: Any) -> None:
    """Raises ValueError for a concrete `max_steps` below 1 anywhere in `task`."""
    for path, leaf in jax.tree_util.tree_flatten_with_path(task)[0]:
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        if name.split(".")[-1] != "max_steps" or isinstance(leaf, Tracer):
            continue
        if not np.all(np.asarray(leaf) >= 1):
            raise ValueError(f"{name}={np.asarray(leaf).tolist()!r}: must be at least 1")
