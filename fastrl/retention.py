"""Which checkpoints of a run there are, which stay, and in which order they are tried."""

import math
from pathlib import Path
from typing import Any

from fastrl.checkpoint import CheckpointError, read_meta
from fastrl.files import discard


def at(root: Path, iteration: int) -> Path:
    """Where the checkpoint after `iteration` iterations stands."""
    return root / f"{iteration:010d}"


def newest_first(root: Path) -> list[Path]:
    """The checkpoints in `root`, damaged ones included, the newest first."""
    if not root.is_dir():
        return []
    return sorted((p for p in root.iterdir() if p.name.isdigit() and p.is_dir()), reverse=True)


def best_first(root: Path) -> list[Path]:
    """The checkpoints in `root` by evaluation return; those without one last, newest first."""
    return sorted(newest_first(root), key=evaluation_return, reverse=True)


def evaluation_return(path: Path) -> float:
    """The evaluation return of the checkpoint at `path`; minus infinity where there is none."""
    try:
        value: Any = read_meta(path)["facts"].get("evaluation_return")
    except CheckpointError:
        return -math.inf
    is_number = isinstance(value, (int, float)) and not math.isnan(value)
    return float(value) if is_number else -math.inf


def prune(root: Path, keep: int) -> None:
    """Removes all checkpoints but the newest `keep` and the best, of equals the newest."""
    newest = newest_first(root)
    best = best_first(root)[:1]
    for path in newest[keep:]:
        if path not in best or evaluation_return(path) == -math.inf:
            discard(path)


def set_aside(root: Path, after: int) -> list[Path]:
    """Renames the checkpoints later than iteration `after` to "damaged-...": the run redoes them.

    Returns their new paths.
    """
    aside = []
    for path in newest_first(root):
        if int(path.name) > after:
            name = f"damaged-{path.name}"
            if (root / name).exists():
                discard(root / name)
            aside.append(path.rename(root / name))
    return aside
