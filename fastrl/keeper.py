"""The checkpoints of a run under way: written at chunk ends, pruned, found again."""

import math
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from fastrl import checkpoint, retention
from fastrl.checkpoint import CheckpointError, Restored
from fastrl.metrics import Mean, Metrics
from fastrl.run_folder import RunFolder, command


class Position(NamedTuple):
    """How far a run is: all that a checkpoint holds."""

    state: Any
    metrics: Metrics  # since the last row of the log
    iteration: int = 0
    seconds: float = 0.0  # of training: without compiling, evaluating, saving
    evaluation_return: float | None = None  # of this very state


class Keeper:
    """Writes positions into a run folder; keeps the newest `keep` and the best."""

    def __init__(self, folder: RunFolder, keep: int) -> None:
        self._folder, self._keep = folder, keep
        self._best = max(map(retention.evaluation_return, self._paths()), default=-math.inf)

    def is_best(self, position: Position) -> bool:
        """Whether no earlier checkpoint had a higher evaluation return."""
        value = position.evaluation_return
        return value is not None and value >= self._best

    def save(self, position: Position) -> Path:
        """Writes a checkpoint, if there is none of that iteration, and removes old ones.

        Returns its path. Raises `RunFolderError`.
        """
        path = retention.at(self._folder.checkpoints, position.iteration)
        if path not in self._paths():
            checkpoint.save(path, position.state, facts_of(position))
            if self.is_best(position) and position.evaluation_return is not None:
                self._best = position.evaluation_return
            retention.prune(self._folder.checkpoints, self._keep)
        return path

    def way_out(self) -> str:
        """How to go on from what is saved, for messages."""
        newest = self._paths()[:1]
        where = (
            f"The last good checkpoint is {newest[0]} (iteration {int(newest[0].name)})"
            if newest
            else "There is no checkpoint yet"
        )
        return f"{where}; go on with `{command(self._folder, 'resume')}` or resume=True"

    def _paths(self) -> list[Path]:
        return retention.newest_first(self._folder.checkpoints)


def facts_of(position: Position) -> dict[str, Any]:
    """All of a position but the state, as JSON; float32 numbers survive exactly."""
    return {
        "iteration": position.iteration,
        "seconds": position.seconds,
        "evaluation_return": position.evaluation_return,
        "metrics": jax.tree.map(lambda x: np.asarray(x).tolist(), position.metrics),
    }


def position_of(restored: Restored, like: Metrics) -> Position:
    """The position in a checkpoint; `like` has the metrics' names, shapes and types.

    Raises `CheckpointError` if the facts are not those of a position of this algorithm.
    """
    facts = restored.facts
    try:
        metrics = {
            name: Mean(*(_as(x, y) for x, y in zip(facts["metrics"][name], m, strict=True)))
            for name, m in like.items()
        }
        value = facts["evaluation_return"]
        return Position(
            restored.tree,
            metrics,
            int(facts["iteration"]),
            float(facts["seconds"]),
            None if value is None else float(value),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"checkpoint {restored.path} has no position of this algorithm: {error!r}"
        ) from None


def _as(value: Any, like: Any) -> Any:
    array = np.asarray(value, like.dtype)
    if array.shape != like.shape:
        raise ValueError(f"shape {array.shape}, not {like.shape}")
    return array
