"""Members: the same numbers however they are batched."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fastrl
from fastrl.algorithms import ppo
from fastrl.envs.classic import CartPole
from fastrl.population import members

SMALL = ppo.Config(num_envs=4, num_steps=8, num_epochs=1, num_minibatches=2, hidden_sizes=(8,))
COUNT = 4


@pytest.fixture(scope="module")
def inputs():
    keys = jax.random.split(fastrl.key(0), COUNT)
    hparams = ppo.HParams(learning_rate=jnp.linspace(1e-3, 4e-3, COUNT))
    task = CartPole().default_params()._replace(gravity=jnp.linspace(8.0, 11.0, COUNT))
    return keys, hparams, task


def test_every_batching_gives_the_numbers_of_single_runs(inputs):
    """Members that mix up their keys, rates or tasks, or leak into each other, would differ."""
    keys, hparams, task = inputs
    algorithm = ppo.make(CartPole(), SMALL)
    single = jax.jit(fastrl.run(algorithm, 160))
    alone = [
        single(keys[i], *jax.tree.map(lambda x, i=i: x[i] if jnp.ndim(x) else x, (hparams, task)))
        for i in range(COUNT)
    ]
    for batching in ("map", "vmap", "sharded"):
        states, metrics = jax.jit(members(algorithm, 160, batching))(*inputs)
        assert metrics["loss"].total.shape == (COUNT, 5)
        for i, (state, _) in enumerate(alone):
            got, want = jax.tree.leaves(states.params), jax.tree.leaves(state.params)
            for a, b in zip(got, want, strict=True):
                np.testing.assert_allclose(a[i], b, rtol=1e-4, atol=1e-6, err_msg=batching)
        leaves = jax.tree.leaves(states.params)[-1]
        assert len(np.unique(np.asarray(leaves).reshape(COUNT, -1)[:, 0])) == COUNT


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda k, h, t: (k[0], h, t), r"keys have shape \(\)"),
        (lambda k, h, t: (k[:3], h, t), r"\[3, 4\]"),
    ],
)
def test_axes_that_disagree_are_named(inputs, change, words):
    algorithm = ppo.make(CartPole(), SMALL)
    with pytest.raises(ValueError, match=words):
        members(algorithm, 160)(*change(*inputs))


def test_an_unknown_batching_is_named(inputs):
    with pytest.raises(ValueError, match="batching='pmap'"):
        members(ppo.make(CartPole(), SMALL), 160, "pmap")(*inputs)  # type: ignore[arg-type]


@pytest.mark.slow
def test_blocks_of_members_by_kernels_give_the_numbers_of_single_runs(inputs):
    """A kernel that reads another member's weights, or an optimiser's state in its place."""
    config = dataclasses.replace(SMALL, activation="tanh", fused_mlp=True)
    algorithm = ppo.make(CartPole(), config)
    assert algorithm.side_by_side > 1
    together, _ = jax.jit(members(algorithm, 160, "map"))(*inputs)
    alone, _ = jax.jit(members(algorithm, 160, "map", block=1))(*inputs)
    for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
        if not jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
