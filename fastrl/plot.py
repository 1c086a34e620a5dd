"""`plot_run`: learning curves from run folders."""

import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastrl.curves import Curve, Groups, Run, curves_of, group, read_run, summarise
from fastrl.files import replacing
from fastrl.registry import unknown

TRAINING, EVALUATION = "episode_return", "evaluation_return"
SUFFIXES = (".png", ".svg", ".pdf")

# Okabe and Ito's palette, which colour-blind readers can tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F")
DASHES = ("-", "--", ":")  # for more settings than there are colours
INK, LIGHT = "#30343F", "#E4E6EA"
MOST_INSIDE, WIDEST_INSIDE = 6, 40  # entries, and letters of one, of a legend inside the axes
_NAMES = {TRAINING: "training return", EVALUATION: "evaluation return"}


def plot_run(
    runs: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    path: str | os.PathLike[str],
    *,
    metric: str | None = None,
) -> Path:
    """Draws the learning curves of one or several run folders to a `.png`, `.svg` or `.pdf`.

    The return of training episodes is a thin line, that of evaluations a thick one, both
    against environment steps.  Runs that differ in nothing but their seed are one curve: their
    mean, and its 95 % interval (bootstrap over runs) as a band.  `metric` draws another column
    of the logs in place of the returns.

    Returns the path.  The file appears whole or not at all.
    Raises ValueError if a folder holds no run or no such metric, OSError if the file cannot be
    written.
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"{str(path)!r}: the name must end in {', '.join(SUFFIXES)}")
    folders = [runs] if isinstance(runs, (str, os.PathLike)) else list(runs)
    if not folders:
        raise ValueError("no run folders to plot")
    groups = group([read_run(folder) for folder in folders])
    metrics = [EVALUATION, TRAINING] if metric is None else [metric]
    loaded = [run for members in groups.values() for run in members]
    if not any(curves_of([run], m) for run in loaded for m in metrics):
        raise ValueError(_nothing_to_show(loaded, metrics))
    with replacing(path) as temporary:
        figure(groups, metrics).savefig(temporary, dpi=160, facecolor="white")
    return path


def title(groups: Groups) -> str:
    """What all runs have in common, such as "PPO on CartPole-v1"; empty if nothing."""
    runs = [r for members in groups.values() for r in members]
    algorithms = {r.settings.get("algorithm", "") for r in runs}
    envs = {r.settings.get("env", "") for r in runs}
    algorithm, env = (n.pop().split(":")[-1] if len(n) == 1 else "" for n in (algorithms, envs))
    algorithm = algorithm.upper() if len(algorithm) <= 4 else algorithm
    return " on ".join(n for n in (algorithm, env) if n)


def figure(groups: Groups, metrics: Sequence[str]) -> Any:
    """The picture: for each group a line and a band per metric."""
    from matplotlib.figure import Figure

    curves = {label: _curves_by_metric(runs, metrics) for label, runs in groups.items()}
    shown = [m for m in metrics if any(m in c for c in curves.values())]
    picture = Figure(figsize=(6.4, 3.8), layout="constrained")
    axes = picture.add_subplot()
    for i, (label, by_metric) in enumerate(curves.items()):
        colour, dashes = COLOURS[i % len(COLOURS)], DASHES[i // len(COLOURS) % len(DASHES)]
        if len(curves) > 1:  # for the legend
            axes.plot([], [], color=colour, linewidth=2.0, linestyle=dashes, label=label)
        for metric in reversed(by_metric):  # what is read first is drawn last, on top
            _draw(axes, by_metric[metric], colour, dashes, strong=metric == shown[0])
    if len(shown) > 1:
        colour = INK if len(curves) > 1 else COLOURS[0]
        for metric in shown:
            axes.plot([], [], color=colour, label=_NAMES[metric], **_style(metric == shown[0]))
    _decorate(axes, "return" if len(shown) > 1 else _NAMES.get(shown[0], shown[0]))
    axes.set_title(title(groups), loc="left", fontsize=10.5, color=INK)
    _explain(axes, curves)
    _legend(picture, axes)
    return picture


def _curves_by_metric(runs: Sequence[Run], metrics: Sequence[str]) -> dict[str, list[Curve]]:
    return {m: curves for m in metrics if (curves := curves_of(runs, m))}


def _draw(axes: Any, curves: list[Curve], colour: str, dashes: str, strong: bool) -> None:
    """The mean of `curves` with its interval: `strong`, or thin, pale and without a band."""
    summary = summarise(curves)
    few = len(summary.steps) <= 25
    marker: dict[str, Any] = {"marker": "o", "markersize": 3.5} if strong and few else {}
    marker |= {"color": colour, "linestyle": dashes}
    axes.plot(summary.steps, summary.mean, **_style(strong), **marker)
    if strong and len(curves) > 1:
        band = {"color": colour, "alpha": 0.18, "linewidth": 0, "zorder": 1.5}
        axes.fill_between(summary.steps, summary.low, summary.high, **band)


def _style(strong: bool) -> dict[str, Any]:
    return {"linewidth": 2.0 if strong else 0.9, "alpha": 1.0 if strong else 0.5}


def _decorate(axes: Any, ylabel: str) -> None:
    """Axes that recede behind the curves, steps in k and M."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axes.set_xlabel("environment steps", color=INK)
    axes.set_ylabel(ylabel, color=INK)
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: short(x)))
    axes.grid(color=LIGHT, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set_xlim(left=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(INK)
    axes.tick_params(colors=INK, labelsize=9, length=0)


def _legend(picture: Any, axes: Any) -> None:
    """A legend where it is needed: inside the axes, or below them if it is long or wide."""
    handles, labels = axes.get_legend_handles_labels()
    if not handles:
        return
    widest = max(map(len, labels))
    style: dict[str, Any] = {"fontsize": 9, "labelcolor": INK, "frameon": False}
    if len(handles) <= MOST_INSIDE and widest <= WIDEST_INSIDE:
        axes.legend(handles, labels, loc=_place(axes, len(handles)), **style)
        return
    columns = 1 if widest > WIDEST_INSIDE else 2
    picture.set_figheight(picture.get_figheight() + 0.2 * math.ceil(len(handles) / columns))
    picture.legend(handles, labels, loc="outside lower left", ncols=columns, **style)


def _place(axes: Any, entries: int) -> str:
    """Where a legend goes inside the axes: lower right if the curves end above it."""
    (_, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    ends = [line.get_ydata()[line.get_xdata() > 0.6 * right] for line in axes.lines]
    lowest = min((y.min() for y in map(np.asarray, ends) if y.size), default=bottom)
    is_free = (lowest - bottom) / (top - bottom) > 0.07 * entries + 0.05
    return "lower right" if is_free else "best"


def _explain(axes: Any, curves: dict[str, dict[str, list[Curve]]]) -> None:
    """Says what the band is, where there is one."""
    numbers = {len(members) for by_metric in curves.values() for members in by_metric.values()}
    if max(numbers) > 1:
        runs = f"{min(numbers)} to {max(numbers)}" if len(numbers) > 1 else f"{max(numbers)}"
        text = f"mean of {runs} runs, band: 95 % interval"
        axes.set_title(text, loc="right", fontsize=8.5, color="#7A808C")


def short(number: float) -> str:
    """A number of steps as a label: 1500 is "1.5k", 2e6 "2M"."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= size:
            return f"{number / size:.6g}{unit}"
    return f"{number:g}"


def _nothing_to_show(runs: Sequence[Run], metrics: Sequence[str]) -> str:
    """Why there is nothing to draw."""
    names = ", ".join(r.name for r in runs)
    if not any(r.rows for r in runs):
        return f"nothing to plot in {names}: the log has no rows yet"
    known = {k for r in runs for row in r.rows for k in row} - {"iteration", "steps"}
    known = {k for k in known if any(curves_of([r], k) for r in runs)}
    if len(metrics) == 1:
        return f"nothing to plot in {names}: {unknown('metric', metrics[0], known)}"
    return (
        f"nothing to plot in {names}: no episode has ended yet; metrics: {', '.join(sorted(known))}"
    )
