"""Where episodes start: `pool` with renewal, `cached`, and what the default is."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import fastrl
from fastrl import reset
from fastrl.envs.adapters.brax import Brax
from fastrl.envs.adapters.gymnasium import Gymnasium
from fastrl.envs.classic import CartPole
from fastrl.kernels import prng
from fastrl.transforms import FrameStack
from fastrl.vec import VecEnv, rollout

ENV = CartPole()
N = 64
P_VALUE = 1e-3  # of tests with fixed seeds: what is right passes once and for all


@functools.lru_cache
def starts(make: Any, n: int, steps: int, length: int = 1, seed: int = 0) -> np.ndarray:
    """First observations `[E, 4]` of episodes of `length` steps, in `steps` steps of `n`.

    The first of all environments do not count: they are what `init` drew.
    """
    params = ENV.default_params()._replace(max_steps=length, max_angle=9.0, max_position=9.0)
    batch = VecEnv(ENV, n, make(ENV))

    def program(key: Any) -> Any:
        state = batch.init(key, params)

        def policy(key: Any, observation: Any) -> Any:
            return jnp.zeros(n, jnp.int32), ()

        return rollout(batch, policy, key, state, params, steps)[1][0]

    seen = jax.device_get(jax.jit(program)(prng.key(seed)))
    return seen.observation[1:][seen.truncated[:-1]]


def assert_distributed_as_fresh(sample: np.ndarray) -> None:
    """Every entry is uniform in [-0.05, 0.05], and no two entries go together."""
    for entry in sample.T:
        assert stats.kstest(entry, stats.uniform(-0.05, 0.1).cdf).pvalue > P_VALUE
    correlation = np.corrcoef(sample.T)[np.triu_indices(4, 1)]
    assert np.abs(correlation).max() < 4 / np.sqrt(len(sample))


def times_used(sample: np.ndarray) -> np.ndarray:
    return np.unique(sample, axis=0, return_counts=True)[1]


def test_fresh_starts_are_the_environments_own() -> None:
    """Fails if the test of the distribution, by which the others are judged, is wrong itself."""
    sample = starts(reset.fresh, N, 65)
    assert_distributed_as_fresh(sample)
    assert len(sample) == 64 * N
    assert times_used(sample).max() == 1


def test_a_fixed_pool_has_its_size_and_no_more() -> None:
    """Fails if a pool without renewal changes, or draws some of its states more than others."""
    sample = starts(functools.partial(reset.pool, size=32), N, 65)
    used = times_used(sample)
    assert len(used) == 32
    assert stats.chisquare(used).pvalue > P_VALUE


def test_a_large_pool_is_distributed_as_fresh_starts() -> None:
    """Fails if drawing by index favours states, or state and observation come apart."""
    pool = reset.pool(ENV, size=4096)
    memory = pool.init(prng.key(1), ENV.default_params(), N)
    drawn = pool.draw(prng.key(2), memory, ENV.default_params(), jnp.ones(N, bool))
    assert_distributed_as_fresh(np.asarray(memory[1]))
    np.testing.assert_array_equal(jnp.stack(drawn.state[:4], -1), drawn.observation)


def test_renewal_makes_the_long_run_right() -> None:
    """Fails if renewed states are not written, or the oldest are not the ones that go.

    A pool of 8 that never changed could not give thousands of starts distributed as fresh ones.
    With 2 renewed a step a start lives for 4 steps, in which it is drawn 4 * N / 8 times.
    """
    sample = starts(functools.partial(reset.pool, size=8, renewal=2.0), N, 257)
    used = times_used(sample)
    assert abs(len(used) - 2 * 256) <= 16
    assert abs(used.mean() - 4 * N / 8) < 2
    lives = np.unique(sample, axis=0)
    assert_distributed_as_fresh(lives)


def test_a_slow_renewal_draws_one_state_in_so_many_steps() -> None:
    """Fails if a rate below one is rounded away, up or down."""
    pool = reset.pool(ENV, size=4, renewal=0.25)
    params, key = ENV.default_params(), prng.key(0)
    memory = pool.init(key, params, N)
    draw = jax.jit(pool.draw)
    changed = []
    for step in range(16):
        before = memory.starts[1]
        memory = draw(jax.random.fold_in(key, step), memory, params, jnp.zeros(N, bool)).memory
        changed.append(np.flatnonzero((memory.starts[1] != before).any(-1)).tolist())
    assert changed[::4] == [[0], [1], [2], [3]]
    assert not any(c for i, c in enumerate(changed) if i % 4)


@pytest.mark.parametrize(("size", "renewal", "lives"), [(8, 3.0, 3), (5, 5.0, 1), (1, 1.0, 1)])
def test_every_state_is_renewed_in_turn(size: int, renewal: float, lives: int) -> None:
    """Fails if blocks that do not divide the pool leave out states at its end."""
    pool = reset.pool(ENV, size=size, renewal=renewal)
    params, key = ENV.default_params(), prng.key(0)
    memory = pool.init(key, params, N)
    first = memory.starts[1]
    for step in range(lives):
        done = jnp.zeros(N, bool)
        memory = pool.draw(jax.random.fold_in(key, step), memory, params, done).memory
    assert (memory.starts[1] != first).any(-1).all()


@pytest.mark.parametrize(
    ("n", "every"), [(60, 8), (7, 16), pytest.param(64, 1, marks=pytest.mark.slow)]
)
def test_cached_never_repeats_a_start(n: int, every: int) -> None:
    """Fails if a used start is handed out again although the episode lasted `every` steps."""
    sample = starts(functools.partial(reset.cached, every=every), n, 40 * every + 1, every)
    assert len(sample) == 40 * n
    assert times_used(sample).max() == 1
    if len(sample) > 1000:
        assert_distributed_as_fresh(sample)


def test_cached_repeats_no_more_often_than_promised() -> None:
    """Fails if starts of episodes shorter than `every` are kept longer than `every` steps."""
    sample = starts(functools.partial(reset.cached, every=8), N, 257, 1)
    used = times_used(sample)
    assert used.max() == 8
    assert abs(len(used) - 256 * N / 8) <= 2 * N


def test_cached_draws_only_what_was_used() -> None:
    """Fails if blocks are drawn anew that nobody started from: the cost is for nothing."""
    cached = reset.cached(ENV, every=4)
    params, key = ENV.default_params(), prng.key(0)
    memory = cached.init(key, params, 8)
    draw = jax.jit(cached.draw)
    first = memory.starts[1]
    done = jnp.zeros(8, bool).at[5].set(True)
    changed = []
    for step in range(8):
        memory = draw(jax.random.fold_in(key, step), memory, params, done & (step == 0)).memory
        changed.append(np.flatnonzero((memory.starts[1] != first).any(-1)).tolist())
    assert changed == [[], [], *[[4, 5]] * 6]
    assert not memory.used.any()


@pytest.mark.slow
@pytest.mark.parametrize(
    "make", [functools.partial(reset.pool, size=16, renewal=0.5), reset.cached]
)
def test_resets_train_and_their_memory_is_saved(make: Any, tmp_path: Any) -> None:
    """Fails if a Reset's memory changes its types, or is not part of what a resume restores."""
    config = fastrl.ppo.Config(8, 4, 1, 1, (4,))
    algorithm = fastrl.ppo.make(ENV, config, reset=make)
    options: dict = {"seed": 3, "progress": False}
    whole = fastrl.train(algorithm, steps=128, **options)
    fastrl.train(algorithm, steps=64, run_dir=tmp_path / "run", **options)
    resumed = fastrl.train(algorithm, steps=128, run_dir=tmp_path / "run", resume=True, **options)
    for a, b in zip(jax.tree.leaves(whole.env), jax.tree.leaves(resumed.env), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_default_is_what_the_environment_asks_for() -> None:
    """Fails if physics is reset in every step, or a host environment starts from few seeds."""
    assert reset.default(ENV) is reset.fresh
    assert reset.default(Brax("ant")) is reset.pool
    assert reset.default(Gymnasium("CartPole-v1")) is reset.fresh
    assert reset.default(FrameStack(Gymnasium("CartPole-v1"), 2)) is reset.cached


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: reset.pool(ENV, 4, 5.0), "renewal=5.0"),
        (lambda: reset.pool(ENV, 4, -0.5), "renewal=-0.5"),
        (lambda: reset.pool(ENV, 4, 1.5), "at most one or whole"),
        (lambda: reset.pool(ENV, 4, float("nan")), "renewal=nan"),
        (lambda: reset.cached(ENV, 0), "every=0"),
        (lambda: reset.cached(ENV, 2.5), "every=2.5"),  # type: ignore[arg-type]
    ],
)
def test_bad_numbers_are_named(make: Any, words: str) -> None:
    """Fails if a rate that can't be kept is taken for another one."""
    with pytest.raises(ValueError, match=words):
        make()
