"""What agents reach with a meta-learned drift, with PPO's and with what the learning began with.

    fastrl meta-train lpo_cartpole --run-dir runs/lpo
    python bench/meta.py runs/lpo --seeds 10
    python bench/meta.py runs/lpo --only Acrobot-v1 --lifetimes 0.25 1 4
    python bench/meta.py runs/ta_lpo --against runs/lpo --lifetimes 0.25 1 4

Every line is a comparison over seeds, both sides with the same ones: `ratio` is the return with
the learned objective over the other's, the note has the paired difference with its 95 % interval.
Settings are those of the meta-training, but for the environment and what `CASES` says.
"""

import dataclasses
import functools
import sys
from typing import Any, NamedTuple

import claims
import jax
import numpy as np
import options
from report import Report, Row

import fastrl
from fastrl import meta, objectives, ppo
from fastrl.hparams import as_arrays, conform
from fastrl.kernels import prng
from fastrl.meta import evolution_fitness

EPISODES = 32  # of the evaluation at the end, sampled actions


class Case(NamedTuple):
    """An environment with a lifetime."""

    steps: int
    config: dict[str, Any] = {}  # noqa: RUF012 - never written to
    hparams: dict[str, Any] = {}  # noqa: RUF012


BASE = ppo.Config(
    num_envs=4, num_steps=64, num_epochs=8, num_minibatches=4, hidden_sizes=(32, 32)
)  # of the meta-training
RATE = 5e-3
CASES = {
    "CartPole-v1": Case(8_192),  # the meta-training's own, with the middle of its tasks
    "Acrobot-v1": Case(16_384),
    "Pendulum-v1": Case(32_768, hparams={"gamma": 0.9, "reward_scale": 0.1}),
    "bsuite/Catch-v0": Case(16_384),
    "MinAtar/Breakout-v1": Case(65_536, {"hidden_sizes": (64, 64)}),
}


def main(arguments: list[str] | None = None) -> int:
    """Compares on every case; returns the exit code."""
    parser = options.parser(__doc__)
    parser.add_argument("run", help="the folder of a meta-training that has ended")
    parser.add_argument("--only", nargs="+", choices=list(CASES), metavar="ENV")
    parser.add_argument("--seeds", type=int, default=10, help="of every side (%(default)s)")
    parser.add_argument("--rate", type=float, default=RATE, help="learning rate (%(default)s)")
    parser.add_argument("--lifetimes", nargs="+", type=float, default=[1.0], metavar="TIMES",
                        help="lengths, of each case's own")  # fmt: skip
    parser.add_argument("--against", metavar="RUN", help="of another meta-training, instead")
    parsed = parser.parse_args(arguments)
    report = Report("Meta", options.options(parsed))
    loaded = meta.load(parsed.run)
    rival = meta.load(parsed.against) if parsed.against else None
    for name in parsed.only or CASES:
        for times in parsed.lifetimes:
            for row in compared(loaded, rival, name, times, parsed.seeds, parsed.rate):
                report.add(row)
                print(f"    {row['note']}", flush=True)
    report.close()
    return 0


def compared(
    loaded: Any, rival: Any, name: str, times: float, seeds: int, rate: float
) -> list[Row]:
    """The learned objective against PPO's own and its start, or against `rival`, on one case."""
    case = CASES[name]
    steps = max(int(case.steps * times), BASE.num_envs * BASE.num_steps)
    train = functools.partial(returns, case=case, name=name, steps=steps, seeds=seeds, rate=rate)
    if rival is None:
        ours, before = train(loaded.rule, (loaded.eta, loaded.rule.init(prng.key(0))))
        (clipped,) = train(objectives.clip, ((),))
        sides = {"PPO": clipped, "its start": before}
    else:
        (ours,) = train(loaded.rule, (loaded.eta,))
        (theirs,) = train(rival.rule, (rival.eta,))
        sides = {"the other rule": theirs}
    worst = np.nanmin([ours, *sides.values()])  # what an agent gets that diverged
    ours, *others = (np.where(np.isnan(x), worst, x) for x in (ours, *sides.values()))
    sides = dict(zip(sides, others, strict=True))
    label = f"{name}, {steps:,} steps"
    note = "returns {:.4g} and {:.4g}"
    return [
        claims.row(label, peer, ours, theirs, "return", False,
                   note.format(ours.mean(), theirs.mean())) | {"bench": "meta"}
        for peer, theirs in sides.items()
    ]  # fmt: skip


def returns(
    objective: Any, etas: Any, case: Case, name: str, steps: int, seeds: int, rate: float
) -> list[np.ndarray]:
    """The final returns `[seeds]` of agents with each of `etas`, in one program."""
    env = fastrl.make(name)
    algorithm = ppo.make(env, dataclasses.replace(BASE, **case.config), objective=objective)
    hparams = ppo.HParams(learning_rate=rate, anneal_steps=float(steps))._replace(**case.hparams)
    run, task = fastrl.run(algorithm, steps), as_arrays(env.default_params())
    fitness = evolution_fitness.evaluation(algorithm, EPISODES)

    @jax.jit
    def program(keys: Any, hparams: Any) -> Any:
        def one(key: Any) -> Any:
            train_key, test_key = jax.random.split(key)
            state, metrics = run(train_key, hparams, task)
            return fitness(test_key, state, metrics, task)

        return jax.lax.map(one, keys)

    keys = jax.random.split(fastrl.key(0), seeds)
    numbers = [conform(hparams._replace(objective=eta), algorithm.default_hparams) for eta in etas]
    return [np.asarray(program(keys, h), np.float64) for h in numbers]


if __name__ == "__main__":
    sys.exit(main())
