"""The log of a run: rows as lines of JSON, and as events for TensorBoard.

A row is a flat record: iteration, steps (of the environment), seconds (of training), then
`steps_per_second` and the algorithm's metrics where a row of the log is due, and
`evaluation_return` and `evaluation_length` where an evaluation was.  NaN, such as the return
where no episode ended, is null.

Rows are written at once and in this thread: a full disk is an error here and now.
"""

import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np

from fastrl.files import write_atomically, writing

Row = dict[str, Any]

_EVALUATION, _SPEED = "evaluation_", ("seconds", "steps_per_second")


class Tracker:
    """Writes rows to `metrics.jsonl` and to a new event file in `events`.

    `after` is the iteration that the run goes on from: rows of an earlier life that are later
    are dropped from the one and marked as void in the other.  Raises `RunFolderError`.
    """

    def __init__(self, metrics: Path, events: Path, after: int = 0) -> None:
        self._path = metrics
        purge = None
        if metrics.exists():
            kept = [row for row in read_rows(metrics) if row["iteration"] <= after]
            write_atomically(metrics, "".join(map(_line, kept)))
            purge = kept[-1]["steps"] + 1 if kept else 0
        self._events = _Events(events, purge)
        with writing(metrics):
            self._file = open(metrics, "a", encoding="utf-8")  # noqa: SIM115 - closed in close

    def write(self, row: Row) -> None:
        """Appends a row. Raises `RunFolderError` if it can't be written."""
        with writing(self._path):
            self._file.write(_line(row))
            self._file.flush()
        self._events.write(row)

    def close(self) -> None:
        """Closes the files; errors of what was not yet written are no use now."""
        for file in (self._file, self._events):
            try:
                file.close()
            except OSError:
                continue


def read_rows(path: Path) -> list[Row]:
    """The rows of a `metrics.jsonl`; a line that a kill cut short is left out.

    Raises FileNotFoundError.
    """
    rows = []
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(row, dict) and all(_is_int(row.get(k)) for k in ("iteration", "steps")):
                rows.append(row)
    return rows


def plain(value: Any) -> Any:
    """`value` for JSON: a number, None for one that is not finite, or lists of them."""
    if isinstance(value, (np.ndarray, list)):
        return plain(value.item()) if np.ndim(value) == 0 else [plain(x) for x in value]  # type: ignore[union-attr]
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value


def known_mean(value: Any) -> float | None:
    """The mean of a number or of several, without those that are not finite; None of none."""
    numbers = np.asarray(value, np.float64).reshape(-1)
    numbers = numbers[np.isfinite(numbers)]
    return float(numbers.mean()) if numbers.size else None


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _line(row: Row) -> str:
    return json.dumps({k: plain(v) for k, v in row.items()}, allow_nan=False) + "\n"


class _Events:
    """A TensorBoard event file.

    Not tensorboardX's SummaryWriter: its thread dies of a full disk, after which writing a row
    blocks for ever.
    """

    def __init__(self, folder: Path, purge_step: int | None) -> None:
        from tensorboardX.proto import event_pb2
        from tensorboardX.record_writer import RecordWriter
        from tensorboardX.summary import scalar

        self._messages: Any = event_pb2  # its classes are made at run time
        self._scalar = scalar
        self._folder = folder
        with writing(folder):
            folder.mkdir(exist_ok=True)
            # TensorBoard reads a folder's files by name; the count keeps names apart.
            name = f"events.out.tfevents.{int(time.time())}.{len(list(folder.iterdir())):03d}"
            self._writer = RecordWriter(str(folder / name))
            self._add(file_version="brain.Event:2")
            if purge_step is not None:
                start = self._messages.SessionLog(status=1)  # START
                self._add(step=purge_step, session_log=start)
            self._writer.flush()

    def write(self, row: Row) -> None:
        with writing(self._folder):
            for name, value in row.items():
                number = known_mean(value)
                if name not in ("iteration", "steps") and number is not None:
                    self._add(step=row["steps"], summary=self._scalar(_tag(name), number))
            self._writer.flush()

    def close(self) -> None:
        self._writer.close()

    def _add(self, **content: Any) -> None:
        event = self._messages.Event(wall_time=time.time(), **content)
        self._writer.write(event.SerializeToString())


def _tag(name: str) -> str:
    """The name under which TensorBoard shows a field of a row."""
    if name.startswith(_EVALUATION):
        return "evaluation/" + name.removeprefix(_EVALUATION)
    return ("speed/" if name in _SPEED else "train/") + name
