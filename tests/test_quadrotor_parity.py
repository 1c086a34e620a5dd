"""The quadrotors against gym-pybullet-drones, from a recording of the original.

`golden/make_quadrotor.py` says what was recorded and how. All trajectories start from random
states. The original computes in float64, and its `pyb` physics are Bullet's of a multi-body, for
which the model here takes Bullet's damping and the propellers of the URDF file.
"""

import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fastrl.envs.quadrotor import Hover, actions, controllers, drones, vectors
from fastrl.envs.quadrotor.controllers import Memory, Setpoint
from fastrl.envs.quadrotor.drones import Air
from fastrl.envs.quadrotor.flight import State
from fastrl.envs.quadrotor.forces import Body
from fastrl.envs.quadrotor.vectors import Quaternion, Vector
from fastrl.kernels import prng

GOLDEN = np.load(Path(__file__).parent / "golden" / "quadrotor.npz")
CASES = [name.removesuffix("/start") for name in GOLDEN.files if name.endswith("/start")]
BATCH = 10  # trajectories at once, so that all cases of an action type share a program

EFFECTS = {
    "dyn": Air(),
    "pyb": Air(),
    "pyb_gnd": Air(ground_effect=1.0),
    "pyb_drag": Air(drag=1.0),
    "pyb_dw": Air(downwash=1.0),
    "pyb_gnd_drag_dw": Air(ground_effect=1.0, drag=1.0, downwash=1.0),
}


def task(case: str) -> tuple[Hover, Any]:
    """The environment of `case`, and its params as arrays, so that cases share programs."""
    physics, model, action, count = case.split("/")
    kind: Any = {"action": action, "physics": physics[:3], "num_drones": int(count)}
    params = Hover(model=model, **kind).default_params()._replace(air=EFFECTS[physics])
    return Hover(**kind), jax.tree.map(lambda x: jnp.asarray(x, jnp.result_type(x)), params)


@functools.partial(jax.jit, static_argnames="env")
def fly(env: Hover, params: Any, start: jax.Array, actions: jax.Array) -> Any:
    """Plays `actions` `[E, T, D, A]` from the states `start` `[E, D, 13]`: states and Steps."""

    def trajectory(start: jax.Array, actions: jax.Array) -> Any:
        state, _ = env.reset(prng.key(0), params)
        x = [start[:, i] for i in range(13)]
        attitude = vectors.normalise(Quaternion(*x[3:7]))
        body = Body(Vector(*x[:3]), Vector(*x[7:10]), attitude, Vector(*x[10:]))
        state = state._replace(body=body, frame=attitude if env.physics == "pyb" else ())
        if state.controller:  # which the original starts with angles 0
            zero = jax.tree.map(jnp.zeros_like, body.position)
            state = state._replace(controller=Memory(zero, zero, zero))

        def one(state: State, action: jax.Array) -> Any:
            state, step = env.step(prng.key(0), state, action, params)
            return state, (state, step)

        return jax.lax.scan(one, state, actions)[1]

    return jax.vmap(trajectory)(start, actions)


def played(case: str, trajectories: int | None = None) -> tuple[dict[str, np.ndarray], Any, Any]:
    """The recording of `case`, and what happens here: states and Steps `[E, T, ...]`."""
    keys = ("start", "actions", "rewards", "flags", "states")
    recorded = {k: GOLDEN[f"{case}/{k}"][:trajectories] for k in keys}
    env, params = task(case)
    taken = recorded["actions"].astype(np.float32) / np.float32(127)
    batches = [
        jax.device_get(fly(env, params, recorded["start"][i : i + BATCH], taken[i : i + BATCH]))
        for i in range(0, len(taken), BATCH)
    ]
    states, steps = jax.tree.map(lambda *x: np.concatenate(x), *batches)
    return recorded, states, steps


def assert_close(name: str, ours: Any, theirs: Any, absolute: float, relative: float = 0.0) -> None:
    np.testing.assert_allclose(ours, theirs, rtol=relative, atol=absolute, err_msg=name)


def compare(case: str, trajectories: int | None) -> int:
    """Compares a case; returns how many steps it has."""
    recorded, states, steps = played(case, trajectories)
    time = recorded["actions"].shape[1]
    through_pid = case.split("/")[2] in actions.THROUGH_PID
    assert_close("reward", steps.reward, recorded["rewards"], 2e-5)
    # The original calls leaving the box a truncation; what ends the episode is the same.
    np.testing.assert_array_equal(steps.terminated, recorded["flags"].any(-1))
    assert not steps.truncated.any()
    for at, theirs in ((time // 2 - 1, 0), (time - 1, 1)):
        expected = recorded["states"][:, theirs]
        observed = steps.observation[:, at]
        attitude = np.stack([entry[:, at] for entry in states.body.attitude], -1)
        attitude *= np.sign((attitude * expected[..., 3:7]).sum(-1, keepdims=True))
        # Rates of tumbling drones reach 90 rad/s; the PID magnifies rounding step by step.
        assert_close("position", observed[..., :3], expected[..., :3], 1e-5)
        assert_close("velocity", observed[..., 6:9], expected[..., 7:10], 5e-5)
        assert_close("attitude", attitude, expected[..., 3:7], 1e-4 if through_pid else 2e-5)
        assert_close(
            "rates", observed[..., 9:12], expected[..., 10:], 3e-3 if through_pid else 1e-3
        )
        assert np.abs(observed - expected[..., :1]).max() > 1e-2, "nothing moved"
    buffers = GOLDEN[f"{case}/buffers"]
    if time >= 15:
        assert_close("actions", steps.observation[: len(buffers), -1, :, 12:], buffers, 1e-7)
    return recorded["rewards"].size


QUICK = ("dyn/cf2x/motors/1", "dyn/cf2x/vel/1", "pyb_dw/cf2x/rpm/2")


@pytest.mark.parametrize(
    "case", [c if c in QUICK else pytest.param(c, marks=pytest.mark.slow) for c in CASES]
)
def test_trajectories_equal_the_originals(case: str) -> None:
    """Fails if an equation, constant, action, reward or end differs from the original's.

    From the same states, under the same actions, for 20 steps of 8 physics steps each.
    """
    compare(case, BATCH)


@pytest.mark.slow
def test_all_recorded_trajectories_equal_the_originals() -> None:
    """The same with the whole recording: over 10,000 steps of the explicit model alone."""
    steps = {case: compare(case, None) for case in CASES}
    assert sum(n for case, n in steps.items() if case.startswith("dyn/")) >= 10_000


@pytest.mark.parametrize("model", ["cf2x", "cf2p"])
def test_the_controller_answers_as_the_original(model: str) -> None:
    """Fails if a gain, a limit, the mixer or the controller's memory is off."""
    inputs, expected = GOLDEN[f"controller/{model}/inputs"], GOLDEN[f"controller/{model}/rpm"]
    gains = controllers.PLUS_GAINS if model == "cf2p" else controllers.X_GAINS
    columns = jnp.moveaxis(jnp.asarray(inputs), 1, 0)  # [calls, sequences, 17]

    def call(memory: Any, row: jax.Array) -> Any:
        x = [row[:, i] for i in range(17)]
        still = Vector(*(jnp.zeros_like(x[0]) for _ in range(3)))
        body = Body(Vector(*x[:3]), Vector(*x[7:10]), Quaternion(*x[3:7]), still)
        target = Setpoint(Vector(*x[10:13]), Vector(*x[13:16]), x[16])
        return controllers.control(gains, drones.CF2X, 9.8, 1 / 30, memory, body, target)

    still = Vector(*(jnp.zeros(len(inputs), jnp.float32) for _ in range(3)))
    _, rpm = jax.lax.scan(jax.jit(call), Memory(still, still, still), columns)
    ours = np.moveaxis(np.stack(rpm, -1), 0, 1)
    assert_close("rpm", ours, expected, 0.5)  # of 9,440 to 21,666, at 20,000 PWM per rad/s
    assert len(np.unique(expected.round())) > 50


def test_angles_are_bullets() -> None:
    """Fails if roll, pitch or yaw are taken in another order, or straight up and down."""
    quaternions, expected = GOLDEN["angles/quaternions"], GOLDEN["angles/angles"]
    angles = vectors.to_angles(Quaternion(*jnp.asarray(quaternions).T))
    # Close to straight up, an angle is the arcsine of nearly 1.
    sure = np.abs(np.abs(expected[:, 1]) - np.pi / 2) > 0.05
    assert_close("angles", np.stack(angles, 1)[sure], expected[sure], 2e-5)
    locked = np.arange(len(expected)) < 20
    assert_close("pitch", np.asarray(angles.y)[locked], expected[locked, 1], 1e-6)
    assert_close("roll", np.asarray(angles.x)[locked], 0.0, 0.0)
    turned = np.exp(1j * (np.asarray(angles.z)[locked] - expected[locked, 2]))
    assert_close("yaw", turned, 1.0, 1e-3)


@pytest.mark.parametrize("count", [1, 2])
def test_starts_without_spread_are_the_originals(count: int) -> None:
    """Fails if drones start or hover at other places than the original's."""
    env = Hover(num_drones=count)
    still = Vector(0.0, 0.0, 0.0)
    params = env.default_params()._replace(start_spread=still, start_tilt=0.0)
    state, observation = env.reset(prng.key(0), params)
    assert_close("observation", observation, GOLDEN[f"reset/{count}"], 1e-7)
    targets = np.stack(env.setpoint(state, params).position, 1)
    assert_close("targets", targets, GOLDEN[f"targets/{count}"], 1e-6)


def test_episodes_last_as_long_as_the_originals() -> None:
    """Fails if the time limit falls on another step, or is not called a truncation."""
    env = Hover()
    params = env.default_params()
    state, _ = env.reset(prng.key(0), params)
    hovering = jnp.zeros((1, 4), jnp.float32)
    level = state.body._replace(
        attitude=Quaternion(*(jnp.full(1, x) for x in (0.0, 0.0, 0.0, 1.0)))
    )
    step = jax.jit(env.step)
    for time, ends in ((int(GOLDEN["length"]) - 2, False), (int(GOLDEN["length"]) - 1, True)):
        late = state._replace(body=level, time=jnp.int32(time))
        _, stepped = step(prng.key(0), late, hovering, params)
        assert (bool(stepped.terminated), bool(stepped.truncated)) == (False, ends)


def test_hovering_speed_is_the_originals() -> None:
    """Fails if action 0 is not what carries the weight."""
    assert_close("rpm", drones.hover_rpm(drones.CF2X, 9.8), GOLDEN["hover_rpm"], 0, 1e-6)
