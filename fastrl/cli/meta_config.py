"""Configs of meta-training: which rule is learned, by which learner, from which inner runs.

rule = "lpo"                # of fastrl.meta.library.RULES: disco, lpg, lpo, reward
learner = "meta_evolution"  # of LEARNERS; agents with a learned reward want "intrinsic_meta"
steps = 50_000_000          # environment steps of all inner agents together

[settings]                  # of the rule
[inner]                     # as in a config of `fastrl train`: env, algorithm, hparams ...
[tasks]                     # of the inner params: ranges that every life draws from, ends included
[fitness]                   # options of fastrl.meta.evolution_fitness.evaluation
[config]                    # of the learner, as are hparams
[hparams]
[train]
"""

import dataclasses
import functools
import importlib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import tomli_w

from fastrl import config, registry
from fastrl.config import RunConfig, TrainOptions, files, values
from fastrl.config.build import change_params, fields_of
from fastrl.config.read import check_fields, from_tables, hints_of, unknown_key
from fastrl.config.source import Source, located
from fastrl.meta import library

LEARNERS = {
    "intrinsic_meta": "fastrl.meta.intrinsic_meta",
    "meta_evolution": "fastrl.meta.evolution",
    "meta_gradient": "fastrl.meta.meta_gradient",
}
CURVES = {  # to draw
    "intrinsic_meta": "inner_reward", "meta_evolution": "fitness",
    "meta_gradient": "inner_episode_return",
}  # fmt: skip
_TOP = {"rule": str, "learner": str, "steps": int, "seed": int}
_TABLES = ("settings", "inner", "tasks", "fitness", "config", "hparams", "train")
_NOT_INNER = ("steps", "seed", "devices", "train", "objective", "task")


@dataclasses.dataclass(frozen=True)
class MetaConfig:
    """All that makes a meta-training."""

    rule: str
    inner: RunConfig
    config: Any
    hparams: Any
    learner: str = "meta_evolution"
    steps: int = 10_000_000
    seed: int = 0
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    tasks: Mapping[str, tuple[float, float]] = dataclasses.field(default_factory=dict)
    fitness: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    train: TrainOptions = dataclasses.field(default_factory=TrainOptions)


class Built(NamedTuple):
    """The arguments of `fastrl.train`, and the rule."""

    algorithm: Any
    hparams: Any
    task: Any
    rule: Any


def learner_module(name: str) -> Any:
    """The module of the outer learner called `name`. Raises ValueError for an unknown one."""
    if name not in LEARNERS:
        raise ValueError(registry.unknown("learner", name, LEARNERS))
    return importlib.import_module(LEARNERS[name])


def find(name: str) -> Path:
    """The file that `name` means: a path, or a config in configs/meta of this folder or fastrl's.

    Raises FileNotFoundError if there is none, with the nearest names.
    """
    if Path(name).is_file():
        return Path(name)
    folders = (files.SHIPPED / "meta", Path("configs") / "meta")
    known = {f.stem: f for folder in folders for f in sorted(folder.glob("*.toml"))}
    if name in known:
        return known[name]
    near = registry.nearest(Path(name).stem, known) or sorted(known)
    raise FileNotFoundError(
        f"{name}: there is no such config of a meta-training: "
        + (f"did you mean {' or '.join(map(repr, near))}?" if near else "give a TOML file")
    )


def from_toml(tables: Mapping[str, Any], source: str) -> MetaConfig:
    """The config that parsed TOML stands for. Raises ValueError with the place of what is wrong."""
    with located(Source(source)):
        return _read(tables, source)


def dumps(meta: MetaConfig) -> str:
    """`meta` as TOML, with every field: what a run folder keeps."""
    inner = tomllib.loads(config.dumps(meta.inner, full=True))
    told = {k: getattr(meta, k) for k in _TOP}
    tables = {
        "settings": dict(meta.settings),
        "tasks": {k: list(v) for k, v in meta.tasks.items()},
        "fitness": dict(meta.fitness),
        "config": dataclasses.asdict(meta.config),
        "hparams": {k: v for k, v in meta.hparams._asdict().items() if k != "inner"},
        "train": {k: v for k, v in dataclasses.asdict(meta.train).items() if v is not None},
        "inner": {k: v for k, v in inner.items() if k not in _NOT_INNER},
    }
    plain = {k: _plain(v) for k, v in tables.items() if v}
    return tomli_w.dumps(told | plain)


def build(meta: MetaConfig, source: str = "") -> Built:
    """What `meta` describes, ready to train. Raises ValueError for what does not fit."""
    with located(Source(source)):
        rule = library.make_rule(meta.rule, dict(meta.settings))
        inner = config.build(meta.inner, objective=rule)
        built: Any = inner.algorithm.recipe
        rule = built.objective  # with what it takes from the environment
        options: dict[str, Any] = {}
        if meta.tasks:
            options["sampler"] = _sampler(inner.task, meta.tasks)
        if meta.fitness:
            from fastrl.meta import evolution_fitness

            options["fitness"] = functools.partial(evolution_fitness.evaluation, **meta.fitness)
        learner = learner_module(meta.learner)
        try:
            algorithm = learner.make(inner.algorithm, rule.init, meta.config, **options)
        except TypeError as error:
            raise ValueError(f"{meta.learner}: {error}") from error
    return Built(algorithm, meta.hparams._replace(inner=inner.hparams), inner.task, rule)


def _read(tables: Mapping[str, Any], source: str) -> MetaConfig:
    for key in tables:
        if key not in (*_TOP, *_TABLES):
            raise ValueError(unknown_key(key, (*_TOP, *_TABLES)))
    for key in ("rule", "inner"):
        if key not in tables:
            raise ValueError(f"{key} is missing: it says what is learned, inner from what")
    given = {key: values.check(tables[key], _TOP[key], key) for key in _TOP if key in tables}
    for name, least in (("steps", 1), ("seed", 0)):
        if given.get(name, least) < least:
            raise ValueError(f"{name} = {given[name]}: must be at least {least}")
    for key in _TABLES:
        if not isinstance(tables.get(key, {}), Mapping):
            raise ValueError(f"{key} = {values.show(tables[key])}: expected a table, [{key}]")
    module = learner_module(given.get("learner", "meta_evolution"))
    inner = dict(tables["inner"])
    for key in _NOT_INNER:
        if key in inner:
            raise ValueError(f"inner.{key}: is no part of the inner runs of a meta-training")
    return MetaConfig(
        **given,
        inner=from_tables(inner, Source(f"{source} [inner]")),
        config=_record(module.Config, tables, "config"),
        hparams=_record(module.HParams, tables, "hparams"),
        settings=dict(tables.get("settings", {})),
        tasks={k: _range(k, v) for k, v in tables.get("tasks", {}).items()},
        fitness=check_fields(
            tables.get("fitness", {}), {"episodes": int, "deterministic": bool}, "fitness"
        ),
        train=_record(TrainOptions, tables, "train"),
    )


def _record(cls: Any, tables: Mapping[str, Any], place: str) -> Any:
    return cls(**check_fields(tables.get(place, {}), hints_of(cls), place))


def _range(name: str, value: Any) -> tuple[float, float]:
    low, high = values.check(value, tuple[float, float], f"tasks.{name}")
    if not low <= high:
        raise ValueError(f"tasks.{name} = [{low}, {high}]: the first must not be the larger")
    return low, high


def _sampler(params: Any, ranges: Mapping[str, tuple[float, float]]) -> Any:
    """Tasks whose params are uniform in `ranges`. Raises ValueError for unknown names."""
    for end in (0, 1):
        change_params(params, {name: both[end] for name, both in ranges.items()})
    fields = fields_of(params) or {}
    for name in ranges:
        if isinstance(fields[name], bool) or not isinstance(fields[name], (int, float)):
            raise ValueError(f"tasks.{name}: is no number to draw")

    def sampler(key: Any, task: Any) -> Any:
        keys = jax.random.split(key, len(ranges))
        drawn = {
            name: _drawn(k, fields[name], low, high)
            for k, (name, (low, high)) in zip(keys, ranges.items(), strict=True)
        }
        return task._replace(**drawn)

    return sampler


def _drawn(key: Any, like: float, low: float, high: float) -> Any:
    """From `low` to `high`, both included where `like` is an integer."""
    if isinstance(like, int):
        return jax.random.randint(key, (), int(low), int(high) + 1)
    return jax.random.uniform(key, minval=low, maxval=high)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items() if v is not None}
    return values.plain(value)
