"""Observations that are kept smaller: what comes out is what went in."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toys
from hypothesis import given, settings
from hypothesis import strategies as st

import fastrl
from fastrl import ppo
from fastrl.kernels import prng
from fastrl.spaces import Box, Discrete
from fastrl.storage import Storage, storage

BOOL, BYTE = np.dtype(bool), np.dtype(np.uint8)
FLAGS = Box(0, 1, (3, 10), BOOL)
SPACE = {"board": FLAGS, "done": Box(0, 1, (), BOOL), "picture": Box(0, 255, (4,), BYTE),
         "speed": Box(-1.0, 1.0, (5,)), "card": Discrete(7)}  # fmt: skip


def observation(lead=(2, 3), seed=0):
    rng = np.random.default_rng(seed)
    return {
        "board": jnp.asarray(rng.random((*lead, 3, 10)) < 0.5),
        "done": jnp.asarray(rng.random(lead) < 0.5),
        "picture": jnp.asarray(rng.integers(0, 256, (*lead, 4)), jnp.uint8),
        "speed": jnp.asarray(rng.normal(size=(*lead, 5)), jnp.float32),
        "card": jnp.asarray(rng.integers(0, 7, lead), jnp.int32),
    }


def test_exact_by_default():
    """A flag too many or too few from the last byte, or another type, would be learned from."""
    kept, seen = storage(SPACE), observation()
    stored = kept.pack(seen)
    assert stored["board"].shape == (2, 3, 3, 2)
    assert stored["board"].dtype == jnp.uint8
    assert stored["picture"].dtype == jnp.uint8
    back = kept.unpack(stored)
    for name, x in seen.items():
        assert back[name].dtype == x.dtype
        np.testing.assert_array_equal(back[name], x, err_msg=name)
    assert kept.exact
    assert not kept.plain


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 40), st.integers(0, 2**31 - 1))
def test_flags_of_any_number(count, seed):
    flags = np.random.default_rng(seed).random((2, count)) < 0.5
    kept = storage(Box(0, 1, (count,), BOOL))
    np.testing.assert_array_equal(kept.unpack(kept.pack(jnp.asarray(flags))), flags)


def test_half_precision_halves_floats_only():
    kept, seen = storage(SPACE, "bfloat16"), observation()
    stored = kept.pack(seen)
    assert {k: v.dtype.name for k, v in stored.items()} == {
        "board": "uint8", "done": "bool", "picture": "uint8", "speed": "bfloat16", "card": "int32",
    }  # fmt: skip
    back = kept.unpack(stored)
    assert back["speed"].dtype == jnp.float32
    np.testing.assert_allclose(back["speed"], seen["speed"], rtol=2**-8)
    assert not kept.exact


def test_nothing_to_do_is_plain():
    kept, x = storage(Box(-1.0, 1.0, (4,))), jnp.ones((2, 4))
    assert kept.plain
    assert kept.pack(x) is x


def test_learning_from_packed_masks_is_unchanged(monkeypatch):
    """Packed flags must give the very numbers of unpacked ones."""
    config = ppo.Config(num_envs=8, num_steps=16, num_minibatches=2, hidden_sizes=(8,))

    def trained():
        algorithm = ppo.make(toys.MaskedChoice(), config)
        task = algorithm.env.default_params()
        return jax.jit(fastrl.run(algorithm, 512))(prng.key(0), ppo.HParams(), task)[0].params

    packed = trained()
    as_it_is = Storage(lambda x: x, lambda x: x, exact=True, plain=True)
    monkeypatch.setattr("fastrl.storage.storage", lambda *_: as_it_is)
    ppo._make.cache_clear()
    plain = trained()
    ppo._make.cache_clear()
    for a, b in zip(jax.tree.leaves(packed), jax.tree.leaves(plain), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_an_unknown_precision_is_refused():
    with pytest.raises(ValueError, match="observation_storage 'float16'"):
        ppo.Config(observation_storage="float16")  # type: ignore[arg-type]


@pytest.mark.slow
def test_bfloat16_rollouts_learn_as_well():
    """Three seeds of CartPole reach what float32 reaches."""
    env = fastrl.make("CartPole-v1")
    config = ppo.Config(num_envs=32, num_steps=32, observation_storage="bfloat16")
    algorithm = ppo.make(env, config)
    hparams = ppo.HParams(learning_rate=2.5e-3, anneal_steps=150_000)
    train = jax.jit(fastrl.members(algorithm, 150_000))
    keys = prng.engine_key(jax.vmap(jax.random.key)(jnp.arange(3)))
    states, _ = train(keys, hparams, env.default_params())
    for i in range(3):
        state = jax.tree.map(lambda x: x[i], states)  # noqa: B023
        assert fastrl.evaluate(algorithm, state, episodes=50).mean_return > 450
