"""Snapshot starts: what is kept of a teacher, how it is grouped, where and when students start."""

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from scipy import stats

import fastrl
from fastrl import ppo, snapshots
from fastrl.envs.classic import CartPole
from fastrl.k_means import k_means
from fastrl.kernels import prng
from fastrl.snapshots import Starts, Visits, grouped
from fastrl.vec import VecEnv, rollout

ENV = CartPole()
N = 16
SMALL = ppo.Config(num_envs=4, num_steps=8, num_minibatches=2, hidden_sizes=())


def by_brute_force(x, k):
    """The least sum of squares of `x` in at most `k` intervals."""
    x = np.sort(x)
    cost = lambda part: ((part - part.mean()) ** 2).sum() if len(part) else 0.0  # noqa: E731
    cuts = itertools.combinations_with_replacement(range(len(x) + 1), k - 1)
    return min(sum(cost(p) for p in np.split(x, list(c))) for c in cuts)


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_groups_are_the_best_there_are(k):
    """Lloyd's method would stop at a local best; a wrong recursion at none."""
    for seed in range(20):
        x = np.random.RandomState(seed).normal(size=9).round(1 + seed % 2)
        labels = k_means(x, k)
        assert set(labels) <= set(range(k))
        within = sum(((x[labels == i] - x[labels == i].mean()) ** 2).sum() for i in set(labels))
        np.testing.assert_allclose(within, by_brute_force(x, k), atol=1e-9)
        ascending = labels[np.argsort(x, kind="stable")]
        assert (np.diff(ascending) >= 0).all()


def store(count=(50, 9, 1)):
    """Snapshots of CartPole whose time is their group and whose position names them."""
    group = np.repeat(np.arange(len(count)), count)
    state, _ = jax.vmap(ENV.reset, (0, None))(
        jax.random.split(prng.key(9), len(group)), ENV.default_params()
    )
    position = jnp.arange(len(group), dtype=jnp.float32) / 1000
    state = state._replace(position=position, time=jnp.asarray(group, jnp.int32))
    observation = jnp.stack([position, *jax.tree.leaves(state)[1:4]], -1)
    return grouped(state, observation, 10.0 * group, clusters=6)


def test_groups_that_stay_empty_are_dropped():
    """Three different values can't be put into six groups that all have something."""
    made = store()
    assert made.size == 60
    assert made.count.sum() == 60
    assert (made.count > 0).all()
    assert (np.diff(made.status) >= 0).all()


@functools.lru_cache
def play(steps, visit, length, total=40, terminal=False):
    """Where every episode starts and how it ends, `[T, N]`, in `total` steps of `N`."""
    made = store()
    env = Visits(ENV)
    params = ENV.default_params()._replace(max_steps=length, max_angle=9.0, max_position=9.0)
    params = params._replace(max_position=0.0) if terminal else params
    batch = VecEnv(env, N, Starts(made, steps, visit)(env))

    @jax.jit
    def program(key):
        state = batch.init(key, params)

        def policy(key, observation):
            return jnp.zeros(N, jnp.int32), ()

        def keep(t, extras):
            return t

        return state, rollout(batch, policy, key, state, params, total, keep)[1]

    return made, *jax.device_get(program(prng.key(0)))


def starts(first, seen):
    """The observation at which every episode starts: `[T + 1, N, 4]`, and where one does."""
    done = seen.terminated | seen.truncated
    at = np.concatenate([np.ones((1, N), bool), done[:-1]])
    del first
    return seen.observation, at


def test_starts_come_from_the_store_until_the_switch_and_never_after():
    """An episode more or less from the store at the switch would be a step counted wrongly."""
    made, first, seen = play(steps=20 * N, visit=1, length=10_000)
    observation, at = starts(first, seen)
    known = np.isin(observation[..., 0].round(3), np.asarray(made.states.position).round(3))
    known &= np.isclose(observation[..., 0] % 0.001, 0, atol=1e-6) | np.isclose(
        observation[..., 0] % 0.001, 0.001, atol=1e-6
    )
    assert at[:20].all()  # visits of one step
    assert known[:20].all()
    assert not known[20].any()  # 20 N steps are taken: these start anew
    assert (seen.truncated[:20]).all()
    assert not seen.truncated[20:].any()  # and without a limit


def test_groups_are_drawn_uniformly_and_snapshots_within_them():
    """Uniform over snapshots would draw the single one of the last group once in sixty."""
    made, _, seen = play(steps=10**6, visit=1, length=10_000, total=400)
    index = (seen.observation[..., 0] * 1000).round().astype(int).ravel()
    group = np.repeat(np.arange(len(made.count)), made.count)
    order = np.argsort(np.asarray(made.states.position))
    of_index = group[order]
    assert stats.chisquare(np.bincount(of_index[index], minlength=len(made.count))).pvalue > 1e-3
    largest = int(made.count.argmax())
    members = np.flatnonzero(of_index == largest)
    counts = np.bincount(index, minlength=made.size)[members]
    assert stats.chisquare(counts).pvalue > 1e-3


def test_a_visit_is_cut_off_on_time_as_a_truncation():
    """At `visit` steps, not one before or after; the environment's own time stays in force."""
    _, _, seen = play(steps=10**6, visit=7, length=10_000)
    assert not seen.terminated.any()
    np.testing.assert_array_equal(seen.truncated.all(1), np.arange(1, 41) % 7 == 0)
    assert not (seen.terminated & seen.truncated).any()


def test_an_end_on_the_last_step_of_a_visit_is_a_termination():
    _, _, seen = play(steps=10**6, visit=1, length=10_000, total=3, terminal=True)
    moved = np.abs(seen.next_observation[..., 0]) > 0
    assert moved.any()
    np.testing.assert_array_equal(seen.terminated, moved)
    np.testing.assert_array_equal(seen.truncated, ~moved)


def test_keys_in_a_state_are_replaced():
    """Else all visits of a snapshot would meet the same chances."""
    state = {"key": jax.random.split(fastrl.key(0), 3), "raw": jnp.zeros(3)}
    fresh = snapshots._with_new_keys(fastrl.key(1), state)
    words = jax.random.key_data(fresh["key"])
    assert jax.random.key_impl(fresh["key"]) == jax.random.key_impl(state["key"])
    assert not np.isin(words, jax.random.key_data(state["key"])).any()
    assert len(np.unique(words, axis=0)) == 3


def test_what_is_kept_of_a_teacher():
    """Every fifth state of whole episodes, the best of them, rewound and valued."""
    algorithm = ppo.make(ENV, SMALL)
    state = jax.jit(algorithm.init)(prng.key(0), ppo.HParams(), ENV.default_params())
    options: dict[str, Any] = {"episodes": 6, "every": 5, "max_steps": 60, "seed": 3}
    all_kept = snapshots.collect(algorithm, state, clusters=1, **options)
    made = snapshots.collect(algorithm, state, best=2, **options)
    assert (np.diff(all_kept.returns) <= 0).all()
    np.testing.assert_array_equal(made.returns, all_kept.returns[:2])
    lengths = all_kept.returns  # CartPole pays 1 a step
    assert all_kept.size == sum(-(-int(n) // 5) for n in lengths)
    assert (np.asarray(made.states.time) % 5 == 0).all()
    value = algorithm.value(state, made.observations)  # type: ignore[misc]
    np.testing.assert_allclose(made.status, value, rtol=1e-5)
    rewound = snapshots.collect(
        algorithm, state, rewind=lambda s: s._replace(time=jnp.int32(0)), **options
    )
    assert not np.asarray(rewound.states.time).any()


@pytest.mark.slow
def test_evaluation_is_that_of_the_unchanged_environment():
    """Episodes that start from `reset` must not be cut off, whatever students start from."""
    student = ppo.make(Visits(ENV), SMALL, reset=Starts(store(), steps=10**6, visit=3))
    plain = ppo.make(ENV, SMALL)
    program = jax.jit(fastrl.run(student, 64))
    state, metrics = program(jax.random.key(0), ppo.HParams(), ENV.default_params())
    other = jax.jit(plain.init)(prng.key(0), ppo.HParams(), ENV.default_params())
    other = other._replace(params=state.params)
    wrapped, bare = (
        fastrl.evaluate(a, s, episodes=5, seed=1) for a, s in ((student, state), (plain, other))
    )
    np.testing.assert_array_equal(wrapped.returns, bare.returns)
    assert float(metrics["from_snapshot"].total.sum()) == 64.0
    assert (
        np.asarray(metrics["episode_length"].total).sum()
        <= 3 * np.asarray(metrics["episode_length"].weight).sum()
    )


def test_what_does_not_fit_is_refused():
    made = store()
    with pytest.raises(TypeError, match=r"pass Visits\(env\)"):
        Starts(made)(ENV)
    with pytest.raises(ValueError, match="visit=0"):
        Starts(made, visit=0)
    with pytest.raises(ValueError, match="not finite"):
        grouped(made.states, made.observations, np.full(60, np.nan))
    with pytest.raises(ValueError, match="leading axes"):
        grouped(made.states, made.observations, np.zeros(59))
    with pytest.raises(ValueError, match="no value function"):
        snapshots.collect(tiny.make(), None)
    algorithm = ppo.make(ENV, SMALL)
    with pytest.raises(ValueError, match="best=11"):
        snapshots.collect(algorithm, None, best=11)
