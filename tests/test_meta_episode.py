"""Several episodes in one life, against sequences worked out by hand."""

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import MaskedChoice

import fastrl.registry
from fastrl import spaces
from fastrl.check_env import check_env
from fastrl.kernels import prng
from fastrl.networks import split_views
from fastrl.spaces import Box, Discrete
from fastrl.transforms import FlattenObservation, MetaEpisode, TimeLimit
from fastrl.types import Array, Key, Step
from fastrl.vec import VecEnv, rollout

KEY = prng.key(0)


class Params(NamedTuple):
    ends_at: int = 2


class State(NamedTuple):
    number: Array


@dataclasses.dataclass(frozen=True)
class Counter:
    """Counts steps from 0, pays ten times the count, terminates at `ends_at`."""

    version: ClassVar[int] = 1

    def default_params(self) -> Params:
        return Params()

    def reset(self, key: Key, params: Params) -> tuple[State, Array]:
        return State(jnp.int32(0)), jnp.zeros(1)

    def step(self, key: Key, state: State, action: Array, params: Params) -> tuple[State, Step]:
        count = state.number + 1
        seen, ended = count.astype(jnp.float32), count >= params.ends_at
        return State(count), Step(seen[None], 10 * seen, ended, jnp.bool_(False))

    def observation_space(self, params: Params) -> Box:
        return Box(0.0, jnp.inf, (1,))

    def action_space(self, params: Params) -> Discrete:
        return Discrete(5)


def play(env: Any, actions: list[int], params: Any = None) -> tuple[Any, list[Step]]:
    params = env.default_params() if params is None else params
    state, first = env.reset(KEY, params)
    steps = []
    for action in actions:
        state, step = env.step(KEY, state, jnp.int32(action), params)
        steps.append(step)
    return first, steps


def shown(observation: Any) -> tuple[float, ...]:
    """(count, last action, last reward, ended)"""
    return (*observation.observation.tolist(), *(float(x) for x in observation[1:4]))


def flags(steps: list[Step]) -> list[tuple[bool, bool]]:
    return [(bool(s.terminated), bool(s.truncated)) for s in steps]


NEITHER, TERMINATED, TRUNCATED = (False, False), (True, False), (False, True)


def test_a_life_goes_through_its_episodes() -> None:
    """Fails if an inner end ends the life, is not told, or shows the old episode's last state."""
    first, steps = play(MetaEpisode(Counter(), 3), [1, 2, 3, 4, 0, 1])
    assert shown(first) == (0, 0, 0, 0)
    assert [shown(s.observation) for s in steps] == [
        (1, 1, 10, 0), (0, 2, 20, 1), (1, 3, 10, 0), (0, 4, 20, 1), (1, 0, 10, 0), (2, 1, 20, 1),
    ]  # fmt: skip
    assert [float(s.reward) for s in steps] == [10, 20] * 3
    assert flags(steps) == [NEITHER] * 5 + [TERMINATED]


def test_the_last_episode_keeps_its_own_flag() -> None:
    """Fails if a cut of the last episode is called its end, or cuts before end the life."""
    env = MetaEpisode(TimeLimit(Counter(), 2), 2)
    params = env.default_params()
    params = params._replace(env=params.env._replace(env=Params(ends_at=9)))
    assert flags(play(env, [0] * 4, params)[1]) == [NEITHER] * 3 + [TRUNCATED]
    inner = TimeLimit(Counter(), 2)
    alone = play(inner, [0] * 2, params.env)[1]
    assert flags(play(MetaEpisode(inner, 1), [0] * 2, params._replace(episodes=1))[1]) == flags(
        alone
    )


def test_the_number_of_episodes_is_traced_and_may_differ_by_life() -> None:
    """Fails if the number is baked into the program."""
    env = MetaEpisode(Counter())

    def length(episodes: Array) -> Array:
        params = env.default_params()._replace(episodes=episodes)

        def body(state: Any, _: None) -> tuple[Any, Array]:
            state, step = env.step(KEY, state, jnp.int32(0), params)
            return state, step.terminated

        ended = jax.lax.scan(body, env.reset(KEY, params)[0], None, length=10)[1]
        return jnp.argmax(ended) + 1

    np.testing.assert_array_equal(jax.vmap(length)(jnp.array([1, 3, 5])), [2, 6, 10])


def test_what_reset_draws_is_new_in_every_episode() -> None:
    """Fails if every episode of a life starts alike."""
    env = MetaEpisode(fastrl.registry.make("bsuite/Catch-v0"), 40)
    params, seen = env.default_params(), []
    state, _ = env.reset(KEY, params)
    step = jax.jit(env.step)
    for key in jax.random.split(KEY, 180):
        state, happened = step(key, state, jnp.int32(1), params)
        if happened.observation.ended:
            seen.append(int(happened.observation.observation[0].argmax()))
    assert len(seen) == 20
    assert len(set(seen)) >= 4


def test_masks_and_the_critics_view_stay_where_learners_look() -> None:
    """Fails if a mask is hidden inside of the record, where no learner finds it."""
    inner = MaskedChoice()
    env = MetaEpisode(inner, 2)
    params = env.default_params()
    observation = env.reset(KEY, params)[1]
    expected = inner.reset(KEY, params.env)[1]
    _, _, mask = split_views(observation)
    np.testing.assert_array_equal(mask, expected.action_mask)
    assert spaces.contains(env.observation_space(params), observation)
    plain = MetaEpisode(Counter()).reset(KEY, MetaEpisode(Counter()).default_params())[1]
    assert split_views(plain)[2] is None


def test_batches_count_lives_and_show_true_successors() -> None:
    """Fails if a life's return misses an episode, or its last observation is the next life's."""
    env = MetaEpisode(Counter(), 2)
    vec_env, params = VecEnv(env, 3, fastrl.reset.fresh(env)), env.default_params()

    def policy(key: Key, observation: Any) -> tuple[Array, tuple[()]]:
        return jnp.zeros(3, jnp.int32), ()

    run = jax.jit(lambda key: rollout(vec_env, policy, key, vec_env.init(key, params), params, 8))
    _, (seen, _), metrics = run(KEY)
    assert float(metrics["episode_return"].total / metrics["episode_return"].weight) == 60
    assert float(metrics["episode_length"].total / metrics["episode_length"].weight) == 4
    assert seen.next_observation.observation[:, 0, 0].tolist() == [1, 0, 1, 2] * 2
    assert seen.observation.observation[:, 0, 0].tolist() == [0, 1, 0, 1] * 2


def test_it_keeps_the_contract_alone_and_flattened() -> None:
    """Fails if learners can't rely on the record, its spaces or its flat form."""
    for env in (MetaEpisode(Counter(), 3), FlattenObservation(MetaEpisode(Counter(), 3))):
        report = check_env(env, num_envs=8, num_steps=40)
        assert report.ok, str(report)
    flat: Any = FlattenObservation(MetaEpisode(Counter(), 3))
    assert flat.observation_space(flat.default_params()).shape == (1 + 5 + 1 + 1,)


@pytest.mark.parametrize("episodes", [0, 1.5, True])
def test_a_life_without_episodes_is_refused(episodes: Any) -> None:
    """Fails if a wrong number is found out inside a compiled program only."""
    with pytest.raises(ValueError, match=rf"MetaEpisode\(episodes={episodes}\)"):
        MetaEpisode(Counter(), episodes)
