"""Where the values of a config come from, so that an error can say it."""

import contextlib
import dataclasses
import re
from collections.abc import Iterator


@dataclasses.dataclass(frozen=True)
class Source:
    """A file, and flags over it; either may be missing."""

    file: str = ""  # what errors call it
    flags: tuple[str, ...] = ()  # what was given on the command line: "steps", "hparams.gamma"

    def of(self, message: str) -> str:
        """Where the values that `message` is about come from, empty if that is not known."""
        flags = ["--" + name.replace("_", "-") for name in self.flags if _is_about(message, name)]
        return " over ".join(filter(None, [" and ".join(flags), self.file]))


@contextlib.contextmanager
def located(source: Source) -> Iterator[None]:
    """Puts where the value comes from in front of the message of a ValueError."""
    try:
        yield
    except ValueError as error:
        where = source.of(str(error))
        raise ValueError(f"{where}: {error}" if where else str(error)) from error


def _is_about(message: str, name: str) -> bool:
    """Whether `message` has the name, in full or without its table, as a word of its own."""
    words = {name, name.rpartition(".")[2]}
    return any(re.search(rf"(?<![\w.]){re.escape(word)}(?![\w.])", message) for word in words)
