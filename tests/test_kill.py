"""Killed at any moment, a run loses at most what came after its last checkpoint.

The kills are real (SIGKILL to a process of its own) and hit start-up, training, evaluations
and the saving itself, which here happens after every iteration.
"""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import pytest
import tiny

from fastrl import checkpoint, retention, run_folder
from fastrl.hparams import as_arrays
from fastrl.kernels import prng
from fastrl.tracking import read_rows
from fastrl.train import train

STEPS = 1500
SCRIPT = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import tiny
from fastrl.train import train
train(
    tiny.make(size=100), tiny.HParams(0.3), steps={STEPS}, seed=5, run_dir=sys.argv[1], resume=True,
    log_every=20, eval_every=50, eval_episodes=2, checkpoint_every=10, keep=2,
)
"""


def live_and_die(folder: Path, wait: float, started: bool) -> int:
    """Runs the script on `folder` and kills it after `wait` seconds; returns its exit code.

    The seconds count from the first row of its table if `started`, else from its birth.
    """
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(folder)], stderr=subprocess.PIPE, text=True,
        env=os.environ | {"FASTRL_CACHE_DIR": str(folder.parent / "cache")},
    )  # fmt: skip
    assert process.stderr is not None
    if started:
        for line in process.stderr:
            if line.split()[:1] == ["iteration"]:
                break
    time.sleep(wait)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return process.returncode


def newest_sound(folder: Path) -> int:
    """The iteration of the newest checkpoint, after reading every one that is there."""
    algorithm = tiny.make(size=100)
    defaults = as_arrays(algorithm.default_hparams), as_arrays(algorithm.env.default_params())
    target = jax.eval_shape(algorithm.init, prng.key(0), *defaults)
    paths = retention.newest_first(run_folder.at(folder).checkpoints)
    found = [checkpoint.restore(path, target).facts["iteration"] for path in paths]
    return max(found, default=0)


@pytest.mark.parametrize("kills", [1, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_run_resumes_to_the_same_end(tmp_path, kills):
    """Every checkpoint that a kill leaves can be read, none is lost, and the end is the same."""
    draw, folder = random.Random(kills), tmp_path / "run"
    reached = 0
    for number in range(kills):
        born = number % 3 < 2  # every third dies somewhere in its start-up
        code = live_and_die(folder, draw.uniform(0.0, 0.4 if born else 2.5), born)
        assert code in (-signal.SIGKILL, 0)
        newest = newest_sound(folder)
        assert newest >= reached
        reached = newest
    assert reached > 0
    algorithm, hparams = tiny.make(size=100), tiny.HParams(0.3)
    state = train(
        algorithm, hparams, steps=STEPS, seed=5, resume=True, run_dir=folder, progress=False
    )
    straight = train(
        algorithm, hparams, steps=STEPS, seed=5, run_dir=tmp_path / "straight", progress=False,
        log_every=20, eval_every=50, eval_episodes=2,
    )  # fmt: skip
    assert all(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a == b).all()), state, straight)))
    times = ("seconds", "steps_per_second")
    rows, expected = (
        [{k: v for k, v in r.items() if k not in times} for r in read_rows(f / "metrics.jsonl")]
        for f in (folder, tmp_path / "straight")
    )
    assert rows == expected
