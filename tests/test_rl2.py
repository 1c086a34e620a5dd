"""RL^2: returns counted by episode; PPO with memory that gets better within a life."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_meta_episode import Counter, Params

import fastrl
from fastrl import config, ppo_memory
from fastrl.envs.bsuite import DelayedChain
from fastrl.kernels import prng
from fastrl.levels import levels
from fastrl.meta import rl2
from fastrl.transforms import FlattenObservation, MetaEpisode, TimeLimit
from fastrl.types import Algorithm


def still(env: Any) -> Algorithm:
    """An agent that always takes action 0 and learns nothing."""
    return Algorithm(
        lambda *_: (), lambda state, *_: (state, {}),
        lambda state, carry, observation, key: (jnp.int32(0), carry), 1, (), env,
    )  # fmt: skip


def test_returns_are_counted_by_episode() -> None:
    """A reward in the wrong episode, one after the life's end, or an unfinished one counted."""
    env = TimeLimit(MetaEpisode(Counter(), 4), 8)

    def sampler(key: Any) -> Any:
        params = env.default_params()
        length: Any = jax.random.randint(key, (), 1, 4)
        return params._replace(env=params.env._replace(env=Params(length)))

    got = rl2.returns_by_episode(still(env), (), lives=40, sampler=sampler)
    whole = {10.0: [10] * 4, 30.0: [30] * 4, 60.0: [60, 60, np.nan, np.nan]}
    assert set(got[:, 0]) == set(whole)  # one, two or three steps an episode, eight in all
    for row in got:
        np.testing.assert_array_equal(row, whole[float(row[0])])
    np.testing.assert_array_equal(
        rl2.returns_by_episode(still(env), (), lives=2, episodes=2), [[30, 30]] * 2
    )


def test_a_life_has_one_task_and_lives_differ() -> None:
    """A transform that hides the levels of the environment inside, or changes them on the way."""
    env = FlattenObservation(TimeLimit(MetaEpisode(DelayedChain(longest=5), 3), 50))
    drawn = jax.vmap(env.sample_level)(jax.random.split(prng.key(0), 30))  # type: ignore
    assert set(np.asarray(drawn.env.env.right).tolist()) == {0, 1}
    assert jax.tree.structure(drawn) == jax.tree.structure(env.default_params())
    got = rl2.returns_by_episode(still(env), (), lives=30)
    assert set(got[:, 0]) == {-1.0, 1.0}
    np.testing.assert_array_equal(got, np.broadcast_to(got[:, :1], got.shape))
    fixed = rl2.returns_by_episode(still(MetaEpisode(Counter(), 2)), (), lives=3)
    np.testing.assert_array_equal(fixed, np.full((3, 2), 30.0))


def test_bad_arguments_name_the_way_out() -> None:
    """An environment without episodes in its lives that is measured all the same."""
    with pytest.raises(ValueError, match=r"Counter has no lives of .*MetaEpisode"):
        rl2.returns_by_episode(still(Counter()), ())
    with pytest.raises(ValueError, match="lives=0"):
        rl2.returns_by_episode(still(MetaEpisode(Counter())), (), lives=0)
    endless = MetaEpisode(Counter(), 10**6)
    with pytest.raises(RuntimeError, match="max_steps=9"):
        rl2.returns_by_episode(still(endless), (), lives=2, episodes=3, max_steps=9)


@pytest.mark.slow
def test_later_episodes_are_better_than_the_first() -> None:
    """A life whose memory is cleared between episodes, rewards that the agent is not shown, or
    tasks that change within a life: it would gain 0 in all of them, as in the first."""
    env = MetaEpisode(DelayedChain(longest=5), 3)
    algorithm = ppo_memory.make(
        env, ppo_memory.Config(memory_size=16, hidden_sizes=(16,), num_steps=15), reset=levels
    )
    hparams = ppo_memory.HParams(learning_rate=1e-2, anneal_steps=50_000)
    program = jax.jit(fastrl.run(algorithm, 50_000))
    state, _ = program(prng.key(0), hparams, env.default_params())
    first, second, third = rl2.returns_by_episode(algorithm, state, lives=400).mean(0)
    assert abs(first) < 0.2  # by chance
    assert second > 0.95
    assert third > 0.95


@pytest.mark.parametrize("name", ["relic_delayed_chain", "rl2_delayed_chain", "rl2_grid_debug"])
def test_configs_are_lives_on_levels(name: str) -> None:
    """A config whose lives all have the same task."""
    built = config.build(config.load(name))
    assert rl2.meta_episode(built.algorithm.env).episodes > 1
    assert built.algorithm.recipe.reset is levels  # type: ignore[union-attr]
