"""The command line: verbs, precedence of flags, one line and an exit code for every mistake."""

import csv
import json
import math
import os
import re
import shlex
import signal
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from fastrl import algorithms, config, registry
from fastrl.cli import VERBS, main
from fastrl.cli.errors import UsageError
from fastrl.cli.flags import field_docs
from fastrl.cli.request import read_request
from fastrl.cli.sweep import read_settings

TINY = """\
# Tiny: for tests.
env = "CartPole-v1"
steps = 96
[config]
num_envs = 4
num_steps = 8
num_minibatches = 2
num_epochs = 1
hidden_sizes = [8]
[train]
eval_episodes = 4
"""


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """An empty folder with configs/tiny.toml, the current one."""
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "tiny.toml").write_text(TINY)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Path:
    """The folder of a finished run."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "tiny.toml").write_text(TINY)
    here = os.getcwd()
    os.chdir(folder)
    try:
        assert main(["train", "tiny.toml", "--quiet", "--name", "one"]) == 0
    finally:
        os.chdir(here)
    return folder / "runs" / "one"


# Wrong command lines: in a folder with configs/tiny.toml, configs/broken.toml, which has an
# unknown param, and the finished run RUN. An error says whether a flag or a file is wrong.
WRONG = {
    "trian": ["trian", "'train'"],
    "train --stepz 3": ["--stepz", "--steps"],
    "train": ["ppo_cartpole", "--env"],
    "train nope.toml": ["nope.toml", "fastrl list"],
    "train configs": ["configs", "folder"],
    "train configs/tiny.tml": ["configs/tiny.tml", "'tiny'"],
    "train tin": ["tin", "'tiny'"],
    "train CartPole-v1": ["CartPole-v1", "--env CartPole-v1"],
    "train RUN": ["folder", "config.toml"],
    "train tiny extra": ["extra"],
    "train tiny --env CartPole": [": --env over tiny: env:", "CartPole", "'CartPole-v1'"],
    "train --env CartPole": [": --env: env:", "CartPole", "'CartPole-v1'"],
    "train tiny --env": ["--env"],
    "train tiny --algorithm pop": ["--algorithm over tiny", "'pop'", "'ppo'"],
    "train tiny --steps 0": [": --steps over tiny: steps = 0"],
    "train --env CartPole-v1 --steps 0": [": --steps: steps = 0"],
    "train tiny --steps -5": ["steps = -5"],
    "train tiny --steps many": ["--steps", "'many'", "integer"],
    "train tiny --steps 1.5": ["--steps", "1.5", "integer"],
    "train tiny --seed -1": ["seed = -1"],
    "train tiny --seed 1.5": ["--seed", "1.5", "integer"],
    "train tiny --devices 0": ["devices = 0"],
    "train tiny --devices 1000": ["devices=1000"],
    "train tiny --hparams.learning-rate fast": ["--hparams.learning-rate", "'fast'", "a number"],
    "train tiny --hparams.learning-rate nan": ["--hparams.learning-rate", "nan"],
    "train tiny --hparams.learning-rate 1e-3,3e-3": ["1e-3,3e-3", "fastrl sweep"],
    "train tiny --hparams.learning-rat 1": ["learning-rat", "--hparams.learning-rate"],
    "train tiny --hparams.num-envs 8": ["--hparams.num-envs", "--config.num-envs"],
    "train tiny --learning-rate 1": ["--learning-rate", "--hparams.learning-rate"],
    "train tiny --hparams 1": ["--hparams"],
    "train tiny --hparams.objective 1": ["--hparams.objective"],
    "train tiny --config.num-envs 0": ["num_envs=0"],
    "train tiny --config.num-envs -8": ["num_envs=-8"],
    "train tiny --config.num-envs 8,16": ["8,16", "fastrl sweep"],
    "train tiny --config.num-minibatches 7": ["num_minibatches=7", "divisible"],
    "train tiny --seed 1 --config.num-envs 1 --config.num-minibatches 7": [
        ": --config.num-envs and --config.num-minibatches over tiny: config: num_envs*num_steps=8"
    ],
    "train broken --seed 1 --params.max-steps 20": [": broken: unknown key 'params.gravty'"],
    "train broken --seed 1 --params.gravty 20": [": --params.gravty over broken: unknown key"],
    "train tiny --config.activation sigmoid": ["'sigmoid'", "'tanh'"],
    "train tiny --config.hidden-sizes 64 x": ["--config.hidden-sizes", "'x'"],
    "train tiny --config.stop-on-kl yes": ["--config.stop-on-kl", "'yes'", "true or false"],
    "train tiny --params.gravty 1": [": --params.gravty over tiny: ", "'params.gravity'"],
    "train tiny --params.gravity low": ["gravity", "'low'"],
    "train tiny --params.gravity": ["--params.gravity", "value"],
    "train tiny --env-options.size 3": ["'size'"],
    "train tiny --train.eval-evry 3": ["--train.eval-evry", "--train.eval-every"],
    "train tiny --train.keep 0": ["keep=0"],
    "train tiny --train.eval-every -1": ["eval_every=-1"],
    "train tiny --run-dir configs": ["configs", "other files"],
    "train tiny --run-dir RUN": ["resume"],
    "train tiny --run-dir configs/tiny.toml": ["configs/tiny.toml"],
    "train tiny --run-dir x --name y": ["--run-dir", "--name"],
    "train tiny --name a/b": ["a/b", "--run-dir"],
    "train tiny --import nope": ["nope"],
    "resume": ["fastrl resume runs/NAME"],
    "resume nope": ["nope", "no such run folder"],
    "resume configs": ["configs", "not a run folder"],
    "resume RUN --steps x": ["--steps", "'x'"],
    "resume RUN --steps 0": [": --steps: steps = 0"],
    "evaluate": ["fastrl evaluate runs/NAME"],
    "evaluate nope": ["nope", "no such run folder"],
    "evaluate RUN --episodes 0": ["episodes=0"],
    "evaluate RUN --episodes ten": ["--episodes", "'ten'"],
    "evaluate RUN --checkpoint bst": ["'bst'", "'best'"],
    "evaluate RUN --checkpoint 99": ["99", "3"],
    "evaluate RUN --seed -1": ["-1"],
    "render RUN --out x.avi": ["x.avi", ".gif"],
    "render RUN --episodes 0": ["episodes=0"],
    "render RUN --out configs/tiny.toml/x.gif": ["configs/tiny.toml"],
    "plot": ["fastrl plot runs/NAME"],
    "plot nope": ["nope"],
    "plot RUN --out x.bmp": ["x.bmp", ".png"],
    "plot RUN --metric los": ["los", "'loss'"],
    "sweep tiny --seeds 0": ["--seeds 0"],
    "sweep tiny --hparams.gamma 0.9,x": ["--hparams.gamma", "'x'"],
    "sweep tiny --hparams.gama 0.9,1": ["--hparams.gama", "--hparams.gamma"],
    "sweep tiny --hparams.gamma 0.9,0.90": ["hparams.gamma=0.9", "twice"],
    "sweep tiny --config.num-envs 8,0": ["num_envs=0"],
    "sweep tiny --params.gravty 1,2": ["gravty", "'params.gravity'"],
    "list envz": ["envz", "'envs'"],
    "list --import nope": ["nope"],
    "check-env": ["module:Class"],
    "check-env CartPole": ["CartPole", "'CartPole-v1'"],
    "check-env os:nope": ["nope"],
    "check-env nope:Env": ["nope"],
    "check-env CartPole-v1 --num-envs 1": ["num_envs=1"],
}


@pytest.mark.parametrize("line", WRONG)
def test_wrong_command_lines(line: str, folder: Path, trained: Path, capsys) -> None:
    """A mistake gives one line on stderr that names the value and the way out, and code 2 or 1."""
    (folder / "configs" / "broken.toml").write_text(TINY + "[params]\ngravty = 1\n")
    code = main(line.replace("RUN", str(trained)).split())
    said = capsys.readouterr().err.strip()
    assert code in (1, 2), said
    assert "\n" not in said
    assert said.startswith("fastrl: ")
    for part in WRONG[line]:
        assert part in said, said
    assert not (folder / "runs").exists(), "a mistake leaves nothing behind"


def request(*argv: str) -> config.RunConfig:
    return read_request(argv, "fastrl train")[0]


def test_precedence(folder: Path) -> None:
    """Defaults are overruled by the file, the file by flags."""
    plain, tiny = request("--env", "CartPole-v1"), request("tiny")
    changed = request(
        "--seed", "3", "tiny", "--config.num-envs=2", "--hparams.learning_rate", "1",
        "--params.max-steps", "50", "--steps", "5e3", "--config.hidden-sizes", "4", "4",
        "--train.keep", "1",
    )  # fmt: skip
    assert (plain.steps, tiny.steps, changed.steps) == (500_000, 96, 5000)
    assert (plain.config.num_envs, tiny.config.num_envs, changed.config.num_envs) == (64, 4, 2)
    assert changed.config.num_steps == 8
    assert changed.config.hidden_sizes == (4, 4)
    assert changed.hparams == plain.hparams._replace(learning_rate=1.0)
    assert changed.params == {"max_steps": 50}
    assert (changed.seed, changed.train.keep, changed.train.eval_episodes) == (3, 1, 4)
    back = request("tiny", "--config.num-envs", "64", "--steps", "500000")
    assert (back.config.num_envs, back.steps) == (64, 500_000), "a flag may restore a default"


def test_env_options_and_other_environment(folder: Path) -> None:
    """`--env` replaces the file's environment; its options and params can be given too."""
    run = request(
        "tiny", "--env", "brax/hopper", "--env-options.backend", "positional",
        "--env-options.options.terminate_when_unhealthy", "false",
    )  # fmt: skip
    built = config.build(run)
    assert built.algorithm.env.backend == "positional"
    assert built.algorithm.env.options == (("terminate_when_unhealthy", False),)


def test_train_evaluate_render_plot_resume(trained: Path, capsys, monkeypatch) -> None:
    """From a config to a picture; what a run folder says repeats the run; resuming lengthens it."""
    monkeypatch.chdir(trained.parents[1])
    assert main(["evaluate", str(trained), "--episodes", "3", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert len(told["returns"]) == told["episodes"] == 3
    assert main(["evaluate", str(trained), "--episodes", "3", "--checkpoint", "last"]) == 0
    assert "3 episodes" in capsys.readouterr().out
    assert main(["render", str(trained), "--out", "x.gif", "--max-frames", "5"]) == 0
    assert Path("x.gif").read_bytes()[:3] == b"GIF"
    assert main(["plot", str(trained), str(trained), "--out", "x.png"]) == 0
    assert Path("x.png").is_file()
    capsys.readouterr()
    assert main(["train", str(trained / "config.toml"), "--quiet"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"^evaluation +return \S+ ± ", said, re.M)
    again = Path("runs/CartPole-v1-ppo-0")
    assert str(again) in said
    assert (again / "pictures" / "learning_curve.png").is_file()
    assert rows(again) == rows(trained)
    assert main(["resume", str(again), "--steps", "192", "--quiet"]) == 0
    assert rows(again)[-1]["steps"] == config.load(again / "config.toml").steps == 192
    assert main(["train", "tiny.toml", "--quiet"]) == 0
    assert Path("runs/CartPole-v1-ppo-0-2").is_dir(), "a second run gets a folder of its own"


def rows(run: Path) -> list[dict[str, Any]]:
    """The log of a run, without what the clock says."""
    lines = (run / "metrics.jsonl").read_text().splitlines()
    timed = ("seconds", "steps_per_second", "time")
    return [{k: v for k, v in json.loads(x).items() if k not in timed} for x in lines]


def test_run_folder_holds_the_full_config(trained: Path) -> None:
    """Every setting is written, so that other defaults later change nothing."""
    tables = tomllib.loads((trained / "config.toml").read_text())
    run = config.load(trained / "config.toml")
    assert tables["config"].keys() == run.config.__dataclass_fields__.keys()
    assert tables["hparams"].keys() == set(run.hparams._fields) - {"objective"}
    assert run.config == config.loads(TINY).config


@pytest.mark.slow
def test_devices_give_the_same_numbers(trained: Path, monkeypatch) -> None:
    """`--devices` changes how fast, not what."""
    monkeypatch.chdir(trained.parents[1])
    wide = ["tiny.toml", "--quiet", "--config.num-envs", "32", "--config.num-steps", "1"]
    assert main(["train", *wide, "--name", "on_one"]) == 0
    assert main(["train", *wide, "--devices", "2", "--name", "on_two"]) == 0
    for a, b in zip(rows(Path("runs/on_one")), rows(Path("runs/on_two")), strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-4)


def test_flags_hold_for_every_setting_of_a_sweep() -> None:
    """A flag of the first setting that is taken for the default of the second has no name there."""
    argv = ["ppo_cartpole", "--quiet", "--seeds", "3", "--hparams.learning-rate", "1e-3,2e-3"]
    settings, flags = read_settings(argv)
    assert [s.run_config.hparams.learning_rate for s in settings] == [1e-3, 2e-3]
    assert (flags.quiet, flags.seeds) == (True, 3)


def test_flags_of_numbers_within_numbers() -> None:
    """A flag that replaces the whole record, or one that is not checked."""
    argv = ["--env", "grid/Debug-v0", "--algorithm", "disco_agent"]
    run_config, _ = read_request([*argv, "--hparams.weights.next-policy", "3"], "fastrl train")
    assert run_config.hparams.weights._asdict() == {
        "policy": 1.0, "y": 1.0, "z": 1.0, "next_policy": 3.0, "value": 0.2,
    }  # fmt: skip
    with pytest.raises(UsageError, match=r"--hparams\.weights\.y"):
        read_request([*argv, "--hparams.weights.yy", "3"], "fastrl train")


@pytest.mark.slow
def test_sweep(trained: Path, monkeypatch, capsys) -> None:
    """Every setting and seed is trained as `train` would; tables and curves hold them all."""
    monkeypatch.chdir(trained.parents[1])
    argv = ["sweep", "tiny.toml", "--seeds", "2", "--episodes", "100", "--name", "swept"]
    varied = ["--hparams.learning-rate=1e-3,1e30", "--config.hidden-sizes", "[8],[4,4]"]
    assert main([*argv, *varied, "--params.max-steps", "500,20"]) == 0
    said = capsys.readouterr()
    assert "8 settings x 2 seeds = 16 trainings" in said.err
    assert "programs to compile: 2" in said.err
    assert "2 of 2 diverged" in said.out
    swept = Path("runs/swept")
    table = list(csv.DictReader((swept / "results.csv").read_text().splitlines()))
    assert len(table) == 16
    assert [row["config.hidden_sizes"] for row in table[::4]] == ["[8]", "[4,4]", "[8]", "[4,4]"]
    assert (swept / "learning_curves.png").is_file()
    for row in table:
        diverged = row["hparams.learning_rate"] == "1e30"
        limit = float(row["params.max_steps"])
        assert math.isnan(float(row["evaluation_return"])) == diverged
        assert diverged or 1 <= float(row["evaluation_return"]) <= limit
    setting = tomllib.loads((swept / "settings" / "0" / "config.toml").read_text())
    assert setting["hparams"]["learning_rate"] == 1e-3
    last = rows(swept / "settings" / "0")[-1]
    assert last["loss"][0] == pytest.approx(rows(trained)[-1]["loss"], rel=1e-4)
    assert main(["evaluate", str(trained), "--checkpoint", "last", "--json"]) == 0
    alone = json.loads(capsys.readouterr().out)["mean_return"]
    assert float(table[0]["evaluation_return"]) == pytest.approx(alone, rel=0.01)


MODULE = """
import dataclasses
import fastrl
from fastrl.envs.classic import CartPole

@dataclasses.dataclass(frozen=True)
class Mine(CartPole):
    'A cart of mine.'

@dataclasses.dataclass(frozen=True)
class Wrong(CartPole):
    'Branches on what is traced.'

    def step(self, key, state, action, params):
        if action > 0:
            return super().step(key, state, action, params)
        return super().step(key, state, 1 - action, params)

fastrl.register("test-cli/Mine", Mine)
fastrl.register("test-cli/Wrong", Wrong)
"""


@pytest.fixture
def own_module(folder: Path, monkeypatch) -> str:
    """A module in the current folder that registers environments."""
    registry.names()
    for table in ("_factories", "_summaries"):
        monkeypatch.setattr(registry, table, dict(getattr(registry, table)))
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "cli_module", raising=False)
    (folder / "cli_module.py").write_text(MODULE)
    return "cli_module"


def test_import(folder: Path, own_module: str, capsys) -> None:
    """`--import` makes the user's environments known, and only it: a config imports nothing."""
    tiny = ["tiny", "--env", "test-cli/Mine", "--quiet"]
    assert main(["train", *tiny]) == 2
    assert "--import" in capsys.readouterr().err
    assert main(["train", *tiny, "--import", own_module]) == 0
    run = "runs/test-cli-Mine-ppo-0"
    assert main(["evaluate", run, "--episodes", "2", "--import", own_module]) == 0
    assert main(["list", "envs", "--import", own_module]) == 0
    assert "A cart of mine." in capsys.readouterr().out


@pytest.mark.slow
def test_the_commands_to_go_on_with_name_the_import(folder: Path, own_module: str, capsys) -> None:
    """As they are printed they work: at the end of a run, and where a folder is taken."""
    argv = ["train", "tiny", "--env", "test-cli/Mine", "--import", own_module, "--name", "a run"]
    said = program(*argv, "--quiet", cwd=folder).communicate(timeout=120)[0]
    offered = [shlex.split(x) for x in re.findall(r"fastrl (\w+ .*runs.*)", said)]
    assert [words[0] for words in offered] == ["evaluate", "render", "resume"]
    for words in offered:
        assert words[1:4] == [os.path.join("runs", "a run"), "--import", own_module]
    assert main([*offered[0], "--episodes", "2"]) == 0
    assert main([*offered[2][:-1], "192", "--quiet"]) == 0
    capsys.readouterr()
    assert main([*argv[:-2], "--run-dir", "runs/a run"]) == 2
    assert f"`fastrl resume 'runs/a run' --import {own_module}`" in capsys.readouterr().err


@pytest.mark.slow
def test_errors_in_the_users_environment(folder: Path, own_module: str, capsys) -> None:
    """A mistake in the user's code is explained with its line, and check-env is named."""
    argv = ["train", "tiny", "--env", "test-cli/Wrong", "--import", own_module]
    assert main(argv) == 1
    said = capsys.readouterr().err.strip()
    assert "\n" not in said
    assert "cli_module.py, line 15" in said
    assert "fastrl check-env" in said
    assert main(["check-env", "cli_module:Wrong"]) == 1
    assert main(["check-env", "cli_module:Mine"]) == 0


def test_a_config_cannot_run_code(folder: Path, capsys) -> None:
    """A module that a stranger's config names is not imported, whatever the key."""
    (folder / "evil.py").write_text("open('was_here', 'w')")
    for text in (
        'env = "evil:Env"', 'import = "evil"\n' + TINY, 'import_ = "evil"\n' + TINY,
        'algorithm = "evil"\n' + TINY, 'objective = "evil:loss"\n' + TINY, 'task = "evil"\n' + TINY,
        TINY + '[reset]\nkind = "evil:reset"', TINY + '[[transforms]]\nname = "evil:Transform"',
        TINY + '[env_options]\nenv = "evil"', TINY + '[params]\n"__class__" = "evil"',
    ):  # fmt: skip
        Path("stranger.toml").write_text(text)
        assert main(["train", "stranger.toml", "--quiet"]) == 2, text
        assert capsys.readouterr().err.count("\n") == 1
    assert not Path("was_here").exists()
    assert "evil" not in sys.modules


def test_list(folder: Path, capsys) -> None:
    """Every environment, algorithm, transform and config is listed with a line, or in detail."""
    assert main(["list"]) == 0
    said = capsys.readouterr().out
    for name in (*registry.names(), "ppo", "frame_stack", "ppo_cartpole", "tiny"):
        line = next(x for x in said.splitlines() if x.split()[:1] == [name])
        assert len(line.split()) > 1, f"{name} has no description"
    assert "Tiny: for tests." in said
    for what, words in (
        ("envs", ["CartPole-v1", "brax/ant"]),
        ("configs", ["ppo_cartpole"]),
        ("CartPole-v1", ["gravity = 9.8", "Discrete(n=2)"]),
        ("ppo", ["learning_rate = ", "num_envs = ", "discount"]),
        ("frame_stack", ["size"]),
        ("tiny", ["num_envs = 4", "configs/tiny.toml"]),
    ):
        assert main(["list", what]) == 0
        said = capsys.readouterr().out
        for word in words:
            assert word in said


@pytest.mark.parametrize("verb", VERBS)
def test_help(verb: str, folder: Path, capsys) -> None:
    """Every command has a help with its flags."""
    assert main([verb, "--help"]) == 0
    said = capsys.readouterr().out
    assert f"usage: fastrl {verb}" in said
    assert "-h, --help" in said


@pytest.mark.parametrize("algorithm", algorithms.names())
def test_every_algorithm_has_flags(algorithm: str, folder: Path, capsys) -> None:
    """A config with something that no flag can be made of: `ClassVar`s of stream learners."""
    assert main(["train", "--algorithm", algorithm, "--help"]) == 0
    assert "--config.num-" in capsys.readouterr().out


def test_train_help_shows_the_configs_values(folder: Path, capsys) -> None:
    """Defaults in the help are those of the config; descriptions are the comments of the code."""
    assert main(["train", "tiny", "--help"]) == 0
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "--config.num-envs INT (default: 4)" in said
    assert "--hparams.gamma FLOAT discount (default: 0.99)" in said
    assert "objective" not in said


def test_field_docs_without_source() -> None:
    """A class made at run time has no comments; that is no error."""
    assert field_docs(type("Made", (), {})) == {}


def test_main_help_version(capsys) -> None:
    """The program itself answers."""
    assert main(["--help"]) == 0
    said = capsys.readouterr().out
    assert all(verb in said for verb in VERBS)
    assert main([]) == 2
    assert main(["--version"]) == 0
    assert re.search(r"fastrl \d+\.\d+", capsys.readouterr().out)


def program(*argv: str, cwd: Path, **env: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "fastrl.cli", *argv], cwd=cwd, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, **env},
    )  # fmt: skip


def test_exit_codes_of_the_program(folder: Path) -> None:
    """The process returns what `main` does; FASTRL_DEBUG shows a traceback besides the line."""
    wrong = program("train", "tiny", "--seed", "-1", cwd=folder)
    debugged = program("train", "tiny", "--seed", "-1", cwd=folder, FASTRL_DEBUG="1")
    assert wrong.communicate(timeout=120)[1].startswith("fastrl: --seed over tiny: seed = -1")
    assert wrong.returncode == 2
    assert "Traceback" in debugged.communicate(timeout=120)[1]
    assert debugged.returncode == 2


@pytest.mark.slow
@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals(signum: int, code: int, folder: Path) -> None:
    """Ctrl-C and SIGTERM save and say how to go on; the resume then succeeds."""
    running = program(
        "train",
        "tiny",
        "--steps",
        "1e9",
        "--train.log-every",
        "320",
        "--name",
        "stopped",
        cwd=folder,
    )
    assert running.stderr is not None
    for line in running.stderr:
        if re.match(r"\s+\d+\s+[\d,]+ ", line):  # the first row of the log
            break
    running.send_signal(signum)
    _, said = running.communicate(timeout=120)
    assert running.returncode == code, said
    assert "fastrl resume runs/stopped" in said
    assert "Traceback" not in said
    steps = rows(folder / "runs" / "stopped")[-1]["steps"]
    again = program("resume", "runs/stopped", "--steps", str(steps + 32), "--quiet", cwd=folder)
    out, said = again.communicate(timeout=120)
    assert again.returncode == 0, said
    assert "evaluation" in out
