"""The host loop of `train`: chunks, rows of the log, evaluations, checkpoints.

The device is never idle while the host reads: a chunk is dispatched before the metrics of the
one before it are fetched.  Only where something needs the state itself (an evaluation, a
checkpoint) the loop waits for it.  Chunks take about half a second whatever an iteration takes,
so a run can always be stopped soon; how they are cut changes no number.
"""

import dataclasses
import time
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from fastrl import metrics as fm
from fastrl.chunks import Report, not_finite
from fastrl.files import RunFolderError
from fastrl.interrupts import Interrupted, Interrupts
from fastrl.keeper import Keeper, Position
from fastrl.metrics import Metrics
from fastrl.progress import Quiet
from fastrl.schedule import Schedule
from fastrl.tracking import Row, Tracker
from fastrl.watchdog import limit, watching

CHUNK_SECONDS = 0.5


class NonFiniteError(FloatingPointError):
    """A metric or parameter became NaN or infinite.

    `iteration` is the first bad one; `state` is the last good state, None where it was given
    up for memory (`donate`).
    """

    def __init__(self, message: str, iteration: int, state: Any = None) -> None:
        super().__init__(message)
        self.iteration = iteration
        self.state = state


class Chunk(NamedTuple):
    """A chunk under way on the device."""

    start: int  # iterations before it
    end: int  # and after it
    start_state: Any  # gone if states are donated
    start_metrics: Metrics
    state: Any
    report: Report
    dispatched: float  # when, in seconds


@dataclasses.dataclass
class Loop:
    """What a run is made of; `run` runs it."""

    advance: Callable[[Any, Metrics, Any], tuple[Any, Report]]  # (state, metrics, n)
    evaluate: Callable[[Any, int], dict[str, float]]  # (state, iteration) -> fields of a row
    schedule: Schedule
    steps_per_iteration: int
    nothing: Metrics  # zeros, with which a row of the log begins
    donate: bool
    keeper: Keeper | None
    tracker: Tracker | None
    reporter: Quiet
    interrupts: Interrupts
    position: Position  # where the run stands

    def run(self) -> Any:
        """Goes on to the end of the schedule and returns the state.

        Raises `NonFiniteError`, `Interrupted` or `RunFolderError`; the last good checkpoint is
        then intact and named.
        """
        self._row_from = self.position.iteration, self.position.seconds
        self._finished_at = time.perf_counter()
        self._size, self._durations = 1, deque[float](maxlen=50)
        try:
            self._run()
            if self._stops():
                raise self._interrupted()
        except RunFolderError as error:
            way_out = self.keeper.way_out() if self.keeper else ""
            raise RunFolderError(f"{error}. {way_out}") from error.__cause__
        return self.position.state

    def _run(self) -> None:
        ahead = self._dispatch(None)
        while ahead is not None:
            # Dispatched before the fetch of the one before it, unless that one's state is needed.
            following = None if self._is_needed(ahead.end) else self._dispatch(ahead)
            self._finish(ahead)
            ahead = following or self._dispatch(None)

    def _dispatch(self, before: Chunk | None) -> Chunk | None:
        """Starts the chunk after `before`, or after where the loop stands; None at the end."""
        at, state, metrics = self.position.iteration, self.position.state, self.position.metrics
        if before is not None:
            at, state = before.end, before.state
            metrics = self.nothing if self.schedule.logs(at) else before.report.metrics
        if self._stops() or at >= self.schedule.iterations:
            return None
        end = min(at + self._size, self.schedule.next_stop(at))
        dispatched = time.perf_counter()
        after, report = self.advance(state, metrics, np.int32(end - at))
        return Chunk(at, end, state, metrics, after, report, dispatched)

    def _finish(self, chunk: Chunk) -> None:
        """Waits for `chunk` and does what is due after it."""
        what = f"iteration {chunk.start + 1}" + (f" to {chunk.end}" * (chunk.end > chunk.start + 1))
        with watching(what, limit(self._durations), self.reporter.warn):
            _wait(chunk.report.iterations)
        iterations, ok, metrics = jax.device_get(chunk.report[:2] + chunk.report[3:])
        seconds = self._took(chunk)
        if not ok:
            raise self._not_finite(chunk, chunk.start + int(iterations))
        at, schedule = chunk.end, self.schedule
        evaluation = self.evaluate(chunk.state, at) if schedule.evaluates(at) else {}
        self.position = Position(
            chunk.state, chunk.report.metrics, at, seconds, evaluation.get("evaluation_return")
        )
        rate = (at - chunk.start) * self.steps_per_iteration / max(self._durations[-1], 1e-9)
        self.reporter.update(at * self.steps_per_iteration, rate, fm.compute(metrics))
        if schedule.logs(at) or evaluation:
            self._write(metrics, evaluation)
        if schedule.logs(at):
            self.position = self.position._replace(metrics=self.nothing)
        if self.keeper and (schedule.saves(at) or self.keeper.is_best(self.position)):
            self.keeper.save(self.position)
        if self._is_needed(at):
            self._finished_at = time.perf_counter()  # evaluating and saving are no training

    def _is_needed(self, iteration: int) -> bool:
        """Whether the state after `iteration` is needed on the host or for an evaluation."""
        saves = self.keeper is not None and self.schedule.saves(iteration)
        return saves or self.schedule.evaluates(iteration)

    def _stops(self) -> bool:
        return self.interrupts.signum is not None

    def _took(self, chunk: Chunk) -> float:
        """The seconds of training so far; also sets how many iterations the next chunk has."""
        now = time.perf_counter()
        took = now - max(chunk.dispatched, self._finished_at)
        self._finished_at = now
        self._durations.append(took)
        n = chunk.end - chunk.start
        fitting = int(CHUNK_SECONDS * n / max(took, 1e-6))
        self._size = max(1, min(fitting, 4 * n if n >= self._size else self._size))
        return self.position.seconds + took

    def _write(self, metrics: Metrics, evaluation: dict[str, float]) -> None:
        """A row of the log, with the metrics where they are due."""
        at, seconds = self.position.iteration, self.position.seconds
        row: Row = {"iteration": at, "steps": at * self.steps_per_iteration, "seconds": seconds}
        if self.schedule.logs(at):
            steps = (at - self._row_from[0]) * self.steps_per_iteration
            row["steps_per_second"] = steps / max(seconds - self._row_from[1], 1e-9)
            row |= fm.compute(metrics)
            self._row_from = at, seconds
        row |= evaluation
        if self.tracker:
            self.tracker.write(row)
        self.reporter.row(row)

    def _not_finite(self, chunk: Chunk, iteration: int) -> NonFiniteError:
        """The error for the bad `iteration` in `chunk`, after saving the state before it."""
        names = not_finite(chunk.report)
        what = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
        message = f"iteration {iteration}: {what} not finite."
        if self.donate:
            where = self.keeper.way_out() if self.keeper else "There is no run folder."
            return NonFiniteError(f"{message} {where}", iteration)
        n = np.int32(iteration - 1 - chunk.start)
        state, report = self.advance(chunk.start_state, chunk.start_metrics, n)
        position = self.position._replace(
            state=state, metrics=report.metrics, iteration=iteration - 1, evaluation_return=None
        )
        if self.keeper is None:
            message += " The state before it is the error's `state`; there is no run folder."
        else:
            path = self.keeper.save(position)
            message += f" The state before it is saved in {path}."
        hint = " Often a smaller learning rate or a bound on gradients or rewards helps."
        return NonFiniteError(message + hint, iteration, state)

    def _interrupted(self) -> Interrupted:
        """What a signal makes `run` raise, after saving where it stands."""
        at = self.position.iteration
        message = f"stopped after iteration {at} of {self.schedule.iterations}"
        if self.keeper is None:
            message += "; nothing is saved, for there is no run folder"
        else:
            self.keeper.save(self.position)
            message += f". {self.keeper.way_out()}"
        return Interrupted(message, self.interrupts.signum or 0, self.position.state)


def _wait(array: Any) -> None:
    """Returns when `array` is there. Unlike JAX's own wait it lets signals through meanwhile."""
    pause = 1e-4
    while not array.is_ready():
        time.sleep(pause)
        pause = min(1.5 * pause, 0.02)
