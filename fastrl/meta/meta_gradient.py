"""Meta-learning by gradients: an Algorithm over any inner Algorithm and its tasks.

Many inner agents live side by side, each on a task of its own.  An iteration lets every one of
them make `window` updates under the rule eta, and differentiates a loss of the policies that
came of it through these updates (Xu et al. 2018, arXiv:1805.09801; Oh et al. 2020,
arXiv:2007.08794, equations 5 and 6; numbers of Jackson et al. 2023, arXiv:2310.02782, table 2):

    theta_{k+1} = F_eta(theta_k, rollout_k),  k = 1 .. K
    g = mean over lives of d/d eta [ - mean log pi_{theta_K}(a | s) A + regularisers ]

with A the standardised advantages of a value function that every life has for this purpose and
trains on its rollouts (the released GROOVE code never changes it).  Agents go on in the next
window, from where they stand: the gradient is truncated there.  A life that has had its N updates
is replaced by a new agent on a new task.

Lives are computed in chunks, one after the other, on each of the devices.  One whose numbers are
not finite is counted as `diverged`, left out of the mean, and replaced.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fastrl import door, optim
from fastrl import metrics as fm
from fastrl.hparams import as_arrays
from fastrl.meta import evolution_lives, lpg_optimizer, meta_gradient_inner
from fastrl.meta.meta_gradient_config import RANGES, Config, HParams
from fastrl.meta.meta_gradient_critic import critic
from fastrl.meta.meta_gradient_inner import ViewFactory
from fastrl.meta.meta_gradient_lives import (
    KEPT,
    Curriculum,
    CurriculumFactory,
    Install,
    Life,
    Lives,
    independent,
    pick,
)
from fastrl.meta.meta_gradient_windows import Windows
from fastrl.metrics import Metrics
from fastrl.types import Algorithm, Array, Key, PyTree

Sampler = Callable[[Key, Any], Any]  # (key, the outer task) -> an inner task
Lifetime = Callable[[Key], Array]  # key -> updates
_DEFAULT = Config()


class State(NamedTuple):
    """All there is to go on with."""

    key: Key
    eta: PyTree  # what is learned
    optimizer: optax.OptState
    lives: Lives
    curriculum: Any


def make(
    inner: Algorithm,
    start: Callable[[Key], PyTree],
    config: Config = _DEFAULT,
    *,
    sampler: Sampler | None = None,
    lifetime: Lifetime | None = None,
    curriculum: CurriculumFactory | None = None,
    view: ViewFactory = meta_gradient_inner.of_rule,
    install: Install = evolution_lives.install,
) -> Algorithm[HParams, State]:
    """Gradients on what `start(key)` gives, for `inner`, which takes it by `install`.

        rule = lpg.LPG()
        inner = lpg_agent.make(env, objective=rule)
        outer = meta_gradient.make(inner, rule.init, meta_gradient.Config(num_lives=64))
        state = fastrl.train(outer, task=env.default_params(), steps=1e8)

    `sampler(key, task)` draws the task of a life, by default with `env.sample_level(key)` where
    there is one, else the outer task; `lifetime(key)` its updates, by default
    `config.lifetime` or `env.sample_lifetime(key)`.  A `curriculum` goes before the sampler.
    Raises ValueError or TypeError for what does not fit, before anything is compiled.
    """
    door.algorithm(inner)
    door.record("config", config, Config)
    for name, given in (("start", start), ("install", install), ("view", view)):
        door.function(name, given, "lpg.LPG().init" if name == "start" else f"a {name}")
    lifetime = lifetime or _lifetime(inner, config.lifetime)
    curriculum = curriculum or _independent(inner, sampler)
    return _make(inner, start, config, lifetime, curriculum, view, install)


@functools.lru_cache(maxsize=256)
def _independent(inner: Algorithm, sampler: Sampler | None) -> CurriculumFactory:
    draw_level = getattr(inner.env, "sample_level", None)
    if sampler is None and draw_level is not None:
        return functools.partial(independent, lambda key, task: draw_level(key))
    return functools.partial(independent, sampler or (lambda key, task: task))


@functools.lru_cache(maxsize=256)
def _lifetime(inner: Algorithm, updates: int) -> Lifetime:
    draw = getattr(inner.env, "sample_lifetime", None)
    if updates:
        return lambda key: jnp.int32(updates)
    if draw is None:
        raise ValueError(
            f"lifetime=0: {type(inner.env).__name__} has no sample_lifetime(key): say after how "
            "many updates an agent is replaced"
        )
    return draw


@functools.lru_cache(maxsize=64)
def _make(
    inner: Algorithm, start: Any, config: Config, lifetime: Lifetime, teacher: CurriculumFactory,
    view: ViewFactory, install: Install,
) -> Algorithm:  # fmt: skip
    env = inner.env
    seen = view(inner)
    values = critic(
        env.observation_space(env.default_params()), config.critic_hidden_sizes,
        config.critic_activation, config.critic_optimizer,
    )  # fmt: skip
    life = Life(inner, seen, values, install, lifetime, config.window, KEPT[config.keep])
    curriculum = teacher(life)
    windows = Windows(life, config.side_by_side, config.devices)
    parts = _Parts(config, windows, curriculum)

    def init(key: Key, hparams: HParams, task: Any) -> State:
        key, start_key, task_key, live_key = jax.random.split(key, 4)
        eta = start(start_key)
        memory, tasks = curriculum.init(task_key, config.num_lives, _own(inner, task))
        keys = jax.random.split(live_key, config.num_lives)
        lives = windows.begin(eta, hparams, keys, tasks)
        if config.stagger:
            lives = lives._replace(end=_staggered(lives.lifetime, config.window))
        return State(key, eta, _optimizer(hparams).init(eta), lives, memory)

    def check(hparams: HParams) -> None:
        door.ranges(hparams, RANGES)
        inner.check(hparams.inner)

    steps = config.window * inner.steps_per_iteration + seen.steps
    return Algorithm(
        init, functools.partial(_iterate, parts), _no_policy, config.num_lives * steps,
        HParams(inner=inner.default_hparams), parameters=lambda state: state.eta, check=check,
    )  # fmt: skip


class _Parts(NamedTuple):
    """What is closed over."""

    config: Config
    windows: Windows
    curriculum: Curriculum


def _iterate(parts: _Parts, state: State, hparams: HParams, task: Any) -> tuple[State, Metrics]:
    """New lives for those that ended, a window of all, and a step of eta."""
    config, lives = parts.config, state.lives
    key, draw_key, live_key = jax.random.split(state.key, 3)
    ended = lives.age >= lives.end
    memory, tasks, told = parts.curriculum.draw(
        draw_key, state.curriculum, lives, ended, hparams, _own(parts.windows.life.inner, task)
    )
    keys = jax.random.split(live_key, config.num_lives)
    total, count, metrics, lives = parts.windows(state.eta, hparams, lives, ended, keys, tasks)
    gradient = jax.tree.map(lambda g: g / jnp.maximum(count, 1), total)
    updates, optimizer = _optimizer(hparams).update(gradient, state.optimizer, state.eta)
    moved = optax.apply_updates(state.eta, updates), optimizer
    eta, optimizer = pick(count > 0, moved, (state.eta, state.optimizer))
    metrics = metrics | told | {
        "diverged": fm.mean(config.num_lives - count) , "ended": fm.mean(ended.sum()),
        "grad_norm": fm.mean(lpg_optimizer.norm(gradient)),
        "eta_norm": fm.mean(lpg_optimizer.norm(eta)),
    }  # fmt: skip
    return State(key, eta, optimizer, lives, memory), metrics


def _staggered(lifetime: Array, window: int) -> Array:
    """Ends of the first lives: spread evenly over a lifetime, in whole windows."""
    number = jnp.arange(1, lifetime.shape[0] + 1, dtype=jnp.int32)
    windows = -(-lifetime // window)
    end = window * -(-windows * number // lifetime.shape[0])
    return jnp.clip(end, 1, lifetime)


def _optimizer(hparams: HParams) -> optax.GradientTransformation:
    return optim.adam(hparams.learning_rate, hparams.max_grad_norm, epsilon=1e-8)


def _own(inner: Algorithm, task: Any) -> Any:
    """The outer task, or the inner environment's default one if there is none."""
    return as_arrays(inner.env.default_params()) if task is None else task


def _no_policy(*_: Any) -> Any:
    raise ValueError("meta_gradient learns an objective and has no policy of its own to act with")
