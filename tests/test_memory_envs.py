"""Tasks that need memory: against POPGym, Gymnasium, and the text of Bakker 2001.

`tests/golden/make_memory.py` plays POPGym 1.0.7 and records the suits that it deals; they are
put into our steps, which take them as arguments.
"""

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fastrl.envs.classic import CartPole
from fastrl.envs.memory import CartPoleNoVelocity, RepeatFirst, RepeatPrevious, TMaze, repeat
from fastrl.envs.memory.t_maze import EAST, NORTH, SOUTH, WEST, Params
from fastrl.kernels import prng
from fastrl.types import Step

GOLDEN = Path(__file__).parent / "golden"
KEY = prng.key(0)
CASES = {  # the options are those of `OPTIONS` in `make_memory.py`
    "RepeatFirst": (RepeatFirst(), 2),
    "RepeatPrevious": (RepeatPrevious(), 1),
    "RepeatPrevious32": (RepeatPrevious(k=32), 2),
}


def maker() -> ModuleType:
    """The script that made the recorded files."""
    spec = importlib.util.spec_from_file_location("make_memory", GOLDEN / "make_memory.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def start_with(env: Any, suit: Any, params: Any) -> Any:
    """The state after `suit` was dealt as the first card."""
    pack = repeat._without(repeat._full_pack(params), suit)
    if isinstance(env, RepeatFirst):
        return repeat.FirstState(pack, suit, suit)
    nothing = jnp.zeros(-(-env.k // 16), jnp.uint32)
    return repeat.PreviousState(pack, repeat._push(nothing, suit), jnp.int32(1))


def assert_equal(name: str, recorded: dict[str, np.ndarray]) -> None:
    """Rewards, ends and suits are those that POPGym gave for the same cards."""
    (env, decks), params = CASES[name], repeat.Params(CASES[name][1])
    assert maker().OPTIONS[name]["num_decks"] == decks
    rows = {k: v.astype(np.int32) if v.dtype == np.int8 else v for k, v in recorded.items()}

    def body(state: Any, row: dict[str, Any]) -> tuple[Any, tuple[Step, Any]]:
        fresh = start_with(env, row["first"], params)
        state = jax.tree.map(lambda a, b: jnp.where(row["start"], a, b), fresh, state)
        state, step = env.deal(state, row["action"], row["shown"], params)
        return state, (step, jnp.stack(state.pack).min())

    start = start_with(env, jnp.int32(0), params)
    step, least = jax.jit(lambda rows: jax.lax.scan(body, start, rows)[1])(rows)
    np.testing.assert_allclose(step.reward, recorded["reward"], rtol=2e-7)
    np.testing.assert_array_equal(step.terminated, recorded["ended"])
    np.testing.assert_array_equal(step.observation, recorded["shown"])
    assert not np.asarray(step.truncated).any()
    assert least.min() == 0
    assert recorded["ended"].sum() >= 90


@pytest.mark.parametrize("name", CASES)
def test_ten_thousand_cards_pay_as_popgyms(name: str) -> None:
    """Fails if another card is asked for, or the reward, its start or the end is off."""
    with np.load(GOLDEN / f"memory_{name}.npz") as file:
        recorded = dict(file)
    assert len(recorded["start"]) == 10_000
    assert_equal(name, recorded)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", CASES)
def test_cards_pay_as_those_of_the_installed_popgym(name: str) -> None:
    """Fails if another seed or another POPGym than the recorded one plays otherwise."""
    pytest.importorskip("popgym")
    assert_equal(name, maker().record(name, 10_000, seed=11))


@pytest.mark.parametrize("env", [RepeatFirst(), RepeatPrevious()], ids=lambda e: type(e).__name__)
def test_every_episode_deals_whole_decks_in_random_order(env: Any) -> None:
    """Fails if a card is dealt twice, or a place in the order prefers a suit."""
    num_episodes, params = 2048, repeat.Params(decks=1)

    def episode(key: Any) -> Any:
        first_key, key = jax.random.split(key)
        state, first = env.reset(first_key, params)

        def body(state: Any, key: Any) -> tuple[Any, tuple[Any, Any]]:
            state, step = env.step(key, state, jnp.int32(0), params)
            return state, (step.observation, step.terminated)

        _, (suits, ended) = jax.lax.scan(body, state, jax.random.split(key, 51))
        return jnp.concatenate([first[None], suits]), ended

    suits, ended = jax.jit(jax.vmap(episode))(jax.random.split(KEY, num_episodes))
    counts = np.stack([(np.asarray(suits) == s).sum(1) for s in range(4)])
    assert (counts == 13).all()
    assert np.asarray(ended)[:, -1].all()
    assert not np.asarray(ended)[:, :-1].any()
    shares = np.stack([(np.asarray(suits) == s).mean(0) for s in range(4)])
    assert np.abs(shares - 0.25).max() < 5 * np.sqrt(0.25 * 0.75 / num_episodes)
    repeats = (np.asarray(suits)[:, 1:] == np.asarray(suits)[:, :-1]).mean()
    assert abs(repeats - 12 / 51) < 0.007  # five standard errors


def test_returns_of_perfect_memory_are_one() -> None:
    """Fails if more or fewer steps than the remembered ones are paid."""
    env, params = RepeatPrevious(k=5), repeat.Params(decks=1)

    def body(carry: Any, key: Any) -> tuple[Any, Any]:
        state, seen = carry  # the last five suits, the newest first
        state, step = env.step(key, state, seen[-1], params)
        return (state, jnp.concatenate([step.observation[None], seen[:-1]])), step.reward

    state, first = env.reset(KEY, params)
    start = state, jnp.concatenate([first[None], jnp.full(4, -1, jnp.int32)])
    _, rewards = jax.jit(lambda s, k: jax.lax.scan(body, s, k))(start, jax.random.split(KEY, 51))
    assert np.asarray(rewards)[:4].tolist() == [0.0] * 4
    np.testing.assert_allclose(rewards.sum(), 1.0, rtol=1e-6)


class Bakker:
    """The T-maze as the paper tells it, in plain Python."""

    def __init__(self, length: int, goal_north: bool) -> None:
        self.length, self.north, self.at = length, goal_north, 0

    def observe(self) -> list[int]:
        if self.at == 0:
            return [0, 1, 1] if self.north else [1, 1, 0]
        return [0, 1, 0] if self.at == self.length else [1, 0, 1]

    def step(self, action: int) -> tuple[float, bool]:
        if self.at == self.length and action in (NORTH, SOUTH):
            return (4.0 if (action == NORTH) == self.north else -0.1), True
        before = self.at
        self.at = min(max(self.at + {EAST: 1, WEST: -1}.get(action, 0), 0), self.length)
        return (-0.1 if self.at == before else 0.0), False


def test_ten_thousand_steps_in_the_t_maze_are_as_bakker_writes() -> None:
    """Fails if a wall, a sign, a reward or an end is not where the paper has it."""
    env, params = TMaze(), Params(length=3, max_steps=10_001)
    rng, maze, rows = np.random.default_rng(0), None, []
    for _ in range(10_000):
        start = maze is None
        if maze is None:
            maze = Bakker(3, bool(rng.integers(2)))
        action, shown, north = (
            int(rng.choice(4, p=[0.2, 0.4, 0.2, 0.2])),
            maze.observe(),
            maze.north,
        )
        reward, ended = maze.step(action)
        rows.append((start, north, action, shown, maze.observe(), reward, ended))
        maze = None if ended else maze
    start, north, action, shown, seen, reward, ended = (
        np.array(c) for c in zip(*rows, strict=True)
    )
    fresh = env.reset(KEY, params)[0]

    def body(carry: Any, row: Any) -> tuple[Any, tuple[Any, Step]]:
        first, north, action = row
        state, observation = carry
        new = fresh._replace(goal_north=north)
        state = jax.tree.map(lambda a, b: jnp.where(first, a, b), new, state)
        state, step = env.step(KEY, state, action, params)
        return (state, step.observation), (observation, step)

    inputs = jnp.asarray(start), jnp.asarray(north), jnp.asarray(action, jnp.int32)
    run = jax.jit(lambda rows: jax.lax.scan(body, (fresh, jnp.zeros(3)), rows)[1])
    before, step = run(inputs)
    np.testing.assert_allclose(step.reward, reward, rtol=1e-6)
    np.testing.assert_array_equal(step.terminated, ended)
    np.testing.assert_array_equal(np.asarray(step.observation)[~ended], seen[~ended])
    np.testing.assert_array_equal(np.asarray(before)[~start], shown[~start])
    assert not np.asarray(step.truncated).any()
    assert ended.sum() > 500


def test_signs_noise_and_time_limit_of_the_t_maze() -> None:
    """Fails if the sign tells another goal, noise touches sign or junction, or a cut is an end."""
    env = TMaze()
    params = Params(length=2, noise=1.0, max_steps=2)
    keys = jax.random.split(KEY, 2048)
    state, first = jax.vmap(env.reset, (0, None))(keys, params)
    north = np.asarray(state.goal_north)
    assert abs(north.mean() - 0.5) < 0.06
    assert (np.asarray(first) == np.where(north[:, None], [0, 1, 1], [1, 1, 0])).all()
    step = jax.jit(jax.vmap(env.step, (0, 0, None, None)))
    state, corridor = step(keys, state, jnp.int32(EAST), params)
    a, zero, b = np.asarray(corridor.observation).T
    assert not zero.any()
    for x in (a, b):
        assert abs(x.mean() - 0.5) < 0.04
    assert abs(np.corrcoef(a, b)[0, 1]) < 0.12
    _, junction = step(keys, state, jnp.int32(EAST), params)
    assert (np.asarray(junction.observation) == [0, 1, 0]).all()
    assert np.asarray(junction.truncated).all()
    assert not np.asarray(junction.terminated).any()


def test_cartpole_without_velocities_is_cartpole_otherwise() -> None:
    """Fails if anything but the two velocities is missing, or the dynamics changed."""
    whole, masked = CartPole(), CartPoleNoVelocity()
    params = whole.default_params()
    assert masked.default_params() == params
    low, high = whole.observation_space(params).bounds()
    shown = masked.observation_space(params).bounds()
    np.testing.assert_array_equal(shown, (low[[0, 2]], high[[0, 2]]))

    def play(env: Any, key: Any) -> Any:
        state, first = env.reset(key, params)

        def body(state: Any, action: Any) -> tuple[Any, Step]:
            return env.step(key, state, action, params)

        actions = jax.random.randint(key, (100,), 0, 2)
        return first, jax.lax.scan(body, state, actions)[1]

    keys = jax.random.split(KEY, 100)
    (first, step), (few, seen) = (
        jax.jit(jax.vmap(lambda key, env=env: play(env, key)))(keys) for env in (whole, masked)
    )
    np.testing.assert_array_equal(few, first[..., [0, 2]])
    np.testing.assert_allclose(seen.observation, step.observation[..., [0, 2]], atol=1e-4)
    for flag in ("terminated", "truncated", "reward"):
        np.testing.assert_array_equal(getattr(seen, flag), getattr(step, flag))


@pytest.mark.parametrize("k", [0, 2.5, 10_000])
def test_cards_that_cannot_be_asked_for_are_refused(k: Any) -> None:
    """Fails if a wrong `k` is found out inside a compiled program only."""
    with pytest.raises(ValueError, match=rf"k={k}: needs an integer"):
        RepeatPrevious(k=k)
    with pytest.raises(ValueError, match=r"decks=1: too few cards"):
        RepeatPrevious(k=60).reset(KEY, repeat.Params(decks=1))
