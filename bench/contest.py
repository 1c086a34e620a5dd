"""Contestants in turn: one process each, and one round of each after the other.

What shares a machine with others is measured in alternating rounds, and only the ratio within a
round counts: whatever slowed one side down was there for the other.
"""

import contextlib
import dataclasses
import json
import os
import queue
import statistics
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

HERE = Path(__file__).resolve().parent
# Several processes wait on one GPU at a time: none may take most of its memory.
_OUTER = dict(os.environ)  # as it was before this process imported fastrl, which sets XLA_FLAGS
_SHARED = {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.2", "TF_CPP_MIN_LOG_LEVEL": "3"}


@dataclasses.dataclass(frozen=True)
class Contestant:
    """A program, the name of a module of this folder, run by `python` with `settings`."""

    name: str
    python: str
    program: str
    settings: dict[str, Any]
    environment: dict[str, str] = dataclasses.field(default_factory=dict)
    variant: str = ""  # "1 core": the same program in other circumstances


@dataclasses.dataclass
class Result:
    """What came of a contestant."""

    name: str
    variant: str = ""
    status: str = "ok"  # or missing, failed, hung
    note: str = ""
    ready: dict[str, Any] = dataclasses.field(default_factory=dict)
    rounds: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    end: dict[str, Any] = dataclasses.field(default_factory=dict)
    clock: str = "seconds"  # or "cpu_seconds": what rounds are measured by

    @property
    def rates(self) -> list[float]:
        """Environment steps per second of every round."""
        return [r["steps"] / r[self.clock] for r in self.rounds]

    @property
    def rate(self) -> float | None:
        """The median of `rates`, None where there is none."""
        return statistics.median(self.rates) if self.rounds and self.status == "ok" else None

    @property
    def mean_return(self) -> float | None:
        """The return at the end, or else the median over rounds; None if nothing was said."""
        if self.end.get("return") is not None:
            return self.end["return"]
        said = [r["return"] for r in self.rounds if r.get("return") is not None]
        return statistics.median(said) if said else None


class FailedError(RuntimeError):
    """A worker that ended, or said nothing in time; the message says which and why."""


class Worker:
    """A running contestant. Its process is ended by `close`, and never one of another's."""

    def __init__(self, contestant: Contestant) -> None:
        self._log: IO[str] = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed in `close`
        self._process = subprocess.Popen(
            [contestant.python, str(HERE / "launch.py"), json.dumps(contestant.settings),
             contestant.program],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True,
            env=_SHARED | _OUTER | contestant.environment, cwd=tempfile.gettempdir(),
        )  # fmt: skip
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._patience = 5.0  # seconds that it gets to end by itself

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def listen(self, timeout: float) -> dict[str, Any]:
        """The next message.

        Raises `FailedError` if none comes within `timeout` seconds, or at the end.
        """
        try:
            line = self._lines.get(timeout=timeout)
        except queue.Empty:
            self._patience = 0.0
            raise FailedError(f"hung: said nothing for {timeout:.0f} s") from None
        if line is None:
            raise FailedError(f"failed: {self._last_words()}")
        return json.loads(line)

    def ask(self, command: str, timeout: float) -> dict[str, Any]:
        """Sends `command` and waits for the answer."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(command + "\n")
            self._process.stdin.flush()
        return self.listen(timeout)

    def _last_words(self) -> str:
        self._process.wait()
        self._log.seek(0)
        lines = [line.strip() for line in self._log if line.strip()]
        return lines[-1] if lines else f"ended with code {self._process.returncode}"

    def close(self) -> None:
        """Ends the process, by force if it does not go by itself."""
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
        try:
            self._process.wait(timeout=self._patience)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(timeout=5)  # its pipe is at the end
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._log.close()


def compete(contestants: Sequence[Contestant], rounds: int, timeout: float) -> list[Result]:
    """`rounds` rounds of every contestant in turn; a result for each, in the same order.

    One that fails, or says nothing for `timeout` seconds, is out; the others go on.
    """
    results = [Result(c.name, c.variant) for c in contestants]
    with contextlib.ExitStack() as stack:
        running: list[tuple[Result, Worker]] = []
        for contestant, result in zip(contestants, results, strict=True):
            worker = Worker(contestant)
            stack.callback(worker.close)
            with _judging(result):
                result.ready = worker.listen(timeout)
                running.append((result, worker))
        for command in ["round"] * rounds + ["finish"]:
            for result, worker in running:
                if result.status != "ok":
                    continue
                with _judging(result):
                    answer = worker.ask(command, timeout)
                    if command == "finish":
                        result.end = answer
                    else:
                        result.rounds.append(answer)
    return results


@contextlib.contextmanager
def _judging(result: Result) -> Iterator[None]:
    try:
        yield
    except FailedError as failure:
        result.status, _, result.note = str(failure).partition(": ")


def ratios(own: Sequence[float], other: Sequence[float]) -> list[float]:
    """`own / other`, round by round; rounds that one side lacks are left out."""
    return [a / b for a, b in zip(own, other, strict=False)]


def best(results: Sequence[Result]) -> list[Result]:
    """One result per name: of several variants the one with the highest median rate."""
    chosen: dict[str, Result] = {}
    for result in results:
        rival = chosen.get(result.name)
        if rival is None or (result.rate or 0.0) > (rival.rate or 0.0):
            chosen[result.name] = result
    return list(chosen.values())
