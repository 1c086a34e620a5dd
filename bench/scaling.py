"""PPO CartPole: steps/s against environments, members, width and devices.

    python bench/scaling.py --axis envs width --plot scaling.png

The ratio is the rate over that of the first size of its axis, in alternating rounds.
"""

import statistics
import sys
from pathlib import Path
from typing import Any

import arena
import contest
import options
import report
import training
from options import Options
from report import Report, Row

AXES = ("envs", "members", "width", "devices")


def main(arguments: list[str] | None = None) -> int:
    """Runs the benchmark; returns the exit code."""
    parser = options.parser(__doc__)
    parser.add_argument("--axis", nargs="+", choices=AXES, default=AXES)
    parsed = parser.parse_args(arguments)
    chosen = options.options(parsed)
    written = Report("Scaling of PPO CartPole", options.without_plot(chosen))
    for axis in parsed.axis:
        written.add(*series(axis, chosen))
    written.close()
    if chosen.plot:
        draw(written.rows, Path(chosen.plot))
    return 0


def sizes(axis: str, chosen: Options) -> list[int]:
    """The sizes along `axis`, the first of which is the base."""
    here = report.machine()
    devices = here["cores"] if here["device"] == "cpu" else here["devices"]
    return {
        "envs": list(chosen.num_envs or (4, 16, 64, 256, 1024, 4096)),
        "members": [1, 2, 4, 8, 16],
        "width": [16, 64, 128, 256],
        "devices": sorted({1, *(n for n in (2, 4, 8) if n <= devices)}),
    }[axis]


def case(axis: str, size: int, chosen: Options) -> dict[str, Any]:
    """The settings of one size."""
    base = training.CARTPOLE | {"hparams": training.CARTPOLE_HPARAMS, "num_envs": 64}
    base |= {"set": training.extra(chosen)}
    changed: dict[str, Any] = {
        "envs": {"num_envs": size},
        "members": {"num_envs": 4, "members": size, "devices": _member_devices()},
        "width": {"num_envs": 256, "hidden_sizes": [size, size]},
        "devices": {"num_envs": 1024, "devices": size},
    }[axis]
    settings = base | changed
    total = chosen.steps or 2**17
    return settings | {"steps": training.whole(settings, total // settings.get("members", 1))}


def series(axis: str, chosen: Options) -> list[Row]:
    """A row for each size along `axis`."""
    steps = sizes(axis, chosen)
    settings = [case(axis, size, chosen) for size in steps]
    contestants = [arena.own("own_training", s) for s in settings]
    results = contest.compete(contestants, chosen.rounds, chosen.timeout)
    rows = []
    for size, used, result in zip(steps, settings, results, strict=True):
        row = report.row("scaling", f"{axis} {size}", used, result, None)
        per_round = contest.ratios(result.rates, results[0].rates)
        ratio = statistics.median(per_round) if per_round else None
        rows.append(row | {"axis": axis, "size": size, "ratio": ratio, "ratios": per_round})
    return rows


def draw(rows: list[Row], path: Path) -> None:
    """Steps/s against the size, one panel for each axis."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    axes = list(dict.fromkeys(r["axis"] for r in rows))
    figure, panels = pyplot.subplots(
        1, len(axes), figsize=(3.2 * len(axes), 3), squeeze=False, layout="constrained"
    )
    for axis, panel in zip(axes, panels[0], strict=True):
        points = [(r["size"], r["fastrl"]) for r in rows if r["axis"] == axis and r["fastrl"]]
        panel.loglog(*zip(*points, strict=True), marker="o", color="#4269d0")
        panel.set_xlabel(axis)
        panel.set_ylabel("steps/s")
        panel.grid(alpha=0.3, which="both")
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def _member_devices() -> int | None:
    """One device per core on CPU; members that do not divide among them go one by one."""
    here = report.machine()
    return here["cores"] if here["device"] == "cpu" else None


if __name__ == "__main__":
    sys.exit(main())
