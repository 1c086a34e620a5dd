"""A resumed run is the run that never stopped: state, evaluations, rows, and what it forgot."""

import json
import shutil

import jax
import numpy as np
import pytest
import tiny

from fastrl import provenance
from fastrl.checkpoint import CheckpointError, MismatchError
from fastrl.files import RunFolderError
from fastrl.tracking import read_rows
from fastrl.train import train

ALGORITHM = tiny.make()
TIMES = {"seconds", "steps_per_second"}
OPTIONS = {"progress": False, "eval_episodes": 2, "log_every": 40, "eval_every": 70}


def equal(a, b) -> bool:
    return all(jax.tree.leaves(jax.tree.map(lambda x, y: bool((x == y).all()), a, b)))


def rows(folder) -> list[dict]:
    """The rows without the fields that tell the time."""
    found = read_rows(folder / "metrics.jsonl")
    return [{k: v for k, v in row.items() if k not in TIMES} for row in found]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of 300 steps that was never stopped."""
    folder = tmp_path_factory.mktemp("whole")
    hparams, task = tiny.HParams(0.3), tiny.Params(2.0, 7)
    state = train(
        ALGORITHM, hparams, task, steps=300, seed=5, run_dir=folder, checkpoint_every=100, keep=99,
        **OPTIONS,
    )  # fmt: skip
    return folder, state


def cut(whole, tmp_path, after: int):
    """A copy of that run's folder as a kill after the checkpoint of iteration `after` leaves it.

    Rows of later iterations, one of them half, are there already.
    """
    folder = tmp_path / "cut"
    shutil.copytree(whole[0], folder)
    for path in (folder / "checkpoints").iterdir():
        if int(path.name) > after:
            shutil.rmtree(path)
    lines = (folder / "metrics.jsonl").read_text()
    (folder / "metrics.jsonl").write_text(lines[: len(lines) - 30])
    (folder / "checkpoints" / ".unfinished-0000000030").mkdir()
    return folder


@pytest.mark.parametrize("after", [0, 10, 20])
def test_resumed_equals_uninterrupted(whole, tmp_path, after):
    """In the middle of a row of the log (10 is no multiple of 4), and before any checkpoint."""
    folder = cut(whole, tmp_path, after)
    state = train(ALGORITHM, resume=True, run_dir=folder, progress=False)
    assert equal(state, whole[1])
    assert rows(folder) == rows(whole[0])
    assert not list((folder / "checkpoints").glob(".*"))


def test_longer_run_equals_one_that_was_meant_so(whole, tmp_path):
    """Extending must not restart keys or evaluations; the schedule stays that of the start."""
    folder = cut(whole, tmp_path, 30)
    state = train(ALGORITHM, steps=400, resume=True, run_dir=folder, progress=False)
    straight = train(
        ALGORITHM, tiny.HParams(0.3), tiny.Params(2.0, 7), steps=400, seed=5, progress=False
    )
    assert equal(state, straight)
    assert [row["iteration"] for row in rows(folder)][-4:] == [32, 35, 36, 40]
    again = train(ALGORITHM, resume=True, run_dir=folder, progress=False)  # to 400 by itself
    assert equal(again, straight)


def test_finished_run_returns_its_state(whole, tmp_path, capsys):
    folder = cut(whole, tmp_path, 30)
    state = train(ALGORITHM, resume=True, run_dir=folder)
    assert equal(state, whole[1])
    assert "finished, at 300 steps" in capsys.readouterr().err


def test_resume_agrees_with_what_is_given(whole, tmp_path):
    """A script that runs again with the same arguments and resume=True simply goes on."""
    folder = cut(whole, tmp_path, 10)
    state = train(
        ALGORITHM, tiny.HParams(0.3), tiny.Params(2.0, 7), steps=300, seed=5, resume=True,
        run_dir=folder, progress=False,
    )  # fmt: skip
    assert equal(state, whole[1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"hparams": tiny.HParams(0.4)}, r"hparams\.learning_rate is 0\.4.* here, but 0\.3"),
        ({"task": tiny.Params(2.0, 8)}, r"task\.max_steps is 8 here, but 7"),
        ({"seed": 4}, "seed is 4 here, but 5"),
    ],
)
def test_resume_with_other_numbers_is_refused(whole, arguments, message):
    """Silently going on with other hyper-parameters would make a run that nobody asked for."""
    with pytest.raises(ValueError, match=message):
        train(ALGORITHM, resume=True, run_dir=whole[0], progress=False, **arguments)


def test_another_algorithm_is_refused_by_leaf(whole):
    with pytest.raises(MismatchError, match=r"weights\.w is float32\[4\] .* float32\[6\] here"):
        train(tiny.make(size=6), resume=True, run_dir=whole[0], progress=False)


def test_damaged_checkpoint_is_skipped_and_set_aside(whole, tmp_path):
    """It must neither stop the run nor, being the newest by name, push out the sound ones."""
    folder = cut(whole, tmp_path, 20)
    next((folder / "checkpoints/0000000020/arrays").rglob("*.ocdbt")).write_bytes(b"junk")
    with pytest.warns(RuntimeWarning, match="0000000020 is damaged"):
        state = train(ALGORITHM, resume=True, run_dir=folder, progress=False, keep=1)
    assert equal(state, whole[1])
    assert (folder / "checkpoints/damaged-0000000020").is_dir()
    assert rows(folder) == rows(whole[0])


def test_all_damaged_is_an_error_that_names_them(whole, tmp_path):
    folder = cut(whole, tmp_path, 20)
    for path in (folder / "checkpoints").glob("0*"):
        (path / "meta.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"no sound checkpoint.*0000000020.*0000000010"):
        train(ALGORITHM, resume=True, run_dir=folder, progress=False)


def test_damaged_inputs_are_an_error_that_names_them(whole, tmp_path):
    folder = cut(whole, tmp_path, 20)
    (folder / "inputs/meta.json").write_text("{")
    with pytest.raises(CheckpointError, match="inputs is damaged"):
        train(ALGORITHM, resume=True, run_dir=folder, progress=False)


def test_new_run_in_the_folder_of_another_is_refused(whole):
    """The results of days must not be overwritten by a second call of the script."""
    with pytest.raises(RunFolderError, match=r"holds a run already.*resume=True.*another folder"):
        train(ALGORITHM, steps=10, run_dir=whole[0], progress=False)


def test_resume_without_a_run_starts_one(tmp_path, capsys):
    """So a job that is killed and started again by a cluster needs one command, not two."""
    folder = tmp_path / "new"
    state = train(ALGORITHM, steps=100, resume=True, run_dir=folder, eval_episodes=2)
    assert int(state.iteration) == 10
    assert "holds no run yet: starting one" in capsys.readouterr().err
    with pytest.raises(ValueError, match="steps=None"):
        train(ALGORITHM, resume=True, run_dir=tmp_path / "other", progress=False)


def test_resume_records_what_is_different(whole, tmp_path, monkeypatch, capsys):
    """Other versions may round differently: whoever compares runs should find that noted."""
    folder = cut(whole, tmp_path, 10)
    monkeypatch.setattr(provenance, "_version", lambda name: "9.9" if name == "jax" else "1.0")
    train(ALGORITHM, resume=True, run_dir=folder)
    assert f"jax {jax.__version__} -> 9.9" in capsys.readouterr().err
    info = json.loads((folder / "info.json").read_text())
    assert info["start"]["versions"]["jax"] == jax.__version__
    assert [r["versions"]["jax"] for r in info["resumed"]] == ["9.9"]


def test_data_set_task_is_restored_exactly(tmp_path):
    """A task of arrays, given again only for its structure, as for offline learning."""
    data = {"x": np.linspace(0, 1, 7), "labels": np.arange(3, dtype=np.uint8)}
    algorithm = tiny.make(env=None)._replace(
        init=lambda key, h, t: ALGORITHM.init(key, h, tiny.Params(t["x"].mean())),
        step=lambda s, h, t: ALGORITHM.step(s, h, tiny.Params(t["x"].mean())),
    )
    straight = train(algorithm, task=data, steps=200, progress=False)
    train(algorithm, task=data, steps=100, run_dir=tmp_path, progress=False)
    state = train(algorithm, task=data, steps=200, run_dir=tmp_path, resume=True, progress=False)
    assert equal(state, straight)
