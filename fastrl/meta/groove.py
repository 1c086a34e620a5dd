"""GROOVE: lifetimes on levels that a learning rule is worst at, by algorithmic regret.

LPG with adversarial environment design (Jackson et al. 2023, arXiv:2310.02782): a curriculum for
`fastrl.meta.meta_gradient`.  When a lifetime ends, its level gets a score; the levels with the
highest scores are kept (`fastrl.curricula.level_buffer`), and a new lifetime is led with
probability `replay_probability` on one of them, else on a random level.  The score of a level is

    AR(level) = V(an A2C agent after as many updates) - V(the agent at the end of its life)

with V the mean undiscounted return of first episodes.  Other scores are arguments: `random_score`,
`l1_value_loss`, `positive_value_loss`.

Levels are scored when a lifetime ends, those alone, in packed batches: the released code trains
an antagonist for every agent at every update of the rule, 42 times the steps.  A level that a
lifetime is led on is never replayed or evicted.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fastrl import door
from fastrl import metrics as fm
from fastrl.curricula import level_buffer
from fastrl.curricula.level_buffer import Buffer, Replay
from fastrl.episodes import Player, play
from fastrl.evaluate import MAX_STEPS
from fastrl.meta import lpg_agent
from fastrl.meta.lpg_a2c import A2C
from fastrl.meta.meta_gradient_lives import (
    Curriculum,
    CurriculumFactory,
    Life,
    Lives,
    numbers,
    pick,
)
from fastrl.metrics import Metrics
from fastrl.types import Algorithm, Array, Key, PyTree

# (key, a life at its end, hparams of the meta-learner) -> number, or -inf for no score; of one
# life, and used under `vmap`
Score = Callable[[Key, Lives, Any], Array]
ScoreFactory = Callable[[Life], Score]  # how lives are led -> Score


_BEST = Replay("top", staleness=0.0)


@dataclasses.dataclass(frozen=True)
class Config:
    """What shapes the curriculum."""

    capacity: int = 4000
    replay_probability: float = 0.5  # of each new lifetime
    least: int = 1  # levels that must be in the buffer before one is replayed
    replay: Replay = _BEST
    chunk: int = 8  # levels that are scored side by side

    def __post_init__(self) -> None:
        for name in ("capacity", "least", "chunk"):
            door.integer(name, getattr(self, name), 1)
        if not 0 <= door.number("replay_probability", self.replay_probability, 0.0) <= 1:
            raise ValueError(f"replay_probability={self.replay_probability}: at most 1")


class Memory(NamedTuple):
    """What the curriculum carries along."""

    buffer: Buffer
    slots: Array  # int32 [L]: where every lifetime's level came from, or NOWHERE


@functools.lru_cache(maxsize=64)
def curriculum(
    config: Config = Config(), score: ScoreFactory | None = None,
    sampler: Callable[[Key], Any] | None = None,
) -> CurriculumFactory:  # fmt: skip
    """The curriculum for `meta_gradient.make(inner, ..., curriculum=groove.curriculum())`.

    `score` is by default `algorithmic_regret`; `sampler(key)` draws random levels, by default
    `env.sample_level`.  Raises ValueError where there is no sampler.
    """
    door.record("config", config, Config)
    return functools.partial(_curriculum, config, score or algorithmic_regret, sampler)


def _curriculum(config: Config, score: ScoreFactory, sampler: Any, life: Life) -> Curriculum:
    draw_level = sampler or getattr(life.inner.env, "sample_level", None)
    if draw_level is None:
        name = type(life.inner.env).__name__
        raise ValueError(f"{name} has no sample_level(key): pass groove.curriculum(sampler=)")
    scored = score(life)

    def several(key: Key, num: int) -> Any:
        return jax.vmap(draw_level)(jax.random.split(key, num))

    def init(key: Key, num: int, task: Any) -> tuple[Memory, Any]:
        buffer = level_buffer.init(jax.eval_shape(draw_level, key), config.capacity)
        return Memory(buffer, jnp.full(num, level_buffer.NOWHERE, jnp.int32)), several(key, num)

    def draw(
        key: Key, memory: Memory, lives: Lives, ended: Array, hparams: Any, task: Any
    ) -> tuple[Memory, Any, Metrics]:
        num = ended.shape[0]
        score_key, level_key, replay_key = jax.random.split(key, 3)
        scores = packed(scored, config.chunk, score_key, lives, ended, hparams)
        memory = _returned(config, memory, lives.task, scores, ended)
        memory, tasks, replayed = _drawn(config, replay_key, memory, several(level_key, num), ended)
        metrics = {
            "score": fm.mean(scores, ended & jnp.isfinite(scores)),
            "replayed": fm.mean(replayed, ended),
            "buffer_size": fm.mean(level_buffer.size(memory.buffer)),
            "buffer_score": fm.mean(memory.buffer.score, memory.buffer.filled),
        }
        return memory, tasks, metrics

    return Curriculum(init, draw)


def packed(score: Score, chunk: int, key: Key, lives: Lives, ended: Array, hparams: Any) -> Array:
    """The scores `[L]` of the lives that `ended`, -inf for the others.

    Those that ended are moved to the front and scored `chunk` at a time, as many chunks as there
    are: none costs nothing.
    """
    num = ended.shape[0]
    order = jnp.argsort(~ended, stable=True)
    keys = jax.random.split(key, num)

    def body(carry: tuple[Array, Array]) -> tuple[Array, Array]:
        i, scores = carry
        index = order[jnp.minimum(i * chunk + jnp.arange(chunk), num - 1)]
        some = jax.tree.map(lambda x: x[index], lives)
        new = jax.vmap(lambda k, life: score(k, life, hparams))(keys[index], some)
        new = jnp.where(ended[index] & jnp.isfinite(new), new, -jnp.inf)
        return i + 1, scores.at[index].set(new)

    start = jnp.int32(0), jnp.full(num, -jnp.inf, jnp.float32)
    return jax.lax.while_loop(lambda c: c[0] * chunk < ended.sum(), body, start)[1]


def _returned(
    config: Config, memory: Memory, levels: PyTree, scores: Array, ended: Array
) -> Memory:
    """The levels of the lives that ended are released, and in the buffer if they are worth it."""
    order = jnp.argsort(~ended, stable=True)

    def one(i: Array, buffer: Buffer) -> Buffer:
        life = order[i]
        slot, score = memory.slots[life], scores[life]
        buffer = level_buffer.mark(buffer, slot, False)
        buffer = level_buffer.update(buffer, slot, score)
        offered = jnp.where(slot == level_buffer.NOWHERE, score, -jnp.inf)
        level = jax.tree.map(lambda x: x[life], levels)
        return level_buffer.insert(buffer, level, offered, config.replay)[0]

    buffer = jax.lax.fori_loop(0, ended.sum(), one, memory.buffer)
    return memory._replace(buffer=buffer)


def _drawn(
    config: Config, key: Key, memory: Memory, fresh: PyTree, ended: Array
) -> tuple[Memory, PyTree, Array]:
    """Levels `[L, ...]` for the lives that ended, `fresh` or from the buffer: True there."""
    num = ended.shape[0]
    coin_key, take_key = jax.random.split(key)
    replays = ended & (jax.random.uniform(coin_key, (num,)) < config.replay_probability)
    order = jnp.argsort(~replays, stable=True)

    def one(i: Array, carry: tuple[Buffer, Array]) -> tuple[Buffer, Array]:
        buffer, slots = carry
        buffer, slot = level_buffer.take(jax.random.fold_in(take_key, i), buffer, config.replay)
        return buffer, slots.at[order[i]].set(slot)

    enough = level_buffer.size(memory.buffer) >= config.least
    slots = jnp.where(ended, level_buffer.NOWHERE, memory.slots)
    count = jnp.where(enough, replays.sum(), 0)
    buffer, slots = jax.lax.fori_loop(0, count, one, (memory.buffer, slots))
    replayed = ended & (slots != level_buffer.NOWHERE)
    return Memory(buffer, slots), pick(replayed, level_buffer.get(buffer, slots), fresh), replayed


def random_score(life: Life) -> Score:
    """A uniform number: what a buffer does without knowing anything."""
    return lambda key, ended, hparams: jax.random.uniform(key)


def l1_value_loss(life: Life) -> Score:
    """Mean |A| of the life's own critic on one more rollout (Jiang et al. 2021)."""
    return _value_loss(life, jnp.abs)


def positive_value_loss(life: Life) -> Score:
    """Mean max(A, 0) of the life's own critic on one more rollout."""
    return _value_loss(life, lambda advantage: jnp.maximum(advantage, 0.0))


def algorithmic_regret(
    life: Life, antagonist: Algorithm | None = None, episodes: int = 64
) -> Score:
    """How much better an antagonist is after as many updates as the life had.

    By default A2C on the same environment with the inner agent's sizes, optimiser and learning
    rates; else any Algorithm whose hparams are the inner ones.
    """
    inner = life.inner
    recipe = inner.recipe
    if antagonist is None:
        if recipe is None or not isinstance(recipe.config, lpg_agent.Config):
            raise ValueError("algorithmic_regret: inner is no agent of lpg_agent: antagonist=")
        antagonist = lpg_agent.make(recipe.env, recipe.config, objective=A2C(), reset=recipe.reset)
    rival = antagonist
    value, rivals_value = (_first_return(a, episodes) for a in (inner, rival))

    def score(key: Key, ended: Lives, hparams: Any) -> Array:
        init_key, own_key, rivals_key = jax.random.split(key, 3)
        own = hparams.inner._replace(objective=rival.default_hparams.objective)
        start = rival.init(init_key, own, ended.task)

        def update(carry: tuple[Array, Any]) -> tuple[Array, Any]:
            n, state = carry
            return n + 1, rival.step(state, own, ended.task)[0]

        # Under vmap until the last is done, with those that are done before held where they are.
        _, trained = jax.lax.while_loop(lambda c: c[0] < ended.age, update, (jnp.int32(0), start))
        gap = rivals_value(rivals_key, trained, ended.task) - value(
            own_key, ended.state, ended.task
        )
        whole = [jnp.isfinite(x).all() for x in jax.tree.leaves(inner.parameters(ended.state))]
        return jnp.where(jnp.stack(whole).all(), gap, -jnp.inf)  # none of one that diverged

    return score


def _first_return(algorithm: Algorithm, episodes: int) -> Callable[[Key, Any, Any], Array]:
    """V: the mean return of complete episodes of the policy, actions sampled."""
    player = Player(algorithm.act, algorithm.initial_carry, algorithm.env, deterministic=False)
    playing = play(player, episodes)
    return lambda key, state, task: playing(key, state, task, MAX_STEPS).returns.mean()


def _value_loss(life: Life, weigh: Callable[[Array], Array]) -> Score:
    def score(key: Key, ended: Lives, hparams: Any) -> Array:
        _, transitions, _ = life.view.collect(key, ended.state, ended.task)
        _, advantage, _ = life.critic.learn(ended.critic, transitions, numbers(hparams))
        return weigh(advantage).mean()

    return score
