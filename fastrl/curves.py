"""Learning curves out of run folders: reading, grouping runs of one setting, averaging."""

import os
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fastrl.config.read import flat
from fastrl.tracking import read_rows

_RESAMPLES = 1000
_IGNORED = {"seed", "steps", "devices"}  # runs that differ in these only belong together


class Run(NamedTuple):
    """What a run folder tells about its learning."""

    name: str
    settings: dict[str, Any]  # of its config, flattened; empty if it has none
    rows: list[dict[str, Any]]


class Curve(NamedTuple):
    """One metric over one training."""

    steps: np.ndarray  # [K], increasing
    values: np.ndarray  # [K], finite


class Summary(NamedTuple):
    """The mean over trainings and its 95 % interval."""

    steps: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


Groups = dict[str, list[Run]]  # by label


def read_run(folder: str | os.PathLike[str]) -> Run:
    """The log and the settings in a run folder. Raises ValueError if there is no log."""
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder}: there is no such run folder")
    try:
        rows = read_rows(folder / "metrics.jsonl")
    except FileNotFoundError:
        raise ValueError(f"{folder}: is not a run folder (it has no metrics.jsonl)") from None
    try:
        settings = flat(tomllib.loads((folder / "config.toml").read_text(encoding="utf-8")))
    except (OSError, ValueError):
        settings = {}
    return Run(str(folder), settings, rows)


def curves_of(runs: Sequence[Run], metric: str) -> list[Curve]:
    """The curves of `metric` in `runs`: one for a run, one per member for a population."""
    curves = []
    for run in runs:
        rows = sorted((r for r in run.rows if metric in r), key=lambda r: r["steps"])
        table = [_numbers(r[metric]) for r in rows]
        width = max(map(len, table), default=0)
        steps = np.array([r["steps"] for r in rows], np.float64)
        for member in range(width):
            values = np.array([v[member] if len(v) == width else np.nan for v in table])
            finite = np.isfinite(values)
            if finite.any():
                curves.append(Curve(steps[finite], values[finite]))
    return curves


def _numbers(value: Any) -> np.ndarray:
    """A logged value as float64 `[members]`; NaN for what is no number."""
    try:
        return np.array(value, np.float64).reshape(-1)
    except (ValueError, TypeError):
        return np.array([np.nan])


def summarise(curves: Sequence[Curve]) -> Summary:
    """The mean of `curves` where all of them reach, at the steps of the finest one."""
    start = max(c.steps[0] for c in curves)
    end = min(c.steps[-1] for c in curves)
    finest = max(curves, key=lambda c: len(c.steps)).steps
    steps = np.unique(np.clip(finest, min(start, end), end))
    values = np.stack([np.interp(steps, c.steps, c.values) for c in curves])  # [runs, K]
    draws = np.random.default_rng(0).integers(0, len(curves), (_RESAMPLES, len(curves)))
    means = np.stack([values[d].mean(0) for d in draws])
    low, high = np.percentile(means, [2.5, 97.5], axis=0)
    return Summary(steps, values.mean(0), low, high)


def group(runs: Sequence[Run]) -> Groups:
    """`runs` by what differs between them apart from the seed; a label for each group."""
    keys: list[Any] = []
    for run in runs:
        kept = {k: v for k, v in run.settings.items() if k not in _IGNORED and k[:6] != "train."}
        keys.append(tuple(sorted(kept.items())) if kept else run.name)
    settings = [dict(k) if isinstance(k, tuple) else {} for k in keys]
    names = {name for s in settings for name in s}
    differing = sorted(n for n in names if len({repr(s.get(n)) for s in settings if s}) > 1)
    lasts = [n.rpartition(".")[2] for n in differing]
    short_names = {
        n: last if lasts.count(last) == 1 else n for n, last in zip(differing, lasts, strict=True)
    }
    labels: dict[str, str] = {}
    for key, run, own in zip(keys, runs, settings, strict=True):
        words = [_words(short_names[n], own[n]) for n in differing if n in own]
        labels[repr(key)] = ", ".join(words) or ("defaults" if own else run.name)
    grouped: Groups = {}
    for key, run in zip(keys, runs, strict=True):
        grouped.setdefault(labels[repr(key)], []).append(run)
    return grouped


def _words(name: str, value: Any) -> str:
    """A setting as the legend shows it: "learning rate 0.001"."""
    text = f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)
    if name in ("env", "algorithm"):
        return text.rpartition(":")[2]
    return f"{name.replace('_', ' ')} {text}"
