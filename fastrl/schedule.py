"""When the driver logs, evaluates and saves, in iterations."""

import dataclasses
import math

from fastrl.door import number
from fastrl.run import num_iterations
from fastrl.types import Algorithm


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Intervals in iterations; 0 means only at the end (`evaluate`: not at all)."""

    iterations: int  # the whole run
    log: int
    evaluate: int
    checkpoint: int

    def next_stop(self, iteration: int) -> int:
        """The next iteration after `iteration` at which something is due."""
        stops = [
            (iteration // every + 1) * every
            for every in (self.log, self.evaluate, self.checkpoint)
            if every
        ]
        return min([*stops, self.iterations])

    def logs(self, iteration: int) -> bool:
        """Whether a row of the log is due after `iteration` iterations."""
        return self._due(self.log, iteration)

    def evaluates(self, iteration: int) -> bool:
        """Whether an evaluation is due."""
        return self.evaluate > 0 and self._due(self.evaluate, iteration)

    def saves(self, iteration: int) -> bool:
        """Whether a checkpoint is due."""
        return self._due(self.checkpoint, iteration)

    def _due(self, every: int, iteration: int) -> bool:
        return iteration == self.iterations or (every > 0 and iteration % every == 0)


def schedule(
    algorithm: Algorithm,
    steps: float,
    *,
    log_every: float | None = None,
    eval_every: float | None = None,
    checkpoint_every: float | None = None,
) -> Schedule:
    """A run of `steps` environment steps, its intervals in environment steps, all rounded up.

    By default 100 rows, 10 evaluations (none without an environment) and 10 checkpoints, which
    then fall on rows.  Raises ValueError for what is no number of steps.
    """
    total = num_iterations(algorithm, number("steps", steps, least=1))

    def every(name: str, value: float | None, default: int) -> int:
        if value is None:
            return default
        return math.ceil(number(name, value, least=0) / algorithm.steps_per_iteration)

    log = every("log_every", log_every, math.ceil(total / 100))
    tenth = math.ceil(total / 10)
    tenth = math.ceil(tenth / log) * log if log else tenth
    evaluate = every("eval_every", eval_every, tenth)
    if algorithm.env is None:
        if eval_every:
            raise ValueError(f"eval_every={eval_every!r}: the algorithm has no environment")
        evaluate = 0
    return Schedule(total, log, evaluate, every("checkpoint_every", checkpoint_every, tenth))
