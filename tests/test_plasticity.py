"""Plasticity: measures of layers that are known, and what is measured around a learner."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

import fastrl
from fastrl import plasticity
from fastrl.streaming import hidden, networks, statistics, stream_ac, stream_q

CONFIG = stream_q.Config(num_steps=20, hidden_sizes=(6, 5), initializer="dense")


def test_dormant_units_are_those_that_are_small_beside_their_layer():
    """A mean over units in the place of observations, or signs that cancel."""
    activations = jnp.array([[1.0, -4.0, 0.0, 0.05], [-3.0, 4.0, 0.0, -0.05]])
    np.testing.assert_allclose(plasticity.scores(activations), np.array([2, 4, 0, 0.05]) / 1.5125)
    assert plasticity.dormant(activations, 0.0) == 0.25
    assert plasticity.dormant(activations, 0.1) == 0.5
    assert plasticity.dormant(jnp.zeros((3, 4))) == 1.0


def test_ranks_of_known_layers():
    """Squares of singular values in their place, or a count that is off by one."""
    same = jnp.ones((8, 4))
    np.testing.assert_allclose(plasticity.effective_rank(same), 1.0, rtol=1e-3)
    np.testing.assert_allclose(plasticity.effective_rank(jnp.eye(4)), 4.0, rtol=1e-5)
    assert plasticity.stable_rank(same) == 1
    values = np.array([8.0, 1.0, 0.9, 0.1])
    draw = np.random.default_rng(0)
    left = np.linalg.qr(draw.normal(size=(6, 4)))[0]
    right = np.linalg.qr(draw.normal(size=(4, 4)))[0]
    layer = jnp.asarray(left * values @ right, jnp.float32)
    p = values / values.sum()
    expected = np.exp(-(p * np.log(p)).sum())
    np.testing.assert_allclose(plasticity.effective_rank(layer), expected, rtol=1e-4)
    assert plasticity.stable_rank(layer) == 3  # 9.9 of 10 are just enough
    assert plasticity.stable_rank(layer, 0.005) == 4
    assert plasticity.stable_rank(jnp.zeros((3, 4))) == 0
    assert plasticity.effective_rank(jnp.zeros((3, 4))) == 0.0
    weights = {"a": jnp.full((2, 2), 3.0), "b": jnp.zeros(5), "n": jnp.int32(7)}
    np.testing.assert_allclose(plasticity.weight_norm(weights), 2.0)


@pytest.mark.slow
def test_a_measured_learner_learns_as_before_and_tells_of_its_units():
    """Another key or state inside, units of another layer, or the observations of the stream."""
    env = fastrl.make("CartPole-v1")
    plain = stream_q.make(env, CONFIG)
    algorithm = plasticity.measured(plain, hidden.activations(plain), batch_size=16)
    task, hparams = env.default_params(), plain.default_hparams
    network = networks.networks([networks.Shape((5,), (6, 5), (2,))], "dense")[0]

    def program(key: jax.Array) -> Any:
        start = algorithm.init(key, hparams, task)
        alone = plain.step(start.inner, hparams, task)[0]
        state, metrics = algorithm.step(start, hparams, task)
        inner = state.inner

        def values(observation: jax.Array) -> jax.Array:
            x = statistics.normalize(inner.stream.observations, observation)
            return network.apply(inner.params, jnp.append(x, -0.5))[0]

        layers = hidden.activations(plain)(inner, state.observations)
        wanted = {
            "dormant_units": (
                jnp.concatenate([plasticity.scores(a) for a in layers]) <= 0.025
            ).mean(),
            "effective_rank": plasticity.effective_rank(layers[1]),
            "weight_norm": plasticity.weight_norm(inner.params),
        }
        head = inner.params.heads[0]
        heads = layers[1] @ head.kernel + head.bias[None]
        told = jax.vmap(values)(state.observations), heads
        action, _ = algorithm.act(state, algorithm.initial_carry(()), jnp.zeros(4), None)
        return inner.params, alone.params, metrics, wanted, layers[0], told, action

    mine, theirs, metrics, wanted, first, told, action = jax.device_get(
        jax.jit(program)(jax.random.key(3))
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), mine, theirs)
    np.testing.assert_allclose(*told, atol=1e-4)
    assert first.shape == (16, 6)
    assert action.shape == ()
    for name, value in wanted.items():
        np.testing.assert_allclose(metrics[name].total / metrics[name].weight, value, rtol=1e-4)


def test_what_cannot_be_measured_is_named():
    """An algorithm without an environment, or with units that nobody knows."""
    env = fastrl.make("Pendulum-v1")
    with pytest.raises(ValueError, match="stream_ac"):
        hidden.activations(stream_ac.make(env))
    with pytest.raises(ValueError, match="no recipe"):
        hidden.activations(tiny.make())
    with pytest.raises(ValueError, match="no environment"):
        plasticity.measured(tiny.make(env=None), lambda s, o: [o])
    with pytest.raises(ValueError, match="batch_size=1"):
        plasticity.measured(tiny.make(), lambda s, o: [o], batch_size=1)
