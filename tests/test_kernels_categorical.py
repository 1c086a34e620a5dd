"""Categorical draws: the right shares, nothing masked, safe at the ends, any number of classes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import randomness

from fastrl.kernels import categorical, prng

SMALLEST = 1e-5  # the draws are fixed, so this never fails by chance
LARGEST_UNIFORM = np.float32(1 - 2**-23)

LOGITS = {
    "two": [0.3, -1.2],
    "one": [5.0],
    "equal": [0.0] * 7,
    "wide range": [-8.0, 0.0, 3.0, -2.0, 1e-3],
    "shifted": [1000.0, 1001.0, 999.0],
    "masked": [-np.inf, 0.0, -np.inf, 1.0, -np.inf],
    "far below": [-1e9, 0.0, 0.5, -1e9],
    "many": list(np.sin(np.arange(33.0))),
    "many more": list(2 * np.sin(np.arange(1500.0))),
}


def shares(logits):
    x = np.asarray(logits, np.float64)
    p = np.exp(x - x.max())
    return p / p.sum()


@pytest.mark.parametrize("logits", LOGITS.values(), ids=LOGITS)
def test_shares_are_those_of_the_softmax(logits):
    """Chi-square, with rare classes together; classes that cannot come are counted apart."""
    rows = 200_000 if len(logits) < 100 else 20_000
    x = jnp.broadcast_to(jnp.asarray(logits, jnp.float32), (rows, len(logits)))
    drawn = np.asarray(jax.jit(categorical.sample)(prng.key(3), x))
    assert drawn.dtype == np.int32
    counts, p = np.bincount(drawn, minlength=len(logits)), shares(logits)
    assert counts[p == 0].sum() == 0
    often = p * rows >= 10
    counts, p = ([*a[often], a[~often].sum()] for a in (counts, p))
    counts, p = (np.array(a)[np.array(p) * rows >= 1e-3] for a in (counts, p))
    if len(p) > 1:
        assert randomness.chi_square(counts, p * rows / p.sum()) > SMALLEST


def test_the_same_distribution_as_jax():
    """Frequencies of both, compared class by class: a swapped or shifted class would show."""
    rows, x = 100_000, jnp.asarray([0.5, -0.5, 2.0, 0.0])
    batch = jnp.broadcast_to(x, (rows, 4))
    ours = np.bincount(categorical.sample(prng.key(1), batch), minlength=4) / rows
    theirs = np.bincount(jax.random.categorical(prng.key(2), batch), minlength=4) / rows
    np.testing.assert_allclose(ours, theirs, atol=0.01)


@pytest.mark.parametrize("n", [1, 2, 3, 18, 32, 33, 40, 1024, 1025, 3000])
def test_the_ends_of_the_uniform(n):
    """At 0 the first class that can come, just below 1 (and at 1) the last; never one beyond."""
    rng = np.random.default_rng(n)
    for _ in range(20):
        logits = rng.normal(scale=4, size=n).astype(np.float32)
        logits[rng.random(n) < 0.5] = -np.inf
        logits[rng.integers(n)] = 0.0
        can = np.flatnonzero(np.exp(logits - logits.max()) > 0)
        uniform = jnp.asarray([0.0, LARGEST_UNIFORM, 1.0])
        drawn = categorical.draw(uniform, jnp.broadcast_to(jnp.asarray(logits), (3, n)))
        assert drawn[0] == can[0]
        assert set(np.asarray(drawn)) <= set(can)
        assert shares(logits)[drawn[1] + 1 :].sum() < 1e-6
        assert drawn[2] in can


def test_masked_classes_are_never_drawn_at_any_uniform():
    """All 2**14 uniforms of a grid and their neighbours; running sums must not step back."""
    rng = np.random.default_rng(5)
    grid = np.linspace(0, 1, 2**14, endpoint=False, dtype=np.float32)
    uniform = np.concatenate([grid, np.nextafter(grid, 1), np.nextafter(grid[1:], 0)])
    for n in (6, 31, 70):
        logits = rng.normal(scale=3, size=n).astype(np.float32)
        masked = rng.random(n) < 0.5
        logits[masked] = -np.inf
        batch = jnp.broadcast_to(jnp.asarray(logits), (len(uniform), n))
        drawn = np.asarray(jax.jit(categorical.draw)(jnp.asarray(uniform), batch))
        assert not masked[drawn].any()
        assert (np.diff(drawn[: len(grid)]) >= 0).all()


def test_rows_that_have_no_class_or_no_number_stay_in_range():
    logits = jnp.array([[-jnp.inf] * 3, [jnp.nan] * 3])
    np.testing.assert_array_equal(categorical.sample(prng.key(0), logits), [0, 0])


def test_shapes_and_halves():
    key = prng.key(0)
    assert categorical.sample(key, jnp.zeros(5)).shape == ()
    assert categorical.sample(key, jnp.zeros((2, 3, 4, 5))).shape == (2, 3, 4)
    assert categorical.sample(key, jnp.zeros((0, 5))).shape == (0,)
    exact = jnp.array([[0.0, 1.0, 2.0]] * 100)
    np.testing.assert_array_equal(
        categorical.sample(key, exact.astype(jnp.bfloat16)), categorical.sample(key, exact)
    )


def test_rows_do_not_depend_on_the_batch():
    """Draws are addressed by counter: the first rows of a larger batch are the same."""
    logits = jax.random.normal(prng.key(1), (64, 6))
    few, many = (categorical.sample(prng.key(2), logits[:n]) for n in (10, 64))
    np.testing.assert_array_equal(few, many[:10])


def test_bad_logits_are_named():
    with pytest.raises(TypeError, match=r"int32\[3\]"):
        categorical.sample(prng.key(0), jnp.arange(3))
    for shape in ((), (3, 0)):
        with pytest.raises(ValueError, match=rf"shape \[{', '.join(map(str, shape))}\]"):
            categorical.sample(prng.key(0), jnp.zeros(shape))
