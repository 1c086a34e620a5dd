"""Checkpoints: a pytree and a few facts about it, in a folder that is there whole or not at all.

A checkpoint is a folder with the arrays, by name (`fastrl.array_files`), and `meta.json`: the
facts, shape and type of every array, and a checksum of every file.  Restoring needs a target,
a pytree of the right structure, so nothing in the files decides what is built and loading runs
no code; what differs from the target, and what was damaged, is named.

Typed keys are stored as their data and become keys of the target's implementation again.
"""

import json
import os
import shutil
import warnings
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from fastrl import array_files
from fastrl.files import (
    UNFINISHED,
    RunFolderError,
    discard,
    known,
    reason,
    sync,
    sync_tree,
    write_atomically,
)
from fastrl.leaves import described, differences, named, with_keys, without_keys
from fastrl.types import PyTree

FORMAT = 1
_META = "meta.json"
_MOST_BYTES = 64 * 2**20  # a `meta.json` has some kilobytes


class CheckpointError(RuntimeError):
    """A checkpoint that is missing, incomplete or damaged."""


class MismatchError(ValueError):
    """A sound checkpoint of something else than what it is restored as."""


class Restored(NamedTuple):
    """A checkpoint's content."""

    tree: PyTree  # arrays on the host; typed keys are keys again
    facts: dict[str, Any]
    path: Path


def save(path: Path, tree: PyTree, facts: dict[str, Any], *, plain: bool = False) -> None:
    """Writes `tree` (arrays and typed keys) and `facts` (JSON) as the folder `path`.

    A checkpoint that stands there is replaced.  `plain` writes the arrays as one file without
    orbax, whose import costs more than all else about a few numbers.
    Raises `RunFolderError` if it can't be written.
    """
    arrays = named(jax.tree.map(np.asarray, jax.device_get(without_keys(tree))))
    unfinished = path.with_name(UNFINISHED + path.name)
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        # Orbax refuses arrays without entries: their shape says it all.
        array_files.write(unfinished, {k: a for k, a in arrays.items() if a.size}, plain)
        meta = {"facts": facts, "leaves": described(tree), "files": _checksums(unfinished)}
        (unfinished / _META).write_text(_sealed(meta), encoding="utf-8")
        sync_tree(unfinished)
        if path.exists():
            discard(path)
        os.replace(unfinished, path)
        sync(path.parent)
    except Exception as error:  # orbax and tensorstore have errors of many kinds
        shutil.rmtree(unfinished, ignore_errors=True)
        cause = None if known(error) else error  # their tracebacks are long and say no more
        raise RunFolderError(f"can't write the checkpoint {path}: {reason(error)}") from cause


def restore(path: Path, target: PyTree) -> Restored:
    """The checkpoint at `path` as a pytree like `target` (arrays or `jax.eval_shape`'s).

    Raises `CheckpointError` if it is missing or damaged and `MismatchError`, with the leaf and
    both shapes, if it is sound but of another structure.
    """
    meta = read_meta(path)
    raw = jax.eval_shape(without_keys, target)
    for name, there, here in differences(meta["leaves"], described(target)):
        keys = str(there).startswith("key<") and here.startswith("key<")
        way_out = (
            "Set the variable FASTRL_PRNG as it was (threefry2x32 for key<fry>, else hash32)"
            if keys
            else "Build the algorithm as it was for that run"
        )
        raise MismatchError(
            f"checkpoint {path} is of something else: {name} is {there} in the checkpoint and "
            f"{here} here. {way_out}"
        )
    for name, was, is_now in differences(meta["files"], _checksums(path)):
        what = {was: "is missing", is_now: "is one too many"}.get("missing", "has changed")
        raise CheckpointError(f"checkpoint {path} is damaged: {name} {what}")
    wanted = named(raw)
    arrays = _read_arrays(path, {name: x for name, x in wanted.items() if x.size})
    leaves = [arrays.get(name, np.zeros(x.shape, x.dtype)) for name, x in wanted.items()]
    tree = jax.tree.unflatten(jax.tree.structure(raw), leaves)
    return Restored(with_keys(tree, target), meta["facts"], path)


def restore_first(paths: Iterable[Path], target: PyTree) -> Restored:
    """The first of `paths` that is sound; damaged ones before it are skipped with a warning.

    Raises `CheckpointError`, naming them all, if none is sound, and `MismatchError`.
    """
    problems: list[str] = []
    for path in paths:
        try:
            restored = restore(path, target)
        except CheckpointError as error:
            problems.append(str(error))
            continue
        for problem in problems:
            warnings.warn(f"{problem}; going on from {path}", RuntimeWarning, stacklevel=2)
        return restored
    raise CheckpointError("no sound checkpoint: " + ("; ".join(problems) or "there is none"))


def read_meta(path: Path) -> dict[str, Any]:
    """`facts`, `leaves` and `files` of the checkpoint at `path`. Raises `CheckpointError`."""
    file = path / _META
    try:
        if file.exists() and (not file.is_file() or file.stat().st_size > _MOST_BYTES):
            raise ValueError("not a file that was written here")  # a pipe or device, say
        meta = json.loads(file.read_text(encoding="utf-8"))
        body = json.loads(meta["body"])
        sound = zlib.crc32(meta["body"].encode()) == meta["crc32"] and body["format"] == FORMAT
        sound = sound and all(isinstance(body[x], dict) for x in ("facts", "leaves", "files"))
    except FileNotFoundError:
        raise CheckpointError(f"checkpoint {path} is incomplete: it has no {_META}") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        why = f"{type(error).__name__}: {error}"[:100]  # some quote the whole file
        raise CheckpointError(f"checkpoint {path} is damaged: {_META}: {why}") from None
    if not sound:
        raise CheckpointError(f"checkpoint {path} is damaged: {_META} is not what was written")
    return body


def rewrite_facts(path: Path, facts: dict[str, Any]) -> None:
    """Replaces the facts of the checkpoint at `path`; its arrays stay."""
    write_atomically(path / _META, _sealed(read_meta(path) | {"facts": facts}))


def _sealed(body: dict[str, Any]) -> str:
    """The text of `meta.json`: the body with a checksum over it."""
    text = json.dumps(body | {"format": FORMAT})
    return json.dumps({"crc32": zlib.crc32(text.encode()), "body": text})


def _read_arrays(path: Path, like: dict[str, Any]) -> dict[str, np.ndarray]:
    """The arrays of the names in `like`, on the host."""
    if not like:
        return {}
    try:
        arrays = array_files.read(path, like)
    except Exception as error:  # whatever a damaged file makes the reader say
        why = reason(error)
        raise CheckpointError(f"checkpoint {path} is damaged: {why}") from error
    for name, a in arrays.items():
        if a.shape != like[name].shape or a.dtype != like[name].dtype:
            raise CheckpointError(f"checkpoint {path} is damaged: {name} is not what it should be")
    return arrays


def _checksums(folder: Path) -> dict[str, str]:
    """CRC-32 of every file in `folder` but `meta.json`, by relative path."""
    try:
        files = sorted(p for p in folder.rglob("*") if p.is_file() and p != folder / _META)
        return {p.relative_to(folder).as_posix(): _checksum(p) for p in files}
    except OSError as error:
        raise CheckpointError(f"checkpoint {folder} can't be read: {reason(error)}") from error


def _checksum(file: Path) -> str:
    value = 0
    with open(file, "rb") as stream:
        while block := stream.read(2**20):
            value = zlib.crc32(block, value)
    return f"{value:08x}"
