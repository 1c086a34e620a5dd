"""From what learns back to a config: the text that a run folder keeps.

Environments and transforms are found by value among the registered ones.  What a script made
itself is written under its qualified name, so that loading can say what to pass.
"""

import contextlib
import dataclasses
import functools
import inspect
import re
from collections.abc import Mapping
from typing import Any

import jax
import tomli_w

from fastrl import algorithms, registry
from fastrl.config import values
from fastrl.config.build import fields_of
from fastrl.config.read import Tables
from fastrl.config.run_config import CUSTOM, RESETS, RunConfig, TrainOptions
from fastrl.types import Algorithm, Env, Recipe

# An array of numbers as tomli_w writes it, one a line. No string has a line break in it.
_LONG_ARRAY = re.compile(r"\[\n((?:\s+[-+.\w]+,\n)+)\s*\]")
_MAX_NUMBERS = 256  # a task with more is a data set or a collection of levels, not a setting


def dumps(run_config: RunConfig, full: bool = False) -> str:
    """`run_config` as TOML: what identifies the run, and what differs from the defaults.

    With `full` all fields of the algorithm's records are written, so that the text means the
    same under other defaults.  `loads(dumps(run_config))` equals `run_config`; floats are exact.
    """
    identity = ("env", "algorithm", "steps", "seed")
    head: Tables = {key: getattr(run_config, key) for key in identity}
    for key in ("devices", "objective", "task", "transforms", "env_options", "params", "reset"):
        value = getattr(run_config, key)
        default = 1 if key == "devices" else type(value)()
        if value != default:
            head[key] = _toml(value)
    for key in ("config", "hparams", "train"):
        value = getattr(run_config, key)
        everything = full and key != "train"
        written = {} if value is None else _written(value, None if everything else type(value)())
        if written:
            head[key] = written
    return _LONG_ARRAY.sub(lambda m: f"[{' '.join(m[1].split()).rstrip(',')}]", tomli_w.dumps(head))


def describe(
    algorithm: Algorithm,
    hparams: Any,
    task: Any,
    *,
    steps: float,
    seed: int = 0,
    devices: int = 1,
    **train: int | None,
) -> str:
    """The full config of a run that a script set up: `fastrl train` on it repeats the run.

    `train` holds fields of `TrainOptions`.  Never fails over things that a config cannot
    hold: they become names, and loading such a config says what to pass.
    """
    common: dict[str, Any] = {
        "steps": int(steps), "seed": seed, "devices": devices, "train": TrainOptions(**train),
    }  # fmt: skip
    recipe = algorithm.recipe
    if recipe is None or recipe.algorithm not in algorithms.names():
        return dumps(RunConfig(_qualified(algorithm.env), algorithm=CUSTOM, **common))
    changes = _env_tables(recipe.env) | _task_tables(recipe.env, task)
    return dumps(
        RunConfig(
            algorithm=recipe.algorithm,
            config=recipe.config,
            hparams=hparams,
            reset=_reset_table(recipe),
            objective=_objective_name(recipe),
            **changes,
            **common,
        ),
        full=True,
    )


def _env_tables(env: Env) -> dict[str, Any]:
    """`env`, `env_options` and `transforms` of a possibly transformed environment."""
    from fastrl.transforms import TRANSFORMS

    names: dict[type, str] = {cls: name for name, cls in TRANSFORMS.items()}
    transforms: list[dict[str, Any]] = []
    inner: Any = env
    while type(inner) in names and registry.find(inner) is None:  # some names are of transforms
        options = _changed_fields(inner, skip="env")
        if options is None:
            break
        transforms.insert(0, {"name": names[type(inner)], **options})
        inner = inner.env
    found = registry.find(inner)
    if found is None or not _fits_toml(found[1]):
        return {"env": _qualified(env)}
    return {"env": found[0], "env_options": _toml(found[1]), "transforms": tuple(transforms)}


def _changed_fields(record: Any, skip: str) -> dict[str, Any] | None:
    """The dataclass fields of `record` that are not their defaults; None if TOML lacks such."""
    changed = {}
    for field in dataclasses.fields(record):
        value = getattr(record, field.name)
        if field.init and field.name != skip and not _is_default(field, value):
            changed[field.name] = value
    return _toml(changed) if _fits_toml(changed) else None


def _is_default(field: Any, value: Any) -> bool:
    if field.default is not dataclasses.MISSING:
        return type(value) is type(field.default) and value == field.default
    return field.default_factory is not dataclasses.MISSING and value == field.default_factory()


def _task_tables(env: Env, task: Any) -> dict[str, Any]:
    """`params`, the numbers in `task`; `task` by name if it is another thing than params."""
    default, leaves = env.default_params(), jax.tree.leaves(task)
    alike = jax.tree.structure(task) == jax.tree.structure(default)
    if alike and not leaves:
        return {}
    small = sum(getattr(x, "size", 1) for x in leaves) <= _MAX_NUMBERS
    if alike and small and fields_of(default) is not None:
        with contextlib.suppress(TypeError):  # a typed key, say
            return {"params": _written(task, None)}
    return {"task": _qualified(task)}


def _written(record: Any, default: Any) -> Tables:
    """The fields of a record of numbers, those that differ from `default` if there is one."""
    defaults = fields_of(default) or {}
    written: Tables = {}
    for name, value in (fields_of(record) or {}).items():
        if name == "objective":  # parameters of a learned one; the config names it at its top
            continue
        if fields_of(value) is not None:
            inner = _written(value, defaults.get(name))
            if inner:
                written[name] = inner
        elif default is None or not values.same(value, defaults[name]):
            written[name] = values.plain(value)
    return written


def _reset_table(recipe: Recipe) -> dict[str, Any]:
    factory = recipe.reset
    if factory is None:
        return {}
    options = factory.keywords if isinstance(factory, functools.partial) else {}
    target = factory.func if isinstance(factory, functools.partial) else factory
    for kind, known in RESETS.items():
        if target is known and _fits_toml(options):
            return {"kind": kind, **_toml(options)}
    return {"kind": CUSTOM}


def _objective_name(recipe: Recipe) -> str:
    """Empty for the algorithm's own objective, else the qualified name of another one."""
    make = inspect.signature(algorithms.module(recipe.algorithm).make)
    own = make.parameters["objective"].default if "objective" in make.parameters else None
    return "" if recipe.objective in (None, own) else _qualified(recipe.objective)


def _qualified(thing: Any) -> str:
    """Where `thing`, or its class, was defined: "module:Name"."""
    named = thing if hasattr(thing, "__qualname__") else type(thing)
    return f"{named.__module__}:{named.__qualname__}"


def _fits_toml(value: Any) -> bool:
    try:
        _toml(value)
    except TypeError:
        return False
    return True


def _toml(value: Any) -> Any:
    """`value` with tables and arrays as TOML has them. Raises TypeError for anything else."""
    if isinstance(value, Mapping):
        return {k: _toml(v) for k, v in value.items()}
    if isinstance(value, tuple) and value and all(isinstance(v, Mapping) for v in value):
        return [_toml(v) for v in value]
    return values.plain(value)
