"""Environments by name: `register`, `make`, `names`, `find`.

Names are for the outer edge (scripts, configs, the command line); nothing inside fastrl
looks an environment up.
"""

import dataclasses
import difflib
import functools
import inspect
import sys
from collections.abc import Callable, Iterable
from typing import Any

_factories: dict[str, Callable[..., Any]] = {}
_summaries: dict[str, str] = {}


def register(name: str, factory: Callable[..., Any], summary: str = "") -> None:
    """Makes `factory(**options)` available as `make(name, **options)`.

    The factory is the environment's class, a `functools.partial` of it, or any function.
    `summary` is a line for lists; without one the factory's docstring serves.
    Raises ValueError if `name` is taken by another factory.
    """
    if not isinstance(name, str) or not name.strip():
        raise ValueError(f"register({name!r}): the name must be a text that is not empty")
    if not callable(factory):
        raise ValueError(f"register({name!r}, {factory!r}): needs the class or a function")
    if _factories.setdefault(name, factory) is not factory:
        raise ValueError(f"an environment {name!r} is registered already: choose another name")
    _summaries[name] = summary or _summaries.get(name, "")


def make(name: str, **options: Any) -> Any:
    """The environment called `name`, built with `options` (fields of its class).

    Raises ValueError for an unknown name or option, with the nearest known ones.
    """
    build = factory(name)
    parameters = inspect.signature(build).parameters
    if not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
        for option in options:
            if option not in parameters:
                raise ValueError(unknown(f"option of {name!r},", option, parameters))
    try:
        return build(**options)
    except TypeError as error:
        raise ValueError(f"environment {name!r} with options {options!r}: {error}") from error


def factory(name: str) -> Callable[..., Any]:
    """What was registered under `name`. Raises ValueError as `make` does."""
    if isinstance(name, str) and name not in _factories:
        _load_own(name)
    if not isinstance(name, str) or name not in _factories:
        _load_own()
    if not isinstance(name, str) or name not in _factories:
        raise ValueError(unknown("environment", name, _factories) + " (all: `fastrl list`)")
    return _factories[name]


def names() -> list[str]:
    """All names that `make` knows, sorted."""
    _load_own()
    return sorted(_factories)


def find(env: Any) -> tuple[str, dict[str, Any]] | None:
    """The name and options with which `make` gives an environment equal to `env`, if any.

    Of several names it takes the one that needs the fewest options.
    """
    _load_own()
    found = []
    for name, build in _factories.items():
        options = _options(build, env)
        if options is not None and _equal(make(name, **options), env):
            found.append((len(options), name, options))
    return min(found, key=lambda f: f[:2])[1:] if found else None


def summary(name: str) -> str:
    """One line on the environment: what it was registered with, or else its docstring's first.

    The docstring is that of the module where it has the module for itself.
    """
    target = _target(factory(name))
    module = getattr(target, "__module__", "")
    alone = sum(getattr(_target(f), "__module__", "") == module for f in _factories.values()) == 1
    documented = sys.modules.get(module) if alone else target
    lines = (getattr(documented, "__doc__", None) or "").strip().splitlines()
    return _summaries[name] or (lines[0].strip() if lines else "")


def unknown(kind: str, name: Any, known: Iterable[str]) -> str:
    """An error message for `name`, which names the nearest of `known`."""
    known = sorted(known)
    near = ", ".join(map(repr, nearest(name, known)))
    listed = ", ".join(map(repr, known)) or "none"
    hint = f"did you mean {near}?" if near else f"known: {listed}"
    return f"unknown {kind} {name!r}: {hint}"


def nearest(name: Any, known: Iterable[str]) -> list[str]:
    """At most three of `known` that resemble `name`, and nearly as much as the best does."""
    lower = {k.lower(): k for k in known}
    text = str(name).lower()
    near = difflib.get_close_matches(text, lower, n=3, cutoff=0.6)
    alike = {n: difflib.SequenceMatcher(None, text, n).ratio() for n in near}
    close = [n for n in near if alike[n] > alike[near[0]] - 0.15]
    parts = [n for n in lower if len(text) > 2 and text in n]  # "cart" of "CartPole-v1"
    return [lower[n] for n in close or parts[:3]]


def _options(build: Callable[..., Any], env: Any) -> dict[str, Any] | None:
    """The fields of `env` that `build` would have to be given; None if it can't make `env`."""
    target = _target(build)
    if target is not type(env) or not dataclasses.is_dataclass(env):
        return None
    bound = inspect.signature(target).bind_partial(
        *getattr(build, "args", ()), **getattr(build, "keywords", {})
    )
    bound.apply_defaults()
    missing = object()
    options = {
        f.name: getattr(env, f.name)
        for f in dataclasses.fields(env)
        if f.init and getattr(env, f.name) != bound.arguments.get(f.name, missing)
    }
    return options if options.keys() <= inspect.signature(build).parameters.keys() else None


def _equal(a: Any, b: Any) -> bool:
    try:
        return bool(a == b)
    except (TypeError, ValueError):  # fields that do not compare to one truth: arrays
        return False


def _target(build: Callable[..., Any]) -> Any:
    return build.func if isinstance(build, functools.partial) else build


def _load_own(name: str | None = None) -> None:
    """Registers what fastrl ships: all of it, or the family of environments like `name`."""
    from fastrl import envs

    envs.load_all() if name is None else envs.load_family(name)
