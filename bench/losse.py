"""What is claimed of Losse-FTL: it does not forget, and Dyna on it is as good as on replay.

    python bench/losse.py --only forgetting --seeds 10
    python bench/losse.py --only dyna --seeds 10 --steps 5000 --json losse.jsonl

"forgetting": one pass over a stream whose inputs wander (`fastrl.model_based.drift`), another
function and stream for every seed; `ratio` is the other model's error over Losse's, on the places
of the first half, after the last pair.  "dyna": the mean return of all episodes of a short life, on
the same Dyna-Q with another model.  The notes have paired differences over seeds with their 95 %
intervals, by Student's t.
"""

import functools
import sys
from typing import Any

import claims
import jax
import numpy as np
import options
from report import Report, Row

import fastrl
from fastrl import statistics
from fastrl.model_based import drift, dyna, losse, mlp_model
from fastrl.model_based.model import Model, ModelHParams

PLACES, PAIRS, INPUTS = 8, 500, 2
EARLY = PLACES // 2
TASKS = {"CartPole-v1": 4_000, "bsuite/Catch-v0": 4_000, "Acrobot-v1": 8_000}  # steps


def main(arguments: list[str] | None = None) -> int:
    """Measures the claims; returns the exit code."""
    parser = options.parser(__doc__)
    parser.add_argument("--only", nargs="+", choices=["forgetting", "dyna"], metavar="CLAIM",
                        default=["forgetting", "dyna"], help="of forgetting, dyna")  # fmt: skip
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), metavar="ENV",
                        help="of dyna (%(default)s)")  # fmt: skip
    parser.add_argument("--seeds", type=int, default=10, help="of every side (%(default)s)")
    parsed = parser.parse_args(arguments)
    chosen = options.options(parsed)
    report = Report("Losse", chosen)
    parts = [functools.partial(forgetting, parsed.seeds)] if "forgetting" in parsed.only else []
    for name in parsed.tasks if "dyna" in parsed.only else ():
        steps = chosen.steps or TASKS.get(name, 5_000)
        parts.append(functools.partial(planning, name, parsed.seeds, steps))
    for part in parts:
        for made in part():
            report.add(made | {"bench": "losse"})
            print(f"    {made['note']}", flush=True)
    report.close()
    return 0


def forgetting(seeds: int) -> list[Row]:
    """Errors of the early places at the end, and by how much they have grown since then."""
    models = {
        "losse": losse.model(losse.Grids(INPUTS), 1),
        "network without replay": mlp_model.model(mlp_model.Shape(INPUTS, 1)),
        "network with replay": mlp_model.model(mlp_model.Shape(INPUTS, 1, batch_size=32)),
    }
    found = {name: _passed(model, seeds) for name, model in models.items()}
    rows = []
    for name in list(models)[1:]:
        end, grown = found["losse"][0], found["losse"][1]
        interval = statistics.t_interval(grown)
        others = statistics.t_interval(found[name][1])
        note = (
            f"grown by {interval.estimate:.2g} [{interval.low:.2g}, {interval.high:.2g}] since "
            f"they were learned; the other's by {others.estimate:.2g} [{others.low:.2g}, "
            f"{others.high:.2g}]"
        )
        rows.append(claims.row("early places", name, end, found[name][0], "squared error", True,
                               note))  # fmt: skip
    return rows


def _passed(model: Model, seeds: int) -> tuple[np.ndarray, np.ndarray]:
    """Of each seed the error of early places after the pass, and its growth since their own."""

    def one(key: Any) -> Any:
        data_key, model_key = jax.random.split(key)
        data = drift.stream(data_key, PLACES, PAIRS, INPUTS)
        return drift.errors(model, model_key, data, ModelHParams())

    keys = jax.random.split(jax.random.key(0), seeds)
    errors = np.asarray(jax.jit(lambda k: jax.lax.map(one, k))(keys), np.float64)
    at_the_time = errors[:, np.arange(1, EARLY + 1), np.arange(EARLY)]
    end = errors[:, -1, :EARLY]
    return end.mean(-1), (end - at_the_time).mean(-1)


def planning(name: str, seeds: int, steps: int) -> list[Row]:
    """Returns of a whole life on Losse, and on networks."""
    env, found = fastrl.make(name), {}
    for model in ("losse", "mlp_replay", "mlp"):
        algorithm = dyna.make(env, dyna.Config(model=model, num_steps=max(steps // 20, 1)))
        _, metrics = claims.trained(algorithm, dyna.HParams(), steps, seeds)
        found[model] = claims.curves(metrics).mean(1)
    peers = {"mlp_replay": "network with replay", "mlp": "network without replay"}
    case, note = f"Dyna-Q, {name}", f"mean over {steps:,} steps"
    return [
        claims.row(case, peer, found["losse"], found[model], "return", False, note)
        for model, peer in peers.items()
    ]


if __name__ == "__main__":
    sys.exit(main())
