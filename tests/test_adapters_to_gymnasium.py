"""fastrl's environments as Gymnasium's: its own checks, seeds, ends, pictures."""

import functools
import re
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from toys import Combination, MaskedChoice

import fastrl
from fastrl.envs.adapters import from_gymnasium, to_gymnasium, to_gymnasium_vector
from fastrl.kernels import prng

CARTPOLE, PENDULUM = fastrl.make("CartPole-v1"), fastrl.make("Pendulum-v1")
N = 6


@functools.cache
def short() -> Any:
    return CARTPOLE.default_params()._replace(max_steps=12)


@pytest.mark.parametrize(
    ("env", "mode"),
    [(CARTPOLE, "rgb_array"), (PENDULUM, None), (MaskedChoice(), None), (Combination(), None)],
    ids=lambda x: type(x).__name__ if hasattr(x, "step") else str(x),
)
@pytest.mark.filterwarnings("ignore:.*(infinity|symmetric and normalized|not having a spec)")
def test_gymnasiums_checker_finds_no_fault(env: Any, mode: str | None) -> None:
    """Fails if spaces, seeds, types or the render mode are not what code for Gymnasium expects."""
    check_env(to_gymnasium(env, render_mode=mode), skip_close_check=True)


def test_episodes_are_those_of_the_environment() -> None:
    """Fails if a reward, an end or an observation differs from the environment's own step."""
    env = to_gymnasium(CARTPOLE, short())
    observation, info = env.reset(seed=3)
    assert info == {}
    state = jax.device_get(env._state)
    step = jax.jit(CARTPOLE.step)
    ends = 0
    for action in np.random.default_rng(0).integers(0, 2, 100):
        state, expected = step(prng.key(0), state, jnp.int32(action), short())
        observation, reward, terminated, truncated, info = env.step(action)
        np.testing.assert_array_equal(observation, expected.observation)
        assert type(reward) is float
        assert reward == float(expected.reward)
        assert (terminated, truncated) == (bool(expected.terminated), bool(expected.truncated))
        if terminated or truncated:
            ends += 1
            with pytest.raises(gymnasium.error.ResetNeeded):
                env.step(0)
            env.reset()
            state = jax.device_get(env._state)
    assert ends > 4


def test_seeds_decide_everything() -> None:
    """Fails if equal seeds differ, other seeds agree, or a second episode repeats the first."""

    def starts(seed: int) -> list[Any]:
        env = to_gymnasium(CARTPOLE)
        return [env.reset(seed=seed)[0], env.reset()[0], env.reset()[0]]

    np.testing.assert_array_equal(starts(1), starts(1))
    assert len(np.unique(np.array(starts(1) + starts(2)), axis=0)) == 6


def test_records_and_actions_are_translated() -> None:
    """Fails if a record's fields, a mask or a row of whole numbers arrive wrong."""
    masked = to_gymnasium(MaskedChoice())
    assert masked.observation_space["action_mask"] == gymnasium.spaces.MultiBinary((6,))
    observation, _ = masked.reset(seed=0)
    assert observation["action_mask"].dtype == np.int8
    assert masked.observation_space.contains(observation)
    lock = to_gymnasium(Combination())
    observation, _ = lock.reset(seed=0)
    assert lock.step(observation["view"]["target"])[1] == 1.0
    with pytest.raises(gymnasium.error.InvalidAction, match="7 is not a choice of 0 to 5"):
        masked.step(7)


def test_render_gives_the_present_state() -> None:
    """Fails if the picture is that of another state, or there is one without being asked for."""
    env = to_gymnasium(CARTPOLE, render_mode="rgb_array")
    env.reset(seed=0)
    first = env.render()
    env.step(1)
    assert first.shape == (400, 600, 3)
    assert (first != env.render()).any()
    assert to_gymnasium(CARTPOLE).render() is None


def test_vector_keeps_final_observations() -> None:
    """Fails if the last observation of an episode is lost to the next one's first."""
    task = short()._replace(max_steps=18)
    envs = to_gymnasium_vector(CARTPOLE, N, task)
    envs.action_space.seed(0)
    assert envs.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP
    before, _ = envs.reset(seed=5)
    assert before.shape == (N, 4)
    step = jax.jit(jax.vmap(CARTPOLE.step, (None, 0, 0, None)))
    terminated, truncated = 0, 0
    for _ in range(60):
        state, action = envs._state.env, envs.action_space.sample()
        assert envs.action_space.contains(action)
        _, expected = step(prng.key(0), state, action.astype(np.int32), task)
        after, reward, ends, cuts, info = envs.step(action)
        done = ends | cuts
        np.testing.assert_array_equal(ends, expected.terminated)
        np.testing.assert_array_equal(cuts, expected.truncated)
        np.testing.assert_array_equal(after[~done], np.asarray(expected.observation)[~done])
        np.testing.assert_array_equal(reward, np.ones(N))
        assert ("final_obs" in info) == done.any()
        if done.any():
            np.testing.assert_array_equal(info["_final_obs"], done)
            final = np.stack(info["final_obs"][done])
            np.testing.assert_array_equal(final, np.asarray(expected.observation)[done])
            assert (np.abs(after[done]) <= 0.05).all()
        terminated, truncated = terminated + ends.sum(), truncated + cuts.sum()
        assert envs.observation_space.contains(after)
    assert terminated > 0
    assert truncated > 0


def test_vector_is_what_gymnasiums_wrappers_take() -> None:
    """Fails if Gymnasium's own wrappers count other returns than the environment gives."""
    envs = gymnasium.wrappers.vector.RecordEpisodeStatistics(
        to_gymnasium_vector(CARTPOLE, N, short())
    )
    envs.reset(seed=0)
    lengths = []
    for _ in range(40):
        *_, info = envs.step(envs.action_space.sample())
        if "episode" in info:
            lengths += info["episode"]["l"][info["_episode"]].tolist()
    assert len(lengths) > N
    assert max(lengths) == 12


def test_vector_seeds_and_records() -> None:
    """Fails if equal seeds differ, or records are not batched field by field."""
    a, b, c = (to_gymnasium_vector(CARTPOLE, N).reset(seed=s)[0] for s in (1, 1, 2))
    np.testing.assert_array_equal(a, b)
    assert (a != c).all()
    assert len(np.unique(a, axis=0)) == N
    envs = to_gymnasium_vector(MaskedChoice(), N)
    observation, _ = envs.reset(seed=0)
    assert observation["action_mask"].shape == (N, 6)
    info: dict = {}
    for _ in range(4):
        *_, info = envs.step(envs.action_space.sample())
    assert info["final_obs"][0]["action_mask"].shape == (6,)


NAME: Any = "CartPole-v1"
NEEDED, INVALID = gymnasium.error.ResetNeeded, gymnasium.error.InvalidAction


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: to_gymnasium(NAME), TypeError, "pass fastrl.make('CartPole-v1')"),
        (lambda: to_gymnasium(CARTPOLE, render_mode="human"), ValueError, "takes None or 'rgb_"),
        (lambda: to_gymnasium(MaskedChoice(), render_mode="rgb_array"), ValueError, "takes None"),
        (lambda: to_gymnasium_vector(CARTPOLE, 0), ValueError, "num_envs=0"),
        (lambda: to_gymnasium(CARTPOLE).step(0), NEEDED, "call reset()"),
        (lambda: to_gymnasium_vector(CARTPOLE, 2).step([0, 0]), NEEDED, "call reset()"),
        (lambda: to_gymnasium_vector(CARTPOLE, 2).reset(seed=[1, 2]), ValueError, "one integer"),
        (lambda: wrong([0, 1]), INVALID, "shape is (2,), not (6,)"),
        (lambda: wrong([0, 1, 0, 1, 0, 2]), INVALID, "not a choice of 0 to 1"),
        (lambda: wrong([0.5] * 6), INVALID, "not a choice of 0 to 1"),
    ],
)
def test_slips_are_named(build: Any, error: type[Exception], message: str) -> None:
    """Fails if a slip gives a traceback from inside, or wrong numbers."""
    with pytest.raises(error, match=re.escape(message)):
        build()


def wrong(actions: list) -> None:
    envs = to_gymnasium_vector(CARTPOLE, N)
    envs.reset(seed=0)
    envs.step(actions)


def test_there_and_back_is_the_same_environment() -> None:
    """Fails if what one direction makes, the other does not take."""
    back = from_gymnasium(make_short, max_steps=12)
    ours: Any = to_gymnasium(CARTPOLE, short())
    state, observation = back.reset(prng.key(0), ())
    first, _ = ours.reset(seed=int(np.asarray(state.ticket)[0]))
    np.testing.assert_array_equal(observation, first)
    for action in (0, 1, 1, 0):
        state, step = back.step(prng.key(0), state, jnp.int32(action), ())
        np.testing.assert_array_equal(step.observation, ours.step(action)[0])


def make_short() -> Any:
    return to_gymnasium(CARTPOLE, short())
