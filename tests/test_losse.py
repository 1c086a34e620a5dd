"""Losse-FTL against dense float64 NumPy; what it keeps of a stream that a network forgets."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fastrl import statistics
from fastrl.model_based import drift, losse, mlp_model
from fastrl.model_based.model import ModelHParams

GRIDS = losse.Grids(3, grids=4, bins=3, dimensions=2)
RIDGE, T = 1e-3, 40


def features_by_hand(projection: np.ndarray, x: np.ndarray) -> np.ndarray:
    """All features of `x` `[S]`, dense, corner by corner."""
    h = GRIDS.bins / (1 + np.exp(-x @ projection)).reshape(GRIDS.grids, 2)
    phi = np.zeros(GRIDS.size)
    for grid in range(GRIDS.grids):
        cell = np.minimum(np.floor(h[grid]), GRIDS.bins - 1)
        offset = h[grid] - cell
        for corner in itertools.product((0, 1), repeat=2):
            row, column = (int(c) for c in cell + corner)
            weights = [o if c else 1 - o for o, c in zip(offset, corner, strict=True)]
            phi[grid * GRIDS.nodes + row * (GRIDS.bins + 1) + column] += np.prod(weights)
    return phi


def pairs(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(T, 3))
    return x, np.stack([np.sin(2 * x[:, 0]) + x[:, 1], x.prod(-1)], -1)


def test_features_are_those_of_the_corners():
    """A wrong stride, offset or corner, or a saturated sigmoid that leaves its grid."""
    with jax.enable_x64(True):
        x = np.concatenate([pairs()[0], 1e3 * np.eye(3), -1e3 * np.eye(3)])

        def program(x: Any) -> Any:
            state = losse.init(jax.random.key(0), GRIDS, 2, gain=2.0)
            found = losse.encode(GRIDS, state.projection, x)
            rows = jax.vmap(lambda i, v: losse.dense(GRIDS, losse.Sparse(i, v)))(*found)
            return state, found, rows

        state, found, rows = jax.device_get(jax.jit(program)(jnp.asarray(x)))
    expected = [features_by_hand(state.projection, row) for row in x[:T]]
    np.testing.assert_allclose(rows[:T], expected, atol=1e-12)
    np.testing.assert_allclose(found.value.sum(-1), GRIDS.grids, rtol=1e-12)
    assert found.index.shape == (T + 6, GRIDS.active)
    assert all(len(set(row)) == GRIDS.active for row in found.index.tolist())
    assert 0 <= found.index.min() <= found.index.max() < GRIDS.size


def test_an_update_is_the_dense_one_and_never_raises_the_objective():
    """Not the minimum over the active weights, or a sum that misses or repeats a pair."""
    x, y = pairs()
    with jax.enable_x64(True):

        def one(state: Any, pair: Any) -> Any:
            state = losse.update(GRIDS, state, pair[0], pair[1], RIDGE)
            return state, state.weights

        def program(x: Any, y: Any) -> Any:
            state = losse.init(jax.random.key(0), GRIDS, 2, gain=2.0)
            state, weights = jax.lax.scan(one, state, (x, y))
            return state, weights, losse.predict(GRIDS, state, x)

        state, found, told = jax.device_get(jax.jit(program)(jnp.asarray(x), jnp.asarray(y)))
    phi = np.stack([features_by_hand(state.projection, row) for row in x])
    weights = np.zeros((GRIDS.size, 2))
    for n in range(1, T + 1):

        def objective(w: np.ndarray, n: int = n) -> float:
            return ((phi[:n] @ w - y[:n]) ** 2).sum() / n + RIDGE * (w**2).sum()

        before = objective(weights)
        active = np.flatnonzero(phi[n - 1])
        gram, moment = phi[:n].T @ phi[:n] / n, phi[:n].T @ y[:n] / n
        block = gram[np.ix_(active, active)]
        rest = moment[active] - gram[active] @ weights + block @ weights[active]
        weights = weights.copy()
        weights[active] = np.linalg.solve(block + RIDGE * np.eye(len(active)), rest)
        np.testing.assert_allclose(found[n - 1], weights, atol=1e-9)
        assert objective(found[n - 1]) <= before + 1e-12
    np.testing.assert_allclose(state.gram, phi.T @ phi, atol=1e-10)
    np.testing.assert_allclose(told, phi @ weights, atol=1e-9)
    assert state.count == T


def test_visits_lead_to_the_ridge_solution_of_all_pairs():
    """A block that is solved with the others' weights left out ends elsewhere."""
    x, y = pairs()
    with jax.enable_x64(True):
        one = lambda s, p: (losse.update(GRIDS, s, p[0], p[1], 0.05), None)  # noqa: E731
        again = lambda s, x: (losse.revisit(GRIDS, s, x, 0.05), None)  # noqa: E731

        def program(x: Any, y: Any) -> Any:
            state = losse.init(jax.random.key(0), GRIDS, 2, gain=2.0)
            state, _ = jax.lax.scan(one, state, (x, y))
            return jax.lax.scan(again, state, jnp.tile(x, (200, 1)))[0]

        state = jax.device_get(jax.jit(program)(jnp.asarray(x), jnp.asarray(y)))
    phi = np.stack([features_by_hand(state.projection, row) for row in x])
    ridge = 0.05 * np.eye(GRIDS.size)
    optimum = np.linalg.solve(phi.T @ phi / T + ridge, phi.T @ y / T)
    np.testing.assert_allclose(state.weights, optimum, atol=1e-8)
    assert state.count == T


def test_single_precision_holds_with_pairs_that_are_all_alike():
    """A block of rank one in float32: a factorisation that fails gives no numbers for ever."""
    grids, ridge = losse.Grids(3, grids=20, bins=5), ModelHParams().ridge
    x = jnp.zeros((300, 3)).at[::50].set(1.0)
    y = jnp.ones((300, 1)).at[::50].set(-1.0)
    one = lambda s, p: (losse.update(grids, s, p[0], p[1], ridge), None)  # noqa: E731

    def program(x: Any, y: Any) -> Any:
        state = jax.lax.scan(one, losse.init(jax.random.key(0), grids, 1), (x, y))[0]
        return losse.predict(grids, state, x)

    told = jax.jit(program)(x, y)
    np.testing.assert_allclose(told, y, atol=0.02)


def test_a_network_takes_adam_steps_on_what_it_is_given():
    """Another gradient than that of the newest pair's error, or a replay that forgets old ones."""
    shape = mlp_model.Shape(2, 1, hidden_sizes=())
    model, rate = mlp_model.model(shape), ModelHParams(model_learning_rate=0.1)
    state = model.init(jax.random.key(0), rate)
    x, y = jnp.array([1.0, -2.0]), jnp.array([3.0])
    error = float(model.predict(state, x)[0] - 3.0)
    after = model.update(jax.random.key(1), state, x, y, rate)
    gradient = 2 * error * np.array([1.0, -2.0])  # of which Adam's first step is the sign
    moved = after.params[0][0][:, 0] - state.params[0][0][:, 0]
    np.testing.assert_allclose(moved, -0.1 * np.sign(gradient), rtol=1e-4)
    replayed = mlp_model.model(mlp_model.Shape(2, 1, (), batch_size=64, buffer_size=4))
    state = replayed.init(jax.random.key(0), ModelHParams(model_learning_rate=0.02))
    step = jax.jit(replayed.update)
    for i in range(400):  # the old pair comes once in four, and then in the buffer only
        pair = (x, y) if i == 0 or i % 4 == 0 else (-2 * x, -y)
        state = step(jax.random.key(i), state, *pair, ModelHParams(model_learning_rate=0.02))
    np.testing.assert_allclose(replayed.predict(state, x), y, atol=0.5)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: losse.Grids(2, grids=0), "grids=0"),
        (lambda: losse.Grids(2, grids=100, dimensions=6), "4,665,600 features"),
        (lambda: mlp_model.Shape(2, 1, batch_size=-1), "batch_size=-1"),
        (lambda: mlp_model.Shape(2, 1, (0,)), "hidden_sizes=0"),
        (lambda: drift.stream(jax.random.key(0), places=1), "places=1"),
    ],
)
def test_mistakes_are_named(make, words):
    """A size that fits nowhere is found in the middle of a program."""
    with pytest.raises(ValueError, match=words):
        make()


@pytest.mark.slow
def test_after_one_pass_only_the_network_without_replay_has_forgotten():
    """The claim: errors of early places stay flat, those of the plain network do not."""
    data = drift.stream(jax.random.key(3), places=6, steps=250, tests=32)
    grown, seeds = {}, jax.random.split(jax.random.key(0), 3)
    for name, model in {
        "losse": losse.model(losse.Grids(2, grids=12), 1),
        "mlp": mlp_model.model(mlp_model.Shape(2, 1, (32, 32))),
    }.items():
        errors = jax.jit(jax.vmap(lambda k, m=model: drift.errors(m, k, data, ModelHParams())))
        errors = np.asarray(errors(seeds), np.float64)
        at_the_time = errors[:, np.arange(1, 5), np.arange(4)]  # of the four first places
        grown[name] = (errors[:, -1, :4] - at_the_time).mean(-1)  # outputs have about variance 1
    assert statistics.t_interval(grown["losse"]).high < 0.02
    assert statistics.t_interval(grown["mlp"]).low > 0.1
