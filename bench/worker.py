"""What every benchmarked program runs on: commands in, JSON lines out. Standard library only.

A worker is a process of its own, in the interpreter of whoever it measures.  It gets its settings
as JSON in its first argument, prepares (imports, compiles), says so, and then does one timed
round for every line `round` that it reads, until it reads `finish`.
"""

import contextlib
import ctypes
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

_out: TextIO = sys.stdout


def start() -> dict[str, Any]:
    """The settings. Keeps the standard output for messages: what libraries print goes to stderr.

    With the setting `cores` the process runs on that many of its cores; call this before
    anything is imported that starts threads.
    """
    global _out
    _out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    settings = json.loads(sys.argv[1])
    if settings.get("cores"):
        pin(settings["cores"])
    return settings


def pin(cores: int) -> None:
    """Leaves this process the first `cores` of its cores, where the system can do that."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])


def say(**message: Any) -> None:
    """One message to the parent: a JSON line."""
    print(json.dumps(message), file=_out, flush=True)


def rounds() -> Iterator[None]:
    """One item for every round that the parent asks for, until it asks for the end."""
    for line in sys.stdin:
        if line.strip() == "finish":
            return
        yield


def serve(
    round_: Callable[[], dict[str, Any]],
    finish: Callable[[], dict[str, Any]] = dict,
    **ready: Any,
) -> None:
    """Answers until the end: `ready` first, then what `round_` returns, at last `finish`."""
    say(**ready)
    for _ in rounds():
        say(**round_())
    say(**finish())


def timed(call: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """The result of `call` and what it took: `seconds` on the clock, `cpu_seconds` of all threads.

    `call` must wait for its own result (`jax.block_until_ready`).
    """
    wall, cpu = time.perf_counter(), time.process_time()
    result = call()
    spent = {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}
    return result, spent


def until(seconds: float, call: Callable[[], Any]) -> tuple[int, dict[str, float]]:
    """Calls again until `seconds` have passed: the number of calls, and what they took."""
    end = time.perf_counter() + seconds

    def loop() -> int:
        calls = 0
        while calls == 0 or time.perf_counter() < end:
            call()
            calls += 1
        return calls

    return timed(loop)


def forget_peak() -> int:
    """Lets `peak` begin anew, where the system can do that: the bytes that are held now.

    What the allocator has kept of memory that is free goes back to the system before.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    return _memory("VmRSS")


def peak() -> int:
    """The most bytes that this process has held since `forget_peak`; 0 where nobody says."""
    return _memory("VmHWM")


def _memory(name: str) -> int:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((1024 * int(x.split()[1]) for x in lines if x.startswith(name + ":")), 0)


def compiled(jax: Any, function: Callable[..., Any], *args: Any) -> tuple[Any, float]:
    """`function` compiled for `args`, ahead of any call, and the seconds that this took."""
    begin = time.perf_counter()
    program = jax.jit(function).lower(*args).compile()
    return program, time.perf_counter() - begin


def versions(*packages: str) -> dict[str, str]:
    """The installed versions of those `packages` that are there."""
    from importlib import metadata

    found = {}
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
