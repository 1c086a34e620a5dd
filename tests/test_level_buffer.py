"""Prioritised level replay, against numbers worked out by hand and a loop in NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fastrl.curricula import level_buffer, scores
from fastrl.curricula.level_buffer import NOWHERE, Replay

SCORES, USED = (0.2, 0.9, 0.5, -0.1), (3, 7, 5, 1)


def golden(active=()):
    """Four levels, numbered 10 .. 13, with known scores and staleness."""
    buffer = level_buffer.init(jnp.int32(0), 4)
    return buffer._replace(
        levels=jnp.arange(10, 14, dtype=jnp.int32),
        score=jnp.array(SCORES, jnp.float32),
        used=jnp.array(USED, jnp.int32),
        filled=jnp.ones(4, bool),
        active=jnp.isin(jnp.arange(4), jnp.array(active, jnp.int32)),
        counter=jnp.int32(9),
    )


@pytest.mark.parametrize(
    ("temperature", "staleness", "expected"),
    [
        (1.0, 0.0, (0.16, 0.48, 0.24, 0.12)),
        (0.3, 0.0, (0.022631, 0.881262, 0.087432, 0.008674)),
        (0.1, 0.0, (0.000017, 0.999007, 0.000976, 0.000001)),
        (0.3, 1.0, (0.3, 0.1, 0.2, 0.4)),
        (0.3, 0.3, (0.105842, 0.646884, 0.121203, 0.126072)),
        (1.0, 0.3, (0.202, 0.366, 0.228, 0.204)),
        (0.3, 0.5, (0.161315, 0.490631, 0.143716, 0.204337)),
    ],
)
def test_replay_distribution(temperature, staleness, expected):
    """Ranks from the wrong end, an exponent that is not 1 / beta, shares that are swapped."""
    replay = Replay("rank", temperature, staleness)
    np.testing.assert_allclose(level_buffer.distribution(golden(), replay), expected, atol=1e-6)


def test_other_prioritisations():
    """Proportional with a negative score as a probability; "top" that spreads."""
    proportional = level_buffer.distribution(golden(), Replay("proportional", 1.0, 0.0))
    np.testing.assert_allclose(proportional, np.array([0.2, 0.9, 0.5, 0.0]) / 1.6, rtol=1e-6)
    top = level_buffer.distribution(golden(), Replay("top", staleness=0.0))
    np.testing.assert_array_equal(top, [0, 1, 0, 0])
    none = golden()._replace(score=jnp.full(4, -1.0))
    even = level_buffer.distribution(none, Replay("proportional", 0.3, 0.0))
    np.testing.assert_allclose(even, 0.25)


def test_draws_follow_the_distribution():
    """A search in the cumulative sum that is off by one, or a key that is used twice."""
    replay = Replay("rank", 0.3, 0.3)
    draw = lambda key: level_buffer.take(key, golden(), replay)[1]  # noqa: E731
    n = 4_000
    slots = jax.vmap(draw)(jax.random.split(jax.random.key(0), n))
    p = np.asarray(level_buffer.distribution(golden(), replay))
    seen = np.bincount(np.asarray(slots), minlength=4) / n
    assert np.all(np.abs(seen - p) < 4 * np.sqrt(p * (1 - p) / n))


def test_what_was_drawn_is_not_stale():
    """Staleness that is computed once for the batch: the same level again and again."""
    sample = jax.jit(level_buffer.sample, static_argnums=(2, 3))
    replay = Replay("rank", 0.3, 1.0)
    for seed in range(20):
        _, slots = sample(jax.random.key(seed), golden(), replay, 4)
        assert (np.diff(slots) != 0).all()
    buffer, slots = sample(jax.random.key(0), golden(), replay, 4)
    assert int(buffer.counter) == 13
    assert int(buffer.used[slots[-1]]) == 13
    fresh = golden()._replace(used=jnp.full(4, 9))
    np.testing.assert_allclose(level_buffer.distribution(fresh, replay), 0.25)  # none is stale


def test_eviction():
    """The victim chosen by score alone, one that is active, or a better one than the newcomer."""
    replay = Replay("rank", 0.3, 0.3)
    buffer, slot = level_buffer.insert(golden(), jnp.int32(99), jnp.float32(2.0), replay)
    assert int(slot) == 0  # the least P, although slot 3 has the least score
    assert buffer.levels.tolist() == [99, 11, 12, 13]
    assert int(buffer.counter) == 10
    buffer, slot = level_buffer.insert(golden(), jnp.int32(99), jnp.float32(0.1), replay)
    assert int(slot) == NOWHERE
    assert buffer.levels.tolist() == [10, 11, 12, 13]
    assert int(buffer.counter) == 10
    # Of the idle slots 1 .. 3 the ranks are 1, 2, 3: with slot 0 held, the least P is slot 2's.
    p = np.asarray(level_buffer.distribution(golden(active=[0]), replay))
    buffer, slot = level_buffer.insert(golden(active=[0]), jnp.int32(99), jnp.float32(2.0), replay)
    assert int(slot) == 1 + int(np.argmin(p[1:]))
    assert p[0] == 0
    every = golden(active=[0, 1, 2, 3])
    assert int(level_buffer.insert(every, jnp.int32(99), jnp.float32(2.0), replay)[1]) == NOWHERE
    assert int(level_buffer.take(jax.random.key(0), every, replay)[1]) == NOWHERE
    for bad in (jnp.nan, -jnp.inf):
        assert int(level_buffer.insert(golden(), jnp.int32(9), jnp.float32(bad), replay)[1]) < 0


def test_inserting_many_is_a_loop():
    """Slots that are filled twice while there are empty ones; duplicates that are kept."""
    replay = Replay("rank", 0.3, 0.0)
    buffer = level_buffer.init(jnp.int32(0), 3)
    levels = jnp.array([5, 6, 5, 7, 8, 9], jnp.int32)
    offered = jnp.array([0.1, 0.5, 0.3, 0.2, 0.25, 0.05], jnp.float32)
    unique = functools.partial(level_buffer.insert_all, replay=replay, unique=True)
    buffer, slots = jax.jit(unique)(buffer, levels, offered)
    assert slots.tolist() == [0, 1, 0, 2, 2, NOWHERE]
    assert buffer.levels.tolist() == [5, 6, 8]
    np.testing.assert_allclose(buffer.score, [0.3, 0.5, 0.25])
    assert int(level_buffer.size(buffer)) == 3


def test_marks_and_updates():
    """A mark or a score of NOWHERE that lands in the last slot."""
    buffer = level_buffer.mark(golden(), jnp.int32(NOWHERE), True)
    buffer = level_buffer.update(buffer, jnp.int32(NOWHERE), jnp.float32(9.0))
    assert not buffer.active.any()
    np.testing.assert_allclose(buffer.score, SCORES)
    buffer, slot = level_buffer.take(jax.random.key(1), golden(), Replay("top", staleness=0.0))
    assert int(slot) == 1
    assert buffer.active.tolist() == [False, True, False, False]
    assert int(level_buffer.get(buffer, slot)) == 11
    buffer, slot = level_buffer.take(jax.random.key(1), buffer, Replay("top", staleness=0.0))
    assert int(slot) == 2  # the best of those that nobody trains on


@pytest.mark.parametrize(("name", "expected"), [("positive", 0.7916667), ("l1", 1.25)])
def test_value_losses(name, expected):
    """A mean over all steps in the place of that over episodes, or the last episode counted."""
    done = jnp.array([0, 0, 1, 0, 1, 0], bool)
    advantage = jnp.array([1, -2, 3, 0.5, -0.5, 9.0])
    score = {"positive": scores.positive_value_loss, "l1": scores.l1_value_loss}[name]
    np.testing.assert_allclose(score(advantage, done), expected, rtol=1e-6)
    assert score(advantage, jnp.zeros(6, bool)) == -jnp.inf


def test_max_mc_and_learnability():
    """The return of an unfinished episode; NaN for a level without one, which sorts last."""
    done = jnp.array([0, 0, 1, 0, 1, 0], bool)
    reward = jnp.array([0, 0, 1, 0, 0.5, 4.0])
    values = jnp.array([0.2, 0.4, 0.6, 0.1, 0.3, 0.9])
    best = scores.best_return(reward, done)
    assert best == 1.0
    np.testing.assert_allclose(scores.max_mc(values, best, done), 0.7, rtol=1e-6)
    solved, finished = jnp.array([0, 1, 4, 0]), jnp.array([4, 4, 4, 0])
    np.testing.assert_allclose(scores.learnability(solved, finished), [0, 0.1875, 0, -np.inf])


def test_bad_settings():
    """A temperature of 0 divides by it."""
    with pytest.raises(ValueError, match="temperature=0"):
        Replay(temperature=0.0)
    with pytest.raises(ValueError, match="capacity"):
        level_buffer.init(jnp.int32(0), 0)
