"""What `streaming.py` makes of its lines: scores, tables with intervals, and the picture."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastrl import statistics

Row = dict[str, Any]
_TITLES = (
    ("barrier", "The stream barrier"), ("ablations", "Without one part"), ("minatar", "MinAtar"),
)  # fmt: skip
COLUMNS = 3  # panels side by side
LAST = 0.25  # share of the training over which a score is the mean return


def chosen(
    curves: np.ndarray, diverged: np.ndarray, least: float, rates: Sequence[float]
) -> dict[str, Any]:
    """Of `[R, S, P]` the best rate's: scores, mean curve, and how many have diverged.

    A point without an episode's end has the one before it; a run that diverged is at `least`.
    """
    curves = curves.copy()
    for curve in curves.reshape(-1, curves.shape[-1]):
        known = np.flatnonzero(np.isfinite(curve))
        at = np.searchsorted(known, np.arange(len(curve)), "right") - 1
        curve[:] = (
            np.where(at < 0, np.nan, curve[known[np.maximum(at, 0)]]) if len(known) else least
        )
    curves[diverged] = np.where(np.isfinite(curves[diverged]), curves[diverged], least)
    points = max(1, round(LAST * curves.shape[-1]))
    scores = np.nan_to_num(curves[..., -points:].mean(-1), nan=least)
    scores[diverged] = least
    best = int(np.argmax(scores.mean(-1)))
    return {
        "rate": rates[best] if rates else None,
        "scores": [float(f"{x:.6g}") for x in scores[best]],
        "of_rates": [float(f"{x:.6g}") for x in scores.mean(-1)],
        "diverged": int(diverged[best].sum()),
        "curves": [[float(f"{x:.5g}") for x in c] for c in np.nan_to_num(curves[best], nan=least)],
    }


def interval(scores: Any) -> statistics.Interval:
    """The mean over seeds, and its 95 % interval by the bootstrap."""
    return statistics.bootstrap(statistics.mean, np.asarray(scores, np.float64)[:, None])


def tables(rows: Sequence[Row]) -> str:
    """Markdown: the barrier, the ablations, the speed."""
    parts = []
    for part, title in _TITLES:
        mine = _of(part, rows)
        if mine:
            parts.append(f"## {title}\n\n{_table(mine, part == 'ablations')}\n")
    fast = _of("speed", rows)
    if fast:
        lines = ["| case | transitions/s | note |", "|---|---|---|"]
        lines += [f"| {r['case']} | {r['rate']:,.0f} | {r['note']} |" for r in fast]
        parts.append("## Speed\n\n" + "\n".join(lines) + "\n")
    return "\n".join(parts)


def _table(rows: Sequence[Row], against_full: bool) -> str:
    head = ["environment", "transitions", "learner", "rate", "return"]
    head += ["interquartile mean", "worst", "diverged"]
    head += ["less than full"] if against_full else []
    lines = [head, ["---"] * len(head)]
    for r in rows:
        scores = np.asarray(r["scores"])
        middle = statistics.iqm(scores[:, None])
        cells = [
            r["env"], f"{r['steps']:,}", r["learner"],
            "" if r["rate"] is None else f"{r['rate']:g}",
            _shown(interval(scores)), f"{middle:.4g}", f"{scores.min():.4g}",
            f"{r['diverged']} of {len(scores)}",
        ]  # fmt: skip
        if against_full:
            cells.append(_lost(r, rows))
        lines.append(cells)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _lost(row: Row, rows: Sequence[Row]) -> str:
    """By how much the full learner is better, over the same seeds."""
    alike = ("env", "steps", "seeds")
    full = [r for r in rows if r["learner"] == "full" and all(r[k] == row[k] for k in alike)]
    if not full or row["learner"] == "full":
        return ""
    return _shown(statistics.paired_difference(full[-1]["scores"], row["scores"]))


def _shown(x: Any) -> str:
    return f"{x.estimate:.4g} [{x.low:.4g}, {x.high:.4g}]"


def draw(rows: Sequence[Row], path: Path) -> None:
    """Mean returns against transitions with 95 % bands, a panel for each environment."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    mine = [r for part in ("barrier", "minatar") for r in longest(_of(part, rows))]
    envs = list(dict.fromkeys(r["env"] for r in mine))
    lines = -(-len(envs) // COLUMNS)
    figure, axes = pyplot.subplots(
        lines, min(len(envs), COLUMNS), squeeze=False, layout="constrained",
        figsize=(4.6 * min(len(envs), COLUMNS), 4.4 * lines),
    )  # fmt: skip
    for panel in axes.flat[len(envs) :]:
        panel.set_axis_off()
    for env, panel in zip(envs, axes.flat, strict=False):
        for r in (r for r in mine if r["env"] == env):
            _curve(panel, r)
        panel.set_title(env)
        panel.set_xlabel("thousand transitions")
        panel.grid(alpha=0.3)
        panel.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)
    for panel in axes[:, 0]:
        panel.set_ylabel("return in training")
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


def _of(part: str, rows: Sequence[Row]) -> list[Row]:
    return [r for r in rows if r["part"] == part]


def longest(rows: Sequence[Row]) -> list[Row]:
    """Of each environment the runs with the most steps, and of these each learner's most seeds."""
    steps = {r["env"]: max(o["steps"] for o in rows if o["env"] == r["env"]) for r in rows}
    best: dict[tuple[str, str], Row] = {}
    for r in (r for r in rows if r["steps"] == steps[r["env"]]):
        key = r["env"], r["learner"]
        if key not in best or best[key]["seeds"] <= r["seeds"]:
            best[key] = r
    return list(best.values())


def _curve(panel: Any, row: Row) -> None:
    """A learner's mean over seeds, and its interval by Student's t."""
    stream = row["learner"].startswith(("Stream", "AVG"))
    curves = np.asarray(row["curves"])
    x = np.linspace(0, row["steps"] / 1000, curves.shape[1] + 1)[1:]
    bands = [statistics.t_interval(column) for column in curves.T]
    mean, low, high = zip(*bands, strict=True)
    label = f"{row['learner']} ({row['seeds']} seeds)"
    (line,) = panel.plot(x, mean, "-" if stream else "--", label=label)
    panel.fill_between(x, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
