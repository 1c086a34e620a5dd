"""`render`: episodes of a policy as a GIF, an MP4 or, for some environments, an HTML page.

The episodes are played on the device and their states fetched; the environment then draws
them on the host, one by one.
"""

import functools
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, overload, runtime_checkable

import jax
import numpy as np

from fastrl import movies
from fastrl.door import integer, number
from fastrl.episodes import Episode, Player
from fastrl.evaluate import seed_of
from fastrl.files import replacing
from fastrl.kernels import prng
from fastrl.policy import Policy
from fastrl.types import Array, PyTree, Renderable

SUFFIXES = (".gif", ".mp4", ".html")
SEGMENT = 128  # steps played at once
PAUSE = 0.8  # seconds that a GIF rests on the last picture of an episode
SHORTEST = 0.02  # seconds of a frame, below which viewers of GIFs go their own pace


@runtime_checkable
class RenderableAsHtml(Protocol):
    """An environment that shows states as a page, such as those of brax."""

    def render_html(self, states: list[Any], params: Any) -> str:
        """A page with the `states` of consecutive steps."""
        ...


def render(
    policy: Policy,
    path: str | os.PathLike[str],
    *,
    episodes: int = 1,
    seed: int = 0,
    deterministic: bool = True,
    max_steps: int = 5000,
    fps: float = 30.0,
    max_frames: int = 300,
    max_size: int = 480,
) -> Path:
    """Plays `episodes` and shows them in a file at `path`: `.gif`, `.mp4` or `.html`.

    They are the first episodes of `evaluate` with that `seed`, each up to `max_steps`.  `fps`
    is the number of steps in a second of playing.  Where there are more than `max_frames`
    pictures, only every second, third ... step is drawn, at the same speed; a page shows them
    all.  Pictures of more than `max_size` pixels on a side are scaled down.

    Returns the path.  The file appears whole or not at all.
    Raises ValueError for bad arguments or an environment that does not draw itself, OSError if
    the file cannot be written, RuntimeError for an MP4 if the program ffmpeg is missing or fails.
    """
    if not isinstance(policy, Policy):
        raise TypeError(
            f"policy is a {type(policy).__name__}: pass fastrl.load(run_dir), or "
            "fastrl.Policy(algorithm, state)"
        )
    path = Path(path)
    seed = seed_of(seed)
    _check(path, policy.env, fps, episodes=episodes, max_steps=max_steps, max_frames=max_frames,
           max_size=max_size)  # fmt: skip
    algorithm = policy.algorithm
    player = Player(algorithm.act, algorithm.initial_carry, policy.env, bool(deterministic))
    with replacing(path) as temporary:
        played = [states(player, policy, seed, n, max_steps) for n in range(episodes)]
        params = jax.device_get(policy.params)
        if path.suffix.lower() == ".html":
            page = policy.env.render_html([s for episode in played for s in episode], params)
            temporary.write_text(page, encoding="utf-8")
            return path
        stride = _stride([len(episode) for episode in played], fps, max_frames)
        shown = [_every(len(episode), stride) for episode in played]
        chosen = [episode[i] for episode, at in zip(played, shown, strict=True) for i in at]
        draw = functools.partial(_draw, policy.env, params, max_size)
        frames = _Frames(draw, chosen)
        if path.suffix.lower() == ".mp4":
            movies.write_mp4(temporary, frames, fps / stride)
        else:
            seconds = [s for at in shown for s in [*np.diff(at) / fps, PAUSE]]
            movies.write_gif(temporary, frames, seconds)
    return path


def states(player: Player, policy: Policy, seed: int, n: int, max_steps: int) -> list[PyTree]:
    """The environment states of episode number `n`, on the host, from its start to its end."""
    begin, segment = _programs(player)
    episode = begin(prng.key(seed), n, policy.params)
    seen = [jax.device_get(episode.env)]
    while len(seen) <= max_steps:
        episode, stacked = segment(policy.state, policy.params, episode)
        env_states, done = jax.device_get(stacked)
        last = int(done.argmax()) if done.any() else SEGMENT - 1
        seen += [jax.tree.map(lambda x, i=i: x[i], env_states) for i in range(last + 1)]
        if done.any():
            break
    return seen[: max_steps + 1]


@functools.lru_cache(maxsize=16)
def _programs(player: Player) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The start of an episode, and its next `SEGMENT` steps with the states on the way."""

    def segment(state: Any, params: Any, episode: Episode) -> tuple[Episode, tuple[PyTree, Array]]:
        def body(episode: Episode, _: None) -> tuple[Episode, tuple[PyTree, Array]]:
            episode, step = player.advance(state, params, episode)
            return episode, (episode.env, step.terminated | step.truncated)

        return jax.lax.scan(body, episode, None, SEGMENT)

    return jax.jit(player.begin), jax.jit(segment)


class _Frames(Sequence[np.ndarray]):
    """Pictures of `states`, drawn when they are asked for."""

    def __init__(self, draw: Callable[[PyTree], np.ndarray], states: Sequence[PyTree]) -> None:
        self._draw, self._states = draw, states

    def __len__(self) -> int:
        return len(self._states)

    @overload
    def __getitem__(self, index: int) -> np.ndarray: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[np.ndarray]: ...
    def __getitem__(self, index: int | slice) -> np.ndarray | Sequence[np.ndarray]:
        if isinstance(index, slice):
            return _Frames(self._draw, self._states[index])
        return self._draw(self._states[index])


def _draw(env: Any, params: Any, max_size: int, state: PyTree) -> np.ndarray:
    frame = env.render(state, params)
    if not (isinstance(frame, np.ndarray) and frame.dtype == np.uint8 and frame.ndim == 3
            and frame.shape[2] == 3 and frame.size):  # fmt: skip
        got = f"{getattr(frame, 'dtype', type(frame).__name__)} {list(np.shape(frame))}"
        raise ValueError(
            f"{type(env).__name__}.render must return a NumPy array, uint8 [H, W, 3], got {got}"
        )
    return movies.scale(frame, max_size)


def _stride(lengths: Sequence[int], fps: float, max_frames: int) -> int:
    """The least step from picture to picture that keeps to `max_frames` and to what GIFs can."""
    stride = max(1, math.ceil(SHORTEST * fps - 1e-9))
    while sum(len(_every(n, stride)) for n in lengths) > max_frames and stride < max(lengths):
        stride += 1
    return stride


def _every(length: int, stride: int) -> list[int]:
    """0, stride, 2 stride ... and the last."""
    return sorted({*range(0, length, stride), length - 1})


def _check(path: Path, env: Any, fps: float, **counts: int) -> None:
    for name, value in counts.items():
        integer(name, value, least=1)
    if not 0 < number("fps", fps, least=0) <= 1000:
        raise ValueError(f"fps={fps!r}: needs a number above 0 and at most 1000")
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"{str(path)!r}: the name must end in {', '.join(SUFFIXES)}")
    if suffix == ".mp4":
        movies.ffmpeg()
    page, pictures = isinstance(env, RenderableAsHtml), isinstance(env, Renderable)
    if (suffix == ".html" and not page) or (suffix != ".html" and not pictures):
        can = [s for s, able in zip(SUFFIXES, (pictures, pictures, page), strict=True) if able]
        method = "render_html(states, params)" if suffix == ".html" else "render(state, params)"
        hint = f"use {' or '.join(can)}" if can else f"give it a method {method}"
        raise ValueError(f"{type(env).__name__} cannot be shown as {suffix}: {hint}")
