"""The sum tree against sums and searches in float64, and what replay relies on."""

import functools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import randomness

from fastrl.kernels import prng, sum_tree
from fastrl.kernels.sum_tree import SumTree

SMALLEST = 1e-5  # the draws are fixed, so this never fails by chance
CAPACITIES = [1, 7, 8, 9, 65, 5000]  # one level, full rows, one leaf more, several levels
IMPLS = ["ref", "numba"]


@functools.cache
def jitted(name, impl):
    return jax.jit(functools.partial(getattr(sum_tree, name), impl=impl))


def filled(capacity, zeros=0.4, seed=0):
    """A tree and its priorities as float64."""
    rng = np.random.default_rng(seed + capacity)
    p = rng.exponential(size=capacity) * (rng.random(capacity) >= zeros)
    p[rng.integers(capacity)] = 1.5
    where, p32 = jnp.arange(capacity), jnp.asarray(p, jnp.float32)
    tree = jitted("update", "ref")(sum_tree.init(capacity), where, p32)
    return tree, p.astype(np.float32).astype(np.float64)


def leaves(tree):
    return np.asarray(sum_tree.get(tree, jnp.arange(tree.capacity)))


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("capacity", CAPACITIES)
def test_sums_after_many_updates(capacity, impl):
    """Every update sets what it names, nothing else, and sums do not drift."""
    rng, tree, p = np.random.default_rng(capacity), sum_tree.init(capacity), np.zeros(capacity)
    for _ in range(30):
        where, values = rng.integers(0, capacity, 16), rng.exponential(size=16).astype(np.float32)
        tree = jitted("update", impl)(tree, jnp.asarray(where), jnp.asarray(values))
        for i, v in zip(where, values, strict=True):
            p[i] = v
        np.testing.assert_array_equal(leaves(tree), p.astype(np.float32))
        np.testing.assert_allclose(sum_tree.total(tree), p.sum(), rtol=1e-6)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("capacity", CAPACITIES)
def test_find_against_float64(capacity, impl):
    """The running sum up to the leaf, in float64, embraces the mass but for float32's rounding."""
    tree, p = filled(capacity)
    mass = np.linspace(-0.1, 1.1, 4001) * p.sum()
    found = np.asarray(jitted("find", impl)(tree, jnp.asarray(mass)))
    assert found.min() >= 0
    assert found.max() < capacity
    assert (p[found] > 0).all()
    after = np.cumsum(p)[found]
    slack = 1e-5 * p.sum()
    inside = (mass >= 0) & (mass < p.sum())
    assert (after - p[found] <= mass + slack)[inside].all()
    assert (after >= mass - slack)[inside].all()
    can = np.flatnonzero(p)
    assert (found[mass < 0] == can[0]).all()
    assert (found[mass > p.sum() * 1.01] == can[-1]).all()


@pytest.mark.parametrize("capacity", CAPACITIES)
def test_implementations_give_the_same_bits(capacity):
    """A run must not depend on whether numba is installed."""
    rng = np.random.default_rng(capacity)
    trees = {impl: sum_tree.init(capacity) for impl in IMPLS}
    for _ in range(5):
        where = jnp.asarray(rng.integers(-3, capacity + 3, 40))  # some are no leaves
        values = jnp.asarray(rng.exponential(size=40) ** 9)
        trees = {k: jitted("update", k)(t, where, values) for k, t in trees.items()}
        np.testing.assert_array_equal(trees["ref"].nodes, trees["numba"].nodes)
        mass = jnp.asarray(rng.random(500) * 1.1) * sum_tree.total(trees["ref"])
        found = {k: jitted("find", k)(t, mass) for k, t in trees.items()}
        np.testing.assert_array_equal(found["ref"], found["numba"])


@pytest.mark.parametrize("impl", IMPLS)
def test_the_last_of_doubled_indices_holds(impl):
    where = jnp.array([5, 3, 5, 5, 3, 0, 99, 99])
    tree = jitted("update", impl)(sum_tree.init(100), where, jnp.arange(1.0, 9.0))
    expected = np.zeros(100)
    expected[[5, 3, 0, 99]] = [4, 5, 6, 8]
    np.testing.assert_array_equal(leaves(tree), expected)
    assert sum_tree.total(tree) == expected.sum()


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("stratified", [True, False])
def test_draws_are_in_proportion(impl, stratified):
    """Also over a tree whose priorities span five orders of magnitude."""
    tree, p = filled(300)
    p[7], p[8], p[9] = 50.0, 1e-3, 0.0
    tree = sum_tree.update(tree, jnp.array([7, 8, 9]), jnp.asarray(p[7:10]))
    draw = jax.jit(functools.partial(sum_tree.sample, n=500, stratified=stratified, impl=impl))
    counts, drawn, probability = np.zeros(300), np.zeros(0), np.zeros(0)
    for key in jax.random.split(prng.key(1), 200):
        drawn, probability = draw(tree, key)
        np.add.at(counts, np.asarray(drawn), 1)
    np.testing.assert_allclose(probability, p[np.asarray(drawn)] / p.sum(), rtol=1e-5)
    assert counts[p == 0].sum() == 0
    expected = p / p.sum() * counts.sum()
    if stratified:  # less scattered than independent draws, so a chi-square would be too small
        sigma = np.sqrt(np.maximum(expected, 1))
        assert (np.abs(counts - expected) < 5 * sigma).all()
    else:
        often = expected >= 5
        table = [np.append(a[often], a[~often].sum()) for a in (counts, expected)]
        assert randomness.chi_square(*table) > SMALLEST


def test_strata_have_one_draw_each():
    """The reason for strata: with equal priorities each of n parts comes once."""
    tree = sum_tree.update(sum_tree.init(640), jnp.arange(640), jnp.ones(640))
    drawn, probability = sum_tree.sample(tree, prng.key(0), 64)
    np.testing.assert_array_equal(np.asarray(drawn) // 10, np.arange(64))
    np.testing.assert_allclose(probability, 1 / 640, rtol=1e-6)


def test_a_large_tree_has_no_leaf_out_of_proportion():
    """Float32 sums over 2**20 leaves: shares by 64 blocks, and zeros are never drawn."""
    capacity = 10**6
    p = np.where(np.arange(capacity) % 3 == 0, 0.0, 1.0 + np.arange(capacity) % 7).astype(
        np.float32
    )
    tree = jitted("update", "ref")(sum_tree.init(capacity), jnp.arange(capacity), jnp.asarray(p))
    np.testing.assert_allclose(sum_tree.total(tree), p.sum(dtype=np.float64), rtol=1e-6)
    drawn, _ = sum_tree.sample(tree, prng.key(4), 100_000, stratified=False)
    drawn = np.asarray(drawn)
    assert (p[drawn] > 0).all()
    blocks = p.reshape(64, -1).sum(1, dtype=np.float64)
    counts = np.bincount(drawn // (capacity // 64), minlength=64)
    assert randomness.chi_square(counts, blocks / blocks.sum() * counts.sum()) > SMALLEST


@pytest.mark.parametrize("impl", IMPLS)
def test_a_batch_of_trees(impl):
    """Members of a sweep have a tree each; a shared tree is searched by all."""
    made = [filled(90, seed=s)[0] for s in range(3)]
    trees = jax.tree.map(lambda *x: jnp.stack(x), *made)
    where, values = (
        jnp.array([[1, 2], [3, 3], [89, 0]]),
        jnp.array([[9.0, 8.0], [7.0, 6.0], [0, 1]]),
    )
    update, find = (functools.partial(f, impl=impl) for f in (sum_tree.update, sum_tree.find))
    together = jax.jit(jax.vmap(update))(trees, where, values)
    mass = jnp.linspace(0, 60, 20)
    found = jax.jit(jax.vmap(find, (0, None)))(together, mass)
    for i, tree in enumerate(made):
        alone = jitted("update", impl)(tree, where[i], values[i])
        np.testing.assert_array_equal(together.nodes[i], alone.nodes)
        np.testing.assert_array_equal(found[i], jitted("find", impl)(alone, mass))
    shared = jax.jit(jax.vmap(find, (None, 0)))(made[0], jnp.stack([mass, mass / 2]))
    np.testing.assert_array_equal(shared[1], jitted("find", impl)(made[0], mass / 2))


@pytest.mark.parametrize("impl", IMPLS)
def test_a_loop_writes_in_place(impl):
    """Sampling and updating a large tree must not copy it: that would cost more than both."""

    def step(tree, key):
        drawn, probability = sum_tree.sample(tree, key, 8, impl=impl)
        return sum_tree.update(tree, drawn, probability + 1, impl=impl), probability

    tree = sum_tree.init(50_000)
    loop = jax.jit(lambda t, k: jax.lax.scan(step, t, k), donate_argnums=0)
    text = loop.lower(tree, jax.random.split(prng.key(0), 5)).compile().as_text() or ""
    shape = f"f32[{tree.nodes.shape[0]},8]"
    assert shape in text
    copies = re.findall(rf"= {re.escape(shape)}\S* copy\(.*", text)
    assert copies == []


def test_an_empty_tree_gives_the_first_leaf():
    drawn, probability = sum_tree.sample(sum_tree.init(100), prng.key(0), 5)
    np.testing.assert_array_equal(drawn, 0)
    np.testing.assert_array_equal(probability, 0)


@pytest.mark.parametrize("impl", IMPLS)
def test_traced_values_that_cannot_be_right_are_harmless(impl):
    """One NaN among the priorities must not make every later sum NaN."""
    tree, p = filled(50)
    where = jnp.array([0, 1, 2, 3, -1, 50, 2**31 - 1])
    values = jnp.array([jnp.nan, -1.0, jnp.inf, 1e-42, 9.0, 9.0, 9.0])
    p[:4] = 0
    after = leaves(jitted("update", impl)(tree, where, values))
    np.testing.assert_array_equal(after, p.astype(np.float32))


def test_known_values_that_cannot_be_right_are_named():
    tree = sum_tree.init(50)
    for bad in (jnp.nan, -1.0, jnp.inf):
        with pytest.raises(ValueError, match=rf"priorities\[1\]={bad}: needs a finite number"):
            sum_tree.update(tree, jnp.array([0, 1]), jnp.array([1.0, bad]))
    for bad in (-1, 50):
        with pytest.raises(ValueError, match=rf"indices\[1\]={bad}: needs a leaf of 0 to 49"):
            sum_tree.update(tree, jnp.array([0, bad]), jnp.ones(2))
        with pytest.raises(ValueError, match=rf"indices\[0\]={bad}"):
            sum_tree.get(tree, jnp.array(bad))


def test_shapes_that_do_not_fit_are_named():
    tree = sum_tree.init(50)
    with pytest.raises(ValueError, match=r"indices of shape \[2\] and priorities of shape \[3\]"):
        sum_tree.update(tree, jnp.arange(2), jnp.ones(3))
    with pytest.raises(ValueError, match=r"indices of shape \[1, 2\]"):
        sum_tree.update(tree, jnp.zeros((1, 2), int), jnp.ones((1, 2)))
    with pytest.raises(TypeError, match=r"indices are float32\[2\]"):
        sum_tree.update(tree, jnp.ones(2), jnp.ones(2))
    wrong: list[Any] = [0, -1, 2.0, True]
    for n in wrong:
        with pytest.raises(ValueError, match=f"n={n}: needs an integer of at least 1"):
            sum_tree.sample(tree, prng.key(0), n)


@pytest.mark.parametrize("capacity", [0, -5, 2**30 + 1, 3.0, True, None])
def test_impossible_capacities_are_named(capacity):
    with pytest.raises(ValueError, match=f"capacity={capacity}: needs an integer of 1 to"):
        sum_tree.init(capacity)


def test_a_tree_is_a_record_of_one_array():
    """What checkpoints save and `lax.scan` carries: capacity is part of the structure."""
    tree = sum_tree.init(10)
    assert [x.shape for x in jax.tree.leaves(tree)] == [(3, 8)]
    assert jax.tree.structure(tree) != jax.tree.structure(sum_tree.init(11))
    assert isinstance(jax.tree.map(lambda x: x, tree), SumTree)
