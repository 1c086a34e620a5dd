"""The outer learner by gradients: lives in windows, a curriculum, and Adam on the mean of lives.

`meta_gradient` and `intrinsic_meta` say what a life is and what is differentiated through it.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax

from fastrl import door, optim
from fastrl import metrics as fm
from fastrl.hparams import as_arrays
from fastrl.meta import lpg_optimizer
from fastrl.meta.meta_gradient_lives import Curriculum, CurriculumFactory, pick
from fastrl.meta.meta_gradient_lives import independent as draws
from fastrl.meta.meta_gradient_windows import Windows
from fastrl.metrics import Metrics
from fastrl.types import Algorithm, Array, Key, PyTree

Sampler = Callable[[Key, Any], Any]  # (key, the outer task) -> an inner task


class State(NamedTuple):
    """All there is to go on with."""

    key: Key
    eta: PyTree  # what is learned
    optimizer: optax.OptState
    lives: Any
    curriculum: Any


class Config(Protocol):
    """What configs of such learners have."""

    @property
    def num_lives(self) -> int: ...
    @property
    def window(self) -> int: ...
    @property
    def stagger(self) -> bool: ...


class _Parts(NamedTuple):
    """What is closed over."""

    config: Config
    windows: Windows
    curriculum: Curriculum


def learner(
    config: Config, windows: Windows, curriculum: Curriculum, start: Callable[[Key], PyTree],
    hparams: Any, ranges: Mapping[str, door.Range], steps: int,
) -> Algorithm:  # fmt: skip
    """The Algorithm that begins with `start(key)`; a window of a life takes `steps`."""
    parts, inner = _Parts(config, windows, curriculum), windows.life.inner

    def init(key: Key, hparams: Any, task: Any) -> State:
        key, start_key, task_key, live_key = jax.random.split(key, 4)
        eta = start(start_key)
        memory, tasks = curriculum.init(task_key, config.num_lives, _own(inner, task))
        keys = jax.random.split(live_key, config.num_lives)
        lives = windows.begin(eta, hparams, keys, tasks)
        if config.stagger:
            lives = lives._replace(end=_staggered(lives.lifetime, config.window))
        return State(key, eta, _optimizer(hparams).init(eta), lives, memory)

    def check(hparams: Any) -> None:
        door.ranges(hparams, ranges)
        inner.check(hparams.inner)

    return Algorithm(
        init, functools.partial(_iterate, parts), _no_policy, config.num_lives * steps, hparams,
        parameters=lambda state: state.eta, check=check,
    )  # fmt: skip


@functools.lru_cache(maxsize=256)
def independent(inner: Algorithm, sampler: Sampler | None) -> CurriculumFactory:
    """Tasks by `sampler`, by default those that the environment draws, else the outer task."""
    draw_level = getattr(inner.env, "sample_level", None)
    if sampler is None and draw_level is not None:
        return functools.partial(draws, lambda key, task: draw_level(key))
    return functools.partial(draws, sampler or (lambda key, task: task))


def _iterate(parts: _Parts, state: State, hparams: Any, task: Any) -> tuple[State, Metrics]:
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


def _optimizer(hparams: Any) -> optax.GradientTransformation:
    return optim.adam(hparams.learning_rate, hparams.max_grad_norm, epsilon=1e-8)


def _own(inner: Algorithm, task: Any) -> Any:
    """The outer task, or the inner environment's default one if there is none."""
    return as_arrays(inner.env.default_params()) if task is None else task


def _no_policy(*_: Any) -> Any:
    raise ValueError("meta_gradient learns an objective and has no policy of its own to act with")
