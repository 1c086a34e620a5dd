"""Files that survive: written whole or not at all, and errors that say what to do.

A file is written under another name, flushed to the disk and renamed, so whoever reads it, even
after a kill or a power cut, finds the old text or the new one.
"""

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

# Folders under these names are unfinished or on their way out: `sweep` removes them.
UNFINISHED, DISCARDED = ".unfinished-", ".discarded-"

_REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "a file grew beyond the size allowed here (see `ulimit -f`)",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
    errno.EEXIST: "a file is in the way",
    errno.ENAMETOOLONG: "the name is too long",
    errno.EIO: "the disk reports an error",
}


class RunFolderError(RuntimeError):
    """A run folder can't be made, written or read; the message names it and the way out."""


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns what goes wrong while writing `path` into a `RunFolderError` that says why."""
    try:
        yield
    except OSError as error:
        raise RunFolderError(f"can't write {path}: {reason(error)}") from error


def reason(error: BaseException) -> str:
    """Why reading or writing failed, in words."""
    return known(error) or str(error).strip().split("\n")[0] or type(error).__name__


def known(error: BaseException) -> str | None:
    """The same for what systems commonly report, also if a library's error only quotes it."""
    number = getattr(error, "errno", None)
    if number is None:
        number = next((n for n in _REASONS if os.strerror(n) in str(error)), None)
    return None if number is None else _REASONS.get(number)


def write_atomically(path: Path, text: str) -> None:
    """Makes `text` the content of the file at `path`. Raises `RunFolderError`."""
    with writing(path):
        with _beside(path) as unfinished, open(unfinished, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        sync(path.parent)


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary file beside `path`, with its suffix, that takes its place at a clean end.

    For pictures and pages, wherever the user wants them: folders on the way are made.  After
    an error the temporary file is removed and whatever stood at `path` is untouched.  Raises
    OSError, with the path, if it cannot be written.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise IsADirectoryError("it is a folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        with _beside(path) as unfinished:
            unfinished.touch()
            yield unfinished
    except OSError as error:
        own = map(str, (_unfinished(path), path, *path.parents))
        if error.filename is None or str(error.filename) in own:  # not of some other file
            why = reason(error)
            told = error.strerror if error.strerror and why.startswith("[Errno") else why
            raise type(error)(f"can't write {path}: {told}") from error
        raise


@contextlib.contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """Another name in the same folder: renamed to `path` at a clean end, else removed."""
    unfinished = _unfinished(path)
    try:
        yield unfinished
        os.replace(unfinished, path)
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)


def _unfinished(path: Path) -> Path:
    return path.with_name(f"{UNFINISHED}{os.getpid()}-{path.name}")


def sync(path: Path) -> None:
    """Waits until a folder's list of names, or a file, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some file systems have no such call
            raise
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """`sync` for everything in `folder`."""
    for inside, _, names in os.walk(folder):
        for name in names:
            sync(Path(inside, name))
        sync(Path(inside))


def discard(folder: Path) -> None:
    """Removes a folder; a kill halfway leaves nothing under its name."""
    gone = folder.with_name(DISCARDED + folder.name)
    shutil.rmtree(gone, ignore_errors=True)
    os.replace(folder, gone)
    shutil.rmtree(gone, ignore_errors=True)


def sweep(folder: Path) -> None:
    """Removes what a kill left unfinished in `folder`."""
    for path in folder.iterdir():
        if path.name.startswith((UNFINISHED, DISCARDED)):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
