"""`render`: the episodes that it shows, and the files that it writes."""

import dataclasses
import errno
import os
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from fastrl.envs.classic.cartpole import CartPole
from fastrl.episodes import Player
from fastrl.files import replacing
from fastrl.movies import scale, write_gif
from fastrl.policy import Policy
from fastrl.render import render, states
from fastrl.spaces import Box, Discrete
from fastrl.transforms import FrameStack, TimeLimit
from fastrl.types import Algorithm, Step

WIDTH = 40


class State(NamedTuple):
    time: Any
    key: Any  # a typed key: pictures must not stumble over one in the state
    goal: Any


@dataclasses.dataclass(frozen=True)
class March:
    """A white column moves right by a pixel a step until step `goal`, which differs by episode."""

    version: ClassVar[int] = 1
    lowest: int = 5
    highest: int = 9

    def default_params(self) -> float:
        return 1.0

    def reset(self, key: Any, params: Any) -> Any:
        goal = jax.random.randint(key, (), self.lowest, self.highest + 1)
        return State(jnp.int32(0), key, goal), jnp.zeros(1)

    def step(self, key: Any, state: State, action: Any, params: Any) -> Any:
        state = state._replace(time=state.time + 1, key=key)
        end = state.time >= state.goal
        return state, Step(jnp.zeros(1), params, end, jnp.bool_(False))

    def observation_space(self, params: Any) -> Box:
        return Box(0.0, 1.0, (1,))

    def action_space(self, params: Any) -> Discrete:
        return Discrete(2)

    def render(self, state: State, params: Any) -> np.ndarray:
        frame = np.zeros((8, WIDTH, 3), np.uint8)
        frame[:, int(state.time) % WIDTH] = 255
        return frame

    def render_html(self, states: list[State], params: Any) -> str:
        return " ".join(str(int(s.time)) for s in states)


def act(state: Any, carry: Any, observation: Any, key: Any) -> Any:
    return jnp.zeros(observation.shape[:-1], jnp.int32), carry


def make_algorithm(act: Any, env: Any) -> Algorithm:
    return Algorithm(init=act, step=act, act=act, steps_per_iteration=1, default_hparams=(),
                     env=env)  # fmt: skip


def make_policy(env: Any) -> Policy:
    return Policy(make_algorithm(act, env), jnp.float32(0))


POLICY = make_policy(March())
ONE_TO_ONE: dict[str, Any] = {"max_size": WIDTH, "fps": 10.0}  # pictures as they are


def goals(episodes: int, seed: int = 0) -> list[int]:
    """The true lengths of the first episodes: those that `evaluate` reports."""
    return POLICY.evaluate(episodes, seed=seed).lengths.tolist()


def columns(path: Path) -> tuple[list[int], list[int]]:
    """Where the white column is in each picture of a GIF, and the picture's milliseconds."""
    with Image.open(path) as gif:
        places, durations = [], []
        for i in range(getattr(gif, "n_frames", 1)):
            gif.seek(i)
            places.append(int(np.asarray(gif.convert("RGB"))[0, :, 0].argmax()))
            durations.append(gif.info["duration"])
    return places, durations


def test_gif_shows_the_episodes_of_evaluate(tmp_path: Path):
    """From the start state to the last one, every step once, for as long as fps says."""
    path = render(POLICY, tmp_path / "out.gif", episodes=3, seed=4, **ONE_TO_ONE)
    places, durations = columns(path)
    lengths = goals(3, seed=4)
    assert places == [t for n in lengths for t in range(n + 1)]
    assert durations == [t for n in lengths for t in [*[100] * n, 800]]
    with Image.open(path) as gif:
        assert gif.info["loop"] == 0  # for ever


def test_frames_are_skipped_at_the_same_speed(tmp_path: Path):
    policy = make_policy(March(lowest=20, highest=20))
    path = render(policy, tmp_path / "out.gif", max_frames=8, **ONE_TO_ONE)
    places, durations = columns(path)
    assert places == [0, 3, 6, 9, 12, 15, 18, 20]
    assert durations == [300, 300, 300, 300, 300, 300, 200, 800]


def test_fast_gifs_keep_their_speed(tmp_path: Path):
    """Viewers slow pictures of less than 20 ms down: at 200 steps/s every fourth is drawn."""
    policy = make_policy(March(lowest=20, highest=20))
    path = render(policy, tmp_path / "out.gif", fps=200, max_size=WIDTH)
    places, durations = columns(path)
    assert places == [0, 4, 8, 12, 16, 20]
    assert durations == [20] * 5 + [800]


def test_rounded_times_do_not_drift(tmp_path: Path):
    path = render(POLICY, tmp_path / "out.gif", fps=30, episodes=2, max_size=WIDTH)
    durations = columns(path)[1]
    assert abs(sum(durations) - 1000 * (sum(goals(2)) / 30 + 1.6)) <= 10
    assert set(durations) <= {30, 40, 800, 790, 810}


def test_long_episodes_are_cut():
    """Episodes beyond one segment of steps are whole, those beyond max_steps cut there."""
    long = make_policy(March(lowest=300, highest=300))
    player = Player(act, long.algorithm.initial_carry, long.env)
    assert [int(s.time) for s in states(player, long, 0, 0, 5000)] == list(range(301))
    assert [int(s.time) for s in states(player, long, 0, 0, 130)] == list(range(131))


def test_page(tmp_path: Path):
    path = render(POLICY, tmp_path / "out.html", episodes=2, max_frames=3)
    expected = " ".join(str(t) for n in goals(2) for t in range(n + 1))
    assert path.read_text() == expected


def test_transforms_show_what_is_inside(tmp_path: Path):
    """Through a state and params of the transform's own, as a picture and as a page."""
    policy = make_policy(TimeLimit(FrameStack(March(lowest=20, highest=20), 2), 6))
    path = render(policy, tmp_path / "out.gif", **ONE_TO_ONE)
    assert columns(path)[0] == list(range(7))
    assert render(policy, tmp_path / "out.html").read_text() == "0 1 2 3 4 5 6"
    blind = make_policy(TimeLimit(Blind(), 6))
    with pytest.raises(ValueError, match=r"TimeLimit cannot be shown as .gif"):
        render(blind, tmp_path / "out.gif")


def test_folders_are_made_and_nothing_else_is_left(tmp_path: Path):
    path = tmp_path / "pictures" / "deep" / "out.gif"
    assert render(POLICY, str(path), **ONE_TO_ONE) == path
    assert os.listdir(path.parent) == ["out.gif"]


def test_failure_leaves_the_old_file(tmp_path: Path):
    """A render that raises midway must neither destroy a picture nor leave half of one."""

    class Broken(March):
        def render(self, state: State, params: Any) -> np.ndarray:
            if int(state.time) > 2:
                raise KeyError("no more ink")
            return super().render(state, params)

    path = tmp_path / "out.gif"
    path.write_text("old")
    with pytest.raises(KeyError, match="no more ink"):
        render(make_policy(Broken()), path)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["out.gif"]


def test_wrong_picture(tmp_path: Path):
    class Floats(March):
        def render(self, state: State, params: Any) -> np.ndarray:
            return np.zeros((4, 5), np.float32)

    with pytest.raises(ValueError, match=r"Floats.render must return .*got float32 \[4, 5\]"):
        render(make_policy(Floats()), tmp_path / "out.gif")


@dataclasses.dataclass(frozen=True)
class Blind:
    """March without pictures."""

    version: ClassVar[int] = 1
    inner: March = March()

    def __getattr__(self, name: str) -> Any:
        if name in ("default_params", "reset", "step", "observation_space", "action_space"):
            return getattr(self.inner, name)
        raise AttributeError(name)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("out.png", {}, r"'out.png'.* must end in .gif, .mp4, .html"),
        ("out", {}, r"must end in"),
        ("out.gif", {"episodes": 0}, r"episodes=0: needs an integer of at least 1"),
        ("out.gif", {"max_frames": 1.5}, r"max_frames=1.5"),
        ("out.gif", {"max_size": -1}, r"max_size=-1"),
        ("out.gif", {"max_steps": True}, r"max_steps=True"),
        ("out.gif", {"fps": 0}, r"fps=0: needs a number above 0"),
        ("out.gif", {"fps": float("nan")}, r"fps=nan"),
        ("out.gif", {"fps": "fast"}, r"fps='fast'"),
        ("out.gif", {"seed": 0.5}, r"seed=0.5"),
    ],
)
def test_bad_arguments(
    name: str, options: dict[str, Any], message: str, tmp_path: Path, monkeypatch: Any
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        render(POLICY, name, **options)
    assert os.listdir(tmp_path) == []


def test_environments_that_cannot_be_shown(tmp_path: Path):
    with pytest.raises(ValueError, match=r"Blind cannot be shown as .gif: give it .*render\("):
        render(make_policy(Blind()), tmp_path / "out.gif")
    with pytest.raises(ValueError, match=r"CartPole cannot be shown as .html: use .gif or .mp4"):
        render(cartpole(), tmp_path / "out.html")


def test_unwritable(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"can't write .*file/out.gif: a file is in the way"):
        render(POLICY, tmp_path / "file" / "out.gif")
    (tmp_path / "out.gif").mkdir()
    with pytest.raises(OSError, match=r"can't write .*out.gif: it is a folder"):
        render(POLICY, tmp_path / "out.gif")


def test_full_disk(tmp_path: Path):
    """The error says so and names the file; what stood there stays. Others' errors pass."""
    path = tmp_path / "out.gif"
    path.write_text("old")
    full = pytest.raises(OSError, match=r"can't write .*out.gif: the disk is full")
    with full, replacing(path):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(FileNotFoundError, match=r"^\[Errno 2\] .*mesh\.obj"), replacing(path):
        Path("mesh.obj").read_text()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["out.gif"]
    with pytest.raises(OSError, match=r"can't write /proc/out.gif: [^\[]*$"):
        render(POLICY, "/proc/out.gif")


def fake_ffmpeg(folder: Path, script: str) -> None:
    folder.mkdir()
    program = folder / "ffmpeg"
    program.write_text(f"#!/bin/sh\nfor path; do :; done  # the last argument\n{script}\n")
    program.chmod(0o755)


def test_mp4_gets_every_frame(tmp_path: Path, monkeypatch: Any):
    """Against a stand-in for ffmpeg, which stores what it is given."""
    script = 'echo "$@" > "$(dirname "$path")/arguments"; cat > "$path"'
    fake_ffmpeg(tmp_path / "bin", script)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    path = render(POLICY, tmp_path / "out.mp4", **ONE_TO_ONE)
    video = np.frombuffer(path.read_bytes(), np.uint8).reshape(-1, 8, WIDTH, 3)
    assert video[:, 0, :, 0].argmax(1).tolist() == list(range(goals(1)[0] + 1))
    arguments = (tmp_path / "arguments").read_text()
    assert f"-pix_fmt rgb24 -s {WIDTH}x8 -r 10.0" in arguments


def test_mp4_failures(tmp_path: Path, monkeypatch: Any):
    path = tmp_path / "out.mp4"
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    with pytest.raises(RuntimeError, match=r"needs the program ffmpeg.*write a \.gif"):
        render(POLICY, path)
    fake_ffmpeg(tmp_path / "bin", "echo first >&2; echo 'no such codec' >&2; exit 3")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    with pytest.raises(RuntimeError, match="ffmpeg failed with status 3: no such codec"):
        render(POLICY, path)
    assert not path.exists()


def cartpole() -> Policy:
    def balance(state: Any, carry: Any, x: Any, key: Any) -> Any:
        return (x[..., 2] + x[..., 3] + 0.1 * (x[..., 0] + x[..., 1]) > 0).astype(jnp.int32), carry

    return Policy(make_algorithm(balance, CartPole()), jnp.float32(0))


@pytest.mark.slow
def test_cartpole_is_small_and_faithful(tmp_path: Path):
    """500 steps in under 300 kB, and no picture off by more than the palette's rounding."""
    policy = cartpole()
    path = render(policy, tmp_path / "out.gif")
    assert path.stat().st_size < 300_000
    player = Player(policy.algorithm.act, policy.algorithm.initial_carry, policy.env)
    last = states(player, policy, 0, 0, 5000)[-1]
    truth = scale(CartPole().render(last, jax.device_get(policy.params)), 480)
    with Image.open(path) as gif:
        assert 200 <= getattr(gif, "n_frames", 1) <= 300
        gif.seek(getattr(gif, "n_frames", 1) - 1)
        shown = np.asarray(gif.convert("RGB"))
    assert np.abs(shown.astype(int) - truth).mean() < 1.0


@pytest.mark.parametrize(
    ("shape", "size"), [((400, 600), (320, 480)), ((10, 10), (160, 160)), ((200, 100), (200, 100))]
)
def test_scale(shape: tuple[int, int], size: tuple[int, int]):
    frame = np.random.default_rng(0).integers(0, 256, (*shape, 3)).astype(np.uint8)
    scaled = scale(frame, 480)
    assert scaled.shape == (*size, 3)
    assert scaled.dtype == np.uint8
    assert abs(scaled.mean() - frame.mean()) < 2


def test_one_frame(tmp_path: Path):
    write_gif(tmp_path / "one.gif", [np.full((9, 9, 3), 200, np.uint8)], [1.0])
    with Image.open(tmp_path / "one.gif") as gif:
        np.testing.assert_array_equal(np.asarray(gif.convert("RGB")), 200)
