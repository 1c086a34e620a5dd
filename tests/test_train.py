"""The host driver computes what `run` computes, and nothing that the host does changes it."""

import gc
import json
import sys
import threading
from pathlib import Path
from typing import Any, cast

import jax
import jax.monitoring
import numpy as np
import pytest
import tiny

from fastrl.loop import NonFiniteError
from fastrl.run import run
from fastrl.tracking import read_rows
from fastrl.train import train

ALGORITHM = tiny.make()


def equal(a, b) -> bool:
    """Bit for bit, keys included."""
    return all(jax.tree.leaves(jax.tree.map(lambda x, y: bool((x == y).all()), a, b)))


@pytest.fixture
def compilations():
    """The names of what is compiled while a test runs."""
    seen: list[str] = []

    def listen(event: str, duration_secs: float, **kwargs: str | int) -> None:
        if "backend_compile" in event:
            seen.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield seen
    jax.monitoring.unregister_event_duration_listener(listen)


def test_numbers_are_those_of_run():
    """A driver that used a key of its own, or skipped or repeated an iteration, would differ."""
    hparams, task = tiny.HParams(0.3), tiny.Params(target=2.0)
    state = train(ALGORITHM, hparams, task, steps=335, seed=7, progress=False)
    expected, _ = jax.jit(run(ALGORITHM, 335))(jax.random.key(7), hparams, task)
    assert int(state.iteration) == 34  # rounded up
    assert equal(state, expected)


def test_what_the_host_does_changes_no_number(tmp_path):
    """Evaluations, rows, checkpoints, donation and cuts into chunks leave the state alone."""
    plain = train(ALGORITHM, steps=300, progress=False)
    busy = train(
        ALGORITHM, steps=300, run_dir=tmp_path / "run", progress=False, log_every=30,
        eval_every=70, checkpoint_every=110, eval_episodes=2,
    )  # fmt: skip
    donated = train(ALGORITHM, steps=300, progress=False, donate=True, log_every=20)
    assert equal(plain, busy)
    assert equal(plain, donated)


def test_other_numbers_compile_nothing(compilations, tmp_path):
    """A float baked into the program would compile again for every value of a sweep."""
    options = {"progress": False, "eval_episodes": 2}
    train(ALGORITHM, steps=100, run_dir=tmp_path / "a", **options)
    compilations.clear()
    hparams, task = tiny.HParams(learning_rate=1), tiny.Params(target=np.float64(3), max_steps=4)
    train(ALGORITHM, hparams, task, steps=70, seed=3, run_dir=tmp_path / "b", **options)
    assert compilations == []


def test_a_start_traces_the_step_once():
    """Tracing is half of what a start with a warm compilation cache costs."""
    algorithm, traces = tiny.make(), []

    def counted(*arguments):
        traces.append(1)
        return algorithm.step(*arguments)

    train(algorithm._replace(step=counted), steps=50, progress=False)
    assert len(traces) == 1
    assert gc.isenabled()


def test_rows_are_the_means_of_their_intervals(tmp_path):
    """Rows that missed or repeated an iteration at a chunk's border would not agree with run."""
    train(ALGORITHM, steps=250, log_every=40, run_dir=tmp_path, progress=False, eval_every=0)
    rows = read_rows(tmp_path / "metrics.jsonl")
    assert [row["iteration"] for row in rows] == [4, 8, 12, 16, 20, 24, 25]
    key, defaults = jax.random.key(0), (tiny.HParams(), tiny.Params())
    _, metrics = jax.jit(run(ALGORITHM, 250))(key, *defaults)
    for row, first in zip(rows, range(0, 25, 4), strict=True):
        for name, m in metrics.items():
            total, weight = (np.asarray(x, np.float64)[first : row["iteration"]].sum() for x in m)
            np.testing.assert_allclose(row[name], total / weight, rtol=1e-5)
        assert row["steps"] == 10 * row["iteration"]
        assert row["steps_per_second"] > 0


def test_evaluations_come_when_due_and_repeat(tmp_path):
    """The evaluation's key depends on seed and iteration alone, not on the schedule."""
    found = []
    for name, every in (("a", 100), ("b", 50)):
        train(ALGORITHM, steps=200, run_dir=tmp_path / name, eval_every=every, progress=False)
        rows = read_rows(tmp_path / name / "metrics.jsonl")
        found.append(
            {r["iteration"]: r["evaluation_return"] for r in rows if "evaluation_return" in r}
        )
    assert list(found[0]) == [10, 20]
    assert list(found[1]) == [5, 10, 15, 20]
    assert all(found[0][k] == found[1][k] for k in found[0])
    assert len(set(found[1].values())) == 4


def test_task_of_the_run_is_what_is_evaluated(tmp_path):
    """Evaluating the default task instead of the one trained on would report the wrong thing."""
    task = tiny.Params(target=50.0, max_steps=3)
    train(ALGORITHM, None, task, steps=100, run_dir=tmp_path, progress=False)
    row = read_rows(tmp_path / "metrics.jsonl")[-1]
    assert row["evaluation_length"] == 3
    assert row["evaluation_return"] < -10


@pytest.mark.parametrize("donate", [False, True])
def test_not_finite_stops_at_once_with_iteration_and_leaf(tmp_path, donate):
    """The run must end at the first bad iteration and keep a state from before it."""
    with pytest.raises(NonFiniteError) as caught:
        train(
            ALGORITHM, tiny.HParams(fails_at=33), steps=1000, run_dir=tmp_path, progress=False,
            donate=donate, checkpoint_every=200, eval_every=0,
        )  # fmt: skip
    message, saved = str(caught.value), 20 if donate else 32
    assert caught.value.iteration == 33
    assert message.startswith("iteration 33: metric 'loss', parameters['w'] not finite.")
    assert f"{saved:010d}" in message
    newest = sorted(p.name for p in (tmp_path / "checkpoints").iterdir())[-1]
    assert int(newest) == saved
    if not donate:
        good = train(ALGORITHM, tiny.HParams(fails_at=33), steps=320, progress=False)
        assert equal(caught.value.state, good)


def test_not_finite_without_a_folder_keeps_the_state():
    with pytest.raises(NonFiniteError, match="the error's `state`") as caught:
        train(ALGORITHM, tiny.HParams(fails_at=5), steps=1000, progress=False)
    assert int(caught.value.state.iteration) == 4


@pytest.mark.parametrize("devices", [2, 4])
def test_devices_give_the_same_numbers(tmp_path, devices):
    """Also through a checkpoint, which any number of devices can restore."""
    alone = train(ALGORITHM, steps=200, progress=False)
    spread = train(ALGORITHM, steps=100, run_dir=tmp_path, devices=devices, progress=False)
    assert len(spread.weights["w"].sharding.device_set) == devices
    onward = train(ALGORITHM, steps=200, run_dir=tmp_path, resume=True, progress=False)
    np.testing.assert_allclose(alone.weights["w"], onward.weights["w"], rtol=1e-5)


def test_devices_compile_once(compilations):
    """State that came out of a chunk laid out in another way would compile the next one anew."""
    train(ALGORITHM, steps=50, devices=2, progress=False)
    compilations.clear()
    train(ALGORITHM, steps=90, devices=2, seed=1, progress=False)
    assert compilations == []


def test_works_outside_the_main_thread():
    """Python delivers no signals there, and installing a handler would raise."""
    done = []
    thread = threading.Thread(
        target=lambda: done.append(train(ALGORITHM, steps=50, progress=False))
    )
    thread.start()
    thread.join()
    assert int(done[0].iteration) == 5


def test_without_an_environment_there_is_no_evaluation(tmp_path):
    algorithm = tiny.make(env=None)
    train(algorithm, task=tiny.Params(), steps=50, run_dir=tmp_path, progress=False)
    rows = read_rows(tmp_path / "metrics.jsonl")
    assert not any("evaluation_return" in row for row in rows)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": 0}, "steps=0"),
        ({"steps": "many"}, "steps='many'"),
        ({"steps": float("nan")}, "steps=nan"),
        ({}, "steps=None"),
        ({"steps": 10, "seed": -1}, "seed=-1"),
        ({"steps": 10, "seed": 1.5}, "seed=1.5"),
        ({"steps": 10, "devices": 0}, "devices=0"),
        ({"steps": 10, "devices": 99}, "devices=99"),
        ({"steps": 10, "keep": 0}, "keep=0"),
        ({"steps": 10, "log_every": -5}, "log_every=-5"),
        ({"steps": 10, "eval_episodes": 0}, "eval_episodes=0"),
        ({"steps": 10, "hparams": {"learning_rate": 1.0}}, r"HParams\(\*\*hparams\)"),
        ({"steps": 10, "hparams": tiny.HParams(cast(Any, "fast"))}, "hparams.learning_rate='fast'"),
        ({"steps": 10, "task": tiny.Params(target=float("nan"))}, "task.target=nan"),
        ({"steps": 10, "task": (1.0, 2)}, "task is a tuple: Env needs params"),
        ({"steps": 10, "resume": True}, "run_dir"),
        ({"steps": 10, "run_dir": ""}, "run_dir=''"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises((ValueError, TypeError), match=message):
        train(ALGORITHM, progress=False, **arguments)


def test_bad_arguments_leave_no_folder(tmp_path):
    with pytest.raises(ValueError, match="seed"):
        train(ALGORITHM, steps=10, seed=-1, run_dir=tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_step_that_changes_its_state_is_named():
    """JAX's own message about while loops would say little to the author of an algorithm."""
    step = ALGORITHM.step
    broken = ALGORITHM._replace(
        step=lambda *a: (step(*a)[0]._replace(iteration=1.5 * a[0].iteration), step(*a)[1])
    )
    with pytest.raises(ValueError, match=r"iteration was int32\[\] and becomes float32"):
        train(broken, steps=10, progress=False)


def test_folder_says_what_was_run(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/somewhere/script.py", "--fast"])
    train(ALGORITHM, steps=50, run_dir=tmp_path, progress=False, config_text='env = "x"\n')
    assert (tmp_path / "config.toml").read_text() == 'env = "x"\n'
    start = json.loads((tmp_path / "info.json").read_text())["start"]
    assert start["command"] == ["script.py", "--fast"]
    assert start["versions"]["jax"] == jax.__version__
    assert start["device"]["count"] == 1
    names = {
        "checkpoints",
        "config.toml",
        "events",
        "info.json",
        "inputs",
        "metrics.jsonl",
        "pictures",
    }
    assert names <= {p.name for p in Path(tmp_path).iterdir()}
