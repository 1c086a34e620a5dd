"""All that determines a run besides the algorithm: given anew, or read from a run folder."""

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fastrl import door, run_folder
from fastrl.checkpoint import CheckpointError
from fastrl.config.build import fields_of
from fastrl.door import integer, number
from fastrl.hparams import as_arrays, conform
from fastrl.leaves import without_keys
from fastrl.run_folder import RunFolder
from fastrl.schedule import Schedule, schedule
from fastrl.types import Algorithm, PyTree

EVAL_EPISODES = 32
KEEP = 3


@dataclasses.dataclass(frozen=True)
class Options:
    """Arguments of `train` that are plain numbers; None is "not given"."""

    steps: float | None = None
    seed: int | None = None
    log_every: float | None = None
    eval_every: float | None = None
    checkpoint_every: float | None = None
    eval_episodes: int | None = None
    keep: int | None = None


class Inputs(NamedTuple):
    """What a run is made from; a resume restores it exactly."""

    hparams: Any  # arrays
    task: Any  # arrays
    options: Options  # none of them None
    schedule: Schedule


def new(algorithm: Algorithm, hparams: Any, task: Any, options: Options) -> Inputs:
    """The inputs of a new run, with defaults for what is not given.

    Raises ValueError or TypeError, naming what is wrong.
    """
    hparams = conform(hparams, algorithm.default_hparams)
    algorithm.check(hparams)
    options, plan = _complete(algorithm, options)
    return Inputs(hparams, _task(algorithm, task), options, plan)


def resumed(
    algorithm: Algorithm, hparams: Any, task: Any, options: Options, folder: RunFolder
) -> Inputs:
    """The inputs of the run in `folder`; what is given must agree with them.

    Another number of steps, another schedule are no disagreement: from now on they hold.
    Raises ValueError if hparams, task or seed differ, and like `run_folder.read_inputs`.
    """
    like = conform(hparams, algorithm.default_hparams), _task(algorithm, task)
    restored = run_folder.read_inputs(folder, *like)
    tree = jax.tree.map(jnp.asarray, restored.tree)
    for name, given, used in (("hparams", hparams, like[0]), ("task", task, like[1])):
        if given is not None:
            _agree(name, used, tree[name], folder)
    saved = _saved_options(restored.facts, folder)
    if options.seed not in (None, saved.seed):
        raise _disagreement("seed", options.seed, saved.seed, folder)
    given = {k: v for k, v in dataclasses.asdict(options).items() if v is not None}
    options, plan = _complete(algorithm, dataclasses.replace(saved, **given))
    return Inputs(tree["hparams"], tree["task"], options, plan)


def annealing(hparams: Any, steps: float) -> str:
    """A note if the learning rate anneals over another number of steps than `steps`, else "".

    The two are apart on purpose: hparams are traced numbers, and a run that a resume makes
    longer is not to change what it did before.
    """
    anneal_steps = float((fields_of(hparams) or {}).get("anneal_steps", math.inf))
    if math.isinf(anneal_steps) or abs(anneal_steps - steps) <= 0.01 * steps:
        return ""
    note = f"hparams.anneal_steps is {anneal_steps:,.0f}, but this run takes {steps:,} steps"
    if anneal_steps > steps:
        return f"{note}: it ends before the learning rate has fallen to its final value"
    return f"{note}: from there on the learning rate keeps its final value"


def _complete(algorithm: Algorithm, options: Options) -> tuple[Options, Schedule]:
    """`options` with defaults for what is None, and the schedule that they make."""
    if options.steps is None:
        raise ValueError("steps=None: needs the number of environment steps to train for")
    plan = schedule(
        algorithm,
        options.steps,
        log_every=options.log_every,
        eval_every=options.eval_every,
        checkpoint_every=options.checkpoint_every,
    )
    per_iteration = algorithm.steps_per_iteration
    episodes, keep = options.eval_episodes, options.keep
    complete = Options(
        number("steps", options.steps, 1),
        integer("seed", 0 if options.seed is None else options.seed, 0, 2**32 - 1),
        plan.log * per_iteration,
        plan.evaluate * per_iteration,
        plan.checkpoint * per_iteration,
        integer("eval_episodes", EVAL_EPISODES if episodes is None else episodes, 1),
        integer("keep", KEEP if keep is None else keep, 1),
    )
    return complete, plan


def _task(algorithm: Algorithm, task: Any) -> Any:
    """`task` as arrays, by default the params of the algorithm's environment."""
    default = None if algorithm.env is None else algorithm.env.default_params()
    if task is None and algorithm.env is None:
        raise ValueError("task=None: an algorithm without an environment needs one (a data set)")
    if task is None or isinstance(task, type(default)):
        task = conform(task, default, "task")
    else:
        task = as_arrays(task, "task")
    door.time_limits(task)
    return task


def _saved_options(facts: dict[str, Any], folder: RunFolder) -> Options:
    try:
        return Options(**facts)
    except TypeError as error:
        raise CheckpointError(f"{folder.inputs} is not what `train` writes: {error}") from None


def _agree(name: str, given: PyTree, saved: PyTree, folder: RunFolder) -> None:
    given, saved = without_keys(given), without_keys(saved)
    leaves = jax.tree_util.tree_flatten_with_path(given)[0]
    for (path, here), there in zip(leaves, jax.tree.leaves(saved), strict=True):
        if not np.array_equal(here, there):
            raise _disagreement(name + jax.tree_util.keystr(path), here, there, folder)


def _disagreement(name: str, here: Any, there: Any, folder: RunFolder) -> ValueError:
    return ValueError(
        f"{name} is {here} here, but {there} in the run in {folder.path}: leave it out to go on "
        "with that run, or choose another run_dir for a new one"
    )
