"""What goes wrong, as one line and an exit code."""

import os
import sys
import traceback
from collections.abc import Callable

FAILURE, USAGE, INTERRUPTED, BROKEN_PIPE = 1, 2, 130, 141


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
    from fastrl.user_code import explain, is_ours

    traceback_hint = "FASTRL_DEBUG=1 shows the traceback"
    if not is_ours(error):
        return FAILURE, f"{explain(error)}. {traceback_hint}"
    if error.__cause__ is not None and not is_ours(error.__cause__):  # of somebody else's code
        return FAILURE, f"{error}. {traceback_hint}"
    return USAGE if isinstance(error, ValueError) else FAILURE, str(error)
