"""`train`: a training under a host that logs, evaluates, saves, resumes and stops cleanly.

The numbers are those of `fastrl.run`, bit for bit on CPU; what the host does changes none.
"""

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from fastrl import chunks, door, run_folder, sharding
from fastrl import start as starting
from fastrl.chunks import Report
from fastrl.evaluate import evaluate
from fastrl.hparams import as_arrays
from fastrl.inputs import Inputs, Options, annealing
from fastrl.interrupts import Interrupts
from fastrl.keeper import Keeper, Position
from fastrl.kernels import prng
from fastrl.leaves import described, number_of_bytes
from fastrl.loop import Loop, NonFiniteError
from fastrl.metrics import Metrics
from fastrl.progress import Quiet, reporter
from fastrl.run_folder import RunFolder
from fastrl.start import Start
from fastrl.tracking import Tracker
from fastrl.types import Algorithm, HParamsT, StateT
from fastrl.watchdog import watching

DONATE_BYTES = 256 * 2**20  # states beyond this are donated unless told otherwise
EVALUATION_SECONDS = 300.0  # after which the watchdog speaks up

_EVALUATION = 0x6576616C  # the evaluations' branch of the run's key


def train(
    algorithm: Algorithm[HParamsT, StateT],
    hparams: HParamsT | None = None,
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
) -> StateT:
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
    options = Options(steps, seed, log_every, eval_every, checkpoint_every, eval_episodes, keep)
    folder = None if run_dir is None else run_folder.at(run_dir)
    with contextlib.ExitStack() as stack:
        mesh = _mesh(stack, devices)
        say = reporter(progress)
        stack.callback(say.close)
        interrupts = stack.enter_context(Interrupts())
        with chunks.collector_paused():
            start = starting.start(stack, folder, algorithm, hparams, task, options, resume, say)
            if folder is not None:
                starting.describe(folder, algorithm, start, devices, config_text, say)
            if start.position and start.iteration >= start.inputs.schedule.iterations:
                done = start.iteration * algorithm.steps_per_iteration
                say.note(f"this run is finished, at {done:,} steps; with larger steps it goes on")
                return jax.device_put(start.position.state)
            if note := annealing(start.inputs.hparams, start.inputs.options.steps or 0):
                say.note(note)
            loop = _loop(stack, folder, algorithm, start, mesh, donate, say, interrupts)
            del start  # its state may be large
        return loop.run()


def _mesh(stack: contextlib.ExitStack, devices: int) -> Mesh | None:
    """The mesh of several devices, in force until `stack` ends; None for one device."""
    if door.integer("devices", devices, 1) == 1:
        return None
    mesh = sharding.mesh(devices)
    stack.enter_context(jax.set_mesh(mesh))
    return mesh


def _loop(
    stack: contextlib.ExitStack, folder: RunFolder | None, algorithm: Algorithm, start: Start,
    mesh: Mesh | None, donate: bool | None, say: Quiet, interrupts: Interrupts,
) -> Loop:  # fmt: skip
    """The loop, compiled, standing at `start`."""
    plan, per_iteration = start.inputs.schedule, algorithm.steps_per_iteration
    donate = number_of_bytes(start.state) > DONATE_BYTES if donate is None else bool(donate)
    keeper = tracker = None
    if folder is not None:
        keeper = Keeper(folder, start.inputs.options.keep or 1)
        tracker = Tracker(folder.metrics, folder.events, start.iteration)
        stack.callback(tracker.close)
    elif type(say) is Quiet:  # nobody would see an evaluation
        plan = dataclasses.replace(plan, evaluate=0)
    say.start(start.iteration * per_iteration, plan.iterations * per_iteration, list(start.metrics))
    advance, nothing, position = _compile(algorithm, start, mesh, donate, say)
    return Loop(
        advance=advance,
        evaluate=_evaluator(algorithm, start.inputs, say),
        schedule=plan,
        steps_per_iteration=per_iteration,
        nothing=nothing,
        donate=donate,
        keeper=keeper,
        tracker=tracker,
        reporter=say,
        interrupts=interrupts,
        position=position,
    )


def _compile(
    algorithm: Algorithm, start: Start, mesh: Mesh | None, donate: bool, say: Quiet
) -> tuple[Callable[[Any, Metrics, Any], tuple[Any, Report]], Metrics, Position]:
    """Compiles; returns the chunk program, metrics of nothing, and the position on the device."""
    began = time.perf_counter()
    everywhere = None if mesh is None else NamedSharding(mesh, PartitionSpec())
    zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), start.metrics)
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
    params = None
    if algorithm.env is not None:
        own = described(as_arrays(algorithm.env.default_params()))
        params = inputs.task if described(inputs.task) == own else None  # levels, a data set

    def evaluator(state: Any, iteration: int) -> dict[str, float]:
        try:
            with watching("the evaluation", EVALUATION_SECONDS, say.warn):
                root = jax.random.fold_in(prng.key(inputs.options.seed or 0), _EVALUATION)
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
