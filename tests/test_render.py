"""Pictures of the classic environments."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fastrl.registry
from fastrl.envs import drawing
from fastrl.kernels import prng

CASES = {  # the size, and a field that moves what is drawn
    "CartPole-v1": ((400, 600, 3), "angle"),
    "Acrobot-v1": ((400, 400, 3), "angle_2"),
    "MountainCar-v0": ((400, 600, 3), "position"),
    "MountainCarContinuous-v0": ((400, 600, 3), "position"),
    "Pendulum-v1": ((400, 400, 3), "angle"),
}


@pytest.mark.parametrize("name", CASES)
def test_pictures_show_the_state(name: str) -> None:
    """Fails if a picture has the wrong form, is empty, or does not follow the state."""
    shape, field = CASES[name]
    env = fastrl.registry.make(name)
    params = env.default_params()
    state, _ = env.reset(prng.key(0), params)
    picture = env.render(state, params)
    assert picture.shape == shape
    assert picture.dtype == np.uint8
    assert picture.std() > 5
    np.testing.assert_array_equal(env.render(state, params), picture)

    moved = state._replace(**{field: getattr(state, field) + 0.2})
    share = (env.render(moved, params) != picture).any(-1).mean()
    assert 0.001 < share < 0.2, "something should have moved, and not everything"

    later = state._replace(time=state.time + 1)
    np.testing.assert_array_equal(env.render(later, params), picture)


def test_pictures_take_states_off_a_device_or_from_numpy() -> None:
    """Fails if a recorded state, fetched to the host, can't be drawn."""
    env: Any = fastrl.registry.make("Pendulum-v1")
    params = env.default_params()
    state, _ = env.reset(prng.key(0), params)
    np.testing.assert_array_equal(
        env.render(jax.device_get(state), params), env.render(state, params)
    )


def test_edges_are_smooth() -> None:
    """Fails if shapes are drawn without supersampling: a disc's edge has shades between."""
    canvas = drawing.Canvas(40, 40, left=-1, right=1, bottom=-1, background=(255, 255, 255))
    canvas.disc((0.0, 0.0), 0.7, (0, 0, 0))
    picture = canvas.image()
    shades = np.unique(picture[..., 0])
    assert len(shades) > 5
    assert picture[20, 20].tolist() == [0, 0, 0]
    covered = 1 - picture[..., 0].mean() / 255
    assert covered == pytest.approx(np.pi * 0.7**2 / 4, rel=0.03)


def test_y_points_upwards() -> None:
    """Fails if pictures are upside down."""
    canvas = drawing.Canvas(40, 40, left=-1, right=1, bottom=-1)
    canvas.disc((0.0, 0.8), 0.1, drawing.INK)
    rows = (canvas.image() != drawing.PAPER).any((1, 2))
    assert rows[:10].any()
    assert not rows[20:].any()


def test_pendulum_stands_up_at_angle_zero_and_turns_left() -> None:
    """Fails if the rod is drawn against the observation: cos up, sin to the left."""
    env: Any = fastrl.registry.make("Pendulum-v1")
    params = env.default_params()
    state, _ = env.reset(prng.key(0), params)
    rod = np.abs(
        env.render(state._replace(angle=jnp.float32(0.5)), params).astype(int) - drawing.ORANGE
    ).sum(-1)
    y, x = np.argwhere(rod == 0).mean(0)
    assert y < 200
    assert x < 200
