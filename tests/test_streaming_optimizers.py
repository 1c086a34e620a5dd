"""Streaming optimisers: golden numbers of the official ones, float64 NumPy, bounds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracle_streaming import Optimizer

from fastrl.streaming import optimizers

NAMES = "obgd", "adaptive_obgd", "streaming", "intentional", "adam", "sgd"
DECAY = 0.99 * 0.8
GRADIENTS = [(1.0, 0.0), (0.5, -1.0), (0.0, 2.0), (0.25, 0.25)]
DELTAS = [0.3, -2.0, 1.5, 0.05]
RESETS = [False, True, False, False]
# Weights after each of the steps above from (0.5, -0.2), by the official optimisers in float64.
GOLDEN = {
    "obgd": ("obgd", {}, [
        (0.65, -0.2), (0.36815009, 0.01815009), (0.36815009, 0.51815009), (0.37114913, 0.54015105),
    ]),
    "obgd, bound inactive": ("obgd", {"learning_rate": 0.1}, [
        (0.53, -0.2), (0.2716, 0.0), (0.2716, 0.3), (0.27285, 0.30917),
    ]),
    "adaptive_obgd": ("adaptive_obgd", {}, [
        (0.65, -0.2), (0.40083598, 0.05083598), (0.40083598, 0.55083598), (0.40481098, 0.57186097),
    ]),
    "intentional": ("intentional", {"eta": 0.5}, [
        (0.65, -0.2), (-0.08375838, 0.43470479), (-0.08375838, 0.8894786),
        (-0.07859035, 0.90876847),
    ]),
    "intentional policy": ("intentional", {"eta": 0.05, "policy": True}, [
        (0.55, -0.2), (0.48619964, -0.14481236), (0.48619964, -0.10891143),
        (0.48673659, -0.10690722),
    ]),
    "streaming": ("streaming", {"step_size": 2e-4}, [
        (0.5002, -0.2), (0.5, -0.1998), (0.5, -0.1996), (0.5000009676, -0.1995938864),
    ]),
}  # fmt: skip


def built(name, policy=False, **numbers):
    """fastrl's optimiser with the oracle's defaults."""
    n = {"learning_rate": 1.0, "kappa": 2.0, "step_size": 3e-4, "eta": 0.25} | numbers
    decay = n.get("decay", DECAY)
    match name:
        case "obgd" | "adaptive_obgd":
            return getattr(optimizers, name)(n["learning_rate"], n["kappa"], decay)
        case "streaming":
            return optimizers.streaming(n["step_size"], decay)
        case "adam" | "sgd":
            return getattr(optimizers, name)(n["learning_rate"], decay)
    return optimizers.intentional(n["eta"], decay, policy=policy)


@pytest.mark.parametrize("case", GOLDEN)
def test_golden_numbers(case):
    """The oracle is not the official optimiser, or fastrl's is not the oracle."""
    name, numbers, expected = GOLDEN[case]
    oracle, optimizer = Optimizer(name, 2, **numbers), built(name, **numbers)
    exact, w = np.array([0.5, -0.2]), {"a": jnp.array([0.5]), "b": jnp.array([[-0.2]])}
    state = optimizer.init(w)
    for (ga, gb), delta, reset, golden in zip(GRADIENTS, DELTAS, RESETS, expected, strict=True):
        exact = exact + oracle.step(np.array([ga, gb]), delta, reset)
        np.testing.assert_allclose(exact, golden, atol=1e-8)
        gradient = {"a": jnp.array([ga]), "b": jnp.array([[gb]])}
        updates, state = optimizer.update(gradient, state, jnp.float32(delta))
        w, state = optimizers.apply(w, updates), optimizers.cleared(state, jnp.bool_(reset))
        np.testing.assert_allclose([w["a"][0], w["b"][0, 0]], golden, atol=1e-5)
    np.testing.assert_allclose(oracle.z, (0.25, 1.834), atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_many_random_steps_equal_float64(name):
    """An average or a bias correction that drifts, a bound over one leaf and not over all."""
    rng = np.random.default_rng(0)
    steps, size = 500, 7
    g = rng.normal(size=(steps, size)) * rng.uniform(0.01, 3, size)
    delta = rng.standard_t(2, size=steps)  # heavy tails: errors are clipped
    reset = rng.random(steps) < 0.05
    oracle, optimizer = Optimizer(name, size), built(name)
    exact = np.zeros(size)
    for i in range(steps):
        exact = exact + oracle.step(g[i], delta[i], reset[i])

    def body(carry, row):
        w, state = carry
        gradient, error, clears = row
        updates, state = optimizer.update((gradient[:3], gradient[3:]), state, error)
        return (optimizers.apply(w, updates), optimizers.cleared(state, clears)), None

    w = jnp.zeros(3), jnp.zeros(4)
    rows = jnp.float32(g), jnp.float32(delta), jnp.asarray(reset)
    (w, state), _ = jax.jit(lambda: jax.lax.scan(body, (w, optimizer.init(w)), rows))()
    np.testing.assert_allclose(np.concatenate(w), exact, rtol=1e-3, atol=1e-3 * abs(exact).max())
    np.testing.assert_allclose(np.concatenate(state.trace), oracle.z, rtol=1e-4, atol=1e-5)


def test_bounds():
    """A step longer than the bound, one that depends on alpha under it, NaN from nothing."""
    rng = np.random.default_rng(1)
    for scale in (0.1, 1.0, 100.0):
        g, delta = jnp.float32(rng.normal(size=50) * scale), jnp.float32(3.0 * scale)
        length = {}
        for alpha in (1.0, 0.5):
            optimizer = built("obgd", learning_rate=alpha)
            update, _ = optimizer.update(g, optimizer.init(g), delta)
            length[alpha] = float(jnp.abs(update).sum())
        assert max(length.values()) <= 0.5 * (1 + 1e-6)
        if scale >= 1.0:
            np.testing.assert_allclose(length[1.0], length[0.5], rtol=1e-6)
            more, _ = optimizer.update(g, optimizer.init(g), 7.0 * delta)
            np.testing.assert_allclose(more, update, rtol=1e-5)
        streaming = built("streaming", step_size=0.01)
        update, _ = streaming.update(g, streaming.init(g), delta)
        assert float(jnp.abs(update).max()) <= 0.01 * (1 + 1e-6)
    for name in NAMES:
        optimizer, nothing = built(name), jnp.zeros(3)
        update, _ = optimizer.update(nothing, optimizer.init(nothing), jnp.float32(2.0))
        np.testing.assert_array_equal(update, 0.0)
