"""What learned rules are worth: by which curriculum, by which outer learner, at which lifetime.

    python bench/meta_rules.py groove --seeds 5 --runs runs/groove
    python bench/meta_rules.py lifetimes --seeds 3 --runs runs/lifetimes
    python bench/meta_rules.py worlds --seeds 2

`groove`: LPG meta-trained by gradients on `small` grid worlds with the same budget, its levels
curated by algorithmic regret, by random scores, or random; agents are compared on levels of that
mode that were not seen and on modes that were not.  `lifetimes`: LPG and TA-LPG on `debug` grid
worlds, by evolution and by gradients, with lives of 10, 20 and 40 updates; agents live 5, 20 and
80 updates on that mode and on `small`, beside an actor-critic.  `worlds`: LPG by evolution the
other way round.  Rules are kept in the folder `--runs`, and those that are there are not learned
again.

Both sides of a comparison have the same levels and keys.  Intervals are over meta-seeds between
rules, and over agents' seeds, meta-seeds averaged, against an actor-critic or the start.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import claims
import jax
import jax.numpy as jnp
import numpy as np
import options
from report import Report, Row

from fastrl import meta
from fastrl.envs.grid_world import GridWorld
from fastrl.hparams import as_arrays, conform
from fastrl.kernels import prng
from fastrl.meta import evolution, evolution_fitness, groove, lpg, lpg_a2c, lpg_agent, meta_gradient
from fastrl.types import Algorithm

AGENT = lpg_agent.Config(num_envs=16, num_steps=20)
SEEDS, LEVELS, EPISODES = 10, 4, 16  # agents' seeds, levels of each, episodes of an agent
WIDTH = 32
LIVES = (10, 20, 40)  # of `lifetimes`, in updates


class Study(NamedTuple):
    """Kinds of rules, by name: `key -> eta` and the rule."""

    kinds: dict[str, tuple[lpg.LPG, Callable[[], Algorithm]]]
    steps: dict[str, int]  # meta-updates of each
    modes: tuple[str, ...]  # where agents are compared
    ages: tuple[int, ...]  # after how many updates
    pairs: tuple[tuple[str, str], ...]  # who is compared with whom


def main(arguments: list[str] | None = None) -> int:
    """Learns what is not there yet and compares; returns the exit code."""
    parser = options.parser(__doc__)
    parser.add_argument("study", choices=list(STUDIES))
    parser.add_argument("--seeds", type=int, default=3, help="of meta-trainings (%(default)s)")
    parser.add_argument("--runs", type=Path, default=Path("runs/rules"), metavar="DIR")
    parser.add_argument("--updates", type=float, default=1.0, help="times the usual number")
    parsed = parser.parse_args(arguments)
    study = STUDIES[parsed.study]()
    made = Report(f"Rules, {parsed.study}", options.options(parsed))
    etas = learned(study, parsed.runs, parsed.seeds, parsed.updates)
    for mode in study.modes:
        for row in compared(study, etas, mode):
            made.add(row)
            print(f"    {row['note']}", flush=True)
    made.close()
    return 0


def by_curriculum() -> Study:
    """GROOVE, the same with random scores, and random levels."""
    rule = lpg.LPG(hidden_size=WIDTH)
    config = groove.Config(capacity=128)
    curricula = {
        "regret": groove.curriculum(config),
        "random scores": groove.curriculum(config, groove.random_score),
        "random levels": None,
    }
    inner = lpg_agent.make(GridWorld("small"), AGENT, objective=rule)
    outer = meta_gradient.Config(num_lives=16, window=5, lifetime=40, stagger=True)
    kinds = {
        name: (rule, lambda c=c: meta_gradient.make(inner, rule.init, outer, curriculum=c))
        for name, c in curricula.items()
    }
    pairs = (("regret", "random levels"), ("regret", "random scores"))
    return Study(kinds, dict.fromkeys(kinds, 200), ("small", "debug", "medium"), (40,), pairs)


def by_lifetime() -> Study:
    """LPG and TA-LPG by evolution and by gradients."""
    env, kinds = GridWorld("debug"), {}
    by_gradient = meta_gradient.Config(num_lives=16, window=5)
    by_evolution = evolution.Config(pairs=24, lifetimes=LIVES)

    def lifetime(key: Any) -> Any:
        return jax.random.choice(key, jnp.array(LIVES, jnp.int32))

    for name, rule in (("LPG", lpg.LPG(WIDTH)), ("TA-LPG", lpg.LPG(WIDTH, temporal=True))):
        inner = lpg_agent.make(env, AGENT, objective=rule)
        kinds[f"{name}, evolution"] = (
            rule, lambda i=inner, r=rule: evolution.make(i, r.init, by_evolution)
        )  # fmt: skip
        kinds[f"{name}, gradients"] = (
            rule,
            lambda i=inner, r=rule: meta_gradient.make(i, r.init, by_gradient, lifetime=lifetime),
        )
    steps = {n: 80 if "evolution" in n else 200 for n in kinds}
    pairs = tuple((f"TA-LPG, {way}", f"LPG, {way}") for way in ("evolution", "gradients"))
    return Study(kinds, steps, ("debug", "small"), (5, 20, 80), pairs)


def by_world() -> Study:
    """LPG by evolution on `small` grid worlds, for agents on `debug` ones."""
    rule, config = lpg.LPG(WIDTH), evolution.Config(pairs=24, lifetimes=LIVES)
    inner = lpg_agent.make(GridWorld("small"), AGENT, objective=rule)
    name = "LPG, evolution on small"
    kinds = {name: (rule, lambda: evolution.make(inner, rule.init, config))}
    return Study(kinds, {name: 80}, ("debug",), (20, 80), ())


STUDIES = {"groove": by_curriculum, "lifetimes": by_lifetime, "worlds": by_world}
RATES = {meta_gradient.HParams: {"learning_rate": 3e-3}, evolution.HParams: {"learning_rate": 0.03}}


def learned(study: Study, runs: Path, seeds: int, times: float) -> dict[str, list[Any]]:
    """The rules `[seeds]` of every kind, from the folder `runs` or else learned and put there."""
    made = {name: make() for name, (_, make) in study.kinds.items()}
    programs = {name: (jax.jit(outer.init), jax.jit(outer.step)) for name, outer in made.items()}
    etas = {name: [] for name in study.kinds}
    for seed in range(seeds):
        for name, (rule, _) in study.kinds.items():
            folder = runs / f"{name.replace(', ', '_').replace(' ', '_')}_{seed}"
            if not folder.exists():
                updates = max(1, round(times * study.steps[name]))
                eta, told = _learned(made[name], *programs[name], seed, updates)
                meta.save(folder, rule, eta)
                print(f"{name}, seed {seed}: {told}", flush=True)
            etas[name].append(meta.load(folder).eta)
    return etas


def _learned(outer: Algorithm, init: Any, step: Any, seed: int, updates: int) -> tuple[Any, str]:
    """What is learned in so many meta-updates, and in words how it went."""
    hparams = outer.default_hparams
    hparams = as_arrays(hparams._replace(**RATES[type(hparams)]))
    state, told = init(prng.key(seed), hparams, ()), []
    began = time.process_time()
    for _ in range(updates):
        state, metrics = step(state, hparams, ())
        told.append(jax.device_get(metrics))
    seconds, steps = time.process_time() - began, updates * outer.steps_per_iteration
    return state.eta, f"{steps:,} steps, {seconds:.0f} s of a core; {_curve(told)}"


def _curve(told: list[Any], parts: int = 5) -> str:
    """What agents reached, from the first to the last part of a meta-training."""
    name = "fitness" if "fitness" in told[0] else "final_return"
    pieces = np.array_split(np.array([(m[name].total, m[name].weight) for m in told]), parts)
    means = [p[:, 0].sum() / max(p[:, 1].sum(), 1) for p in pieces]
    diverged = sum(float(m["diverged"].total) for m in told)
    return f"{name} {' '.join(f'{m:.2f}' for m in means)}, diverged {diverged:g}"


def compared(study: Study, etas: dict[str, list[Any]], mode: str) -> list[Row]:
    """Rules among each other, with their start and with an actor-critic, at every age."""
    env, rows, found = GridWorld(mode), [], {}
    for rule in {r for r, _ in study.kinds.values()}:
        own = [n for n, (r, _) in study.kinds.items() if r == rule]
        play = returns(lpg_agent.make(env, AGENT, objective=rule))
        for age in study.ages:
            for name in own:
                found[name, age] = np.stack([play(eta, age) for eta in etas[name]])
                start = [rule.init(prng.key(1000 + s)) for s in range(len(etas[name]))]
                found["start", name, age] = np.stack([play(eta, age) for eta in start])
    critic = returns(lpg_agent.make(env, AGENT, objective=lpg_a2c.A2C()))
    for age in study.ages:
        theirs = critic((), age).mean(1)
        for name in study.kinds:
            ours, start = found[name, age].mean((0, 2)), found["start", name, age].mean((0, 2))
            case = f"{mode}, {name}, {age} updates"
            rows.append(_row(case, "A2C", ours, theirs))
            rows.append(_row(case, "its start", ours, start))
        if len(next(iter(etas.values()))) > 1:
            for one, other in study.pairs:
                a, b = (found[n, age].mean((1, 2)) for n in (one, other))
                rows.append(_row(f"{mode}, {one}, {age} updates", other, a, b))
    return rows


def _row(case: str, peer: str, ours: np.ndarray, theirs: np.ndarray) -> Row:
    note = f"returns {ours.mean():.4g} and {theirs.mean():.4g}"
    return claims.row(case, peer, ours, theirs, "return", False, note) | {"bench": "meta_rules"}


def returns(algorithm: Algorithm) -> Callable[[Any, int], np.ndarray]:
    """`(eta, updates) -> [SEEDS, LEVELS]`: final returns of agents, one on each level."""
    env, fitness = algorithm.env, evolution_fitness.evaluation(algorithm, EPISODES)
    assert env is not None

    @jax.jit
    def program(keys: Any, hparams: Any, updates: Any) -> Any:
        def one(key: Any) -> Any:
            level_key, train_key, test_key = jax.random.split(key, 3)
            task = env.sample_level(level_key)  # pyright: ignore[reportAttributeAccessIssue]
            step = lambda _, state: algorithm.step(state, hparams, task)[0]  # noqa: E731
            start = algorithm.init(train_key, hparams, task)
            return fitness(test_key, jax.lax.fori_loop(0, updates, step, start), {}, task)

        return jax.lax.map(one, keys)

    keys = jax.random.split(prng.key(12345), SEEDS * LEVELS)

    def play(eta: Any, updates: int) -> np.ndarray:
        steps = float(updates * algorithm.steps_per_iteration)
        hparams = lpg_agent.HParams(objective=eta, anneal_steps=steps)
        hparams = conform(hparams, algorithm.default_hparams)
        found = np.asarray(program(keys, hparams, jnp.int32(updates)), np.float64)
        return found.reshape(SEEDS, LEVELS)

    return play


if __name__ == "__main__":
    sys.exit(main())
