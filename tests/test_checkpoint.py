"""Checkpoints come back exactly or say what is wrong; a damaged one never passes for sound."""

import json
import os
import shutil
import zlib
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fastrl import checkpoint, retention
from fastrl.checkpoint import CheckpointError, MismatchError
from fastrl.files import RunFolderError
from fastrl.kernels import prng


class Tree(NamedTuple):
    key: jax.Array
    other_key: jax.Array
    weights: dict[str, jax.Array]
    number: jax.Array
    flags: jax.Array
    half: jax.Array
    nothing: jax.Array
    empty: tuple[()] = ()


def tree(seed: int = 0) -> Tree:
    key = prng.key(seed)
    return Tree(
        key,
        jax.random.split(jax.random.key(seed, impl="threefry2x32"), 3),
        {"a.b": jax.random.normal(key, (300, 7)), "a": jnp.float32(jnp.pi), "b/c": jnp.ones(2)},
        jnp.int32(seed),
        jnp.array([True, False]),
        jnp.array([1.5, -jnp.inf, jnp.nan], jnp.bfloat16),
        jnp.zeros((0, 3)),
    )


def same(a, b) -> bool:
    def bits(x):
        is_key = jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
        return np.asarray(jax.random.key_data(x) if is_key else x)

    return jax.tree.structure(a) == jax.tree.structure(b) and all(
        x.dtype == y.dtype and bits(x).tobytes() == bits(y).tobytes()
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


@pytest.fixture(params=["orbax", "plain"])
def saved(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path, facts = tmp_path / "0000000001", {"iteration": 1, "evaluation_return": 0.1}
    checkpoint.save(path, tree(), facts, plain=request.param == "plain")
    return path


def test_everything_comes_back_bit_for_bit(saved):
    """Every type, NaN and infinity, empty arrays, and keys of two implementations."""
    restored = checkpoint.restore(saved, jax.eval_shape(tree))
    assert same(restored.tree, tree())
    assert restored.facts == {"iteration": 1, "evaluation_return": 0.1}
    assert jax.random.key_impl(restored.tree.key) == jax.random.key_impl(tree().key)


def test_saving_again_replaces(saved):
    checkpoint.save(saved, tree(5), {})
    assert same(checkpoint.restore(saved, tree()).tree, tree(5))
    assert [p.name for p in saved.parent.iterdir()] == [saved.name]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t: t._replace(number=jnp.zeros(2, jnp.int32)),
            r"number is int32\[\] .* int32\[2\]",
        ),
        (lambda t: t._replace(number=jnp.float32(0)), r"number is int32\[\] .* float32\[\]"),
        (lambda t: t._replace(weights={"a": t.number}), r"weights.a is float32\[\] .* int32\[\]"),
        (lambda t: t._replace(weights={**t.weights, "z": t.number}), "weights.z is missing in"),
        (lambda t: t._replace(flags=()), r"flags is bool\[2\] in the checkpoint and missing here"),
    ],
)
def test_another_structure_is_named_by_leaf_and_shapes(saved, change, message):
    """An algorithm of another size must not restore half of it or fail deep inside orbax."""
    with pytest.raises(MismatchError, match=message):
        checkpoint.restore(saved, change(tree()))


def files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file())


@pytest.mark.parametrize("damage", ["missing", "empty", "half", "flipped"])
def test_no_damage_to_any_file_goes_unnoticed(saved, tmp_path, damage):
    """Each file in turn, though some are only orbax's notes."""
    for number, file in enumerate(files(saved)):
        copy = tmp_path / f"copy{number}"
        shutil.copytree(saved, copy)
        broken = copy / file.relative_to(saved)
        data = broken.read_bytes()
        middle = len(data) // 2
        if damage == "missing":
            broken.unlink()
        else:
            flipped = data[:middle] + bytes([data[middle] ^ 0x10]) + data[middle + 1 :]
            broken.write_bytes({"empty": b"", "half": data[:middle], "flipped": flipped}[damage])
        with pytest.raises(CheckpointError, match=f"{copy} is (damaged|incomplete)"):
            checkpoint.restore(copy, tree())


def test_restore_first_skips_damaged_ones_with_a_warning(saved):
    newer = saved.with_name("0000000002")
    shutil.copytree(saved, newer)
    (newer / "meta.json").write_text("{}")
    with pytest.warns(RuntimeWarning, match=r"0000000002 is damaged.*going on from .*0000000001"):
        restored = checkpoint.restore_first([newer, saved], tree())
    assert restored.path == saved
    (saved / "meta.json").unlink()
    with pytest.raises(CheckpointError, match=r"0000000002 is damaged.*0000000001 is incomplete"):
        checkpoint.restore_first([newer, saved], tree())
    with pytest.raises(CheckpointError, match="there is none"):
        checkpoint.restore_first([], tree())


def test_strange_meta_is_damage_and_nothing_else(saved):
    """A stranger's file may hold anything; none of it may surface as a bare KeyError."""
    future = {"format": 2, "facts": {}, "leaves": {}, "files": {}}
    partial = {"format": 1, "facts": {}, "leaves": {}}
    for body in ([], {}, {"format": 1}, partial, future, 3, None, "x"):
        text = json.dumps(body)
        sealed = {"crc32": zlib.crc32(text.encode()), "body": text}
        for whole in (sealed, body, {"crc32": 1, "body": 2}, {"body": "["}):
            (saved / "meta.json").write_text(json.dumps(whole))
            with pytest.raises(CheckpointError, match=r"meta\.json"):
                checkpoint.restore(saved, tree())
    body = {"facts": {}, "leaves": {"key": {"__import__": "os"}}, "files": {}}
    (saved / "meta.json").write_text(checkpoint._sealed(body))
    with pytest.raises(MismatchError, match="key is"):
        checkpoint.restore(saved, tree())


def test_a_save_that_fails_leaves_the_others_alone(saved, monkeypatch):
    """A full disk must not cost what was saved before, nor leave a folder that looks sound."""

    def full(*args: object) -> None:
        raise OSError(28, os.strerror(28))

    for broken in ("sync_tree", "sync"):
        with monkeypatch.context() as patch:
            patch.setattr(checkpoint, broken, full)
            with pytest.raises(RunFolderError, match="0000000002: the disk is full"):
                checkpoint.save(saved.with_name("0000000002"), tree(), {})
    assert same(checkpoint.restore(saved, tree()).tree, tree())
    assert not any("unfinished" in p.name for p in saved.parent.iterdir())


def test_facts_can_be_replaced(saved):
    checkpoint.rewrite_facts(saved, {"steps": 3})
    restored = checkpoint.restore(saved, tree())
    assert restored.facts == {"steps": 3}
    assert same(restored.tree, tree())


def test_newest_and_best_stay(tmp_path):
    returns = {10: 1.0, 20: 7.0, 30: None, 40: 7.0, 50: float("nan"), 60: 2.0, 70: 3.0}
    for iteration, value in returns.items():
        facts = {"iteration": iteration, "evaluation_return": value}
        checkpoint.save(retention.at(tmp_path, iteration), jnp.ones(1), facts)
        retention.prune(tmp_path, keep=2)
    assert [int(p.name) for p in retention.newest_first(tmp_path)] == [70, 60, 40]
    assert [int(p.name) for p in retention.best_first(tmp_path)] == [40, 70, 60]


def test_without_evaluations_only_the_newest_stay(tmp_path):
    for iteration in (1, 2, 3):
        checkpoint.save(retention.at(tmp_path, iteration), jnp.ones(1), {})
        retention.prune(tmp_path, keep=1)
    assert [int(p.name) for p in retention.newest_first(tmp_path)] == [3]


def test_keys_of_another_implementation_are_refused(tmp_path):
    """Their data would fit, and the run would go on with other random numbers."""
    checkpoint.save(tmp_path / "c", {"key": jax.random.key(0)}, {})
    with pytest.raises(MismatchError, match="FASTRL_PRNG"):
        checkpoint.restore(tmp_path / "c", {"key": prng.key(0)})


@pytest.mark.parametrize("text", ["[" * 200_000, "\0\1\2" * 60_000])
def test_hostile_facts_are_one_short_error(tmp_path, text):
    """Deep nesting overflows the parser's stack; some errors quote the whole file."""
    checkpoint.save(tmp_path / "c", {"x": jnp.zeros(2)}, {})
    (tmp_path / "c" / "meta.json").write_text(text)
    with pytest.raises(CheckpointError, match="damaged") as caught:
        checkpoint.restore(tmp_path / "c", {"x": jnp.zeros(2)})
    assert len(str(caught.value)) < 600


def test_facts_that_are_a_pipe_do_not_hang(tmp_path):
    checkpoint.save(tmp_path / "c", {"x": jnp.zeros(2)}, {})
    (tmp_path / "c" / "meta.json").unlink()
    os.mkfifo(tmp_path / "c" / "meta.json")
    with pytest.raises(CheckpointError, match="damaged"):
        checkpoint.restore(tmp_path / "c", {"x": jnp.zeros(2)})
