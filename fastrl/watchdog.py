"""A watchdog that speaks up when a computation takes suspiciously long. It never kills.

XLA's threads on CPU can deadlock in programs with vmapped members: every thread asleep, no CPU
time used.  Without a word a user would wait for ever.
"""

import contextlib
import statistics
import threading
from collections.abc import Callable, Iterator, Sequence

FLOOR = 60.0  # seconds; nothing that takes less is suspicious
FACTOR = 20.0  # times the median of what it took before

_WAY_OUT = (
    "If the process uses no CPU time, it hangs: XLA on CPU can deadlock in programs with many "
    "vmapped members. Then abort (Ctrl-C twice), and use jax.lax.map over members, one XLA "
    "device per core (fastrl.use_cpu_devices), or one core (taskset -c 0); a run with a folder "
    "can be resumed"
)


def limit(durations: Sequence[float]) -> float:
    """The seconds after which a computation is suspicious, given earlier ones."""
    return max(FLOOR, FACTOR * statistics.median(durations)) if durations else FLOOR


@contextlib.contextmanager
def watching(what: str, seconds: float, say: Callable[[str], None]) -> Iterator[None]:
    """Calls `say(message)`, once and from another thread, if the body runs for over `seconds`."""
    message = f"{what} has been running for {seconds:.0f} s, far longer than expected. {_WAY_OUT}"
    timer = threading.Timer(seconds, say, (message,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
