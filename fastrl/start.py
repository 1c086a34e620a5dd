"""Where a run starts or goes on: everything that happens before anything is compiled."""

import contextlib
import dataclasses
from typing import Any, NamedTuple

from fastrl import chunks, config, provenance, retention, run_folder
from fastrl import inputs as train_inputs
from fastrl.files import RunFolderError, write_atomically
from fastrl.inputs import Inputs, Options
from fastrl.keeper import Position, position_of
from fastrl.kernels import prng
from fastrl.metrics import Metrics
from fastrl.progress import Quiet
from fastrl.run_folder import RunFolder
from fastrl.types import Algorithm, Key


class Start(NamedTuple):
    """Where a run starts or goes on."""

    inputs: Inputs
    key: Key
    state: Any  # shapes and types
    metrics: Metrics  # shapes and types
    position: Position | None  # None: at the beginning

    @property
    def iteration(self) -> int:
        """The iterations that are done already."""
        return self.position.iteration if self.position else 0


def start(
    stack: contextlib.ExitStack, folder: RunFolder | None, algorithm: Algorithm, hparams: Any,
    task: Any, options: Options, resume: bool, say: Quiet,
) -> Start:  # fmt: skip
    """Checks everything that can be checked before compiling, and takes hold of the folder.

    A new run's folder is made last: bad arguments leave nothing behind.
    """
    if folder is None:
        if resume:
            raise ValueError("resume=True needs the run_dir of the run to go on with")
        return _checked(algorithm, train_inputs.new(algorithm, hparams, task, options))
    run_folder.refuse(folder, resume)
    if folder.inputs.exists():
        stack.callback(run_folder.open_for_writing(folder, resume).release)
        inputs = train_inputs.resumed(algorithm, hparams, task, options, folder)
        found = _checked(algorithm, inputs)
        position = _position(folder, found, say)
        if position is not None and position.iteration > inputs.schedule.iterations:
            done = position.iteration * algorithm.steps_per_iteration
            raise ValueError(
                f"steps={inputs.options.steps}: the run in {folder.path} has taken {done} already; "
                "more steps make it longer"
            )
        return found._replace(position=position)
    begun = _checked(algorithm, train_inputs.new(algorithm, hparams, task, options))
    stack.callback(run_folder.open_for_writing(folder, resume).release)
    if folder.inputs.exists():
        raise RunFolderError(f"another process has just started a run in {folder.path}")
    if resume:
        say.note(f"{folder.path} holds no run yet: starting one")
    return begun


def _checked(algorithm: Algorithm, inputs: Inputs) -> Start:
    key = prng.key(inputs.options.seed or 0)
    state, metrics = chunks.check(algorithm, key, inputs.hparams, inputs.task)
    return Start(inputs, key, state, metrics, None)


def _position(folder: RunFolder, start: Start, say: Quiet) -> Position | None:
    """Where the run in `folder` stands; what was damaged or is later is out of the way after."""
    restored = run_folder.newest(folder, start.state)
    if restored is None:
        say.note(f"{folder.path} has no checkpoint yet: starting from the beginning")
        return None
    position = position_of(restored, start.metrics)
    for path in retention.set_aside(folder.checkpoints, position.iteration):
        say.warn(f"a damaged checkpoint is now {path}")
    say.note(f"going on from {restored.path}")
    return position


def describe(
    folder: RunFolder,
    algorithm: Algorithm,
    start: Start,
    devices: int,
    text: str | None,
    say: Quiet,
) -> None:
    """Writes `info.json` and, where they are missing, `config.toml` and the inputs, in this order.

    Only with the inputs, the last, the folder holds a run.
    """
    inputs, options = start.inputs, dataclasses.asdict(start.inputs.options)
    changes = provenance.record(folder.info, devices)
    if changes:
        say.note(f"not as at the start of this run: {', '.join(changes)}; digits may differ")
    changed = folder.inputs.exists() and run_folder.rewrite_options(folder, options)
    if text is not None or changed or not folder.config.exists():
        if text is None:
            text = config.describe(
                algorithm, inputs.hparams, inputs.task, devices=devices, **options
            )
        write_atomically(folder.config, text)
    if not folder.inputs.exists():
        run_folder.write_inputs(folder, inputs.hparams, inputs.task, options)
