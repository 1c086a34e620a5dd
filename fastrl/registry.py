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


def register(name: str, factory: Callable[..., Any]) -> None:
    """Makes `factory(**options)` available as `make(name, **options)`.

    The factory is the environment's class, a `functools.partial` of it, or any function.
    Raises ValueError if `name` is taken by another factory.
    """
    if not isinstance(name, str) or not name.strip():
        raise ValueError(f"register({name!r}): the name must be a text that is not empty")
    if not callable(factory):
        raise ValueError(f"register({name!r}, {factory!r}): needs the class or a function")
    if _factories.setdefault(name, factory) is not factory:
        raise ValueError(f"an environment {name!r} is registered already: choose another name")


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
    """One line on the environment: the first of the module that defines it."""
    target = _target(factory(name))
    for thing in (sys.modules.get(getattr(target, "__module__", "")), target):
        lines = (getattr(thing, "__doc__", None) or "").strip().splitlines()
        if lines:
            return lines[0].strip()
    return ""


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
    near = difflib.get_close_matches(text, lower, n=3, cutoff=0.5)
    alike = {n: difflib.SequenceMatcher(None, text, n).ratio() for n in near}
    return [lower[n] for n in near if alike[n] > alike[near[0]] - 0.15]


def _options(build: Callable[..., Any], env: Any) -> dict[str, Any] | None:
    """The fields of `env` that `build` would have to be given; None if it makes another class."""
    target = _target(build)
    if target is not type(env) or not dataclasses.is_dataclass(env):
        return None
    bound = inspect.signature(target).bind_partial(
        *getattr(build, "args", ()), **getattr(build, "keywords", {})
    )
    bound.apply_defaults()
    missing = object()
    return {
        f.name: getattr(env, f.name)
        for f in dataclasses.fields(env)
        if f.init and getattr(env, f.name) != bound.arguments.get(f.name, missing)
    }


def _equal(a: Any, b: Any) -> bool:
    try:
        return bool(a == b)
    except (TypeError, ValueError):  # fields that do not compare to one truth: arrays
        return False


def _target(build: Callable[..., Any]) -> Any:
    return build.func if isinstance(build, functools.partial) else build


def _load_own() -> None:
    import fastrl.envs  # noqa: F401 - registers what fastrl ships
