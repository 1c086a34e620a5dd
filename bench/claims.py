"""What the papers on sampling and exploration claim, measured here: direction, with intervals.

    python bench/claims.py --only props subpo --seeds 10
    python bench/claims.py --json claims.jsonl --markdown claims.md

Every line is a comparison: `ratio` is what the baseline needs over what the method needs (steps,
trajectories), or the method's return over the baseline's; the note has the paired difference over
seeds with its 95 % interval, by Student's t.  Both sides have the same seeds.
"""

import dataclasses
import functools
import math
import sys
from collections.abc import Callable
from typing import Any

import claims_policy_gradient
import claims_tasks
import jax
import jax.numpy as jnp
import numpy as np
import options
from report import Report, Row

import fastrl
from fastrl import effective_horizon, ppo, props, snapshots, statistics, subpo

Claim = Callable[[int, int | None], list[Row]]  # (seeds, steps) -> rows


def main(arguments: list[str] | None = None) -> int:
    """Measures the claims; returns the exit code."""
    parser = options.parser(__doc__)
    parser.add_argument("--only", nargs="+", choices=list(CLAIMS), metavar="CLAIM",
                        help=f"of {', '.join(CLAIMS)}")  # fmt: skip
    parser.add_argument("--seeds", type=int, default=10, help="of every side (%(default)s)")
    parsed = parser.parse_args(arguments)
    chosen = options.options(parsed)
    report = Report("Claims", chosen)
    for name in parsed.only or CLAIMS:
        for row in CLAIMS[name](parsed.seeds, chosen.steps):
            report.add(row)
            print(f"    {row['note']}", flush=True)
    report.close()
    return 0


def trained(algorithm: Any, hparams: Any, steps: float, seeds: int) -> Any:
    """The states and metrics `[seeds, iterations]` of so many trainings in one program."""
    task = algorithm.env.default_params()
    task = jax.tree.map(lambda x: jnp.stack([x] * seeds) if jnp.ndim(x) else x, task)
    keys = jax.random.split(jax.random.key(0), seeds)
    return jax.device_get(jax.jit(fastrl.members(algorithm, steps))(keys, hparams, task))


def curves(metrics: Any, name: str = "episode_return") -> np.ndarray:
    """Mean returns `[seeds, iterations]`; where no episode ended, the last one that did counts."""
    total, weight = (np.asarray(x, np.float64) for x in metrics[name])
    with np.errstate(invalid="ignore"):
        mean = total / weight
    for row in mean:
        seen = np.flatnonzero(np.isfinite(row))
        last = np.searchsorted(seen, np.arange(len(row)), "right") - 1
        row[:] = row[seen[np.maximum(last, 0)]]
    return mean


def needed(algorithm: Any, heights: np.ndarray, threshold: float, over: int = 5) -> np.ndarray:
    """Steps until the mean of `over` iterations is at `threshold`, `[seeds]`; else all of them."""
    kernel = np.ones(over) / over
    smooth = np.stack([np.convolve(row, kernel, "valid") for row in heights])
    steps = algorithm.steps_per_iteration * np.arange(over, heights.shape[1] + 1)
    return statistics.time_to_threshold(steps, smooth, threshold).times


def row(
    case: str, peer: str, ours: np.ndarray, theirs: np.ndarray, unit: str, less: bool,
    note: str = "",
) -> Row:  # fmt: skip
    """A comparison over seeds; `less` says that less is better, as with steps."""
    interval = statistics.paired_difference(theirs if less else ours, ours if less else theirs)
    means = float(np.mean(ours)), float(np.mean(theirs))
    better = f"{'saves' if less else 'gains'} {interval.estimate:.4g}"
    text = f"{better} {unit} [{interval.low:.4g}, {interval.high:.4g}], {len(ours)} seeds"
    return {
        "bench": "claims", "case": case, "settings": {}, "peer": peer, "variant": "",
        "status": "ok", "note": "; ".join(filter(None, (text, note))),
        "ratio": means[1] / means[0] if less else means[0] / means[1], "ratios": [],
        "unit": unit, "fastrl": means[0], "peer_rate": means[1],
        "interval": list(interval), "values": np.asarray(ours).tolist(),
        "peer_values": np.asarray(theirs).tolist(),
    }  # fmt: skip


PROPS_TASKS = {"CartPole-v1": (15_000, 150.0), "bsuite/Catch-v0": (12_000, 0.5)}  # steps, threshold


def on_policy_data(seeds: int, steps: int | None) -> list[Row]:
    """PROPS: less sampling error at every update; fewer steps than PPO with and without reuse."""
    rows = []
    for name, (budget, threshold) in PROPS_TASKS.items():
        env, budget = fastrl.make(name), steps or budget
        base = props.Config(
            num_envs=1, num_steps=256, num_epochs=10, num_minibatches=4, hidden_sizes=(64, 64),
            buffer_rollouts=2, behaviour_steps=16, error_fit_steps=100,
        )  # fmt: skip
        variants = {
            "props": base,
            "PPO, reuse": dataclasses.replace(base, sampler="on_policy"),
            "PPO": dataclasses.replace(base, sampler="on_policy", buffer_rollouts=1),
        }
        found = {}
        for variant, config in variants.items():
            algorithm = props.make(env, config)
            _, metrics = trained(algorithm, props.HParams(), budget, seeds)
            errors = curves(metrics, "sampling_error")
            found[variant] = needed(algorithm, curves(metrics), threshold), errors
        for peer in ("PPO, reuse", "PPO"):
            note = f"to a return of {threshold}"
            rows.append(row(f"PROPS, {name}", peer, found["props"][0], found[peer][0], "steps",
                            True, note))  # fmt: skip
        ours, theirs = found["props"][1], found["PPO, reuse"][1]
        lower = (ours.mean(0) < theirs.mean(0)).mean()
        note = f"lower at {100 * lower:.0f} % of {ours.shape[1]} updates (means over seeds)"
        rows.append(row(f"sampling error, {name}", "PPO, reuse", ours.mean(1), theirs.mean(1),
                        "nats", True, note))  # fmt: skip
        rows.append(_paired_errors(env, base, min(budget, 5_000), seeds))
    return rows


def _paired_errors(env: Any, config: props.Config, steps: int, seeds: int) -> Row:
    """At every update the same policy and start collects in both ways, without reuse."""
    config = dataclasses.replace(config, buffer_rollouts=1)
    ours = props.make(env, config)
    twin = props.make(env, dataclasses.replace(config, sampler="on_policy"))
    hparams, task = props.HParams(), env.default_params()

    def training(key: Any) -> Any:
        def body(state: Any, _: Any) -> Any:
            other = twin.step(state, hparams, task)[1]["sampling_error"].total
            state, metrics = ours.step(state, hparams, task)
            return state, (metrics["sampling_error"].total, other)

        state = ours.init(fastrl.key(key), hparams, task)
        return jax.lax.scan(body, state, None, steps // ours.steps_per_iteration)[1]

    errors, others = jax.device_get(jax.jit(lambda k: jax.lax.map(training, k))(jnp.arange(seeds)))
    lower = (errors.mean(0) < others.mean(0)).mean()
    note = f"same policies: lower at {100 * lower:.0f} % of {errors.shape[1]} updates"
    name = type(env).__name__
    return row(f"sampling error, {name}, paired", "on-policy", errors.mean(1), others.mean(1),
               "nats", True, note)  # fmt: skip


def snapshot_starts(seeds: int, steps: int | None) -> list[Row]:
    """S3RL: the mean return over training from a teacher's snapshots, against the plain learner."""
    rows = []
    for case in claims_tasks.students():
        budget = steps or case.steps
        teacher = case.make(case.env, None)
        program = jax.jit(fastrl.run(teacher, case.teacher_steps))
        state, _ = program(jax.random.key(99), case.hparams, case.env.default_params())
        store = snapshots.collect(
            teacher, state, status=case.status, rewind=case.rewind, max_steps=case.longest
        )
        env = snapshots.Visits(case.env)
        starts = snapshots.Starts(store, steps=budget // 2, visit=case.visit)
        ends = {}
        for kind, student in {"S3RL": case.make(env, starts), "plain": teacher}.items():
            ends[kind] = claims_tasks.checkpoints(student, case, budget, seeds).mean(1)
        note = (f"mean return at {claims_tasks.POINTS} points of {budget} steps; teacher "
                f"{store.returns.mean():.4g}, {store.size} snapshots")  # fmt: skip
        rows.append(row(f"S3RL {case.name}", "plain", ends["S3RL"], ends["plain"], "return",
                        False, note))  # fmt: skip
    return rows


def shallow_iteration(seeds: int, steps: int | None) -> list[Row]:
    """The depth k that solves a process, against the steps that deep learners need for it."""
    suite = claims_tasks.processes()
    analyses = [effective_horizon.effective_horizon(m) for m in suite]
    depths = np.array([a.k for a in analyses], float)
    horizons = np.array([a.stochastic for a in analyses])
    rows = []
    for name, algorithm, hparams in claims_tasks.solvers():
        budget = steps or claims_tasks.SOLVER_STEPS
        times = np.stack([
            claims_tasks.times_to_solve(algorithm, hparams, suite, analyses, budget, seed)
            for seed in range(min(seeds, 3))
        ])  # fmt: skip
        for what, x in (("k", depths), ("H", horizons)):
            value, low, high = rank_correlation(x, np.median(times, axis=0))
            text = f"rank correlation of {what} with steps: {value:.2f} [{low:.2f}, {high:.2f}]"
            solved = float((times < budget).mean())
            rows.append({
                "bench": "claims", "case": f"{what} and {name}'s steps, {len(suite)} processes",
                "settings": {}, "peer": None, "variant": "", "status": "ok",
                "note": f"{text} over processes; {100 * solved:.0f} % solved in {budget} steps",
                "ratio": None, "ratios": [], "unit": "rank correlation", "fastrl": value,
                "interval": [value, low, high],
            })  # fmt: skip
    return rows


def rank_correlation(x: np.ndarray, y: np.ndarray, draws: int = 4000) -> tuple[float, ...]:
    """Spearman's, and its 95 % interval by resampling the pairs."""
    from scipy.stats import spearmanr

    random = np.random.default_rng(0)
    drawn = []
    while len(drawn) < draws:
        at = random.integers(len(x), size=len(x))
        if len(set(x[at])) > 1 and len(set(y[at])) > 1:
            drawn.append(spearmanr(x[at], y[at])[0])
    low, high = np.percentile(drawn, [2.5, 97.5])
    value: Any = spearmanr(x, y)[0]
    return float(value), float(low), float(high)


def diminishing_returns(seeds: int, steps: int | None) -> list[Row]:
    """SubPO on grids whose walks can all be tried, against additive PPO and the greedy constant."""
    rows = []
    for name, env in claims_tasks.walks().items():
        best, greedy = claims_tasks.best_walk(env), claims_tasks.greedy_walk(env)
        budget = steps or 80_000
        found = {}
        for kind, sees in (
            ("SubPO", env),
            ("SubPO, history", dataclasses.replace(env, history=True)),
        ):
            config = subpo.Config(num_trajectories=32, horizon=env.horizon, hidden_sizes=(32,))
            found[kind] = _played(subpo.make(sees, config), subpo.HParams(), sees, budget, seeds)
        additive = dataclasses.replace(env, additive=True)
        config = ppo.Config(num_envs=32, num_steps=env.horizon, num_minibatches=4,
                            hidden_sizes=(32,))  # fmt: skip
        hparams = ppo.HParams(learning_rate=3e-3, gamma=1.0)
        found["PPO, additive"] = _played(ppo.make(additive, config), hparams, env, budget, seeds)
        note = f"greedy walk {greedy:.3f}, best {best:.3f}"
        constant = np.full(seeds, (1 - 1 / math.e) * best)
        for kind in ("SubPO", "SubPO, history"):
            case = f"{kind}, {name}"
            peer = found["PPO, additive"]
            rows.append(row(case, "PPO, additive", found[kind], peer, "return", False, note))
            rows.append(row(case, "(1 - 1/e) best", found[kind], constant, "return", False, note))
    return rows


def _played(algorithm: Any, hparams: Any, env: Any, steps: int, seeds: int) -> np.ndarray:
    """What the policies gain, sampled, on `env` itself: mean of 50 episodes, `[seeds]`."""
    states, _ = trained(algorithm, hparams, steps, seeds)
    one = lambda i: jax.tree.map(lambda x: jnp.asarray(x[i]), states)  # noqa: E731
    play = functools.partial(fastrl.evaluate, algorithm, env=env, episodes=50, deterministic=False)
    return np.array([play(state=one(i)).mean_return for i in range(seeds)])


CLAIMS: dict[str, Claim] = {
    "props": on_policy_data,
    "snapshots": snapshot_starts,
    "sqirl": shallow_iteration,
    "policy_gradient": lambda seeds, steps: claims_policy_gradient.rows(seeds, steps, row),
    "subpo": diminishing_returns,
}


if __name__ == "__main__":
    sys.exit(main())
