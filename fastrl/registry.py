"""Environments by name: `register`, `make`, `names`.

Names are for the outer edge (scripts, configs, the command line); nothing inside fastrl
looks an environment up.
"""

import difflib
import importlib
from collections.abc import Callable, Iterable
from typing import Any

_factories: dict[str, Callable[..., Any]] = {}


def register(name: str, factory: Callable[..., Any]) -> None:
    """Makes `factory(**options)` available as `make(name, **options)`.

    Raises ValueError if `name` is taken by another factory.
    """
    if _factories.setdefault(name, factory) is not factory:
        raise ValueError(
            f"an environment named {name!r} is registered already: choose another name"
        )


def make(name: str, **options: Any) -> Any:
    """The environment called `name`, built with `options` (fields of its class).

    Raises ValueError for an unknown name or option, with the nearest known ones.
    """
    _load_own()
    if not isinstance(name, str) or name not in _factories:
        raise ValueError(unknown("environment", name, _factories) + " (all: `fastrl list`)")
    try:
        return _factories[name](**options)
    except TypeError as error:
        raise ValueError(f"environment {name!r} with options {options!r}: {error}") from error


def names() -> list[str]:
    """All names that `make` knows, sorted."""
    _load_own()
    return sorted(_factories)


def unknown(kind: str, name: Any, known: Iterable[str]) -> str:
    """An error message for `name`, which names the nearest of `known`."""
    known = sorted(known)
    lower = {k.lower(): k for k in known}
    near = difflib.get_close_matches(str(name).lower(), lower, n=3, cutoff=0.5)
    nearest = ", ".join(repr(lower[n]) for n in near)
    hint = f"did you mean {nearest}?" if near else f"known: {', '.join(map(repr, known))}"
    return f"unknown {kind} {name!r}: {hint}"


def _load_own() -> None:
    importlib.import_module("fastrl.envs")  # registers what fastrl ships
