"""A run's folder: where everything of a run is, and who may write to it.

    config.toml     what was run, for people and for `fastrl resume`
    info.json       versions, device, git state, command: of the start and of every resume
    inputs/         hparams, task, seed and schedule, exact, as a checkpoint
    metrics.jsonl   rows of the log; events/ has the same for TensorBoard
    checkpoints/    one folder each
    pictures/       whatever is drawn later

Every part appears whole or not at all, so a kill at any time leaves a folder that `resume` can
handle; a folder without `inputs` holds no run yet.
"""

import contextlib
import dataclasses
import os
import shlex
from pathlib import Path
from typing import Any

from fastrl import checkpoint, provenance, retention
from fastrl.checkpoint import CheckpointError, Restored
from fastrl.files import RunFolderError, sweep, writing
from fastrl.leaves import number_of_bytes
from fastrl.types import PyTree

PLAIN_BYTES = 2**20  # inputs up to here are written without orbax: a run starts sooner


@dataclasses.dataclass(frozen=True)
class RunFolder:
    """The parts of the run folder at `path`."""

    path: Path

    @property
    def inputs(self) -> Path:
        return self.path / "inputs"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def events(self) -> Path:
        return self.path / "events"

    @property
    def pictures(self) -> Path:
        return self.path / "pictures"

    @property
    def config(self) -> Path:
        return self.path / "config.toml"

    @property
    def info(self) -> Path:
        return self.path / "info.json"

    @property
    def lock(self) -> Path:
        return self.path / ".lock"

    def holds_run(self) -> bool:
        """Whether a run was started here, however far it came."""
        return any(p.exists() for p in (self.inputs, self.checkpoints, self.metrics))


def at(path: str | os.PathLike[str]) -> RunFolder:
    """The run folder at `path`, which need not exist yet. Raises ValueError for no path."""
    if not isinstance(path, (str, os.PathLike)) or not os.fspath(path):
        raise ValueError(f"run_dir={path!r}: needs the path of a folder")
    if "\0" in os.fsdecode(path):
        raise ValueError(f"run_dir={path!r}: a path has no NUL characters")
    return RunFolder(Path(path).expanduser())


def command(folder: RunFolder, verb: str) -> str:
    """The command line that does `verb` with the run, such as `fastrl resume runs/cartpole`."""
    module = provenance.imported(folder.info)
    words = ["fastrl", verb, str(folder.path), *(("--import", module) if module else ())]
    return shlex.join(words)


class Lock:
    """Held by the one process that writes to a run folder; the system frees it after a kill."""

    def __init__(self, folder: RunFolder) -> None:
        """Raises `RunFolderError` if another process writes to the folder."""
        with writing(folder.lock):
            self._descriptor = os.open(folder.lock, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            import fcntl

            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.release()
            raise RunFolderError(
                f"another process is training in {folder.path}: wait for it, or choose another "
                "folder"
            ) from None
        except (OSError, ImportError):  # no locks on this file system or platform: do without
            return

    def release(self) -> None:
        os.close(self._descriptor)


def open_for_writing(folder: RunFolder, resume: bool) -> Lock:
    """Makes the folder ready to be written to, and removes what a kill left unfinished.

    Raises `RunFolderError` if it holds a run and `resume` is not set, if another process
    writes to it, if a file of another kind is in the way, or if it can't be written.
    """
    refuse(folder, resume)
    with writing(folder.path):
        folder.path.mkdir(parents=True, exist_ok=True)
    lock = Lock(folder)
    try:
        refuse(folder, resume)  # again: another process may have been and gone meanwhile
        with writing(folder.path):
            folder.pictures.mkdir(exist_ok=True)
            for place in (folder.path, folder.checkpoints, folder.pictures):
                if place.is_dir():
                    sweep(place)
    except BaseException:
        lock.release()
        raise
    return lock


def refuse(folder: RunFolder, resume: bool) -> None:
    """Raises `RunFolderError` if what is in the folder stands in the way; writes nothing."""
    with writing(folder.path), contextlib.suppress(FileNotFoundError):
        folder.path.stat()  # fails for a name that is too long, say
    if folder.holds_run() and not resume:
        raise RunFolderError(
            f"{folder.path} holds a run already: continue it with resume=True "
            f"(`{command(folder, 'resume')}`), or choose another folder"
        )
    if folder.holds_run() and not folder.inputs.exists():
        raise RunFolderError(f"the run in {folder.path} has lost its {folder.inputs.name}")
    if folder.config.exists() and not folder.info.exists() and not folder.holds_run():
        raise RunFolderError(
            f"{folder.path} holds a {folder.config.name} of something else: choose another folder"
        )


def write_inputs(folder: RunFolder, hparams: PyTree, task: PyTree, options: dict[str, Any]) -> None:
    """Writes what a resume needs besides the algorithm; after this the folder holds a run.

    `options` are seed, steps and schedule.
    """
    tree = {"hparams": hparams, "task": task}
    few = number_of_bytes(tree) <= PLAIN_BYTES  # a task may be a data set
    checkpoint.save(folder.inputs, tree, options, plain=few)


def read_inputs(folder: RunFolder, hparams: PyTree, task: PyTree) -> Restored:
    """The inputs of the run; `hparams` and `task` give the structure.

    Raises `RunFolderError` if there are none, `CheckpointError` if they are damaged,
    `MismatchError` if they are of another structure.
    """
    if not folder.inputs.exists():
        raise RunFolderError(
            f"{folder.path} holds no run: give a folder that `train` wrote, or start a new run"
        )
    return checkpoint.restore(folder.inputs, {"hparams": hparams, "task": task})


def rewrite_options(folder: RunFolder, options: dict[str, Any]) -> bool:
    """Replaces seed, steps and schedule of the run; hparams and task stay. Says if it had to."""
    if checkpoint.read_meta(folder.inputs)["facts"] == options:
        return False
    checkpoint.rewrite_facts(folder.inputs, options)
    return True


def newest(folder: RunFolder, target: PyTree) -> Restored | None:
    """The newest sound checkpoint, None if there never was one.

    Damaged ones are skipped with a warning. Raises `CheckpointError` if all are damaged.
    """
    paths = retention.newest_first(folder.checkpoints)
    return checkpoint.restore_first(paths, target) if paths else None


def best(folder: RunFolder, target: PyTree) -> Restored:
    """The sound checkpoint with the highest evaluation return. Raises `CheckpointError`."""
    paths = retention.best_first(folder.checkpoints)
    if not paths:
        raise CheckpointError(f"{folder.path} has no checkpoint yet")
    return checkpoint.restore_first(paths, target)
