"""Batches: true successors at ends, counted episodes, resets that vary, sharding."""

import dataclasses
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fastrl import metrics as fm
from fastrl import reset, vec
from fastrl.envs.classic import CartPole
from fastrl.kernels import prng
from fastrl.spaces import Box, Discrete
from fastrl.types import Pool, Reset, Step

N, T = 6, 40


class CountState(NamedTuple):
    counted: jax.Array
    length: jax.Array


@dataclasses.dataclass(frozen=True)
class Count:
    """Counts up from a random start; ends after 3 to 6 steps, terminated if the action was 1."""

    version: ClassVar[int] = 1

    def default_params(self):
        return {"step": jnp.float32(1.0)}

    def reset(self, key, params):
        start = jax.random.randint(key, (), 0, 1000).astype(jnp.float32)
        length = 3 + (start.astype(jnp.int32) % 4)
        return CountState(start, length), start[None]

    def step(self, key, state, action, params):
        state = CountState(state.counted + params["step"], state.length - 1)
        end = state.length <= 0
        return state, Step(
            state.counted[None], jnp.float32(2.0), end & (action == 1), end & (action == 0),
            {"count": state.counted},
        )  # fmt: skip

    def observation_space(self, params):
        return Box(-np.inf, np.inf, (1,))

    def action_space(self, params):
        return Discrete(2)


def roll(env, reset_of, params=None, key=0):
    batch = vec.VecEnv(env, N, reset_of(env))
    params = env.default_params() if params is None else params

    def policy(key, observation):
        return jax.random.randint(key, (N,), 0, 2), ()

    def program(key):
        state = batch.init(key, params)
        return state, vec.rollout(batch, policy, key, state, params, T)

    return jax.jit(program)(prng.key(key))


def test_next_observation_is_the_true_successor_also_at_ends():
    """Auto-reset must not overwrite the last observation of an episode."""
    _, (last, (t, _), _) = roll(Count(), reset.fresh)
    done = np.asarray(t.terminated | t.truncated)
    observation, successor = (
        np.asarray(t.observation)[..., 0],
        np.asarray(t.next_observation)[..., 0],
    )
    np.testing.assert_array_equal(successor, observation + 1)  # everywhere, at ends too
    following = np.concatenate([observation[1:], np.asarray(last.observation)[None, :, 0]])
    np.testing.assert_array_equal(following[~done], successor[~done])
    assert done.sum() > 30
    assert (following[done] != successor[done]).mean() > 0.9


def test_flags_are_exclusive_and_episodes_are_counted_once():
    """Returns over ended episodes only, each with its own length; 2 per step."""
    _, (last, (t, _), metrics) = roll(Count(), reset.fresh)
    assert not (t.terminated & t.truncated).any()
    ended = int((t.terminated | t.truncated).sum())
    assert float(metrics["episode_return"].weight) == ended
    running = int(last.episode_length.sum())
    assert float(metrics["episode_length"].total) == N * T - running
    assert float(metrics["episode_return"].total) == 2.0 * (N * T - running)
    assert float(metrics["count"].weight) == N * T


@pytest.mark.parametrize("reset_of", [reset.fresh, reset.pool])
def test_start_states_vary_over_environments_and_episodes(reset_of):
    """A key that is reused would give one start state for all, or the same one each time."""
    first, (_, (t, _), _) = roll(Count(), reset_of)
    assert len(np.unique(first.observation)) > N // 2
    done = np.asarray(t.terminated | t.truncated)
    starts = np.asarray(t.observation)[1:][done[:-1]]
    assert len(np.unique(starts)) > 0.8 * len(starts)


def test_a_pool_draws_all_its_states_evenly():
    env = Count()
    drawn = reset.pool(env, size=4)
    memory = drawn.init(prng.key(0), env.default_params(), 8)
    out = drawn.draw(prng.key(1), memory, env.default_params(), jnp.ones(4000, bool))
    _, counts = np.unique(out.observation, return_counts=True)
    assert len(counts) == 4
    assert counts.min() > 850  # of 1000 expected, more than five standard deviations


def test_snapshots_start_where_they_were_taken_and_go_on_as_the_original():
    """A restored state must behave like the one that was kept."""
    env, params = CartPole(), CartPole().default_params()
    key = prng.key(0)
    state, _ = env.reset(key, params)
    observation = None
    for _ in range(5):
        state, step = env.step(key, state, jnp.int32(1), params)
        observation = step.observation
    states, observations = jax.tree.map(lambda x: x[None], (state, observation))
    drawn = reset.snapshots(env, states, observations)
    memory = drawn.init(key, params, N)
    out = drawn.draw(key, memory, params, jnp.ones(N, bool))
    again = jax.vmap(env.step, (None, 0, None, None))(key, out.state, jnp.int32(0), params)
    want = env.step(key, state, jnp.int32(0), params)
    np.testing.assert_allclose(again[1].observation[3], want[1].observation, rtol=1e-6)
    assert (np.asarray(out.state.time) == 5).all()


def test_a_share_of_snapshots_leaves_the_rest_to_the_environment():
    env = Count()
    states, observations = CountState(jnp.array([-7.0]), jnp.array([3])), jnp.array([[-7.0]])
    drawn = reset.snapshots(env, states, observations, share=0.25)
    memory = drawn.init(prng.key(0), env.default_params(), N)
    out = drawn.draw(prng.key(1), memory, env.default_params(), jnp.ones(4000, bool))
    assert abs(float((out.observation == -7.0).mean()) - 0.25) < 0.04


def test_a_reset_can_hand_out_params_per_environment():
    """Domain randomisation is a Reset: each environment steps with the params of its episode."""
    env = Count()

    def draw(key, memory, params, done):
        n = done.shape[0]
        step = jnp.arange(n, dtype=jnp.float32)
        state, observation = jax.vmap(env.reset, (0, 0))(jax.random.split(key, n), {"step": step})
        return Pool((), {"step": step}, state, observation)

    randomised = Reset(lambda key, params, n: (), draw, per_env_params=True)
    _, (_, (t, _), _) = roll(env, lambda env: randomised)
    moved = np.asarray(t.next_observation - t.observation)[..., 0]
    np.testing.assert_array_equal(moved, np.broadcast_to(np.arange(N), (T, N)))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda env: reset.pool(env, 0), r"size=0"),
        (lambda env: reset.snapshots(env, jnp.zeros((3, 2)), jnp.zeros((4, 2))), r"\[3, 4\]"),
        (lambda env: reset.snapshots(env, jnp.zeros((3,)), jnp.zeros((3,)), 1.5), "share=1.5"),
    ],
)
def test_bad_resets_name_the_value(call, words):
    with pytest.raises(ValueError, match=words):
        call(CartPole())


def test_metrics_fold_to_the_same_mean_in_any_grouping():
    values = jnp.arange(24.0).reshape(4, 6)
    where = values % 5 != 0
    whole = fm.mean(values, where)
    rows = jax.vmap(fm.mean)(values, where)
    folded = fm.fold({"x": rows})["x"]
    np.testing.assert_allclose(folded.total, whole.total)
    np.testing.assert_allclose(folded.weight, whole.weight)
    added = fm.add({"x": fm.mean(values[:1], where[:1])}, {"x": fm.mean(values[1:], where[1:])})
    np.testing.assert_allclose(fm.compute(added)["x"], fm.compute({"x": whole})["x"])
    nothing = fm.compute({"x": fm.mean(values, values < 0)})["x"]
    assert np.isnan(nothing)
    with pytest.raises(ValueError, match="differ in their names"):
        fm.add({"x": whole}, {"y": whole})
