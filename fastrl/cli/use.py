"""`fastrl evaluate`, `fastrl render`, `fastrl plot`: what can be done with run folders."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from fastrl.cli.errors import UsageError
from fastrl.cli.flags import Argument, Switch, parse
from fastrl.cli.request import import_module
from fastrl.cli.train import config_of
from fastrl.tracking import plain


@dataclasses.dataclass(frozen=True)
class EvaluateFlags:
    """Plays complete episodes with a trained agent and reports their returns."""

    run: Annotated[str, Argument("RUN")] = ""  # its folder, such as runs/CartPole-v1-ppo-0
    episodes: int = 100  # exactly so many, each from start to end
    sampled: Annotated[bool, Switch] = False  # sample the actions; else the most likely ones
    seed: int = 0  # of the episodes
    checkpoint: Literal["best", "last"] | int = (
        "best"  # best, last, or that after so many iterations
    )
    json: Annotated[bool, Switch] = False  # print one JSON object
    import_: str = ""  # a module of yours that registers environments, imported first


def evaluate(argv: Sequence[str]) -> int:
    """Evaluates the agent in a run folder."""
    flags, _ = parse(EvaluateFlags(), argv, "fastrl evaluate")
    policy = _load(flags, "fastrl evaluate")
    result = policy.evaluate(flags.episodes, seed=flags.seed, deterministic=not flags.sampled)
    if not flags.json:
        print(result)
        return 0
    told = {
        "run": flags.run,
        "checkpoint": flags.checkpoint,
        "episodes": result.episodes,
        "seed": flags.seed,
        "deterministic": result.deterministic,
        "mean_return": result.mean_return,
        "std_return": result.std_return,
        "half_width_95": result.half_width,
        "mean_length": result.mean_length,
        "terminated_share": result.terminated_share,
        "returns": result.returns,
        "lengths": result.lengths,
    }
    metrics = {name: plain(value) for name, value in result.metrics.items()}
    print(json.dumps({k: plain(v) for k, v in told.items()} | {"metrics": metrics}))
    return 0


@dataclasses.dataclass(frozen=True)
class RenderFlags:
    """Plays episodes with a trained agent and shows them in a file."""

    run: Annotated[str, Argument("RUN")] = ""  # its folder, such as runs/CartPole-v1-ppo-0
    out: str = ""  # a .gif, .mp4 or .html file; by default pictures/episodes in the run folder
    episodes: int = 1
    sampled: Annotated[bool, Switch] = False  # sample the actions; else the most likely ones
    seed: int = 0  # of the episodes
    fps: float = 30.0  # environment steps in a second of the film
    max_frames: int = 300  # pictures in the file: of more steps, every second, third ...
    max_size: int = 480  # of a picture, in pixels
    checkpoint: Literal["best", "last"] | int = (
        "best"  # best, last, or that after so many iterations
    )
    import_: str = ""  # a module of yours that registers environments, imported first


def render(argv: Sequence[str]) -> int:
    """Renders the agent in a run folder."""
    flags, _ = parse(RenderFlags(), argv, "fastrl render")
    policy = _load(flags, "fastrl render")
    from fastrl.render import RenderableAsHtml
    from fastrl.render import render as render_policy

    kind = "html" if isinstance(policy.env, RenderableAsHtml) else "gif"
    path = render_policy(
        policy,
        Path(flags.out or Path(flags.run, "pictures", f"episodes.{kind}")),
        episodes=flags.episodes,
        seed=flags.seed,
        fps=flags.fps,
        max_frames=flags.max_frames,
        max_size=flags.max_size,
        deterministic=not flags.sampled,
    )
    print(path)
    return 0


@dataclasses.dataclass(frozen=True)
class PlotFlags:
    """Draws learning curves; runs that differ in nothing but their seed become one."""

    runs: Annotated[tuple[str, ...], Argument("RUN")] = ()  # run folders
    out: str = ""  # a .png, .svg or .pdf; by default pictures/learning_curve.png in the run
    metric: str | None = None  # a column of metrics.jsonl in the place of the returns


def plot(argv: Sequence[str]) -> int:
    """Plots one or several run folders."""
    flags, _ = parse(PlotFlags(), argv, "fastrl plot")
    if not flags.runs:
        raise UsageError("which runs? Name their folders: fastrl plot runs/NAME ...")
    from fastrl.plot import plot_run

    alone = Path(flags.runs[0], "pictures", "learning_curve.png")
    out = flags.out or (alone if len(flags.runs) == 1 else "learning_curves.png")
    print(plot_run(flags.runs, out, metric=flags.metric))
    return 0


def _load(flags: Any, prog: str) -> Any:
    """The policy of the run that `flags` name."""
    config_of(flags.run, prog)
    import_module(flags.import_)
    from fastrl.policy import load

    return load(flags.run, checkpoint=flags.checkpoint)
