"""`levels`: every episode is another task."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fastrl
from fastrl.envs.grid_world import GridWorld
from fastrl.kernels import prng
from fastrl.levels import levels
from fastrl.types import Key
from fastrl.vec import VecEnv

CARTPOLE = fastrl.make("CartPole-v1")


def poles(key: Key) -> Any:
    """CartPole with a pole of another length, cut after 7 to 12 steps."""
    length_key, steps_key = jax.random.split(key)
    return CARTPOLE.default_params()._replace(
        half_length=jax.random.uniform(length_key, minval=0.25, maxval=1.0),
        max_steps=jax.random.randint(steps_key, (), 7, 13),
    )


def test_every_episode_has_params_of_its_own_until_it_ends() -> None:
    """Fails if params change within an episode, stay after its end, or are shared, or if the
    step does not use them."""
    env = VecEnv(CARTPOLE, 32, levels(CARTPOLE, poles))
    task = CARTPOLE.default_params()

    def body(state: Any, key: Key) -> Any:
        action = jnp.arange(32, dtype=jnp.int32) % 2
        after, transition, _ = env.step(key, state, action, task)
        done = transition.terminated | transition.truncated
        return after, (state.params, after.params, done, state.episode_length)

    @jax.jit
    def play(key: Key) -> Any:
        return jax.lax.scan(body, env.init(key, task), jax.random.split(key, 60))[1]

    before, after, done, length = jax.tree.map(np.asarray, play(prng.key(0)))
    changed = before.half_length != after.half_length
    np.testing.assert_array_equal(changed, done)
    assert (length < before.max_steps).all()
    assert done[length + 1 == before.max_steps].all()
    assert (length + 1 == before.max_steps).sum() > 32
    assert done.sum() > 32 * 3
    drawn = after.half_length[done]
    assert len(np.unique(drawn)) == len(drawn), "levels repeat"
    assert abs(drawn.mean() - 0.625) < 0.1
    assert len(np.unique(before.half_length[0])) == 32


@pytest.mark.slow
def test_an_environment_with_a_sampler_needs_none() -> None:
    """Fails if `levels(env)` does not draw from `env.sample_level`, or PPO can't train on it."""
    env = GridWorld("debug")
    config = fastrl.ppo.Config(num_envs=8, num_steps=16, num_minibatches=2)
    algorithm = fastrl.ppo.make(env, config, reset=levels)
    state = fastrl.train(algorithm, steps=2000, progress=False)
    assert np.isfinite(np.concatenate([np.ravel(x) for x in jax.tree.leaves(state.params)])).all()
    sizes = set(np.asarray(state.env.params.grid_size).tolist())
    assert sizes == {3, 4}


def test_what_is_no_sampler_is_refused() -> None:
    """Fails if a wrong sampler breaks only within a compiled program, far from its cause."""
    with pytest.raises(ValueError, match=r"CartPole has no sample_level.*functools\.partial"):
        levels(CARTPOLE)
    with pytest.raises(TypeError, match="sampler=3 is no function"):
        levels(CARTPOLE, 3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="but params of CartPole are"):
        levels(CARTPOLE, lambda key: jax.random.uniform(key))
    with pytest.raises(ValueError, match=r"half_length has shape \[2\]"):
        levels(CARTPOLE, lambda key: poles(key)._replace(half_length=jax.random.uniform(key, (2,))))
    with pytest.raises(ValueError, match=r"walls has shape \[4\]"):
        levels(GridWorld("debug"), functools.partial(GridWorld.sample_level, GridWorld("all")))
