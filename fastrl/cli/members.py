"""Members of a sweep: trained in groups by one program, evaluated, written one by one."""

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fastrl import config, population
from fastrl.config import RunConfig
from fastrl.evaluate import evaluate
from fastrl.files import write_atomically, writing
from fastrl.hparams import as_arrays, conform
from fastrl.kernels import prng
from fastrl.metrics import Mean
from fastrl.tracking import plain
from fastrl.types import Algorithm

ROWS = 100  # of a member's log, at most

Member = tuple[Any, Any, int]  # hparams, task, seed


class Outcome(NamedTuple):
    """What became of a member."""

    evaluation_return: float  # NaN if its parameters are not finite
    rows: list[dict[str, Any]]  # of its log


def train(
    algorithm: Algorithm, steps: int, todo: Sequence[Member], episodes: int
) -> Iterator[Outcome]:
    """Trains the members, with one compiled program; outcomes come in order, group by group.

    A group is all of them on a GPU, and on CPU one for each device, so that there is progress.
    """
    on_cpu = jax.default_backend() == "cpu"
    size = min(jax.device_count() * algorithm.side_by_side, len(todo)) if on_cpu else len(todo)
    program = jax.jit(population.members(algorithm, steps))
    for start in range(0, len(todo), size):
        here = list(todo[start : start + size])
        filled = here + [here[-1]] * (size - len(here))  # one shape: one compilation
        hparams = _stack([conform(h, algorithm.default_hparams) for h, _, _ in filled])
        task = _stack([as_arrays(t) for _, t, _ in filled])
        keys = jnp.stack([prng.key(seed) for _, _, seed in filled])
        states, metrics = program(keys, hparams, task)
        host = jax.device_get(metrics)
        for i, (_, own_task, _) in enumerate(here):
            state = jax.tree.map(lambda x, i=i: x[i], states)
            rows = _rows({k: Mean(*(x[i] for x in m)) for k, m in host.items()}, algorithm)
            yield _outcome(algorithm, state, own_task, rows, episodes)


def write(folder: Path, run_config: RunConfig, outcomes: Sequence[Outcome]) -> None:
    """A folder that `fastrl plot` reads: the setting, and logs with one number per member."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for together in zip(*(o.rows for o in outcomes), strict=True):
        shared = {k: together[0][k] for k in ("iteration", "steps")}
        each = {k: [row[k] for row in together] for k in together[0] if k not in shared}
        lines.append(json.dumps(shared | {k: plain(v) for k, v in each.items()}))
    write_atomically(folder / "metrics.jsonl", "".join(f"{x}\n" for x in lines))
    write_atomically(folder / "config.toml", config.dumps(run_config, full=True))


def _outcome(
    algorithm: Algorithm, state: Any, task: Any, rows: list[dict[str, Any]], episodes: int
) -> Outcome:
    leaves = jax.tree.leaves(algorithm.parameters(state))
    finite = all(bool(jnp.isfinite(x).all()) for x in leaves)
    value = math.nan
    if finite and algorithm.env is not None:
        value = evaluate(algorithm, state, params=task, episodes=episodes).mean_return
    rows[-1]["evaluation_return"] = value
    return Outcome(value, rows)


def _rows(metrics: dict[str, Mean], algorithm: Algorithm) -> list[dict[str, Any]]:
    """Metrics `[iterations]` of a member as rows, several iterations in each if there are many."""
    iterations = len(next(iter(metrics.values())).total)
    every = math.ceil(iterations / ROWS)
    starts = np.arange(0, iterations, every)
    ends = [*starts[1:], iterations]
    with np.errstate(invalid="ignore", divide="ignore"):
        means = {
            name: np.add.reduceat(m.total, starts) / np.add.reduceat(m.weight, starts)
            for name, m in metrics.items()
        }
    return [
        {"iteration": int(end), "steps": int(end) * algorithm.steps_per_iteration}
        | {name: values[i] for name, values in means.items()}
        for i, end in enumerate(ends)
    ]


def _stack(trees: Sequence[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
