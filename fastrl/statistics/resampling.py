"""Runs drawn again: with replacement, task by task, or each left out in turn.

Samples are as `aggregates.as_scores` gives them: arrays `[N, M, ...]`, or mappings of `[N_m]`.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from fastrl import door
from fastrl.leaves import is_key


class Design(NamedTuple):
    """What is drawn, and how."""

    samples: Sequence[Any]
    paired: bool = False  # the same runs of all samples
    resample_tasks: bool = False

    @property
    def size(self) -> int:
        """The numbers in all samples together."""
        parts = [list(s.values()) if isinstance(s, Mapping) else [s] for s in self.samples]
        return sum(x.size for part in parts for x in part)


def generator(seed: Any) -> np.random.Generator:
    """The generator that `seed` stands for. Raises ValueError for what is none."""
    if isinstance(seed, np.random.Generator):
        return seed
    if is_key(seed):
        return np.random.default_rng(np.asarray(jax.random.key_data(seed)).ravel().tolist())
    return np.random.default_rng(door.integer("seed", seed, 0))


def check(design: Design, jackknife: bool) -> None:
    """Raises ValueError for samples that can't be drawn as `design` says."""
    samples = design.samples
    if not samples:
        raise ValueError("bootstrap needs at least one sample of scores")
    mappings = [isinstance(s, Mapping) for s in samples]
    if any(mappings) and not all(mappings):
        raise ValueError("some samples are mappings and some arrays: needs all of a kind")
    runs = [_runs(s) for s in samples]
    if design.paired and any(r != runs[0] for r in runs):
        raise ValueError(f"paired samples need the same runs of each task, not {runs}")
    if not design.resample_tasks:
        return
    if any(mappings):
        raise ValueError("resample_tasks needs as many runs on every task: arrays, not mappings")
    if any(len(r) != len(runs[0]) for r in runs):
        raise ValueError(f"resample_tasks needs the same tasks in all samples, not {runs}")
    if jackknife:
        raise ValueError("method='bca' is about runs, not tasks: with resample_tasks choose 'bc'")


def _runs(sample: Any) -> list[int]:
    """The number of runs on each task."""
    if isinstance(sample, Mapping):
        return [len(x) for x in sample.values()]
    return [sample.shape[0]] * sample.shape[1]


def draw(design: Design, count: int, random: np.random.Generator) -> list[Any]:
    """`count` replicates of every sample: `[count, N, M, ...]`."""
    if isinstance(design.samples[0], Mapping):
        return _draw_mappings(design, count, random)
    drawn, tasks, runs = [], None, None
    for sample in design.samples:
        each, many = sample.shape[:2]
        if runs is None or not design.paired:
            runs = random.integers(0, each, (count, many, each), np.int32)
        if design.resample_tasks and tasks is None:
            tasks = random.integers(0, many, (count, many, 1), np.int32)
        first = np.arange(many, dtype=np.int32)[:, None] if tasks is None else tasks
        by_task = np.ascontiguousarray(np.swapaxes(sample, 0, 1)).reshape(-1, *sample.shape[2:])
        drawn.append(np.swapaxes(by_task[first * np.int32(each) + runs], 1, 2))
    return drawn


def _draw_mappings(design: Design, count: int, random: np.random.Generator) -> list[Any]:
    drawn: list[dict[Any, np.ndarray]] = []
    first: dict[int, np.ndarray] = {}
    for sample in design.samples:
        mine = {}
        for i, (task, runs) in enumerate(sample.items()):
            if i not in first or not design.paired:
                first[i] = random.integers(0, len(runs), (count, len(runs)), np.int32)
            mine[task] = runs[first[i]]
        drawn.append(mine)
    return drawn


def pick(drawn: Sequence[Any], index: int) -> list[Any]:
    """One replicate of every sample."""
    return [
        {task: x[index] for task, x in s.items()} if isinstance(s, Mapping) else s[index]
        for s in drawn
    ]


def leave_one_out(design: Design) -> Iterator[list[Sequence[Any]]]:
    """For every stratum of two runs or more, the samples with each of its runs left out in turn."""
    samples = design.samples
    groups = [list(range(len(samples)))] if design.paired else [[i] for i in range(len(samples))]
    for group in groups:
        for task, count in enumerate(_runs(samples[group[0]])):
            if count < 2:
                continue
            yield [
                _alike([_without(s, task, run) if i in group else s for i, s in enumerate(samples)])
                for run in range(count)
            ]


def _without(sample: Any, task: int, run: int) -> Any:
    """The sample without one run: an array if there is one task, else a mapping."""
    if not isinstance(sample, Mapping) and sample.shape[1] == 1:
        return np.delete(sample, run, axis=0)
    columns = _as_mapping(sample)
    name = list(columns)[task]
    return {**columns, name: np.delete(columns[name], run, axis=0)}


def _alike(samples: Sequence[Any]) -> Sequence[Any]:
    """All samples as mappings if one is."""
    some = any(isinstance(s, Mapping) for s in samples)
    return [_as_mapping(s) for s in samples] if some else samples


def _as_mapping(sample: Any) -> Mapping[Any, np.ndarray]:
    return sample if isinstance(sample, Mapping) else dict(enumerate(np.moveaxis(sample, 1, 0)))
