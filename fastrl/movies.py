"""Moving pictures from frames: GIF by Pillow, MP4 by the program ffmpeg.

A frame is a uint8 array `[H, W, 3]`.  Frames come as a sequence, which may draw each one when
it is asked for, so that a long film never lies in memory in full colour.
"""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

COLOURS = 64
_SAMPLES = 12  # frames that the palette of a GIF is taken from


def scale(frame: np.ndarray, max_size: int) -> np.ndarray:
    """`frame` with its longer side at most `max_size` pixels; tiny ones are blown up."""
    from PIL import Image

    height, width = frame.shape[:2]
    longer = max(height, width)
    if longer > max_size:
        size = [max(1, round(n * max_size / longer)) for n in (width, height)]
        return np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BOX))
    times = min(max_size, 160) // longer
    return frame.repeat(times, 0).repeat(times, 1) if times > 1 else frame


def write_gif(path: Path, frames: Sequence[np.ndarray], seconds: Sequence[float]) -> None:
    """An endless GIF at `path` that shows `frames[i]` for `seconds[i]`.

    All frames share one palette, without dithering: flat areas stay flat, so that a frame
    costs little more than what changed.  Times are whole hundredths of a second, rounded so
    that errors do not add up.
    """
    from PIL import Image

    sample = frames[:: max(1, len(frames) // _SAMPLES)]
    # Strips of frames, one above the other: their colours are counted together.
    strip = Image.fromarray(np.concatenate([np.asarray(f) for f in sample]))
    palette = strip.quantize(COLOURS, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    images = [
        Image.fromarray(f).quantize(palette=palette, dither=Image.Dither.NONE) for f in frames
    ]
    ends = np.round(100 * np.cumsum(seconds)).astype(int)
    milliseconds = [10 * int(d) for d in np.diff(ends, prepend=0)]
    images[0].save(
        path, format="GIF", save_all=True, append_images=images[1:], duration=milliseconds,
        loop=0, optimize=False, disposal=1,
    )  # fmt: skip


def ffmpeg() -> str:
    """The path of the program ffmpeg. Raises RuntimeError if there is none."""
    program = shutil.which("ffmpeg")
    if program is None:
        raise RuntimeError(
            "an MP4 needs the program ffmpeg, which is not on the PATH: install it, or write a .gif"
        )
    return program


def write_mp4(path: Path, frames: Sequence[np.ndarray], fps: float) -> None:
    """An MP4 at `path` with `fps` frames a second, of even width and height as players want.

    Raises RuntimeError, with what it said, if ffmpeg fails.
    """
    height, width = frames[0].shape[:2]
    command: list[Any] = [
        ffmpeg(), "-y", "-loglevel", "error",
        "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", f"{fps:.6f}",
        "-i", "-", "-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2:color=white", "-pix_fmt", "yuv420p",
        "-movflags", "+faststart", "-f", "mp4", path,
    ]  # fmt: skip
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        try:
            for frame in frames:
                process.stdin.write(np.ascontiguousarray(frame).tobytes())
            process.stdin.close()
        except BrokenPipeError:  # it ended early: it says why
            pass
        said = process.stderr.read().decode(errors="replace").strip()
    if process.returncode != 0:
        last = said.splitlines()[-1] if said else "no message"
        raise RuntimeError(f"ffmpeg failed with status {process.returncode}: {last}")
