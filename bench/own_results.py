"""All seeds of one row of the results, trained and evaluated as `fastrl sweep` does it."""

import math
import time
from typing import Any

import worker

CURVE_POINTS = 50  # of a seed's learning curve


def main(settings: dict[str, Any]) -> None:
    """Says, seed by seed, what became of it; groups of seeds end together."""
    from fastrl import config
    from fastrl.cli import members, request

    request.use_devices(settings["devices"])
    run_config = config.loads(settings["config"], settings["case"])
    built = config.build(run_config)
    seeds = settings["seeds"]
    todo = [(built.hparams, built.task, seed) for seed in seeds]
    outcomes = members.train(built.algorithm, run_config.steps, todo, settings["episodes"])
    last = time.perf_counter()
    for seed, outcome in zip(seeds, outcomes, strict=True):
        now = time.perf_counter()
        value = outcome.evaluation_return
        worker.say(
            seed=seed,
            seconds=now - last,  # since the seed before, so that their sum is the wall time
            curve=curve(outcome.rows),
            **{"return": value if math.isfinite(value) else None},
        )
        last = now


def curve(rows: list[dict[str, Any]]) -> dict[str, list[float | None]]:
    """The training return against environment steps, thinned out, in five digits."""
    every = math.ceil(len(rows) / CURVE_POINTS)
    kept = rows[every - 1 :: every]
    returns = [float(row.get("episode_return", math.nan)) for row in kept]
    return {
        "steps": [row["steps"] for row in kept],
        "return": [float(f"{x:.5g}") if math.isfinite(x) else None for x in returns],
    }
