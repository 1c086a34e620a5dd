"""From TOML to a `RunConfig`, with every key and value checked.

A config holds only what differs from the defaults:

    env = "CartPole-v1"
    steps = 500_000

    [hparams]
    learning_rate = 2.5e-3

It is data: it names environments, algorithms and transforms out of tables that are part of
fastrl (or that the user's own program filled), and nothing in it can run code.
"""

import dataclasses
import inspect
import tomllib
from collections.abc import Iterable, Mapping, Set
from pathlib import Path
from typing import Any, get_type_hints

from fastrl import algorithms, registry
from fastrl.config import files, values
from fastrl.config.run_config import CUSTOM, RESETS, RunConfig, TrainOptions
from fastrl.config.source import Source, located

Tables = dict[str, Any]  # parsed TOML

_TOP = {
    "env": str, "algorithm": str, "objective": str, "task": str,
    "steps": int, "seed": int, "devices": int,
}  # fmt: skip


def load(path: str | Path) -> RunConfig:
    """The config in the file at `path`, or the shipped one of that name ("ppo_cartpole").

    Raises ValueError for anything wrong in the file, with the file and the place in it, and
    FileNotFoundError if there is none, with the nearest names.
    """
    text, source = files.read(path)
    return loads(text, source)


def loads(text: str, source: str = "") -> RunConfig:
    """The config in the TOML `text`; `source` is what errors call it."""
    return from_tables(parse(text, source), Source(source))


def parse(text: str, source: str = "") -> Tables:
    """The tables of the TOML `text`, unchecked."""
    with located(Source(source)):
        try:
            return tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            where = str(error).replace("at end", f"at line {len(text.splitlines())}, the end")
            raise ValueError(f"is not TOML: {where}") from None
        except RecursionError:
            raise ValueError("is not a config: nested too deeply") from None


def from_tables(tables: Tables, source: Source) -> RunConfig:
    """The config that parsed TOML stands for, checked as far as it can be without its env."""
    with located(source):
        return _from_tables(tables, source)


def merge(tables: Tables, changes: Tables) -> Tables:
    """`tables` with `changes` over them, table by table."""
    both = dict(tables)
    for key, value in changes.items():
        old = both.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            value = merge(old, value)
        both[key] = value
    return both


def flat(tables: Mapping[str, Any], prefix: str = "") -> Tables:
    """Nested tables as one, with dotted names: `params.env.gravity`."""
    entries: Tables = {}
    for key, value in tables.items():
        inner = isinstance(value, Mapping)
        entries |= flat(value, f"{prefix}{key}.") if inner else {prefix + key: value}
    return entries


def check_fields(
    table: Any, hints: Mapping[str, Any], place: str, known: Set[str] = frozenset()
) -> dict[str, Any]:
    """The entries of `table` as the types `hints` say; `known` are names of other tables.

    Raises ValueError for an unknown key, with the nearest known ones, or a wrong type.
    """
    if not isinstance(table, Mapping):
        raise ValueError(f"{place} = {values.show(table)}: expected a table, [{place}]")
    prefix = f"{place}." if place else ""
    for key in table:
        if key not in hints:
            raise ValueError(unknown_key(prefix + key, {*known, *(prefix + h for h in hints)}))
    return {k: _entry(v, hints[k], prefix + k) for k, v in table.items()}


def is_record(hint: Any) -> bool:
    """Whether a type is a NamedTuple, a table of its own: `hparams.weights`."""
    return isinstance(hint, type) and issubclass(hint, tuple) and hasattr(hint, "_fields")


def option_hints(factory: Any, skip: int = 0) -> dict[str, Any]:
    """The options that `factory` takes, after `skip` arguments, and their types."""
    target = getattr(factory, "func", factory)  # of a functools.partial
    try:
        hints = get_type_hints(target.__init__ if inspect.isclass(target) else target)
    except (NameError, TypeError):  # annotations that only a type checker can read
        hints = {}
    names = list(inspect.signature(factory).parameters)[skip:]
    return {name: hints.get(name, Any) for name in names}


def hints_of(cls: Any) -> dict[str, Any]:
    """The fields of a `Config` or `HParams` class that a config may give, and their types."""
    return {k: v for k, v in get_type_hints(cls).items() if v is not Any}


def _entry(value: Any, hint: Any, place: str) -> Any:
    if is_record(hint):
        return hint(**check_fields(value, hints_of(hint), place))
    return values.check(value, hint, place)


def _from_tables(tables: Tables, source: Source) -> RunConfig:
    sections = _sections(values.check(tables.get("algorithm", "ppo"), str, "algorithm"))
    known = {f"{name}.{key}" for name, cls in sections.items() for key in hints_of(cls)}
    fields = {f.name for f in dataclasses.fields(RunConfig)} - {"source"}
    for key in tables:
        if key not in fields:
            raise ValueError(unknown_key(key, fields | known))
    if "env" not in tables:
        raise ValueError('env is missing: name one, as in env = "CartPole-v1" (all: `fastrl list`)')
    given = {key: values.check(tables[key], _TOP[key], key) for key in _TOP if key in tables}
    for key in ("env_options", "params"):
        given[key] = _expect(tables.get(key, {}), dict, key)
    for name, cls in sections.items():
        given[name] = _record(cls, tables.get(name, {}), name, known)
    transforms = _expect(tables.get("transforms", []), list, "transforms")
    given["transforms"] = tuple(
        _check_transform(t, f"transforms[{i}]") for i, t in enumerate(transforms)
    )
    if "reset" in tables:
        given["reset"] = _check_named(tables["reset"], "kind", RESETS, "reset", "reset")
    return RunConfig(**given, source=source)


def _sections(algorithm: str) -> dict[str, Any]:
    """The tables whose fields are those of a class."""
    if algorithm == CUSTOM:  # its hparams mean something to the script that made it
        return {"train": TrainOptions}
    module = algorithms.module(algorithm)
    return {"train": TrainOptions, "config": module.Config, "hparams": module.HParams}


def _record(cls: Any, table: Any, place: str, known: set[str]) -> Any:
    entries = check_fields(table, hints_of(cls), place, known)
    try:
        return cls(**entries)
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from error


def _expect(value: Any, kind: type, place: str) -> Any:
    if isinstance(value, kind):
        return value
    wanted = f"a table, [{place}]" if kind is dict else f"tables, [[{place}]]"
    raise ValueError(f"{place} = {values.show(value)}: expected {wanted}")


def _check_transform(table: Any, place: str) -> dict[str, Any]:
    from fastrl.transforms import TRANSFORMS

    return _check_named(table, "name", TRANSFORMS, "transform", place)


def _check_named(
    table: Any, key: str, known: Mapping[str, Any], kind: str, place: str
) -> dict[str, Any]:
    """A table that names one of `known` under `key`; the rest are its options."""
    options = dict(_expect(table, dict, place))
    name = options.pop(key, None)
    if name is None:
        raise ValueError(f"{place}.{key} is missing: name one of {', '.join(map(repr, known))}")
    if not isinstance(name, str) or name not in known:
        raise ValueError(f"{place}.{key}: {registry.unknown(kind, name, known)}")
    checked = check_fields(options, option_hints(known[name], skip=1), place)
    parameters = list(inspect.signature(known[name]).parameters.values())[1:]
    for parameter in parameters:
        if parameter.default is parameter.empty and parameter.name not in checked:
            raise ValueError(f"{place}.{parameter.name} is missing: {name} needs it")
    return {key: name, **checked}


def unknown_key(place: str, known: Iterable[str]) -> str:
    """An error for an unknown key, with the nearest of `known`."""
    known = list(known)
    table = place.rpartition(".")[0]
    near = nearest_keys(place, known)
    own = sorted(k.rpartition(".")[2] for k in known if k.rpartition(".")[0] == table)
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"known: {', '.join(own)}"
    return f"unknown key {place!r}: {hint}"


def nearest_keys(place: str, known: Iterable[str]) -> list[str]:
    """Keys that `place` may have meant: that name in other tables, else similar ones."""
    table, _, name = place.rpartition(".")
    keys = {key: key.rpartition(".") for key in sorted(known)}
    anywhere = {last: key for key, (_, _, last) in keys.items()}
    own = {last: key for key, (above, _, last) in keys.items() if above == table}
    return (
        [key for key, (_, _, last) in keys.items() if last == name]
        or [own[n] for n in registry.nearest(name, own)]
        or [anywhere[n] for n in registry.nearest(name, anywhere)]
    )
