"""Ctrl-C and SIGTERM: the first asks the run to end at the next chunk, the second ends it now."""

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """The run was ended by a signal, after saving what there was to save.

    `state` is where it stood; None if it was ended at once.
    """

    def __init__(self, message: str, signum: int, state: Any = None) -> None:
        super().__init__(message)
        self.signum = signum
        self.state = state

    @property
    def exit_code(self) -> int:
        """What a process that was ended so returns by custom: 130 or 143."""
        return 128 + self.signum


class Interrupts:
    """While it is entered, `signum` says which signal asked to stop, None as long as none did.

    Does nothing outside the main thread, where Python delivers no signals, and leaves signals
    alone that the process was told to ignore (`nohup`).
    """

    def __init__(self) -> None:
        self.signum: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "Interrupts":
        if threading.current_thread() is threading.main_thread():
            for signum in _SIGNALS:
                if signal.getsignal(signum) not in (signal.SIG_IGN, None):
                    self._previous[signum] = signal.signal(signum, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._restore()
        if self.signum is not None and kind is None:
            signal.raise_signal(self.signum)  # it came too late for the body to see it

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if self.signum is not None:
            self._restore()
            raise Interrupted("aborted by a second signal, without saving", signum)
        self.signum = signum
        # Not print: a handler may run in the middle of another print.
        os.write(2, b"\nstopping after this chunk and saving; once more to abort at once\n")

    def _restore(self) -> None:
        while self._previous:
            signal.signal(*self._previous.popitem())
