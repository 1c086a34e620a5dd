"""The quadrotor tasks: ends, effects of the air, the baseline's tracking, and what PPO reaches.

That the dynamics are the original's is tested in test_quadrotor_parity.py.
"""

import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fastrl.envs.quadrotor import Hover, Trajectory, baseline, drones
from fastrl.envs.quadrotor.drones import Air
from fastrl.envs.quadrotor.flight import Flight, State
from fastrl.envs.quadrotor.vectors import Quaternion, Vector
from fastrl.kernels import prng

NO_SPREAD = {"start_spread": Vector(0.0, 0.0, 0.0), "start_tilt": 0.0}


def start(env: Flight, **changes: Any) -> tuple[Any, State]:
    """Params without spread but for `changes`, and their start."""
    params = env.default_params()._replace(**{**NO_SPREAD, **changes})
    return params, env.reset(prng.key(0), params)[0]


def moved(state: State, **entries: Any) -> State:
    """`state` with other entries of the body, `[D]`."""
    return state._replace(body=state.body._replace(**entries))


def at(x: float, y: float, z: float) -> Vector:
    return Vector(*(jnp.full(1, value, jnp.float32) for value in (x, y, z)))


step = jax.jit(lambda env, state, action, params: env.step(prng.key(0), state, action, params),
               static_argnums=0)  # fmt: skip
SINGLE = Hover()
IDLE = jnp.zeros((1, 4), jnp.float32)


@functools.partial(jax.jit, static_argnames=("env", "episodes", "steps"))
def fly(env: Flight, params: Any, episodes: int, steps: int) -> Any:
    """The baseline's distances to its reference `[E, T, D]`, rewards and ends `[E, T]`."""

    def episode(key: jax.Array) -> Any:
        state, _ = env.reset(key, params)

        def one(carry: Any, _: None) -> Any:
            memory, state = carry
            aim = env.setpoint(state, params).position
            memory, action = baseline.act(env, memory, state, params)
            state, step = env.step(key, state, action, params)
            apart = [a - b for a, b in zip(aim, state.body.position, strict=True)]
            distance = jnp.sqrt(sum(x * x for x in apart))
            return (memory, state), (distance, step.reward, step.terminated)

        return jax.lax.scan(one, (baseline.init(state), state), None, steps)[1]

    return jax.vmap(episode)(jax.random.split(prng.key(1), episodes))


TRACKED = {  # environment, changed params, greatest error in metres after three seconds
    "hover": (Hover(action="motors"), {}, 0.06),
    "circle": (Trajectory(action="motors"), {}, 0.08),
    "eight": (Trajectory(action="motors"), {"eight": 1.0, "rise": 0.2}, 0.12),
    "three on a circle": (Trajectory(action="motors", num_drones=3), {"layer": 0.3}, 0.08),
    "two hovering": (Hover(action="motors", num_drones=2), {"start_tilt": 0.0}, 0.06),
}


@pytest.mark.parametrize(
    "name",  # circle and eight share a program
    [n if n in ("circle", "eight") else pytest.param(n, marks=pytest.mark.slow) for n in TRACKED],
)
def test_the_baseline_tracks_its_reference(name: str) -> None:
    """Fails if the controller does not bring drones where they are to be, and keep them there."""
    env, changes, error = TRACKED[name]
    params = env.default_params()._replace(**changes)
    distance, reward, terminated = jax.device_get(fly(env, params, 16, 240))
    assert not terminated.any()
    assert distance[:, 90:].max() < error
    assert distance[:, :10].max() > 0.02, "it began where it was to be"
    if isinstance(env, Hover):
        assert (reward.sum(1) > 475 * env.num_drones).all()


def test_leaving_the_box_and_tilting_are_terminations() -> None:
    """Fails if a learner would bootstrap from a drone that is lost, or one that is not."""
    env = Hover()
    params, state = start(env)
    for position, ends in (
        ((1.49, 0, 1), False), ((1.51, 0, 1), True), ((0, -1.51, 1), True),
        ((0, 0, 1.99), False), ((0, 0, 2.01), True), ((0, 0, -5), False),
    ):  # fmt: skip
        _, stepped = step(env, moved(state, position=at(*position)), IDLE, params)
        assert (bool(stepped.terminated), bool(stepped.truncated)) == (ends, False), position
    for half, ends in ((0.19, False), (0.21, True)):
        for axis in ("x", "y"):
            turned = {**dict.fromkeys("xyzw", jnp.zeros(1)), "w": jnp.cos(jnp.full(1, half))}
            turned[axis] = jnp.sin(jnp.full(1, half))
            tilted = moved(state, attitude=Quaternion(**turned), position=at(0, 0, 1.5))
            assert bool(step(env, tilted, IDLE, params)[1].terminated) == ends


def test_a_lost_drone_at_the_time_limit_is_a_termination_only() -> None:
    """Fails if both flags are raised, or if a time limit alone is not a truncation."""
    env = Hover()
    params, state = start(env)
    state = state._replace(time=jnp.int32(params.max_steps - 1))
    for height, flags in ((2.1, (True, False)), (1.5, (False, True))):
        _, stepped = step(env, moved(state, position=at(0, 0, height)), IDLE, params)
        assert (bool(stepped.terminated), bool(stepped.truncated)) == flags


def test_success_ends_the_episode_unless_turned_off() -> None:
    """Fails if hovering exactly at the target is not the success that it is in the original."""
    env = Hover()
    params, state = start(env, start=Vector(0.0, 0.0, 1.0))
    _, stepped = step(env, state, IDLE, params)
    assert bool(stepped.terminated)
    assert float(stepped.reward) == 2.0
    _, stepped = step(env, state, IDLE, params._replace(success_distance=0.0))
    assert not bool(stepped.terminated)


def climb(air: Air, position: Vector, velocity: Vector, env: Flight = SINGLE) -> np.ndarray:
    """The velocities `[3, D]` after one step at hovering speed."""
    params, state = start(env, air=air)
    state = moved(state, position=position, velocity=velocity)
    action = jnp.zeros(env.action_space(params).shape, jnp.float32)
    return np.stack(step(env, state, action, params)[0].body.velocity)


def test_effects_of_the_air_are_off_by_default_and_scale_with_their_factors() -> None:
    """Fails if a factor is not one: 0 must leave the effect out, 1/2 must halve it."""
    low, still, fast = at(0, 0, 0.1), at(0, 0, 0), at(2, -1, 0.5)
    np.testing.assert_allclose(climb(Air(), low, still), 0.0, atol=2e-6)
    ground, half = (climb(Air(ground_effect=f), low, still)[2, 0] for f in (1.0, 0.5))
    assert ground > 0.01
    np.testing.assert_allclose(half, 0.5 * ground, rtol=0.02)  # it rises out of the effect
    high = climb(Air(ground_effect=1.0), at(0, 0, 1.5), still)[2, 0]
    assert 0 < high < 0.01 * ground
    slowed = [climb(Air(drag=f), at(0, 0, 1), fast)[:, 0] for f in (0.0, 0.5, 1.0)]
    lost = [slowed[0] - s for s in slowed]
    assert (lost[2] * [1, -1, 1] > 1e-4).all()
    np.testing.assert_allclose(lost[1], 0.5 * lost[2], rtol=0.01, atol=1e-6)


def test_wind_carries_a_drone_along_and_only_through_the_drag() -> None:
    """Fails if drag is not that of the speed relative to the air."""
    wind = Vector(2.0, -1.0, 0.0)
    blown = climb(Air(drag=1.0, wind=wind), at(0, 0, 1), at(0, 0, 0))[:, 0]
    assert blown[0] > 1e-3
    assert blown[1] < -1e-3
    np.testing.assert_allclose(climb(Air(wind=wind), at(0, 0, 1), at(0, 0, 0)), 0.0, atol=2e-6)
    drifting = climb(Air(drag=1.0, wind=wind), at(0, 0, 1), at(2, -1, 0))[:, 0]
    np.testing.assert_allclose(drifting, [2, -1, 0], atol=1e-5)


def test_downwash_pushes_the_lower_drone_down_and_is_finite() -> None:
    """Fails if the upper drone is pushed, or a drone beside another makes NaN."""
    env = Hover(num_drones=2)
    still = Vector(*(jnp.zeros(2) for _ in range(3)))

    def pair(height: float) -> np.ndarray:
        place = Vector(jnp.zeros(2), jnp.zeros(2), jnp.array([1.0, 1.0 + height]))
        return climb(Air(downwash=1.0), place, still, env)[2]

    below, above = pair(0.8)
    assert below < -0.1
    assert abs(above) < 1e-5
    for height in (0.0, 1e-7, 1e-3, 0.6875):
        assert np.isfinite(pair(height)).all(), height


def test_motors_with_lag_come_up_to_speed() -> None:
    """Fails if the lag is not exponential with its time constant, or there is one by default."""
    env = Hover(action="motors")
    params, state = start(env)
    full = jnp.ones((1, 4), jnp.float32)
    greatest = float(drones.max_rpm(params.drone, params.gravity))
    at_once = step(env, state, full, params)[0].rpm
    np.testing.assert_allclose(np.stack(at_once), greatest, rtol=1e-6)
    slow = params._replace(drone=params.drone._replace(motor_lag=0.1))
    rpm = np.stack(step(env, state, full, slow)[0].rpm)
    hover = float(drones.hover_rpm(params.drone, params.gravity))
    expected = greatest + (hover - greatest) * np.exp(-1 / 30 / 0.1)
    np.testing.assert_allclose(rpm, expected, rtol=1e-5)


def test_many_drones_in_one_program_are_each_their_own() -> None:
    """Fails if params can't be a batch: other masses, arms, winds and targets side by side."""
    env = Hover()
    factors = 1.0 + 0.1 * jax.random.uniform(prng.key(0), (8,), minval=-1.0)
    params = env.default_params()._replace(air=Air(1.0, 1.0, 1.0, Vector(1.0, 0.5, 0.2)))
    batch = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32) * factors, params)
    batch = batch._replace(max_steps=jnp.full(8, 242))

    def play(params: Any) -> Any:
        state, _ = env.reset(prng.key(1), params)
        action = jnp.full((1, 4), 0.3, jnp.float32)
        for _ in range(2):
            state, _ = env.step(prng.key(2), state, action, params)
        return env.step(prng.key(2), state, action, params)[1]

    together = jax.jit(jax.vmap(play))(batch)
    alone = [jax.jit(play)(jax.tree.map(lambda x, i=i: x[i], batch)) for i in range(8)]
    for i, one in enumerate(alone):
        mine = jax.tree.map(lambda x, i=i: x[i], together)
        np.testing.assert_allclose(mine.observation, one.observation, atol=2e-5)
    assert len(np.unique(np.asarray(together.observation[:, 0, 2]))) == 8


def test_a_reference_moves_as_fast_as_it_says() -> None:
    """Fails if the velocity of a path, which the controller is told, is not its slope."""
    env = Trajectory(num_drones=2)
    params = env.default_params()._replace(eight=0.6, rise=0.3, start_phase=1.0)
    state, _ = env.reset(prng.key(3), params)
    places = [env.setpoint(state._replace(time=jnp.int32(t)), params) for t in (49, 50, 51)]
    slope = [(c - a) * 15 for a, c in zip(places[0].position, places[2].position, strict=True)]
    np.testing.assert_allclose(np.stack(slope), np.stack(places[1].velocity), atol=2e-3)
    assert np.abs(np.stack(places[1].velocity)).max() > 0.2


def test_actions_of_the_baseline_are_what_it_asks_of_the_motors() -> None:
    """Fails if turning speeds into actions is not undone by turning actions into speeds."""
    from fastrl.envs.quadrotor import actions

    rpm = drones.Motors(*(jnp.full(1, x) for x in (9500.0, 14000.0, 15000.0, 21000.0)))
    for kind in ("motors", "rpm"):
        env = Hover(action=kind)  # type: ignore[arg-type]
        params, state = start(env, authority=0.5)
        machine = env.machine(params)
        action = actions.inverse(env.action, rpm, machine)
        _, again = actions.command(env.action, action, state.body, (), machine)
        np.testing.assert_allclose(np.stack(again), np.stack(rpm), rtol=1e-5)
    narrow = actions.inverse("rpm", rpm, machine._replace(authority=0.05))
    assert (jnp.abs(narrow) <= 1.0).all()
    assert (np.diff(np.asarray(narrow)[0]) > 0).all(), "what turns the drone is kept"
    with pytest.raises(ValueError, match=r"vel.*needs 'rpm' or 'motors'"):
        actions.inverse("vel", rpm, machine)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model": "cf3"}, "unknown model 'cf3': known: 'cf2p', 'cf2x', 'racer'"),
        ({"action": "thrust"}, "unknown action 'thrust'"),
        ({"physics": "bullet"}, "unknown physics 'bullet'"),
        ({"num_drones": 0}, "num_drones=0: needs an integer of at least 1"),
        ({"substeps": 2.5}, "substeps=2.5"),
        ({"action_history": -1}, "action_history=-1"),
        ({"model": "racer", "action": "vel"}, "made for the Crazyflie: with model='racer' take"),
    ],
)
def test_wrong_fields_are_named(fields: dict[str, Any], message: str) -> None:
    """Fails if a wrong field is found only inside a compiled program."""
    with pytest.raises(ValueError, match=message):
        Hover(**fields)


def test_an_action_of_another_shape_is_named() -> None:
    """Fails if an action for another number of drones is taken for one of this."""
    env = Hover(num_drones=2)
    params, state = start(env)
    with pytest.raises(ValueError, match=r"shape \(1, 4\): Hover with num_drones=2.*\(2, 4\)"):
        env.step(prng.key(0), state, IDLE, params)


def test_pictures_show_where_the_drones_are() -> None:
    """Fails if one of the two views does not change with the drone."""
    env = Hover()
    params, state = start(env)
    here = env.render(state, params)
    assert here.shape == (360, 640, 3)
    for place, changed in ((at(0, 0.5, 0.1125), (False, True)), (at(0, 0, 0.9), (True, False))):
        there = env.render(moved(state, position=place), params)
        sides = (here[:, :320] != there[:, :320]).any(), (here[:, 320:] != there[:, 320:]).any()
        assert sides == changed


@pytest.mark.slow
@pytest.mark.full
def test_ppo_learns_to_hover_from_the_committed_config() -> None:
    """Fails if the config no longer learns: a third of its steps must nearly reach the PID."""
    from fastrl import config
    from fastrl.evaluate import evaluate
    from fastrl.train import train

    path = Path(__file__).parents[1] / "configs" / "ppo_quadrotor_hover.toml"
    algorithm, hparams, task = config.build(config.load(path))
    state = train(algorithm, hparams, task, steps=700_000, seed=0, progress=False)
    played = evaluate(algorithm, state, episodes=64, seed=1)
    assert played.mean_return > 470.0
    assert played.terminated_share < 0.05
