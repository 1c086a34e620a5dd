"""Run folders that can't be used or written to: one clear error, and nothing lost."""

import errno
import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny

from fastrl import files, run_folder
from fastrl.files import RunFolderError
from fastrl.tracking import read_rows
from fastrl.train import train

ALGORITHM = tiny.make()


def test_path_through_a_file_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    for run_dir in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(RunFolderError, match="a file"):
            train(ALGORITHM, steps=10, run_dir=run_dir, progress=False)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_forbidden_folder_is_named(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(RunFolderError, match="permission denied"):
        train(ALGORITHM, steps=10, run_dir=tmp_path / "run", progress=False)


def test_system_folder_is_named():
    """Nobody, root included, can make folders there."""
    with pytest.raises(RunFolderError, match="can't write /proc/run"):
        train(ALGORITHM, steps=10, run_dir="/proc/run", progress=False)


def test_config_of_something_else_is_left_alone(tmp_path):
    """A run in a project's folder would overwrite the project's config.toml."""
    (tmp_path / "config.toml").write_text("mine")
    with pytest.raises(RunFolderError, match=r"config\.toml of something else"):
        train(ALGORITHM, steps=10, run_dir=tmp_path, progress=False)
    assert (tmp_path / "config.toml").read_text() == "mine"


def test_two_writers_are_refused(tmp_path):
    """Two processes that write one run's checkpoints would each destroy the other's."""
    train(ALGORITHM, steps=10, run_dir=tmp_path, progress=False)
    lock = run_folder.open_for_writing(run_folder.at(tmp_path), resume=True)
    with pytest.raises(RunFolderError, match="another process is training"):
        train(ALGORITHM, steps=20, run_dir=tmp_path, resume=True, progress=False)
    lock.release()
    train(ALGORITHM, steps=20, run_dir=tmp_path, resume=True, progress=False)


@pytest.mark.parametrize(
    ("moment", "number"),
    [("checkpoint", errno.ENOSPC), ("row", errno.EDQUOT), ("event", errno.EROFS)],
)
def test_full_disk_names_the_last_good_checkpoint(tmp_path, monkeypatch, moment, number):
    """Whatever write hits the limit first: stop, say so, and resume once there is room."""
    from fastrl import checkpoint, tracking

    def fail(*args: object) -> None:
        raise OSError(number, os.strerror(number))

    original_save = checkpoint.save

    def save(path: Path, *args: object) -> None:
        if int(path.name) == 20 and moment != "checkpoint":
            monkeypatch.setattr(tracking, "_line" if moment == "row" else "_tag", fail)
        if int(path.name) == 30:
            with monkeypatch.context() as patch:
                patch.setattr(checkpoint, "sync_tree", fail)
                original_save(path, *args)  # type: ignore[arg-type]
        original_save(path, *args)  # type: ignore[arg-type]

    train(
        ALGORITHM, steps=100, run_dir=tmp_path, checkpoint_every=100, eval_every=0, progress=False
    )
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", save)
        with pytest.raises(RunFolderError) as caught:
            train(ALGORITHM, steps=500, run_dir=tmp_path, resume=True, progress=False)
    reason = {errno.ENOSPC: "full", errno.EDQUOT: "quota", errno.EROFS: "read-only"}[number]
    assert reason in str(caught.value)
    assert "checkpoints/0000000020 (iteration 20)" in str(caught.value)
    assert f"fastrl resume {tmp_path}" in str(caught.value)
    monkeypatch.undo()
    state = train(ALGORITHM, steps=500, run_dir=tmp_path, resume=True, progress=False)
    assert bool(
        (state.weights["w"] == train(ALGORITHM, steps=500, progress=False).weights["w"]).all()
    )


LIMITED = """
import resource, sys
sys.path.insert(0, {tests!r})
import tiny
from fastrl.files import RunFolderError
from fastrl.train import train

algorithm = tiny.make(size=3000)
train(algorithm, steps=100, run_dir=sys.argv[1], progress=False, eval_episodes=2)
resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))
try:
    train(algorithm, steps=200, run_dir=sys.argv[1], progress=False, resume=True)
except RunFolderError as error:
    print(error)
"""


def test_file_size_limit(tmp_path):
    """The real thing: the system refuses to let a file grow, in orbax's threads."""
    script = LIMITED.format(tests=str(Path(__file__).parent))
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, timeout=300
    )
    assert "a file grew beyond the size allowed" in done.stdout, done.stderr
    assert "(iteration 10)" in done.stdout
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 9000
    state = train(tiny.make(size=3000), run_dir=tmp_path, resume=True, progress=False)
    assert int(state.iteration) == 20


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # orbax's threads
def test_small_disk(tmp_path):
    """The real thing on a file system of 300 kB, where the process may mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=300k", "none", str(disk)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("may not mount a file system")
    try:
        with pytest.raises(RunFolderError, match=r"full.*The last good checkpoint is"):
            train(tiny.make(size=3000), steps=4000, run_dir=disk / "run", keep=99, progress=False)
        subprocess.run(["mount", "-o", "remount,size=9m", str(disk)], check=True)
        state = train(tiny.make(size=3000), run_dir=disk / "run", resume=True, progress=False)
        assert int(state.iteration) == 400
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_atomic_text_is_old_or_new(tmp_path, monkeypatch):
    path = tmp_path / "text"
    files.write_atomically(path, "old")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda fd: (_ for _ in ()).throw(OSError(28, "full")))
        with pytest.raises(RunFolderError, match="the disk is full"):
            files.write_atomically(path, "new")
    assert path.read_text() == "old"
    files.sweep(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["text"]


def test_rows_survive_what_a_kill_leaves(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(
        '{"iteration": 1, "steps": 10}\n[1]\n{"iteration": true, "steps": 1}\n\xff\n{"it'
    )
    assert [row["iteration"] for row in read_rows(path)] == [1]


def events(folder: Path) -> list[Any]:
    """The records of a folder's event files, read by their documented layout."""
    from tensorboardX.proto import event_pb2

    messages: Any = event_pb2
    found = []
    for file in sorted(folder.iterdir()):
        data = file.read_bytes()
        while data:
            size = int.from_bytes(data[:8], "little")
            found.append(messages.Event.FromString(data[12 : 12 + size]))
            data = data[16 + size :]
    return found


def test_events_are_readable(tmp_path):
    """TensorBoard reads nothing but well-formed records; those of a dead branch are voided."""
    train(ALGORITHM, steps=100, run_dir=tmp_path, progress=False, log_every=50, eval_every=100)
    train(ALGORITHM, steps=150, run_dir=tmp_path, progress=False, resume=True)
    found = events(tmp_path / "events")
    values = [(v.tag, e.step, v.simple_value) for e in found for v in e.summary.value]
    rows = [r for r in read_rows(tmp_path / "metrics.jsonl") if "loss" in r]
    losses = {step: value for tag, step, value in values if tag == "train/loss"}
    assert losses == {r["steps"]: pytest.approx(r["loss"]) for r in rows}
    assert [e.step for e in found if e.HasField("session_log")] == [101]
    assert {"evaluation/return", "evaluation/length"} < {tag for tag, _, _ in values}


def test_info_of_something_else_is_replaced_whole(tmp_path):
    from fastrl import provenance

    (tmp_path / "info.json").write_text("[]")
    assert provenance.record(tmp_path / "info.json", devices=1) == []
    assert json.loads((tmp_path / "info.json").read_text())["resumed"] == []


def test_few_inputs_are_written_without_orbax_and_many_with_it(tmp_path):
    """Its import would hold up every start; a data set is what it is for."""
    for task, name in (
        (np.arange(8, dtype=np.float32), "arrays.npz"),
        (np.zeros(run_folder.PLAIN_BYTES + 1, np.uint8), "arrays"),
    ):
        folder = run_folder.at(tmp_path / name)
        run_folder.write_inputs(folder, {"rate": np.float32(0.1)}, task, {"seed": 3})
        assert (folder.inputs / name).exists()
        restored = run_folder.read_inputs(folder, {"rate": np.float32(0)}, np.zeros_like(task))
        assert restored.facts == {"seed": 3}
        assert restored.tree["hparams"]["rate"] == np.float32(0.1)
        assert (restored.tree["task"] == task).all()
