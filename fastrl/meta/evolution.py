"""Meta-learning by evolution strategies: an Algorithm over any inner Algorithm and its tasks.

A generation trains pairs of inner agents, one with eta + sigma eps and one with eta - sigma eps
as `hparams.objective`, on a task, from a start and with random numbers that both share, and moves
eta to what made the better agents.  The inner algorithm is not differentiated and knows nothing.

| estimator | a generation trains | and moves eta along |
|---|---|---|
| full | whole lifetimes | eps |
| truncated | `window` iterations from a state that both share, at the end one of theirs | eps |
| persistent | `window` iterations, each from its own state | the sum of eps since its life began |
| reuse | the same, with one eps in all of a life | eps |

Truncation favours what pays within a window.  Persistent ES (Vicol et al. 2021,
arXiv:2112.13835, algorithm 2) is without that bias, with raw fitness; noise-reuse ES (Li et al.
2023, arXiv:2304.12180) too, with less variance.  Lifetimes of these begin staggered.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fastrl import door
from fastrl import metrics as fm
from fastrl.meta import evolution_fitness, evolution_lives
from fastrl.meta import evolution_running as going_on
from fastrl.meta.evolution_config import RANGES, Config, HParams
from fastrl.meta.evolution_config import log_uniform as log_uniform
from fastrl.meta.evolution_fitness import FitnessFactory
from fastrl.meta.evolution_lives import Install, Lives, Member, Outcome
from fastrl.meta.evolution_search import Optimizer, Search, openai
from fastrl.meta.evolution_shaping import SHAPINGS
from fastrl.metrics import Metrics
from fastrl.types import Algorithm, Array, Key, PyTree

Sampler = Callable[[Key, Any], Any]  # (key, the outer task) -> an inner task


class State(NamedTuple):
    """All there is to go on with."""

    key: Key
    search: Any
    running: Any  # `Running`; () where every generation begins anew

    @property
    def eta(self) -> PyTree:
        """What is learned."""
        return self.search.eta


def make(
    inner: Algorithm,
    start: Callable[[Key], PyTree],
    config: Config | None = None,
    *,
    sampler: Sampler | None = None,
    fitness: FitnessFactory = evolution_fitness.evaluation,
    install: Install = evolution_lives.install,
    optimizer: Optimizer = optax.adam,
) -> Algorithm[HParams, State]:
    """Evolution of what `start(key)` gives, for `inner`, an Algorithm that takes it by `install`.

        rule = lpo.LPO()
        inner = ppo.make(env, objective=rule)
        outer = evolution.make(inner, rule.init, evolution.Config(pairs=32, lifetimes=(30,)))
        hparams, task = evolution.HParams(inner=ppo.HParams()), env.default_params()
        state = fastrl.train(outer, hparams, task, steps=1e8)
        fastrl.meta.save("runs/lpo", rule, state.eta)

    `sampler(key, task)` draws a task for every life, by default with `env.sample_level(key)`
    where there is one; else all have the outer task.  Steps are those of all inner agents.

    Raises ValueError or TypeError for what does not fit, before anything is compiled.
    """
    door.algorithm(inner)
    config = Config() if config is None else config
    door.record("config", config, Config)
    config.check_chunks(config.side_by_side)
    for name, given in (("start", start), ("fitness", fitness), ("install", install)):
        door.function(name, given, f"evolution.{name}" if name != "start" else "lpo.LPO().init")
    if install is evolution_lives.install and not hasattr(inner.default_hparams, "objective"):
        raise ValueError(
            f"inner: {type(inner.default_hparams).__module__}.HParams has no objective to learn: "
            "take an algorithm that has, such as ppo, or pass install="
        )
    return _make(inner, start, config, sampler, fitness, install, optimizer)


@functools.lru_cache(maxsize=64)
def _make(
    inner: Algorithm, start: Any, config: Config, sampler: Sampler | None,
    fitness: FitnessFactory, install: Install, optimizer: Optimizer,
) -> Algorithm:  # fmt: skip
    lives = Lives(
        inner, install, fitness(inner), config.measured, config.side_by_side, config.devices,
        config.windowed,
    )  # fmt: skip
    search = _search(config, optimizer, start)
    parts = _Parts(config, inner, lives, search, sampler or _sampler(inner))

    def init(key: Key, hparams: HParams, task: Any) -> State:
        key, start_key, search_key, life_key, draw_key = jax.random.split(key, 5)
        eta = start(start_key)
        memory = search.init(search_key, eta, hparams)
        if not config.windowed:
            return State(key, memory, ())

        def begin(key: Key, task: Any, iterations: Array) -> Any:
            steps = iterations * inner.steps_per_iteration
            return inner.init(key, install(hparams.inner, eta, steps), task)

        drawn, memory = search.draw(draw_key, memory, hparams)
        running = going_on.first(config, begin, *_tasks(parts, life_key, task), drawn)
        return State(key, memory, running)

    def check(hparams: HParams) -> None:
        door.ranges(hparams, RANGES)
        inner.check(hparams.inner)

    return Algorithm(
        init,
        functools.partial(_generation, parts),
        functools.partial(_no_policy, "meta_evolution"),
        2 * sum(config.iterations) * inner.steps_per_iteration,
        HParams(inner=inner.default_hparams),
        parameters=lambda state: search.mean(state.search),
        check=check,
    )


class _Parts(NamedTuple):
    """What is closed over."""

    config: Config
    inner: Algorithm
    lives: Lives
    search: Search
    sampler: Sampler


def _search(config: Config, optimizer: Optimizer, start: Any) -> Search:
    if config.strategy == "openai":
        return openai(config.pairs, SHAPINGS[config.shaping], optimizer)
    from fastrl.meta.evolution_evosax import evosax

    return evosax(config.strategy, config.pairs, jax.eval_shape(start, jax.random.key(0)))


def _no_policy(name: str, *_: Any) -> Any:
    raise ValueError(f"{name} learns an objective and has no policy of its own to act with")


def _sampler(inner: Algorithm) -> Sampler:
    """Levels where the environment can draw them, else the outer task."""
    draw_level = getattr(inner.env, "sample_level", None)
    return (lambda key, task: task) if draw_level is None else (lambda key, task: draw_level(key))


def _generation(parts: _Parts, state: State, hparams: HParams, task: Any) -> tuple[State, Metrics]:
    """One generation: candidates, their lives, and a step of the search."""
    config, search, running = parts.config, parts.search, state.running
    key, draw_key, life_key, coin_key, tell_key = jax.random.split(state.key, 5)
    drawn, memory = search.draw(draw_key, state.search, hparams)
    keys, tasks = _tasks(parts, life_key, task)
    new, along = None, drawn
    if config.windowed:
        new = going_on.begins(config, running)
        tasks = going_on.pick(new, tasks, running.task)
        if config.estimator == "reuse":
            drawn = going_on.pick(new, drawn, running.path)
        along = going_on.path(config, new, running, drawn)
    etas = search.place(memory, drawn, hparams)
    outcome = _live(parts, keys, etas, tasks, new, running, hparams)
    ok = outcome.ok.all(1)
    memory, told = search.tell(tell_key, memory, along, outcome.fitness, ok, hparams)
    if new is not None:
        running = going_on.after(config, coin_key, new, running, outcome.state, tasks, ok, along)
    return State(key, memory, running), told | _metrics(outcome, ok, search.mean(memory))


def _tasks(parts: _Parts, key: Key, task: Any) -> tuple[Key, Any]:
    """A key and a task for every pair, `[P, ...]`."""
    pairs = parts.config.pairs
    keys = jax.random.split(key, 1 if parts.config.shared else pairs)
    keys, task_keys = jnp.moveaxis(jax.vmap(jax.random.split)(keys), 1, 0)
    tasks = jax.vmap(lambda k: parts.sampler(k, task))(task_keys)
    if not parts.config.shared:
        return keys, tasks
    return jax.tree.map(lambda x: jnp.repeat(x, pairs, 0), (keys, tasks))


def _live(
    parts: _Parts, keys: Key, etas: PyTree, tasks: Any, new: Any, running: Any, hparams: HParams
) -> Outcome:
    """The lives of all members, as outcomes `[P, 2, ...]`."""
    config = parts.config
    twice = lambda tree: jax.tree.map(lambda x: jnp.repeat(x, 2, 0), tree)  # noqa: E731
    flat = lambda tree: jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), tree)  # noqa: E731
    steps = jnp.array(config.lengths, jnp.float32) * parts.inner.steps_per_iteration
    members = Member(
        twice(keys), flat(etas), twice(tasks), twice(steps), twice(jnp.array(config.iterations)),
        *((twice(new), flat(running.state)) if config.windowed else ((), ())),
    )  # fmt: skip
    outcomes = parts.lives(members, hparams.inner)
    return jax.tree.map(lambda x: x.reshape(-1, 2, *x.shape[1:]), outcomes)


def _metrics(outcome: Outcome, ok: Array, eta: PyTree) -> Metrics:
    """Numbers of the population; those of the inner algorithm, of the lives that count."""
    counts = jnp.broadcast_to(ok[:, None], outcome.fitness.shape)
    better = outcome.fitness.max(1) - outcome.fitness.min(1)
    inner = {
        f"inner_{name}": fm.Mean(*(jnp.where(counts, x, 0.0).sum() for x in m))
        for name, m in outcome.metrics.items()
    }
    return inner | {
        "fitness": fm.mean(outcome.fitness, counts),
        "fitness_gap": fm.mean(better, ok),
        "diverged": fm.mean(~outcome.ok),
        "eta_norm": fm.mean(optax.tree.norm(eta)),
    }
