"""The page of results: tables and learning curves out of the lines that `results.py` wrote."""

import dataclasses
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anchors
import numpy as np
from options import Options

from fastrl import statistics
from fastrl.statistics import Interval

OK, DIVERGED, FAILED = "ok", "diverged", "failed"  # the status of a line
Line = dict[str, Any]

HOW = """\
Written by [`bench/results.py`](../bench/README.md); do not edit. Every seed is trained from the
start with the config of the row, all seeds by one program, and evaluated over {episodes} whole
episodes with deterministic actions (the policy's mode) and the parameters at the end, not the
best ones. **mean** and **IQM** (interquartile mean) are over seeds; brackets hold the 95 %
interval of a stratified bootstrap with 50,000 replicates ([statistics](concepts/statistics.md));
**worst** is the lowest seed. Wall time is that of all seeds together, compiling and evaluations
included, on a machine that may have had other work.

**published** is the source's mean return of the same algorithm, of those over several seeds the
one with the nearest budget; **above**: our interval of the mean lies above it; **at**: it lies
inside; **below**. Sources measure in different ways (training returns of a sampled policy, one
tuned agent, a moving average), so read [`bench/anchors.py`](../bench/anchors.py) before the
second digit."""


@dataclasses.dataclass(frozen=True)
class Row:
    """What the page says of a config: its newest lines."""

    case: str
    lines: tuple[Line, ...]  # one for each seed
    failure: str = ""

    @property
    def first(self) -> Line:
        return self.lines[0]

    @property
    def returns(self) -> np.ndarray:
        """Of the seeds that did not diverge."""
        return np.array([x["return"] for x in self.lines if x["status"] == OK], np.float64)

    @property
    def diverged(self) -> int:
        return sum(x["status"] == DIVERGED for x in self.lines)


def write(lines: Sequence[Line], chosen: Options) -> str:
    """The page for the file of `lines`, written where `chosen` says, with its picture."""
    rows = rows_of(lines)
    picture = ""
    if chosen.plot and any(r.lines for r in rows):
        draw([r for r in rows if r.lines], Path(chosen.plot))
        here = Path(chosen.markdown).parent if chosen.markdown else Path()
        picture = Path(os.path.relpath(chosen.plot, here)).as_posix()
    text = page(rows, picture)
    if chosen.markdown:
        Path(chosen.markdown).write_text(text, encoding="utf-8")
    return text


def rows_of(lines: Sequence[Line]) -> list[Row]:
    """One row for every config and budget: the seeds of its newest settings, by name."""
    newest: dict[tuple[str, Any], list[Line]] = {}
    for line in lines:
        key = line["case"], line["steps"]
        before = newest.get(key, [])
        same = before if before and before[0]["hash"] == line["hash"] else []
        newest[key] = [*same, line]
    rows = []
    for (case, _), group in newest.items():
        seeds = {x["seed"]: x for x in group if x["status"] != FAILED}  # the last of each
        failure = group[-1]["note"] if group[-1]["status"] == FAILED else ""
        rows.append(Row(case, tuple(seeds[s] for s in sorted(seeds)), failure))
    return sorted(rows, key=lambda r: (r.lines[0]["env"] if r.lines else "~", r.case))


def page(rows: Sequence[Row], picture: str = "") -> str:
    """The page as markdown."""
    shown = [r for r in rows if len(r.returns)]
    episodes = " or ".join(sorted({str(r.first["episodes"]) for r in shown})) or "100"
    parts = ["# Results", HOW.format(episodes=episodes)]
    if picture:
        parts.append(f"![Learning curves]({picture})")
    parts.append(_table(HEAD, [_cells(r) for r in shown]) if shown else "Nothing has been run yet.")
    others = [cells for r in shown for cells in _others(r)]
    if others:
        parts += ["## All published returns", _table(OTHERS_HEAD, others)]
    bounds = [cells for r in shown for cells in _bounds(r)]
    if bounds:
        text = "What a correct learner must pass: the interval of the mean lies above the bound."
        parts += ["## Bounds", text, _table(BOUNDS_HEAD, bounds)]
    lost = [[r.case, r.failure or "all seeds diverged"] for r in rows if r.failure or _lost(r)]
    if lost:
        parts += ["## Failed", _table(("config", "reason"), lost)]
    if shown:
        commands = "\n".join(dict.fromkeys(r.first["command"] for r in shown))
        parts += ["## Commands", f"```console\n{commands}\n```"]
        parts += ["## Machine", "\n".join(_machines(shown))]
    return "\n\n".join(parts) + "\n"


HEAD = ("algorithm", "environment", "steps", "seeds", "mean", "IQM", "worst", "wall time",
        "published", "", "config")  # fmt: skip
OTHERS_HEAD = ("algorithm", "environment", "ours", "our steps", "published", "steps", "runs",
               "source", "")  # fmt: skip
BOUNDS_HEAD = ("algorithm", "environment", "mean", "bound", "")


def _cells(row: Row) -> list[str]:
    mean, iqm = (statistics.bootstrap(f, row.returns) for f in (statistics.mean, statistics.iqm))
    line = row.first
    asked = row.lines[-1]["seeds"]
    seeds = f"{len(row.lines)}" + (f" of {asked}" if len(row.lines) < asked else "")
    seeds += f", {row.diverged} diverged" if row.diverged else ""
    anchor = anchors.nearest(line["algorithm"], line["env"], line["steps"])
    published = "-"
    if anchor:
        published = f"{_published(anchor)} ({anchor.source}, {_count(anchor.steps)})"
    return [
        line["algorithm"], line["env"], _count(line["steps"]), seeds, _shown(mean), _shown(iqm),
        f"{row.returns.min():.4g}", _seconds(sum(x["seconds"] for x in row.lines)), published,
        _judged(row, mean, anchor.value) if anchor else "", f"`{row.case}`",
    ]  # fmt: skip


def _others(row: Row) -> list[list[str]]:
    """A line for every published return of the row's algorithm on its environment."""
    line, mean = row.first, statistics.bootstrap(statistics.mean, row.returns)
    return [
        [line["algorithm"], line["env"], _shown(mean), _count(line["steps"]), _published(a),
         _count(a.steps), str(a.runs), a.source, _judged(row, mean, a.value)]
        for a in anchors.of(line["algorithm"], line["env"])
    ]  # fmt: skip


def _bounds(row: Row) -> list[list[str]]:
    line = row.first
    bound = anchors.bound(line["algorithm"], line["env"])
    if bound is None:
        return []
    mean = statistics.bootstrap(statistics.mean, row.returns)
    passed = "passed" if mean.low > bound and not row.diverged else "not passed"
    return [[line["algorithm"], line["env"], _shown(mean), f"{bound:g}", passed]]


def _judged(row: Row, mean: Interval, value: float) -> str:
    """The verdict; where seeds diverged there is none, for their returns are not in the mean."""
    return "diverged" if row.diverged else anchors.verdict(mean.low, mean.high, value)


def _lost(row: Row) -> bool:
    return bool(row.lines) and not len(row.returns)


def _shown(interval: Interval) -> str:
    return f"{interval.estimate:.4g} [{interval.low:.4g}, {interval.high:.4g}]"


def _published(anchor: anchors.Anchor) -> str:
    spread = "" if anchor.spread is None else f" ± {anchor.spread:g}"
    return f"{anchor.value:g}{spread}"


def _count(steps: float) -> str:
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if steps >= size:
            return f"{steps / size:.4g}{letter}"
    return f"{steps:g}"


def _seconds(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(c.replace("|", "\\|") for c in x) + " |" for x in lines)


def _machines(rows: Sequence[Row]) -> list[str]:
    """The machines and versions that the rows come from, each once."""
    told: dict[str, list[str]] = {}
    for row in rows:
        m = row.lines[-1]["machine"]
        packages = ", ".join(f"{name} {version}" for name, version in m["versions"].items())
        text = (
            f"{m['processor']}, {m['cores']} cores, {m['device']}; Python {m['python']}, {packages}"
        )
        told.setdefault(text, []).append(row.case)
    if len(told) == 1:
        return [next(iter(told)) + "."]
    return [f"- {text}: {', '.join(names)}." for text, names in told.items()]


def draw(rows: Sequence[Row], path: Path) -> None:
    """A panel for each environment: the training return, mean over seeds and their 5 to 95 %."""
    from matplotlib.figure import Figure

    from fastrl.plot import COLOURS, short

    envs = sorted({r.first["env"] for r in rows})
    width = min(3, len(envs))
    height = math.ceil(len(envs) / width)
    figure = Figure(figsize=(4.0 * width, 2.8 * height), layout="constrained")
    panels = np.ravel(figure.subplots(height, width, squeeze=False))
    for panel, env in zip(panels, envs, strict=False):
        here = [r for r in rows if r.first["env"] == env]
        for i, row in enumerate(here):
            _draw_row(panel, row, COLOURS[i % len(COLOURS)])
        budgets = [r.first["steps"] for r in here]
        if max(budgets) >= 10 * min(budgets):
            panel.set_xscale("log")
        panel.set_title(env, fontsize=9)
        panel.xaxis.set_major_formatter(lambda x, _: short(x))
        panel.tick_params(labelsize=8)
        panel.legend(fontsize=7, frameon=False)
    for panel in panels[len(envs) :]:
        panel.set_axis_off()
    figure.supxlabel("environment steps", fontsize=9)
    figure.supylabel("training return", fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def _draw_row(panel: Any, row: Row, colour: str) -> None:
    curves = [x["curve"] for x in row.lines]
    steps = np.array(curves[-1]["steps"], np.float64)
    alike = [c["return"] for c in curves if len(c["steps"]) == len(steps)]
    values = np.array(alike, np.float64)  # [seeds, points], None as NaN
    full = np.isfinite(values).all(0)
    if not full.any():
        return
    band = statistics.percentile_band(values[:, full])
    panel.plot(steps[full], values[:, full].mean(0), color=colour, label=row.case)
    panel.fill_between(steps[full], band.low, band.high, color=colour, alpha=0.15, linewidth=0)
