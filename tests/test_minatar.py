"""What surrounds the rules of the MinAtar games: actions, chance, ends, errors, pictures.

The rules themselves are compared with the package's in `test_minatar_parity.py`.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fastrl
from fastrl.envs import drawing, minatar

GAMES = [minatar.Asterix, minatar.Breakout, minatar.Freeway, minatar.Seaquest,
         minatar.SpaceInvaders]  # fmt: skip
BY_GAME = pytest.mark.parametrize("game", GAMES, ids=lambda g: g.__name__)
KEY = fastrl.key(0)


def start(env: Any) -> Any:
    return env.reset(KEY, env.default_params())[0]


def drawn(env: Any, count: int = 20_000, **changes: Any) -> Any:
    """The events of `count` steps."""
    params = env.default_params()._replace(**changes)
    draw = jax.jit(jax.vmap(lambda key: env.events(key, params)))
    return jax.device_get(draw(jax.random.split(KEY, count)))


@BY_GAME
def test_names_are_the_packages(game: Any) -> None:
    """Fails if `-v0` has not all six actions, or `-v1` others than those that matter."""
    full = fastrl.make(f"MinAtar/{game.__name__}-v0")
    minimal = fastrl.make(f"MinAtar/{game.__name__}-v1")
    assert (full, minimal) == (game(), game(minimal_actions=True))
    assert full.action_space(full.default_params()).n == 6
    assert minimal.action_space(minimal.default_params()).n == len(game.useful_actions)
    no, state = jnp.bool_(False), start(full)
    played = [int(minimal.played(state, jnp.int32(i), no)) for i in range(len(game.useful_actions))]
    assert played == list(game.useful_actions)
    assert [int(full.played(state, jnp.int32(i), no)) for i in range(6)] == list(range(6))


def test_a_sticky_action_is_the_one_played_before() -> None:
    """Fails if what sticks is the action that was asked for, or its index among the minimal."""
    env = minatar.Breakout(minimal_actions=True)
    params, state = env.default_params(), start(env)
    once, again = (type(env.events(KEY, params))(jnp.bool_(b)) for b in (False, True))
    state, _ = env.advance(state, jnp.int32(2), once, params)  # right
    for _ in range(2):
        state, _ = env.advance(state, jnp.int32(1), again, params)  # left, but right it is
    assert (int(state.paddle), int(state.last_action)) == (7, 3)


@BY_GAME
@pytest.mark.parametrize("probability", [0.0, 0.1, 1.0])
def test_actions_stick_as_often_as_params_say(game: Any, probability: float) -> None:
    """Fails if the share of repeated actions is not `sticky_action_prob`."""
    share = drawn(game(), sticky_action_prob=probability).repeat.mean()
    assert abs(share - probability) <= 5 * np.sqrt(probability * (1 - probability) / 20_000)


def test_chances_are_the_packages() -> None:
    """Fails if sides, kinds, rows or speeds are not drawn as the package does, or go together."""

    def uniform(values: Any, count: int) -> None:
        shares = np.bincount(values.ravel(), minlength=count)[-count:] / values.size
        np.testing.assert_allclose(shares, 1 / count, atol=0.02)

    asterix = drawn(minatar.Asterix())
    uniform(asterix.to_right.astype(int), 2)
    assert abs(asterix.gold.mean() - 1 / 3) < 0.02
    for gold in (False, True):  # both share a number
        uniform((asterix.row[asterix.gold == gold] * 5).astype(int), 5)
    assert asterix.row.min() >= 0
    assert asterix.row.max() < 1
    seaquest = drawn(minatar.Seaquest())
    assert abs(seaquest.enemy_submarine.mean() - 1 / 3) < 0.02
    for right, y in ((seaquest.enemy_to_right, seaquest.enemy_y),
                     (seaquest.diver_to_right, seaquest.diver_y)):  # fmt: skip
        uniform((y - 1) * 2 + right, 16)
    speeds = drawn(minatar.Freeway(), 4000).speed
    uniform(speeds[speeds > 0] - 1, 5)
    uniform(-speeds[speeds < 0] - 1, 5)
    assert abs((speeds > 0).mean() - 0.5) < 0.02
    states = jax.vmap(minatar.Breakout().reset, (0, None))(
        jax.random.split(KEY, 2000), minatar.Breakout().default_params()
    )[0]
    uniform((np.asarray(states.ball_x) == 0).astype(int), 2)


def test_a_time_limit_truncates() -> None:
    """Fails if `max_steps` terminates, or falls on another step."""
    env = minatar.SpaceInvaders()
    params, state = env.default_params()._replace(max_steps=3), start(env)
    flags = []
    for _ in range(3):
        state, step = env.step(KEY, state, 0, params)
        flags.append((bool(step.terminated), bool(step.truncated)))
    assert flags == [(False, False), (False, False), (False, True)]


def test_freeways_clock_terminates_and_a_limit_before_it_truncates() -> None:
    """Fails if the game's own end is a truncation, comes at another step, or wins over a limit."""
    env = minatar.Freeway()
    late, params = start(env)._replace(time=jnp.int32(2499)), env.default_params()
    state, step = env.step(KEY, late, 0, params)
    assert not step.terminated
    assert env.step(KEY, state, 0, params)[1].terminated
    both = env.step(KEY, state, 0, params._replace(max_steps=2501))[1]
    assert (bool(both.terminated), bool(both.truncated)) == (True, False)
    cut = env.step(KEY, late, 0, params._replace(max_steps=2500))[1]
    assert (bool(cut.terminated), bool(cut.truncated)) == (False, True)


@pytest.mark.slow
def test_params_are_per_environment_in_one_program() -> None:
    """Fails if a batch of tasks differs from the tasks one by one."""
    env = minatar.Asterix()
    tasks = [{"spawn_interval": 1, "move_interval": 2}, {"ramp_interval": 3, "ramping": True},
             {"sticky_action_prob": 1.0, "ramping": False}]  # fmt: skip
    params = [env.default_params()._replace(**t) for t in tasks]
    stacked = jax.tree.map(lambda *x: jnp.stack([jnp.asarray(v) for v in x]), *params)

    def play(task: Any) -> Any:
        state, _ = env.reset(KEY, task)
        keys = jax.random.split(KEY, 40)
        return jax.lax.scan(lambda s, k: env.step(k, s, jnp.int32(1), task), state, keys)

    batch = jax.jit(jax.vmap(play))(stacked)
    alone = jax.jit(play)
    for i in range(len(tasks)):
        one = alone(jax.tree.map(lambda x, i=i: x[i], stacked))
        jax.tree.map(lambda a, b, i=i: np.testing.assert_array_equal(a[i], b), batch, one)
    assert len({int(t) for t in batch[0].ramp_index}) > 1


@pytest.mark.parametrize("action", [6, -1, 1.5, [0, 1]])
def test_an_action_that_is_none_is_refused(action: Any) -> None:
    """Fails if a wrong action is silently taken for another outside of programs."""
    env = minatar.Seaquest()
    with pytest.raises(ValueError, match=r"action=.*0 nothing, 1 left"):
        env.step(KEY, start(env), action, env.default_params())


def test_wrong_numbers_are_refused() -> None:
    """Fails if params or fields that mean nothing pass without an error."""
    env = minatar.Breakout(minimal_actions=True)
    params, state = env.default_params(), start(env)
    with pytest.raises(ValueError, match=r"action=3.*0 nothing, 1 left, 2 right"):
        env.step(KEY, state, 3, params)
    with pytest.raises(ValueError, match=r"sticky_action_prob=1.5.*from 0 to 1"):
        env.step(KEY, state, 0, params._replace(sticky_action_prob=1.5))
    with pytest.raises(ValueError, match="max_steps=0"):
        env.step(KEY, state, 0, params._replace(max_steps=0))
    options: Any = {"minimal_actions": 3}
    with pytest.raises(ValueError, match="minimal_actions=3"):
        minatar.Breakout(**options)


@BY_GAME
def test_a_picture_has_the_colours_of_what_is_there(game: Any) -> None:
    """Fails if a cell does not show the last of its channels, or an empty one is coloured."""
    env = game()
    assert len(env.colours) == len(env.channels)
    state, board = env.reset(KEY, env.default_params())
    image = env.render(state, env.default_params())
    assert image.shape == (320, 320, 3)
    for y, x in np.ndindex(10, 10):
        there = np.flatnonzero(board[y, x])
        colour = env.colours[there[-1]] if len(there) else drawing.PAPER
        assert tuple(image[32 * y + 16, 32 * x + 16]) == colour
