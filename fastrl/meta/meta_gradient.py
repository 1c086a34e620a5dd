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

Lives are computed in chunks, one after the other.  One whose numbers are not finite is counted
as `diverged`, left out of the mean, and replaced.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fastrl import door, optim
from fastrl import metrics as fm
from fastrl.hparams import as_arrays
from fastrl.meta import evolution_lives, lpg_optimizer, meta_gradient_inner
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
from fastrl.metrics import Metrics
from fastrl.networks import Activation, NetworkConfig
from fastrl.types import Algorithm, Array, Key, PyTree, Scalar

Sampler = Callable[[Key, Any], Any]  # (key, the outer task) -> an inner task
Lifetime = Callable[[Key], Array]  # key -> updates


@dataclasses.dataclass(frozen=True)
class Config:
    """What shapes the program."""

    num_lives: int = 512
    chunk: int = 8  # lives side by side; must divide num_lives
    window: int = 5  # K: inner updates that a gradient goes through
    lifetime: int = 0  # N: inner updates of an agent; 0: what the environment says
    stagger: bool = False  # the first lives end one after the other
    # For the gradient: the least memory, or without a second pass through the rollouts, or without
    # one through the rule's recurrence either
    keep: Literal["nothing", "rollouts", "activations"] = "rollouts"
    critic_hidden_sizes: tuple[int, ...] = ()  # none: a table, or a linear map
    critic_activation: Activation = "relu"
    critic_optimizer: lpg_optimizer.Name = "sgd"

    def __post_init__(self) -> None:
        for name in ("num_lives", "chunk", "window"):
            door.integer(name, getattr(self, name), 1)
        door.integer("lifetime", self.lifetime, 0)
        door.flag("stagger", self.stagger)
        door.choice("keep", self.keep, tuple(KEPT))
        door.choice("critic_optimizer", self.critic_optimizer, lpg_optimizer.NAMES)
        shape = NetworkConfig(self.critic_hidden_sizes, self.critic_activation)
        object.__setattr__(self, "critic_hidden_sizes", shape.hidden_sizes)
        if self.num_lives % self.chunk:
            raise ValueError(f"num_lives={self.num_lives} is not divisible by chunk={self.chunk}")


class HParams(NamedTuple):
    """Traced numbers: another value compiles nothing."""

    learning_rate: Scalar = 1e-4  # of Adam
    max_grad_norm: Scalar = float("inf")
    gamma: Scalar = 0.99  # of the advantages
    gae_lambda: Scalar = 0.95
    policy_entropy: Scalar = 0.05  # beta 0
    prediction_entropy: Scalar = 0.001  # beta 1
    policy_target: Scalar = 0.005  # beta 2
    prediction_target: Scalar = 0.001  # beta 3
    critic_learning_rate: Scalar = 4.0
    critic_max_grad_norm: Scalar = 0.5
    inner: Any = ()  # hparams of the inner algorithm


_SHARE, _POSITIVE = door.Range(0.0, 1.0), door.Range(0.0, open=True)
RANGES = {
    "learning_rate": door.Range(0.0), "critic_learning_rate": door.Range(0.0),
    "gamma": _SHARE, "gae_lambda": _SHARE,
    "max_grad_norm": _POSITIVE, "critic_max_grad_norm": _POSITIVE,
}  # fmt: skip


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
    config: Config = Config(),
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
        state = fastrl.train(outer, meta_gradient.HParams(inner=lpg_agent.HParams()), steps=1e8)

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
    parts = _Parts(config, life, curriculum)

    def init(key: Key, hparams: HParams, task: Any) -> State:
        key, start_key, task_key, live_key = jax.random.split(key, 4)
        eta = start(start_key)
        memory, tasks = curriculum.init(task_key, config.num_lives, _own(inner, task))
        keys = jax.random.split(live_key, config.num_lives)
        lives = jax.vmap(lambda k, t: life.begin(k, eta, hparams.inner, t))(keys, tasks)
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
    life: Life
    curriculum: Curriculum


def _iterate(parts: _Parts, state: State, hparams: HParams, task: Any) -> tuple[State, Metrics]:
    """New lives for those that ended, a window of all, and a step of eta."""
    config, lives = parts.config, state.lives
    key, draw_key, live_key = jax.random.split(state.key, 3)
    ended = lives.age >= lives.end
    memory, tasks, told = parts.curriculum.draw(
        draw_key, state.curriculum, lives, ended, hparams, _own(parts.life.inner, task)
    )
    keys = jax.random.split(live_key, config.num_lives)
    chunks = jax.tree.map(
        lambda x: x.reshape(-1, config.chunk, *x.shape[1:]), (lives, ended, keys, tasks)
    )
    zeros = jax.tree.map(jnp.zeros_like, state.eta), jnp.int32(0)
    window = functools.partial(_chunk, parts, state.eta, hparams)
    (total, count), (lives, metrics) = jax.lax.scan(window, zeros, chunks)
    lives = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), lives)
    gradient = jax.tree.map(lambda g: g / jnp.maximum(count, 1), total)
    updates, optimizer = _optimizer(hparams).update(gradient, state.optimizer, state.eta)
    moved = optax.apply_updates(state.eta, updates), optimizer
    eta, optimizer = pick(count > 0, moved, (state.eta, state.optimizer))
    metrics = fm.fold(metrics) | told | {
        "diverged": fm.mean(config.num_lives - count) , "ended": fm.mean(ended.sum()),
        "grad_norm": fm.mean(optax.global_norm(gradient)),
        "eta_norm": fm.mean(optax.global_norm(eta)),
    }  # fmt: skip
    return State(key, eta, optimizer, lives, memory), metrics


def _chunk(
    parts: _Parts, eta: PyTree, hparams: HParams, carry: tuple[PyTree, Array], chunk: Any
) -> tuple[tuple[PyTree, Array], tuple[Lives, Metrics]]:
    """The window of some lives; adds their gradients to those of the chunks before."""
    (lives, ended, keys, tasks), (total, count) = chunk, carry

    def begun() -> Lives:
        new = jax.vmap(lambda k, t: parts.life.begin(k, eta, hparams.inner, t))(keys, tasks)
        return pick(ended, new, lives)

    lives = jax.lax.cond(ended.any(), begun, lambda: lives)
    gradient = jax.grad(parts.life.loss, has_aux=True)
    alone = lambda life: gradient(eta, life, hparams)  # noqa: E731
    if parts.config.chunk > 1:
        gradients, (lives, metrics) = jax.vmap(alone)(lives)
    else:  # branches stay branches
        one = alone(jax.tree.map(lambda x: x[0], lives))
        gradients, (lives, metrics) = jax.tree.map(lambda x: x[None], one)
    good = jax.vmap(_finite)((gradients, lives, metrics["loss"]))
    add = lambda t, g: t + pick(good, g, jnp.zeros_like(g)).sum(0)  # noqa: E731
    last = good & (lives.age >= lives.end)
    returns = metrics.get("inner_episode_return")
    if returns is not None:
        metrics = metrics | {"final_return": jax.tree.map(lambda x: jnp.where(last, x, 0), returns)}
    metrics = jax.tree.map(lambda x: pick(good, x, jnp.zeros_like(x)).sum(0), metrics)
    lives = lives._replace(age=jnp.where(good, lives.age, lives.end))  # the others begin anew
    return (jax.tree.map(add, total, gradients), count + good.sum()), (lives, metrics)


def _finite(tree: PyTree) -> Array:
    leaves = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.inexact)]
    return jnp.stack([jnp.isfinite(x).all() for x in leaves]).all()


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
