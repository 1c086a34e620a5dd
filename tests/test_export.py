"""`fastrl.export`: a program in a file trains like the code that it came from."""

import dataclasses
import json
import subprocess
import sys
import zipfile

import jax
import numpy as np
import pytest

import fastrl
from fastrl import ppo
from fastrl.cli import main
from fastrl.envs.classic import CartPole
from fastrl.leaves import named, without_keys

CONFIG = ppo.Config(num_envs=8, num_steps=16, num_minibatches=2, hidden_sizes=(8,))
ALGORITHM = ppo.make(CartPole(), CONFIG)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return fastrl.export(ALGORITHM, tmp_path_factory.mktemp("program") / "ppo.zip")


def test_trains_like_the_code_bit_for_bit(file):
    """A leaf in another place, a default baked in, or another program would differ."""
    program = fastrl.load_program(file)
    state, metrics = program.init(3), {}
    hparams, task = {"learning_rate": 2e-3}, {"gravity": 12.0}
    for _ in range(2):
        state, metrics = program.run(state, 256, hparams=hparams, task=task)
    heavier = CartPole().default_params()._replace(gravity=12.0)
    expected, _ = jax.jit(fastrl.run(ALGORITHM, 512))(
        fastrl.key(3), ppo.HParams(learning_rate=2e-3), heavier
    )
    wanted = named(without_keys(expected))
    assert state.keys() == wanted.keys()
    for name in wanted:
        np.testing.assert_array_equal(state[name], wanted[name], err_msg=name)
    assert np.isfinite(metrics["loss"])


@pytest.mark.slow
def test_a_program_goes_without_the_kernels_of_this_process(file, tmp_path):
    """Machine code made by numba can't be written: the file would not be there, or not run."""
    fused = ppo.make(CartPole(), dataclasses.replace(CONFIG, fused_mlp=True))
    programs = map(fastrl.load_program, (file, fastrl.export(fused, tmp_path / "fused.zip")))
    plain, other = (program.run(program.init(0), 256)[0] for program in programs)
    for name in plain:
        np.testing.assert_allclose(other[name], plain[name], rtol=1e-3, atol=1e-4, err_msg=name)


def test_runs_where_nothing_of_the_algorithm_is_imported(file):
    """Ahead of time means that the environment's and the algorithm's code is not needed."""
    code = (
        "import sys, fastrl\n"
        "import fastrl.algorithms\n"
        "def refuse(*a, **k): raise AssertionError('traced')\n"
        "fastrl.algorithms.ppo._make = refuse\n"
        f"program = fastrl.load_program({str(file)!r})\n"
        "state, metrics = program.run(program.init(0), 256)\n"
        "assert 'fastrl.envs.classic' not in sys.modules\n"
        "print(metrics['episode_length'] > 1)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout.strip() == "True", done.stderr


def test_lowers_for_machines_that_are_not_here(tmp_path):
    """Whoever trains on a GPU exports on a laptop."""
    path = fastrl.export(ALGORITHM, tmp_path / "gpu.zip", platforms=("cuda", "tpu"))
    with pytest.raises(ValueError, match="is for cuda, tpu, not for cpu"):
        fastrl.load_program(path)


def test_what_does_not_fit_is_named(file, tmp_path):
    program = fastrl.load_program(file)
    with pytest.raises(ValueError, match="did you mean 'learning_rate'"):
        program.init(hparams={"learning_rat": 1e-3})
    with pytest.raises(ValueError, match=r"hparams\['gamma'\]='high': needs numbers of shape \(\)"):
        program.init(hparams={"gamma": "high"})
    with pytest.raises(ValueError, match=r"state\['env.env.angle'\] is missing"):
        program.run({}, 10)
    with pytest.raises(ValueError, match="steps"):
        program.run(program.init(), 0)
    with pytest.raises(ValueError, match="unknown platforms 'gpu'"):
        fastrl.export(ALGORITHM, tmp_path / "x.zip", platforms=("gpu",))


def test_a_program_that_diverges_says_so(file):
    program = fastrl.load_program(file)
    with pytest.raises(FloatingPointError, match="not finite"):
        program.run(program.init(), 2_000, hparams={"learning_rate": 1e30})


def test_damaged_files_are_refused(file, tmp_path):
    """One clear error, whatever part of the file is wrong."""
    with pytest.raises(ValueError, match="no training program at"):
        fastrl.load_program(tmp_path / "missing.zip")
    whole = file.read_bytes()
    for n in (0, 100, len(whole) // 2):
        (tmp_path / "cut.zip").write_bytes(whole[:n])
        with pytest.raises(ValueError, match="is no training program"):
            fastrl.load_program(tmp_path / "cut.zip")
    for table in ({}, [], {"format": 99}, {"format": 1}):
        with zipfile.ZipFile(tmp_path / "table.zip", "w") as z:
            z.writestr("program.json", json.dumps(table))
        with pytest.raises(ValueError, match="is no training program"):
            fastrl.load_program(tmp_path / "table.zip")


def test_nothing_is_left_where_it_cannot_be_written(tmp_path):
    with pytest.raises(OSError, match="can't write"):
        fastrl.export(ALGORITHM, tmp_path)  # a folder
    assert list(tmp_path.iterdir()) == []


def test_on_the_command_line(tmp_path, capsys):
    out = tmp_path / "program.zip"
    flags = ["--config.num-envs", "8", "--config.num-steps", "16", "--config.hidden-sizes", "8"]
    assert main(["export", "--env", "CartPole-v1", "--out", str(out), *flags]) == 0
    assert fastrl.load_program(out).steps_per_iteration == 128
    assert main(["export", "--env", "CartPole-v1"]) == 2
    assert "--out ppo.zip" in capsys.readouterr().err


def test_compile_report(capsys):
    """Sizes of nothing, or hyper-parameters called static, would mislead whoever reads it."""
    report = fastrl.compile_report(ALGORITHM)
    for phases in report.programs.values():
        assert min(phases.trace, phases.lower, phases.compile) > 0
        assert phases.equations > 50
        assert phases.instructions > 50
    assert report.static["num_envs"] == 8
    assert {"learning_rate", "gravity"} <= report.traced.keys()
    assert not report.static.keys() & report.traced.keys()
    assert report.state_bytes > 4 * 8 * 4
    text = str(report)
    assert "chunk" in text
    assert max(map(len, text.splitlines())) <= 100
