"""Pictures and pages that appear whole or not at all."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from fastrl.files import UNFINISHED, reason


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary file beside `path`, with its suffix, that takes its place at a clean end.

    Folders on the way are made.  After an error the temporary file is removed and whatever
    stood at `path` is untouched.  Raises OSError, with the path, if it cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f"{UNFINISHED}{os.getpid()}-{path.name}")
    try:
        if path.is_dir():
            raise IsADirectoryError("it is a folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()
    except OSError as error:
        raise type(error)(f"can't write {path}: {_why(error)}") from error
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        if error.filename in (None, str(temporary), temporary):  # not of some other file
            raise type(error)(f"can't write {path}: {_why(error)}") from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def _why(error: OSError) -> str:
    why = reason(error)
    return error.strerror if error.strerror and why.startswith("[Errno") else why
