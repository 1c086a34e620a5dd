"""Worlds that change: what is when, over episodes, and learners that age with them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fastrl
from fastrl import reset
from fastrl.check_env import check_env
from fastrl.envs.classic import CartPole
from fastrl.envs.continual import Corners
from fastrl.spaces import Box, Discrete
from fastrl.streaming import stream_q
from fastrl.transforms import Changing, PermutedObservations, TimeLimit
from fastrl.transforms.continual import at_age, lifelong
from fastrl.vec import VecEnv

GOALS = Changing(Corners(3), {"goal": (0, 3, 1)}, period=7)


def numbers(env: Any, names: tuple[str, ...], ages: range, **changed: int) -> list[list[float]]:
    """Some numbers of the params inside at each age."""
    params = env.default_params()._replace(**changed)

    def now(age: Any) -> list[Any]:
        current = env.current(params._replace(age=0), age)
        return [getattr(current, n) for n in names]

    columns = jax.jit(jax.vmap(now))(jnp.arange(ages.start, ages.stop))
    return [np.asarray(c).tolist() for c in columns]


def test_numbers_switch_and_drift_by_age():
    """A stage that is one step late, a cycle that skips, drift towards the wrong variant."""
    (goals,) = numbers(GOALS, ("goal",), range(28))
    assert goals == [0] * 7 + [3] * 7 + [1] * 7 + [0] * 7
    env = Changing(CartPole(), (("gravity", (10.0, 20.0)), ("max_steps", (10, 20))), 4, "drift")
    gravity, limit = numbers(env, ("gravity", "max_steps"), range(9))
    np.testing.assert_allclose(gravity, [10, 12.5, 15, 17.5, 20, 17.5, 15, 12.5, 10])
    assert limit == [10, 12, 15, 18, 20, 18, 15, 12, 10]
    drawn = Changing(CartPole(), {"gravity": (1.0, 2.0, 3.0)}, 2, order="random")
    (first,), (second,) = (numbers(drawn, ("gravity",), range(200), seed=s) for s in (0, 1))
    assert set(first) == {1.0, 2.0, 3.0}
    assert first[::2] == first[1::2]
    assert first != second


def played(env: Any, steps: int, num_envs: int = 2) -> Any:
    """Transitions `[T, N]` and params of the episodes `[T, N]`, of actions by chance."""
    vec_env, task = VecEnv(env, num_envs, lifelong(env)), env.default_params()
    space = env.action_space(task)

    def body(state: Any, key: Any) -> Any:
        action = fastrl.spaces.sample(key, space, (num_envs,))
        after, seen, _ = vec_env.step(key, state, action, task)
        return after, (seen, state)

    def program(key: Any) -> Any:
        start = vec_env.init(key, task)
        return jax.lax.scan(body, start, jax.random.split(key, steps))[1]

    return jax.device_get(jax.jit(program)(jax.random.key(0)))


def test_a_stream_ages_over_all_of_its_episodes():
    """An age that starts again with every episode, or counts resets in the place of steps."""
    seen, states = played(TimeLimit(GOALS, 5), 60)
    done = seen.terminated | seen.truncated
    assert (done.sum(0) > 10).all()
    time = np.arange(60)[:, None]
    np.testing.assert_array_equal(states.params.env.age + states.env.env.time, time + 0 * done)
    cell = np.array([0, 8, 2])[(time // 7) % 3]  # of the corner that is the goal
    there = seen.next_observation == cell
    np.testing.assert_array_equal(seen.terminated, there)
    np.testing.assert_allclose(seen.reward, np.where(there, 1.0, -0.01), rtol=1e-6)


def test_observations_change_places_and_nothing_else_does():
    """Entries that are lost, another order within a stage, or other dynamics."""
    env = PermutedObservations(CartPole(), period=10)
    params, space = env.default_params(), env.observation_space(env.default_params())
    ramp = jnp.arange(4.0)
    orders = [
        np.asarray(env._seen(ramp, params._replace(age=age), 0)).astype(int).tolist()
        for age in (0, 9, 10, 19, 20)
    ]
    assert orders[0] == orders[1] == [0, 1, 2, 3]
    assert orders[2] == orders[3] != orders[0]
    assert all(sorted(o) == [0, 1, 2, 3] for o in orders)
    assert isinstance(space, Box)
    assert (space.bounds()[0] == -np.inf).all()  # those of CartPole's velocities
    order = np.array(orders[2])
    inner, _ = CartPole().reset(jax.random.key(1), params.env)
    outer, _ = env.reset(jax.random.key(1), params._replace(age=12))
    expected = CartPole().step(jax.random.key(2), inner, jnp.int32(1), params.env)[1]
    mine = env.step(jax.random.key(2), outer, jnp.int32(1), params._replace(age=12))[1]
    np.testing.assert_array_equal(mine.observation, expected.observation[order])
    assert mine.reward == expected.reward
    labels = PermutedObservations(Corners(3), period=1)
    assert labels.observation_space(labels.default_params()) == Discrete(9)
    told = [
        int(labels._seen(jnp.int32(i), labels.default_params()._replace(age=1), 0))
        for i in range(9)
    ]
    assert sorted(told) == list(range(9)) != told


@pytest.mark.parametrize(
    "env",
    [
        pytest.param(GOALS, id="changing"),
        pytest.param(PermutedObservations(CartPole(), 10), id="permuted", marks=pytest.mark.slow),
    ],
)
def test_the_contract_is_kept(env):
    """Learners and the compiler can't rely on it."""
    report = check_env(TimeLimit(env, 10), num_envs=8, num_steps=40)
    assert report.ok, str(report)


@pytest.mark.slow
def test_a_stream_learner_follows_a_goal_that_switches():
    """A learner whose stream does not age never sees the second goal."""
    env = Changing(Corners(3), {"goal": (0, 3)}, period=4_000)
    config = stream_q.Config(
        num_steps=200, hidden_sizes=(), initializer="dense", time_feature=False,
        normalize_observation=False,
    )  # fmt: skip
    algorithm = stream_q.make(env, config)  # whose starts are those of `lifelong`
    hparams = stream_q.HParams(gamma=0.9, epsilon=0.1, final_epsilon=0.1)
    state, metrics = jax.jit(fastrl.run(algorithm, 8_000))(
        jax.random.key(0), hparams, env.default_params()
    )
    lengths = metrics["episode_length"].total / metrics["episode_length"].weight
    assert lengths[19] < 4.0  # right before the switch, and 4,000 steps after it; right are 2.3
    assert lengths[20] > 1.5 * lengths[19]
    assert lengths[39] < 4.0
    at = env.default_params()._replace
    assert fastrl.evaluate(algorithm, state, params=at(age=4_000), episodes=50).mean_length < 3.0
    assert int(state.stream.memory) == 8_000


def test_learners_age_by_default():
    """`continual/` tasks that never change, unless one knows the right Reset."""
    for env in (
        fastrl.make("continual/DriftingCartPole-v0"),
        TimeLimit(PermutedObservations(GOALS, 5), 9),
    ):
        assert reset.default(env) is lifelong
    assert reset.default(CartPole()) is reset.fresh


def test_ages_are_set_within_other_transforms():
    """A transform around it hides the age."""
    env = TimeLimit(PermutedObservations(GOALS, 5), 9)
    params = at_age(env, env.default_params(), 3)
    assert params.env.age == params.env.env.age == 3
    assert params.env.env.env == Corners().default_params()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Changing(CartPole(), {"gravty": (1.0, 2.0)}), "gravty.*'gravity'"),
        (lambda: Changing(CartPole(), {"gravity": (1.0,), "force": (1.0, 2.0)}), "as many finite"),
        (lambda: Changing(CartPole(), {}), "as many finite"),
        (lambda: Changing(CartPole(), {"gravity": (1.0, 2.0)}, 0), "period=0"),
        (lambda: Changing(CartPole(), {"gravity": (1.0, 2.0)}, 5, "jump"), "'jump'"),  # type: ignore[arg-type]
        (lambda: PermutedObservations(fastrl.make("probe/Value")), "several entries"),
        (lambda: lifelong(CartPole()), "nothing in CartPole changes"),
    ],
)
def test_mistakes_are_named(make, words):
    """A number that does not exist is found in the middle of a program."""
    with pytest.raises(ValueError, match=words):
        make()
