"""What goes wrong, as one line and an exit code."""

import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

FAILURE, USAGE, INTERRUPTED, BROKEN_PIPE = 1, 2, 130, 141
_PACKAGE = Path(__file__).parents[1]


class UsageError(Exception):
    """The command line or a config is wrong; the message is one line for the user."""


def guarded(command: Callable[[], int]) -> int:
    """Runs `command`; an error becomes a line on standard error and an exit code."""
    try:
        code = command()
        sys.stdout.flush()
        return code
    except SystemExit as stop:  # of tyro, after printing a help
        return stop.code if isinstance(stop.code, int) else 0
    except BrokenPipeError:  # the reader of a pipe has gone: `fastrl list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except BaseException as error:
        if os.environ.get("FASTRL_DEBUG", "0") not in ("", "0"):
            traceback.print_exc()
        code, message = judge(error)
        print(f"fastrl: {' '.join(message.split())}", file=sys.stderr, flush=True)
        return code


def judge(error: BaseException) -> tuple[int, str]:
    """The exit code of a command that ended in `error`, and what to tell the user."""
    from fastrl.interrupts import Interrupted

    if isinstance(error, Interrupted):
        return error.exit_code, str(error)
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED, "interrupted"
    if isinstance(error, UsageError):
        return USAGE, str(error)
    if isinstance(error, MemoryError):
        return FAILURE, "out of memory: take fewer environments (--config.num-envs)"
    if isinstance(error, OSError) and error.filename:
        return FAILURE, f"{error.filename}: {error.strerror}"
    inner = error.__cause__ if isinstance(error, ValueError) else None
    if _is_ours(error) and (inner is None or _is_ours(inner)):
        return USAGE if isinstance(error, ValueError) else FAILURE, str(error)
    from fastrl.user_code import explain

    return FAILURE, (
        f"{explain(inner if inner and _is_ours(error) else error)}. If the environment is your "
        "own, `fastrl check-env` says more; FASTRL_DEBUG=1 shows the traceback"
    )


def _is_ours(error: BaseException) -> bool:
    """Whether fastrl's own code raised `error`, so that its message is meant for users."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and Path(frames[-1].filename).is_relative_to(_PACKAGE)
