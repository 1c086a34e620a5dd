"""`train`: a training under a host that logs, evaluates, saves, resumes and stops cleanly.

The numbers are those of `fastrl.run`, bit for bit on CPU; what the host does changes none.
"""

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from fastrl import chunks, config, door, provenance, retention, run_folder, sharding
from fastrl import inputs as train_inputs
from fastrl import metrics as fm
from fastrl.chunks import Report
from fastrl.evaluate import evaluate
from fastrl.files import write_atomically
from fastrl.hparams import as_arrays
from fastrl.inputs import Inputs, Options
from fastrl.interrupts import Interrupts
from fastrl.keeper import Keeper, Position, position_of
from fastrl.kernels import prng
from fastrl.loop import Loop, NonFiniteError
from fastrl.metrics import Metrics
from fastrl.progress import Quiet, reporter
from fastrl.run_folder import RunFolder
from fastrl.tracking import Tracker
from fastrl.types import Algorithm, Key
from fastrl.watchdog import watching

DONATE_BYTES = 256 * 2**20  # states beyond this are donated unless told otherwise
EVALUATION_SECONDS = 300.0  # after which the watchdog speaks up

_EVALUATION = 0x6576616C  # the evaluations' branch of the run's key


def train(
    algorithm: Algorithm,
    hparams: Any = None,
    task: Any = None,
    *,
    steps: float | None = None,
    seed: int | None = None,
    run_dir: str | os.PathLike[str] | None = None,
    devices: int = 1,
    log_every: float | None = None,
    eval_every: float | None = None,
    eval_episodes: int | None = None,
    checkpoint_every: float | None = None,
    keep: int | None = None,
    resume: bool = False,
    progress: bool = True,
    donate: bool | None = None,
    config_text: str | None = None,
) -> Any:
    """Trains for at least `steps` environment steps and returns the final state.

    `hparams` and `task` are the algorithm's defaults and its environment's default params
    unless given.  With a `run_dir` the run is logged and saved there, and `resume=True`
    continues the run that is there as if it had never stopped: what is given must then agree
    with what the run was started with (larger `steps` make it longer), and what is not given
    is taken from it.  A folder that holds no run yet starts one.

    Intervals are in environment steps, rounded up to whole iterations: by default 100 rows of
    the log, 10 evaluations of `eval_episodes` (32) episodes and 10 checkpoints, of which the
    newest `keep` (3) and the best stay; 0 means only at the end, for `eval_every` never.
    Evaluations have keys of their own and change nothing.  `devices` spreads the environments
    over that many devices.  `donate` trades the last good state, should numbers become
    non-finite, for memory; by default only beyond 256 MB.  `config_text` goes into
    `config.toml` in the place of a description of the arguments.

    Ctrl-C or SIGTERM ends the run after a chunk, saves, and raises `Interrupted` (a
    KeyboardInterrupt); a second one ends it at once.

    Raises ValueError or TypeError for bad arguments, `NonFiniteError` as soon as a metric or
    parameter is not finite, `RunFolderError` if the folder can't be used or written to,
    `CheckpointError` and `MismatchError` if what it holds can't be restored.
    """
    door.algorithm(algorithm)
    devices = door.integer("devices", devices, 1)
    options = Options(steps, seed, log_every, eval_every, checkpoint_every, eval_episodes, keep)
    folder = None if run_dir is None else run_folder.at(run_dir)
    with contextlib.ExitStack() as stack:
        mesh = sharding.mesh(devices) if devices > 1 else None
        if mesh is not None:
            stack.enter_context(jax.set_mesh(mesh))
        say = reporter(progress)
        stack.callback(say.close)
        interrupts = stack.enter_context(Interrupts())
        start = _start(stack, folder, algorithm, hparams, task, options, resume, say)
        if folder is not None:
            _describe(folder, algorithm, start, devices, config_text, say)
        done, plan = start.position, start.inputs.schedule
        per_iteration, reached = algorithm.steps_per_iteration, done.iteration if done else 0
        if done is not None and reached >= plan.iterations:
            say.note(_finished(algorithm, done))
            return jax.device_put(done.state)
        donate = _bytes(start.state) > DONATE_BYTES if donate is None else bool(donate)
        tracker = None
        if folder is not None:
            tracker = Tracker(folder.metrics, folder.events, reached)
            stack.callback(tracker.close)
        total = plan.iterations * per_iteration
        say.start(reached * per_iteration, total, list(start.metrics))
        advance, nothing, position = _compile(algorithm, start, mesh, donate, say)
        watched = folder is not None or progress  # else nobody would see an evaluation
        loop = Loop(
            advance,
            _evaluator(algorithm, start.inputs, say),
            plan if watched else dataclasses.replace(plan, evaluate=0),
            per_iteration,
            nothing,
            donate,
            None if folder is None else Keeper(folder, start.inputs.options.keep or 1),
            tracker,
            say,
            interrupts,
            position,
        )
        del start, done, position  # large states are not to be held twice
        return loop.run()


class Start(NamedTuple):
    """Where a run starts or goes on."""

    inputs: Inputs
    key: Key
    state: Any  # shapes and types
    metrics: Metrics  # shapes and types
    position: Position | None  # None: at the beginning


def _start(
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
        start = _checked(algorithm, inputs)
        return start._replace(position=_position(folder, start, say))
    inputs = train_inputs.new(algorithm, hparams, task, options)
    start = _checked(algorithm, inputs)
    stack.callback(run_folder.open_for_writing(folder, resume).release)
    if resume:
        say.note(f"{folder.path} holds no run yet: starting one")
    return start


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


def _describe(
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
    if text is not None or not folder.config.exists():
        if text is None:
            text = config.describe(
                algorithm, inputs.hparams, inputs.task, devices=devices, **options
            )
        write_atomically(folder.config, text)
    if not folder.inputs.exists():
        run_folder.write_inputs(folder, inputs.hparams, inputs.task, options)


def _compile(
    algorithm: Algorithm, start: Start, mesh: Mesh | None, donate: bool, say: Quiet
) -> tuple[Callable[[Any, Metrics, Any], tuple[Any, Report]], Metrics, Position]:
    """Compiles; returns the chunk program, metrics of nothing, and the position on the device."""
    began = time.perf_counter()
    everywhere = None if mesh is None else NamedSharding(mesh, PartitionSpec())
    zeros = fm.zeros_like(start.metrics)
    position = start.position or Position(None, zeros)
    hparams, task, nothing, metrics = jax.device_put(
        (start.inputs.hparams, start.inputs.task, zeros, position.metrics), everywhere
    )
    state = layout = None
    if start.position is None or mesh is not None:
        state = chunks.init_program(algorithm)(start.key, hparams, task)
    if mesh is not None:
        layout = jax.tree.map(lambda x: x.sharding, state)
    if start.position is not None:
        state = jax.device_put(position.state, layout)
    program = chunks.chunk_program(algorithm, donate, layout)

    def advance(state: Any, metrics: Metrics, n: Any) -> tuple[Any, Report]:
        return program(state, metrics, hparams, task, n)

    state, report = jax.block_until_ready(advance(state, metrics, np.int32(0)))
    bad = chunks.not_finite(report)
    if bad:
        raise NonFiniteError(f"the initial {bad[0]} is not finite", position.iteration, state)
    say.note(f"compiled in {time.perf_counter() - began:.1f} s")
    return advance, nothing, position._replace(state=state, metrics=metrics)


def _evaluator(
    algorithm: Algorithm, inputs: Inputs, say: Quiet
) -> Callable[[Any, int], dict[str, float]]:
    """The function `(state, iteration) -> fields of a row`, with a key for every iteration."""
    root = jax.random.fold_in(prng.key(inputs.options.seed or 0), _EVALUATION)
    params = None
    if algorithm.env is not None:
        default = as_arrays(algorithm.env.default_params())
        alike = not chunks.differences(default, inputs.task)
        params = inputs.task if alike else None  # the task may be levels or a data set

    def evaluator(state: Any, iteration: int) -> dict[str, float]:
        try:
            with watching("the evaluation", EVALUATION_SECONDS, say.warn):
                evaluation = evaluate(
                    algorithm, state, params=params, key=jax.random.fold_in(root, iteration),
                    episodes=inputs.options.eval_episodes or 1,
                )  # fmt: skip
        except RuntimeError as error:
            if type(error) is not RuntimeError:  # JAX's own
                raise
            say.warn(f"no evaluation after iteration {iteration}: {error}")
            return {}
        return {
            "evaluation_return": evaluation.mean_return,
            "evaluation_length": evaluation.mean_length,
        }

    return evaluator


def _finished(algorithm: Algorithm, position: Position) -> str:
    steps = position.iteration * algorithm.steps_per_iteration
    return f"this run is finished, at {steps:,} steps; with larger steps it goes on"


def _bytes(shapes: Any) -> int:
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(shapes))
