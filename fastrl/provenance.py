"""Where a run came from: versions, device, git state, command line. Nothing about the host."""

import importlib.metadata
import itertools
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax

from fastrl.files import write_atomically

_PACKAGES = ("fastrl", "jax", "jaxlib", "flax", "optax", "brax", "orbax-checkpoint", "numpy")


def describe(devices: int) -> dict[str, Any]:
    """What computes here and now, with what code."""
    device = jax.devices()[0]
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "command": [os.path.basename(sys.argv[0] or "python"), *sys.argv[1:]],
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "versions": {name: _version(name) for name in _PACKAGES},
        "device": {"kind": device.device_kind, "platform": device.platform, "count": devices},
        "git": _git(),
    }


def record(path: Path, devices: int) -> list[str]:
    """Adds `describe` to the `info.json` at `path`: the start, or one more resume.

    Returns what differs from the start and may change the numbers in the last digits.
    """
    now = describe(devices)
    info = _read(path)
    if info is None:
        info = {"start": now, "resumed": []}
    else:
        info["resumed"].append(now)
    write_atomically(path, json.dumps(info, indent=2) + "\n")
    was, is_now = (
        info["start"]["versions"] | info["start"]["device"],
        now["versions"] | now["device"],
    )
    return [
        f"{name} {was.get(name)} -> {is_now[name]}"
        for name in is_now
        if was.get(name) != is_now[name]
    ]


def imported(path: Path) -> str:
    """The user's module that the run of the `info.json` at `path` was started with, or "".

    It is for people to read: what a run folder says is never imported by itself.
    """
    info = _read(path)
    command = info["start"].get("command") if info else None
    words = [str(word) for word in command] if isinstance(command, list) else []
    for word, following in itertools.pairwise([*words, ""]):
        flag, equals, module = word.partition("=")
        if flag == "--import":
            return module if equals else following
    return ""


def _read(path: Path) -> dict[str, Any] | None:
    """The content of an `info.json`, None if there is none or it is none of ours."""
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(info["resumed"], list) and isinstance(info["start"]["versions"], dict):
            return info if isinstance(info["start"]["device"], dict) else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return None


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git() -> dict[str, Any] | None:
    """Commit and whether tracked files differ from it, in the working folder; None outside git."""
    commit = _run_git("rev-parse", "HEAD")
    if commit is None:
        return None
    changes = _run_git("status", "--porcelain", "--untracked-files=no")
    return {"commit": commit, "dirty": bool(changes)}


def _run_git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
