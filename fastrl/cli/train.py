"""`fastrl train` and `fastrl resume`."""

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from fastrl import config
from fastrl.cli.errors import UsageError
from fastrl.cli.flags import Argument, Switch, parse
from fastrl.cli.request import (
    compile_for,
    import_module,
    read_request,
    usage_errors,
    use_devices,
)
from fastrl.config import RunConfig
from fastrl.config.source import Source, located
from fastrl.evaluate import evaluate
from fastrl.registry import nearest
from fastrl.run_folder import RunFolder, command
from fastrl.train import train as run_training

EVALUATION_EPISODES = 100


def train(argv: Sequence[str]) -> int:
    """Trains what the command line asks for; ends with an evaluation and a picture."""
    run_config, flags = read_request(argv, "fastrl train")
    use_devices(run_config.devices)
    compile_for(run_config.algorithm)
    import_module(flags.import_)
    with usage_errors():
        built = config.build(run_config)
    folder = run_folder(run_config, flags.run_dir, flags.name)
    state = run_training(
        *built,
        steps=run_config.steps,
        seed=run_config.seed,
        devices=run_config.devices,
        run_dir=folder,
        progress=not flags.quiet,
        **dataclasses.asdict(run_config.train),
    )
    report(built, state, folder)
    return 0


@dataclasses.dataclass(frozen=True)
class ResumeFlags:
    """Goes on with a run that was stopped, as if it never had been.

    More steps than it was started with make it longer.
    """

    run: Annotated[str, Argument("RUN")] = ""  # its folder, such as runs/CartPole-v1-ppo-0
    steps: int | None = None  # in all; by default what it was started with
    devices: int | None = None  # by default as many as it was started with
    import_: str = ""  # a module of yours that registers environments, imported first
    quiet: Annotated[bool, Switch] = False  # no progress on the terminal


def resume(argv: Sequence[str]) -> int:
    """Continues the run in a folder."""
    flags, _ = parse(ResumeFlags(), argv, "fastrl resume")
    file = config_of(flags.run, "fastrl resume")
    with usage_errors():
        run_config = config.load(file)
    devices = flags.devices or run_config.devices
    use_devices(devices)
    compile_for(run_config.algorithm)
    import_module(flags.import_)
    with usage_errors():
        built = config.build(run_config)
    longer = None  # the config is to say what the folder holds
    if flags.steps is not None:
        with located(Source(flags=("steps",))):
            longer = config.dumps(dataclasses.replace(run_config, steps=flags.steps), full=True)
    given: dict[str, Any] = {"steps": flags.steps}
    if not (Path(flags.run) / "inputs").exists():  # killed before it began: all is in the config
        given = dataclasses.asdict(run_config.train) | {
            "hparams": built.hparams,
            "task": built.task,
            "seed": run_config.seed,
            "steps": flags.steps or run_config.steps,
        }
    state = run_training(
        built.algorithm,
        **given,
        devices=devices,
        run_dir=flags.run,
        resume=True,
        progress=not flags.quiet,
        config_text=longer,
    )
    report(built, state, Path(flags.run))
    return 0


def run_folder(run_config: RunConfig, run_dir: str, name: str) -> Path:
    """The folder for a new run: the one asked for, or one in runs/ that is not there yet."""
    if run_dir and name:
        raise UsageError(f"--run-dir {run_dir} and --name {name}: give one of them")
    if run_dir:
        return _new(Path(run_dir))
    if name and (name in (".", "..") or Path(name).name != name):
        raise UsageError(f"--name {name!r}: a plain name in runs/; for a path there is --run-dir")
    env = re.sub(r"[^\w.+-]+", "-", run_config.env)
    stem = name or f"{env}-{run_config.algorithm}-{run_config.seed}"
    tries = [stem, *(f"{stem}-{n}" for n in range(2, 100_000))]
    return next(p for t in tries if not (p := Path("runs") / t).exists())


def _new(folder: Path) -> Path:
    """`folder`, if a run can be put there. Raises UsageError if there are other files in it."""
    if folder.is_dir() and any(folder.iterdir()):
        go_on = command(RunFolder(folder), "resume")
        started = f"a run: go on with it by `{go_on}`, or give a new folder"
        other = "other files: give a new or empty folder"
        holds_run = (folder / "config.toml").is_file() and (folder / "info.json").is_file()
        raise UsageError(f"--run-dir {folder} holds {started if holds_run else other}")
    return folder


def config_of(run: str, prog: str) -> Path:
    """The config in a run folder. Raises UsageError if `run` is none."""
    if not run:
        raise UsageError(f"which run? Name its folder: {prog} runs/NAME")
    folder = Path(run)
    file = folder / "config.toml"
    if file.is_file():
        return file
    if not folder.is_dir():
        near = [str(p.parent) for p in Path("runs").glob("*/config.toml")]
        near = nearest(run, near)
        hint = f": did you mean {' or '.join(near)}?" if near else ""
        raise UsageError(f"{run}: there is no such run folder{hint}")
    raise UsageError(f"{run}: is not a run folder (it has no config.toml)")


def report(built: Any, state: Any, folder: Path) -> None:
    """The end of a run: its return, its folder, its picture and what can be done now."""
    if built.algorithm.env is not None:
        result = evaluate(built.algorithm, state, params=built.task, episodes=EVALUATION_EPISODES)
        print(f"evaluation  {result}")
    print(f"run folder  {folder}")
    print(f"picture     {picture([folder], folder / 'pictures' / 'learning_curve.png')}")
    run = RunFolder(folder)
    print(f"go on with  {command(run, 'evaluate')}")
    print(f"            {command(run, 'render')}")
    print(f"            {command(run, 'resume')} --steps N")


def picture(runs: Sequence[Path], path: Path, metric: str | None = None) -> str:
    """Draws the learning curves of `runs` to `path`; the path, or why there is no picture."""
    from fastrl.plot import plot_run

    try:
        return str(plot_run(runs, path, metric=metric))
    except ValueError as error:  # no episode has ended yet
        return f"none ({error})"
