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
from typing import Any

import jax.numpy as jnp

from fastrl import door
from fastrl.meta import evolution_lives, meta_gradient_inner
from fastrl.meta import meta_gradient_outer as outer
from fastrl.meta.meta_gradient_config import RANGES, Config, HParams
from fastrl.meta.meta_gradient_critic import critic
from fastrl.meta.meta_gradient_inner import ViewFactory
from fastrl.meta.meta_gradient_lives import (
    KEPT,
    CurriculumFactory,
    Install,
    Life,
)
from fastrl.meta.meta_gradient_outer import Sampler, State
from fastrl.meta.meta_gradient_windows import Windows
from fastrl.types import Algorithm, Array, Key, PyTree

Lifetime = Callable[[Key], Array]  # key -> updates
_DEFAULT = Config()


def make(
    inner: Algorithm,
    start: Callable[[Key], PyTree],
    config: Config = _DEFAULT,
    *,
    sampler: Sampler | None = None,
    lifetime: Lifetime | None = None,
    curriculum: CurriculumFactory | None = None,
    view: ViewFactory = meta_gradient_inner.of,
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
    `view` looks into the inner learner, by default one of those that learn by rules.
    Raises ValueError or TypeError for what does not fit, before anything is compiled.
    """
    door.algorithm(inner)
    door.record("config", config, Config)
    for name, given in (("start", start), ("install", install), ("view", view)):
        door.function(name, given, "lpg.LPG().init" if name == "start" else f"a {name}")
    lifetime = lifetime or _lifetime(inner, config.lifetime)
    curriculum = curriculum or outer.independent(inner, sampler)
    return _make(inner, start, config, lifetime, curriculum, view, install)


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
    steps = config.window * inner.steps_per_iteration + seen.steps
    hparams = HParams(inner=inner.default_hparams)
    return outer.learner(config, windows, curriculum, start, hparams, RANGES, steps)
