"""The classic environments against Gymnasium's, step by step.

States are restored by writing Gymnasium's `env.unwrapped.state`: its entries are the fields
of our `State`, in the same order and without `time`. Restored numbers are rounded to
float32 first, so that both sides start from the same ones although Gymnasium computes in
float64.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fastrl.registry
from fastrl.kernels import prng

TOLERANCE = 1e-4  # of whole trajectories


class Case(NamedTuple):
    """A box of states to restore, which reaches every clip and end of the environment."""

    name: str
    low: tuple[float, ...]
    high: tuple[float, ...]
    tolerance: float  # of one step: some float32 roundings at the scale of the numbers
    whole_steps: int  # for how long two trajectories can be compared before chaos takes over
    limit: int
    idle: Callable[[np.ndarray], Any]  # observation -> an action that never terminates


def symmetric(name: str, high: tuple[float, ...], *rest: Any) -> Case:
    return Case(name, tuple(-h for h in high), high, *rest)


def balance(observation: np.ndarray) -> int:
    return int(observation @ [0.05, 0.2, 1.0, 0.5] > 0)


CASES = [
    symmetric("CartPole-v1", (2.4, 3.0, 0.21, 3.0), 1e-6, 500, 500, balance),
    symmetric("Acrobot-v1", (np.pi, np.pi, 4.0, 6.0), 2e-5, 100, 500, lambda o: 1),
    Case("MountainCar-v0", (-1.2, -0.07), (0.5, 0.07), 3e-7, 200, 200, lambda o: 1),
    Case(
        "MountainCarContinuous-v0",
        (-1.2, -0.07), (0.45, 0.07), 3e-7, 999, 999, lambda o: np.zeros(1, np.float32),
    ),
    symmetric("Pendulum-v1", (60.0, 8.0), 1e-5, 25, 200, lambda o: np.ones(1, np.float32)),
]  # fmt: skip
BY_NAME = pytest.mark.parametrize("case", CASES, ids=[c.name for c in CASES])


class Played(NamedTuple):
    """What Gymnasium did. Leaves are `[states, steps, ...]`, of which `valid` ones count."""

    state: np.ndarray  # before the step
    action: np.ndarray
    observation: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    valid: np.ndarray


def restore(env: Any, values: np.ndarray) -> None:
    env.steps_beyond_terminated = None  # CartPole counts steps after the end
    float32 = env.spec.id == "MountainCarContinuous-v0"  # which keeps its state in float32
    env.state = values.astype(np.float32 if float32 else np.float64)


def play(case: Case, num_states: int, num_steps: int, seed: int, *, forced: bool) -> Played:
    """Plays random actions from `num_states` restored states.

    `forced` takes states from the case's box, rounds the state to float32 before every step
    and starts anew at ends; without it a trajectory runs freely from one of Gymnasium's own
    starts, and is invalid after its end.
    """
    rng = np.random.default_rng(seed)
    env: Any = gymnasium.make(case.name).unwrapped
    env.reset(seed=seed)
    env.action_space.seed(seed)
    steps = []
    for _ in range(num_states):
        env.reset()
        start = rng.uniform(case.low, case.high) if forced else np.asarray(env.state)
        restore(env, start.astype(np.float32))
        valid = True
        for _ in range(num_steps):
            if forced:
                restore(env, np.asarray(env.state, np.float32))
            state, action = np.asarray(env.state, np.float32), env.action_space.sample()
            observation, reward, terminated, _, _ = env.step(action)
            steps.append((state, action, observation, reward, terminated, valid))
            valid = valid and (forced or not terminated)
            if terminated:
                restore(env, rng.uniform(case.low, case.high).astype(np.float32))
    columns = (np.array(c) for c in zip(*steps, strict=True))
    return Played(*(c.reshape(num_states, num_steps, *c.shape[1:]) for c in columns))


def ours(case: Case) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """`step(state, action)` of our environment, and its State from Gymnasium's numbers."""
    env = fastrl.registry.make(case.name)
    params, key = env.default_params(), prng.key(0)
    state_type = type(env.reset(key, params)[0])

    def make_state(values: Any) -> Any:
        values = jnp.moveaxis(jnp.asarray(values, jnp.float32), -1, 0)
        return state_type(*values, jnp.zeros(values.shape[1:], jnp.int32))

    return lambda state, action: env.step(key, state, action, params), make_state


def assert_equal(played: Played, step: Any, tolerance: float) -> None:
    """`step` has the leaves that Gymnasium gave, wherever those are valid."""
    mask = played.valid
    for ours_, gymnasiums in (
        (step.observation, played.observation),
        (step.reward, played.reward),
    ):
        np.testing.assert_allclose(
            np.asarray(ours_)[mask], gymnasiums[mask], rtol=1e-7, atol=tolerance
        )
    np.testing.assert_array_equal(np.asarray(step.terminated)[mask], played.terminated[mask])
    assert not (np.asarray(step.terminated) & np.asarray(step.truncated)).any()


@BY_NAME
@pytest.mark.parametrize(
    ("num_states", "num_steps"), [(20, 100), pytest.param(100, 1000, marks=pytest.mark.slow)]
)
def test_every_step_equals_gymnasiums(case: Case, num_states: int, num_steps: int) -> None:
    """Fails if any term of the dynamics, a clip, the reward or a terminal condition is off."""
    played = play(case, num_states, num_steps, seed=1, forced=True)
    step, make_state = ours(case)
    _, stepped = jax.jit(jax.vmap(jax.vmap(step)))(make_state(played.state), played.action)
    assert_equal(played, stepped, case.tolerance)
    assert played.terminated.any() or case.name == "Pendulum-v1", "the box should reach ends"


def test_fast_acrobots_are_clipped_as_gymnasiums() -> None:
    """Fails if the limits of the velocities are off, which no random play reaches.

    Far outside of play one Runge-Kutta step magnifies float32 roundings a thousandfold.
    """
    fast = symmetric("Acrobot-v1", (np.pi, np.pi, 4 * np.pi, 9 * np.pi), 1e-2, 1, 500, lambda o: 1)
    played = play(fast, 500, 1, seed=6, forced=True)
    step, make_state = ours(fast)
    _, stepped = jax.jit(jax.vmap(jax.vmap(step)))(make_state(played.state), played.action)
    assert_equal(played, stepped, fast.tolerance)
    at_limit = np.abs(played.observation[..., 4:]) == np.array([4 * np.pi, 9 * np.pi], np.float32)
    assert at_limit.any((0, 1)).all()


@BY_NAME
def test_whole_trajectories_equal_gymnasiums(case: Case) -> None:
    """Fails if the state that is carried along is not all that the dynamics depend on."""
    played = play(case, 20, case.whole_steps, seed=2, forced=False)
    step, make_state = ours(case)
    _, stepped = jax.jit(jax.vmap(lambda state, actions: jax.lax.scan(step, state, actions)))(
        make_state(played.state[:, 0]), played.action
    )
    assert_equal(played, stepped, TOLERANCE)


@BY_NAME
def test_time_limit_is_gymnasiums_and_a_truncation(case: Case) -> None:
    """Fails if an episode is a step too long or short, or a cut is called a termination."""
    env: Any = gymnasium.make(case.name)
    observation, _ = env.reset(seed=3)
    step, make_state = ours(case)
    step, state = jax.jit(step), make_state(env.unwrapped.state)
    for time in range(1, case.limit + 1):
        action = case.idle(observation)
        observation, _, terminated, truncated, _ = env.step(action)
        state, stepped = step(state, action)
        state = make_state(env.unwrapped.state)._replace(time=state.time)  # balancing is chaotic
        assert (bool(stepped.terminated), bool(stepped.truncated)) == (terminated, truncated)
        assert truncated == (time == case.limit)


@pytest.mark.parametrize("case", CASES[:4], ids=[c.name for c in CASES[:4]])
def test_a_terminal_state_at_the_time_limit_is_terminated_only(case: Case) -> None:
    """Fails if both flags are raised, from which learners would bootstrap a terminal state."""
    played = play(case, 50, 20, seed=4, forced=True)
    step, make_state = ours(case)
    last = make_state(played.state)
    last = last._replace(time=jnp.full_like(last.time, case.limit - 1))
    _, stepped = jax.jit(jax.vmap(jax.vmap(step)))(last, played.action)
    assert played.terminated.any()
    np.testing.assert_array_equal(stepped.terminated, played.terminated)
    np.testing.assert_array_equal(stepped.truncated, ~played.terminated)


@BY_NAME
def test_starts_and_spaces_are_gymnasiums(case: Case) -> None:
    """Fails if start states come from another range, or bounds of observations or actions differ.

    Both sides draw 2,000 starts; each entry's least, mean and greatest must agree within 5 %
    of the range (eight standard errors of the mean).
    """
    env = fastrl.registry.make(case.name)
    params = env.default_params()
    theirs: Any = gymnasium.make(case.name).unwrapped
    starts = []
    for seed in range(2000):
        theirs.reset(seed=seed)
        starts.append(np.asarray(theirs.state, np.float64))
    state, _ = jax.vmap(env.reset, (0, None))(jax.random.split(prng.key(5), 2000), params)
    expected, drawn = np.array(starts), np.stack(state[:-1], -1)
    span = np.ptp(expected, 0)
    for statistic in (np.min, np.mean, np.max):
        error = np.abs(statistic(expected, 0) - statistic(drawn, 0))
        assert (error <= 0.05 * span).all()

    for space, other in (
        (env.observation_space(params), theirs.observation_space),
        (env.action_space(params), theirs.action_space),
    ):
        if isinstance(other, gymnasium.spaces.Discrete):
            assert space.n == other.n
        else:
            np.testing.assert_array_equal(space.bounds(), (other.low, other.high))
            assert (space.shape, space.dtype) == (other.shape, other.dtype)
