"""GROOVE: levels that come back because an antagonist does better on them."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import Walk, WalkParams

import fastrl
from fastrl.curricula import level_buffer
from fastrl.hparams import as_arrays
from fastrl.meta import evolution_lives, groove, lpg, lpg_agent, meta_gradient, meta_gradient_inner
from fastrl.meta.meta_gradient_critic import critic
from fastrl.meta.meta_gradient_lives import Life, Lives
from fastrl.spaces import Discrete

RULE = lpg.LPG(hidden_size=4, embedding_size=3, num_bins=3)
INNER = lpg_agent.HParams(learning_rate=4.0, head_learning_rate=4.0)
HPARAMS = as_arrays(meta_gradient.HParams(inner=INNER, critic_learning_rate=1.0))


def life_of(inner: Any) -> Life:
    return Life(
        inner, meta_gradient_inner.of_rule(inner), critic(Discrete(4), (), "relu", "sgd"),
        evolution_lives.install, lambda key: jnp.int32(4), 2, (),
    )  # fmt: skip


def by_prize(life: Life) -> groove.Score:
    """A score without any training: the prize of the level."""
    return lambda key, ended, hparams: ended.task.prize


@functools.cache
def drawing(replay_probability: float) -> Any:
    """The jitted draw of a curriculum with that score, and its memory at the start."""
    config = groove.Config(capacity=3, replay_probability=replay_probability, chunk=2)
    inner = lpg_agent.make(Walk(), lpg_agent.Config(4, 8), objective=RULE)
    curriculum = groove.curriculum(config, by_prize)(life_of(inner))
    memory, tasks = jax.jit(curriculum.init, static_argnums=1)(fastrl.key(0), 4, ())
    return jax.jit(curriculum.draw), memory, tasks


def lives_on(prizes: Any) -> Lives:
    tasks = WalkParams(jnp.asarray(prizes, jnp.float32), jnp.full(len(prizes), 6, jnp.int32))
    age = jnp.full(len(prizes), 4, jnp.int32)
    return Lives((), (), (), tasks, age, age, age)  # type: ignore[arg-type]


@pytest.mark.slow
def test_levels_of_ended_lives_are_kept_and_come_back():
    """Scores of lives that go on, a level that two lives are led on, or the worst ones kept."""
    draw, memory, _ = drawing(0.0)
    ended = jnp.array([True, True, False, True])
    memory, tasks, metrics = draw(
        fastrl.key(1), memory, lives_on([0.1, 0.5, 0.9, 0.3]), ended, HPARAMS, ()
    )
    assert sorted(np.round(memory.buffer.levels.prize, 3).tolist()) == pytest.approx(
        [0.1, 0.3, 0.5]
    )
    assert metrics["replayed"].total == 0
    assert metrics["score"].weight == 3
    assert (memory.slots == level_buffer.NOWHERE).all()

    draw, _, _ = drawing(1.0)
    only = jnp.array([True, True, False, False])
    memory, tasks, metrics = draw(
        fastrl.key(2), memory, lives_on([0.7, -0.5, 0.9, 0.3]), only, HPARAMS, ()
    )
    # 0.7 took the place of 0.1; -0.5 was not worth one; the two best came back, each to one life.
    assert sorted(np.asarray(tasks.prize[:2]).tolist()) == pytest.approx([0.5, 0.7])
    assert metrics["replayed"].total == 2
    assert int(memory.buffer.active.sum()) == 2
    assert len(set(memory.slots[:2].tolist())) == 2

    one = jnp.array([True, False, False, False])  # the life on the best level ends with a low score
    slot = int(memory.slots[0])
    lives = lives_on([-0.9, 0.5, 0.9, 0.3])
    memory, tasks, _ = draw(fastrl.key(3), memory, lives, one, HPARAMS, ())
    assert memory.buffer.score[slot] == pytest.approx(-0.9)
    assert not memory.buffer.active[slot]
    assert float(tasks.prize[0]) == pytest.approx(0.3)  # the other one is still in use


def test_only_lives_that_ended_are_scored():
    """An antagonist for every life at every update: 42 times the steps."""
    seen = []

    def score(key: Any, life: Any, hparams: Any) -> Any:
        jax.debug.callback(lambda x: seen.append(float(x)), life.task.prize)
        return jnp.where(life.task.prize > 0.5, jnp.nan, life.task.prize)

    lives = lives_on([0.1, 0.2, 0.3, 0.4, 0.6])
    ended = jnp.array([False, False, True, False, True])
    packed = jax.jit(lambda e: groove.packed(score, 2, fastrl.key(0), lives, e, HPARAMS))
    np.testing.assert_allclose(packed(ended), [-np.inf, -np.inf, 0.3, -np.inf, -np.inf])
    jax.effects_barrier()
    assert sorted(seen) == pytest.approx([0.3, 0.6])
    assert (packed(jnp.zeros(5, bool)) == -jnp.inf).all()
    jax.effects_barrier()
    assert len(seen) == 2


@pytest.mark.slow
def test_regret_of_the_antagonist_itself_is_none():
    """Values of other levels, other horizons, or agents of other ages; regret of what is idle."""
    inner = lpg_agent.make(Walk(), lpg_agent.Config(16, 8))
    score = groove.algorithmic_regret(life_of(inner), episodes=64)
    level = jax.tree.map(jnp.asarray, Walk().default_params())
    updates = 60
    trained, _ = jax.jit(fastrl.run(inner, updates * 128))(jax.random.key(0), INNER, level)
    idle = jax.jit(inner.init)(fastrl.key(1), INNER, level)
    age = jnp.int32(updates)

    @jax.jit
    def regrets(states: Any) -> Any:
        lives = lambda state: Lives(fastrl.key(2), state, (), level, age, age, age)  # noqa: E731
        return jax.lax.map(lambda s: score(fastrl.key(3), lives(s), HPARAMS), states)

    both = jax.tree.map(lambda *x: jnp.stack(x), trained, idle)
    solved, untrained = np.asarray(regrets(both))
    assert abs(solved) < 0.05
    assert untrained > 0.3
    broken = idle._replace(params=jax.tree.map(lambda x: x * jnp.nan, idle.params))
    assert np.isneginf(regrets(jax.tree.map(lambda *x: jnp.stack(x), broken, broken))).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    "score",
    [
        groove.algorithmic_regret,
        pytest.param(groove.random_score, marks=pytest.mark.full),
        pytest.param(groove.positive_value_loss, marks=pytest.mark.full),
        pytest.param(groove.l1_value_loss, marks=pytest.mark.full),
    ],
)
def test_meta_training_on_curated_levels(score):
    """A score whose numbers never reach the buffer; levels that nobody replays."""
    inner = lpg_agent.make(Walk(), lpg_agent.Config(4, 8), objective=RULE)
    config = meta_gradient.Config(num_lives=4, chunk=1, window=2)
    teacher = groove.curriculum(groove.Config(capacity=16, chunk=4), score)
    outer = meta_gradient.make(inner, RULE.init, config, curriculum=teacher)
    state = jax.jit(outer.init)(fastrl.key(0), HPARAMS, ())
    step, replayed, metrics = jax.jit(outer.step), 0.0, {}
    for _ in range(7):  # lives of two updates of the rule end before the 3rd, 5th and 7th
        state, metrics = step(state, HPARAMS, ())
        replayed += float(metrics["replayed"].total)
    assert replayed > 0
    assert 4 < float(metrics["buffer_size"].total) <= 12
    assert np.isfinite(float(metrics["buffer_score"].total))
    assert metrics["diverged"].total == 0


def test_bad_settings():
    """A probability of 2."""
    with pytest.raises(ValueError, match="replay_probability=2"):
        groove.Config(replay_probability=2)
    inner = lpg_agent.make(fastrl.make("CartPole-v1"), objective=RULE)
    with pytest.raises(ValueError, match="sample_level"):
        meta_gradient.make(
            inner, RULE.init, meta_gradient.Config(8, lifetime=4), curriculum=groove.curriculum()
        )
