"""Shuffles: bijections for every shape, and as random as a sort by random numbers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import randomness
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fastrl.kernels import prng
from fastrl.kernels.permutation import _sides, permutation

SMALLEST = 1e-5  # the draws are fixed, so this never fails by chance

# Powers of two, odd shapes, one environment, one step, primes, products of two primes.
SHAPES = [(128, 8), (5, 26), (100, 37), (1, 256), (300, 1), (1, 1009), (131, 1), (2, 509), (11, 13)]


@functools.cache
def _many(a, b, count):
    """`count` shuffles `[count, a * b]` under successive keys."""
    keys = jax.random.split(prng.key(a * 1000 + b), count)
    return np.asarray(jax.jit(jax.vmap(lambda k: permutation(k, a, b)))(keys))


@settings(deadline=None, max_examples=12, derandomize=True)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 2**32 - 1))
def test_every_index_comes_once(a, b, seed):
    """A doubled index would train twice on one sample and never on another."""
    order = jax.jit(permutation, static_argnums=(1, 2))(prng.key(seed), a, b)
    assert order.dtype == jnp.int32
    np.testing.assert_array_equal(np.sort(order), np.arange(a * b))


@pytest.mark.parametrize("shape", [(128, 2048), (1, 65537), (7, 9973), (1, 180649)])
def test_every_index_comes_once_in_large_arrays(shape):
    order = jax.jit(permutation, static_argnums=(1, 2))(prng.key(1), *shape)
    np.testing.assert_array_equal(np.sort(order), np.arange(np.prod(shape)))


@pytest.mark.parametrize("shape", SHAPES)
def test_every_index_goes_everywhere(shape):
    """The share of (place, index) pairs over many keys; a rotation or a weak round shows here."""
    n, orders = np.prod(shape), _many(*shape, count=2000)
    places = np.linspace(0, n - 1, 50).astype(int)
    for at in np.array_split(places, 5):
        counts = np.bincount(orders[:, at].ravel() * 16 // n, minlength=16)
        sizes = np.bincount(np.arange(n) * 16 // n, minlength=16) / n
        assert randomness.chi_square(counts, sizes * counts.sum()) > SMALLEST


@pytest.mark.parametrize("shape", SHAPES)
def test_neighbours_part(shape):
    """Differences of successive indices (mod n) are uniform; an affine shuffle repeats one.

    And where two given places go is independent: neighbours, and places half the array apart.
    """
    n, orders = int(np.prod(shape)), _many(*shape, count=2000).astype(np.int64)
    sizes = np.bincount(np.arange(n - 1) * 16 // (n - 1), minlength=16) / (n - 1)
    for lag in (1, 2, n // 2):
        difference = (orders[:, lag:] - orders[:, :-lag]) % n - 1  # in 0 .. n - 2
        counts = np.bincount((difference * 16 // (n - 1)).ravel(), minlength=16)
        assert randomness.chi_square(counts, sizes * counts.sum()) > SMALLEST
        first, second = difference[:, 0] * 4 // (n - 1), orders[:, 0] * 4 // n
        table = np.bincount(first * 4 + second, minlength=16).reshape(4, 4)
        independent = np.outer(table.sum(1), table.sum(0)) / table.sum()
        statistic = ((table - independent) ** 2 / independent).sum()
        assert stats.chi2.sf(statistic, 9) > SMALLEST


@pytest.mark.parametrize("shape", SHAPES)
def test_fixed_points_are_as_rare_as_by_chance(shape):
    """Their number is Poisson with mean 1; a shuffle that leaves much in place has more."""
    orders = _many(*shape, count=2000)
    fixed = (orders == np.arange(orders.shape[1])).sum(1)
    counts = np.bincount(np.minimum(fixed, 5), minlength=6)
    expected = [*stats.poisson.pmf(np.arange(5), 1), stats.poisson.sf(4, 1)]
    assert randomness.chi_square(counts, np.array(expected) * len(orders)) > SMALLEST


def test_small_arrays_have_all_orders():
    """All 24 orders of four indices, and 720 of six, equally often."""
    for shape, orders in (((2, 2), 24), ((1, 4), 24), ((2, 3), 720)):
        n = int(np.prod(shape))
        code = _many(*shape, count=36_000) @ (n ** np.arange(n))
        counts = np.unique(code, return_counts=True)[1]
        assert len(counts) == orders
        assert randomness.chi_square(counts, counts.sum() / orders) > SMALLEST


def test_keys_give_unrelated_orders():
    """Two epochs, or two members of a sweep, must not see the same minibatches."""
    orders = _many(128, 8, count=2000).astype(np.float64)
    correlation = np.corrcoef(orders[:200]) - np.eye(200)
    assert np.abs(correlation).max() * np.sqrt(orders.shape[1]) < 5.5
    epochs = [permutation(k, 128, 8) for k in jax.random.split(prng.key(0))]
    assert (epochs[0] == epochs[1]).sum() < 10


def test_depends_on_the_number_of_indices_only():
    key = prng.key(2)
    np.testing.assert_array_equal(permutation(key, 64, 32), permutation(key, 1, 2048))


def test_sides_are_nearly_equal_and_hold_all():
    for n in [*range(129, 3000), 65537, 821813528, 2**31 - 1]:
        a, b = _sides(n)
        assert a * b >= n
        assert a * b - n < 64
        assert a <= b <= 4 * a


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (-1, -5), (2**16, 2**15)])
def test_impossible_sizes_are_named(shape):
    with pytest.raises(ValueError, match=rf"\[{shape[0]}, {shape[1]}\]"):
        permutation(prng.key(0), *shape)
