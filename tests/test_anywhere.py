"""A branch that vmap leaves a branch."""

import jax
import jax.numpy as jnp
import numpy as np

from fastrl.algorithms import on_policy
from fastrl.anywhere import anywhere

FLAGS = jnp.array([[[False, False]] * 3, [[False, False], [True, False], [False, False]]])


def test_one_answer_for_all_members_however_deep():
    """A flag of another member, or of an outer batch, would be missed."""
    every = jax.jit(jax.vmap(jax.vmap(lambda flags: anywhere(flags) & True)))
    np.testing.assert_array_equal(every(FLAGS), np.ones((2, 3), bool))
    assert not every(FLAGS.at[1, 1, 0].set(False)).any()
    assert anywhere(FLAGS)
    assert not anywhere(FLAGS[0])


def test_a_branch_stays_a_branch():
    """vmap would make both sides of every step of a rollout be computed."""
    value = lambda x, flags: on_policy.final_value(jnp.sum, flags, x)  # noqa: E731
    text = str(jax.make_jaxpr(jax.vmap(value))(jnp.ones((3, 4)), FLAGS[1]))
    assert "cond[" in text
    assert "select_n" not in text.partition("cond[")[0]


def test_values_of_what_follows_are_those_of_the_member_that_was_cut():
    """A member that was not cut would get a value for being beside one that was."""
    x = jnp.arange(6.0).reshape(3, 2)
    value = lambda w, flags: on_policy.final_value(lambda y: w * y[0] + jnp.zeros(2), flags, x[0])  # noqa: E731
    weights = jnp.array([1.0, 2.0, 3.0])
    x = x + 1.0
    got = jax.jit(jax.vmap(value))(weights, FLAGS[1])
    np.testing.assert_array_equal(got, [[0.0, 0.0], [2.0, 0.0], [0.0, 0.0]])
    slope = jax.grad(lambda w: jax.vmap(value)(w, FLAGS[1] & (w[:, None] > 0)).sum())(weights)
    np.testing.assert_array_equal(slope, [0.0, 1.0, 0.0])
