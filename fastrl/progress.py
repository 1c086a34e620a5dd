"""What a user sees of a run: a bar with return, speed and time left, and a table of rows.

Three reporters with one interface: `Terminal` draws, `Lines` prints plain lines (logs of jobs
and CI), `Quiet` only passes warnings on. All write to standard error.
"""

import math
import sys
from collections.abc import Sequence
from typing import Any

from fastrl.tracking import Row, known_mean

MAX_ROWS = 20  # of the table, besides those with an evaluation
MAX_LOSSES = 3


class Quiet:
    """Says nothing but warnings. The base of the others."""

    def start(self, steps: int, total: int, metrics: Sequence[str]) -> None:
        """A run begins, or goes on, at `steps` of `total` environment steps."""

    def update(self, steps: int, steps_per_second: float, metrics: dict[str, Any]) -> None:
        """A chunk is done; `metrics` since the last row."""

    def row(self, row: Row) -> None:
        """A row of the log."""

    def note(self, text: str) -> None:
        """Something worth knowing."""

    def warn(self, text: str) -> None:
        """Something that a user must see."""
        print(f"fastrl: {text}", file=sys.stderr, flush=True)

    def close(self) -> None:
        """The run is over, one way or the other."""


class Lines(Quiet):
    """One plain line per row of the table."""

    def __init__(self) -> None:
        self._table: Table | None = None
        self._total = 0

    def start(self, steps: int, total: int, metrics: Sequence[str]) -> None:
        self._total = total
        self._table = Table(total, metrics)

    def row(self, row: Row) -> None:
        for line in self._table.lines(row) if self._table else ():
            self._print(line)

    def note(self, text: str) -> None:
        self._print(text)

    def _print(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)


class Terminal(Lines):
    """A bar at the bottom of the screen, the table scrolling above it."""

    def __init__(self) -> None:
        super().__init__()
        self._bar: Any = None
        self._task: Any = None
        self._return: float | None = None  # the last one known

    def start(self, steps: int, total: int, metrics: Sequence[str]) -> None:
        super().start(steps, total, metrics)
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

        self._bar = Progress(
            BarColumn(bar_width=30),
            TaskProgressColumn(),
            TextColumn("{task.fields[status]}"),
            console=Console(stderr=True),
            refresh_per_second=4,
            transient=True,
        )
        self._task = self._bar.add_task("", total=total, completed=steps, status="compiling")
        self._bar.start()

    def update(self, steps: int, steps_per_second: float, metrics: dict[str, Any]) -> None:
        latest = known_mean(metrics.get("episode_return", ()))
        self._return = self._return if latest is None else latest
        left = (self._total - steps) / steps_per_second if steps_per_second > 0 else math.nan
        parts = [
            "" if self._return is None else f"return {_short(self._return)}",
            f"{steps_per_second:,.0f} steps/s",
            f"{duration(left)} left",
        ]
        self._bar.update(self._task, completed=steps, status="  ".join(filter(None, parts)))

    def warn(self, text: str) -> None:
        self._print(f"fastrl: {text}")

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()

    def _print(self, text: str) -> None:
        if self._bar is None or self._bar.finished:
            super()._print(text)
        else:
            self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)


class Table:
    """Aligned lines of the rows of a run of `total` steps with these `metrics`."""

    def __init__(self, total: int, metrics: Sequence[str]) -> None:
        plays = "episode_return" in metrics  # or else it learns from learners
        known = {
            "return": "episode_return", "length": "episode_length", "fitness": "fitness",
            "inner return": "inner_episode_return",
        }  # fmt: skip
        losses = [name for name in metrics if "loss" in name][:MAX_LOSSES]
        self._total = total
        self._columns = (  # heading -> field of a row
            {"iteration": "iteration", "steps": "steps"}
            | {head: name for head, name in known.items() if name in metrics}
            | ({"evaluation": "evaluation_return"} if plays else {})
            | {name: name for name in losses}
            | {"steps/s": "steps_per_second"}
        )
        self._shown: tuple[int, float] | None = None  # steps and seconds of the last one shown

    def lines(self, row: Row) -> list[str]:
        """The lines that `row` adds: none if it comes too soon, a header before the first."""
        steps, first = row["steps"], self._shown is None
        before, then = self._shown or (0, 0.0)
        too_soon = not first and steps - before < self._total / MAX_ROWS
        if too_soon and "evaluation_return" not in row and steps < self._total:
            return []
        if not first:  # over all rows since the last one shown: a single one's speed is noise
            speed = (steps - before) / max(row["seconds"] - then, 1e-9)
            row = row | {"steps_per_second": speed}
        self._shown = steps, row["seconds"]
        head = "  ".join(f"{name:>{_width(name)}}" for name in self._columns)
        line = "  ".join(
            f"{_short(row.get(field)):>{_width(name)}}" for name, field in self._columns.items()
        )
        return [head, line] if first else [line]


def reporter(progress: bool) -> Quiet:
    """The reporter that suits where standard error goes."""
    if not progress:
        return Quiet()
    return Terminal() if sys.stderr.isatty() else Lines()


def duration(seconds: float) -> str:
    """`seconds` as people say it: 45 s, 3 min 20 s, 2 h 5 min."""
    if not math.isfinite(seconds):
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _width(head: str) -> int:
    return max(len(head), 10)


def _short(value: Any) -> str:
    """A number in at most ten characters; the mean of several; nothing for none."""
    number = None if value is None else known_mean(value)
    if number is None:
        return ""
    if isinstance(value, int) or abs(number) >= 1000:
        return f"{number:,.0f}"
    return f"{number:.4g}"
