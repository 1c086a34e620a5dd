"""From a config to what learns: the environment by name, its params, the algorithm."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from fastrl import algorithms, registry
from fastrl.config import values
from fastrl.config.read import option_hints, unknown_key
from fastrl.config.run_config import CUSTOM, RESETS, RunConfig
from fastrl.config.source import located
from fastrl.hparams import as_arrays, conform
from fastrl.types import Algorithm, Env, ResetFactory


class Built(NamedTuple):
    """The arguments of `fastrl.train`."""

    algorithm: Algorithm
    hparams: Any
    task: Any


def build(
    run_config: RunConfig,
    *,
    env: Env | None = None,
    objective: Any = None,
    reset: ResetFactory | None = None,
    task: Any = None,
) -> Built:
    """What `run_config` describes, ready to train.

    What a file cannot name (an unregistered environment, an objective or reset of one's own)
    is given here; it then goes before what the config says.

    Raises ValueError for whatever does not fit, with the place in the config and its file or flag.
    """
    with located(run_config.source):
        if run_config.algorithm == CUSTOM:
            raise ValueError(
                f"algorithm = {CUSTOM!r}: the algorithm was built by a script, so only the "
                "script can build it again: pass it as algorithm="
            )
        module = algorithms.module(run_config.algorithm)
        env = build_env(run_config) if env is None else env
        task = _task(run_config, env) if task is None else task
        options: dict[str, Any] = {"reset": _reset(run_config) if reset is None else reset}
        if objective is not None:
            options["objective"] = objective
        elif run_config.objective:
            raise ValueError(_only_code("objective", run_config.objective))
        algorithm = module.make(env, run_config.config, **options)
        _check_numbers(run_config.hparams, algorithm.default_hparams, task)
    return Built(algorithm, run_config.hparams, task)


def build_env(run_config: RunConfig) -> Env:
    """The environment that `run_config` names, with its transforms around it."""
    name = run_config.env
    if name not in registry.names():
        if ":" in name:
            raise ValueError(_only_code("env", name))
        problem = registry.unknown("environment", name, registry.names())
        raise ValueError(f"env: {problem} (all: `fastrl list`; your own: --import MODULE)")
    hints = option_hints(registry.factory(name))
    options = {
        key: values.check(value, hints.get(key, Any), f"env_options.{key}")
        for key, value in run_config.env_options.items()
    }
    env = registry.make(name, **options)
    if not run_config.transforms:
        return env
    from fastrl.transforms import TRANSFORMS

    for i, table in enumerate(run_config.transforms):
        options = {k: v for k, v in table.items() if k != "name"}
        try:
            env = TRANSFORMS[table["name"]](env, **options)
        except (ValueError, TypeError) as error:
            raise ValueError(f"transforms[{i}] ({table['name']}): {error}") from error
    return env


def change_params(params: Any, changes: Mapping[str, Any]) -> Any:
    """`params`, a NamedTuple, dataclass or dict, with the numbers in `changes` put in.

    Every number keeps the kind and shape of the one that it replaces.
    Raises ValueError for an unknown name, with the nearest known ones (the params of an
    environment inside a transform's are `params.env`), or a value that does not fit.
    """
    return _change(params, changes, "params", _paths(params, "params"))


def _paths(params: Any, place: str) -> list[str]:
    """All names in a record and in the records within it: `params.env`, `params.env.gravity`."""
    paths = []
    for name, value in (fields_of(params) or {}).items():
        paths += [f"{place}.{name}", *_paths(value, f"{place}.{name}")]
    return paths


def _change(params: Any, changes: Mapping[str, Any], place: str, known: list[str]) -> Any:
    if not changes:
        return params
    fields = fields_of(params)
    if fields is None:
        raise ValueError(f"{place}: {type(params).__name__} has no named numbers to change")
    for key, value in changes.items():
        if key not in fields:
            raise ValueError(unknown_key(f"{place}.{key}", known))
        fields[key] = _changed(fields[key], value, f"{place}.{key}", known)
    if isinstance(params, Mapping):
        return type(params)(fields)  # type: ignore[call-arg]
    if hasattr(params, "_replace"):
        return params._replace(**fields)
    return dataclasses.replace(params, **fields)


def fields_of(params: Any) -> dict[str, Any] | None:
    """The named fields of a record, None for anything else."""
    if isinstance(params, Mapping):
        return dict(params)
    if hasattr(params, "_asdict"):
        return params._asdict()
    if dataclasses.is_dataclass(params):
        return {f.name: getattr(params, f.name) for f in dataclasses.fields(params) if f.init}
    return None


def _changed(old: Any, value: Any, place: str, known: list[str]) -> Any:
    if fields_of(old) is not None:
        if not isinstance(value, Mapping):
            raise ValueError(f"{place} = {values.show(value)}: expected a table, [{place}]")
        return _change(old, value, place, known)
    if isinstance(old, (bool, int, float, str, type(None))):
        return values.check(value, type(old), place)
    host = np.asarray(old)
    kinds = {"b": bool, "i": int, "u": int, "f": float}
    for entry in np.asarray(value, object).ravel():
        values.check(entry, kinds.get(host.dtype.kind, type(None)), place)
    new = np.asarray(value, host.dtype)
    if new.shape != host.shape:
        raise ValueError(f"{place} has shape {list(new.shape)}, expected {list(host.shape)}")
    return new


def _task(run_config: RunConfig, env: Env) -> Any:
    if run_config.task:
        raise ValueError(_only_code("task", run_config.task))
    return change_params(env.default_params(), run_config.params)


def _check_numbers(hparams: Any, default_hparams: Any, task: Any) -> None:
    """Raises ValueError for numbers that float32 or int32 cannot hold."""
    try:
        conform(hparams, default_hparams, "hparams")
        as_arrays(task, "params")
    except TypeError as error:
        raise ValueError(str(error)) from error


def _reset(run_config: RunConfig) -> ResetFactory | None:
    if not run_config.reset:
        return None
    options = {k: v for k, v in run_config.reset.items() if k != "kind"}
    if run_config.reset["kind"] == CUSTOM:
        raise ValueError(_only_code("reset", CUSTOM))
    factory = RESETS[run_config.reset["kind"]]
    return functools.partial(factory, **options) if options else factory


def _only_code(key: str, name: str) -> str:
    return (
        f"{key} = {name!r} belongs to the script that made the run, and a config runs no code: "
        f"pass {key}= in Python"
        + (", or register it and name its module with --import" if key == "env" else "")
    )
