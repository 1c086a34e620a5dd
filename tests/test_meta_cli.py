"""`fastrl meta-train` and `fastrl meta-test`, and the shipped configs of meta-trainings."""

import tomllib
from pathlib import Path

import jax
import numpy as np
import pytest

from fastrl import cli, meta
from fastrl.cli import meta_config
from fastrl.config import files

TINY = """
# Tiny: for tests.
rule = "lpo"
steps = 1024

[settings]
hidden_size = 4

[config]
pairs = 2
lifetimes = [2]

[hparams]
sigma = 5.0

[tasks]
gravity = [5.0, 15.0]

[fitness]
episodes = 2

[inner]
env = "CartPole-v1"

[inner.params]
max_steps = 200

[inner.config]
num_envs = 8
num_steps = 8
num_minibatches = 2
num_epochs = 4
hidden_sizes = [4]

[inner.hparams]
learning_rate = 0.05
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with tiny.toml, the current one."""
    (tmp_path / "tiny.toml").write_text(TINY)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_from_a_config_to_an_objective_by_name(folder, capsys):
    """Train, stop, go on, test: the whole equals a run in one piece, and is used by its folder."""
    assert cli.main(["meta-train", "tiny.toml", "--run-dir", "whole", "--quiet"]) == 0
    said = capsys.readouterr().out
    assert "whole/objective" in said
    assert Path("whole/pictures/drift.png").is_file()
    assert Path("whole/pictures/fitness.png").is_file()
    half = ["meta-train", "tiny.toml", "--run-dir", "half", "--quiet", "--steps", "512"]
    assert cli.main(half) == 0
    assert cli.main(["meta-train", "half", "--steps", "1024", "--quiet"]) == 0
    whole, again = meta.load("whole"), meta.load("half")
    for a, b in zip(jax.tree.leaves(whole.eta), jax.tree.leaves(again.eta), strict=True):
        np.testing.assert_array_equal(a, b)
    assert np.abs(whole.eta.output).max() > 0.0
    capsys.readouterr()
    test = ["meta-test", "whole", "--steps", "128", "--seeds", "2", "--episodes", "2"]
    assert cli.main([*test, "--against", "start", "--hparams.learning-rate", "1e-3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["learned", "start", "learned"]
    assert lines[2].startswith("learned - start")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("rule =", "ruel ="), "did you mean 'rule'"),
        (('"lpo"', '"lpq"'), "'lpo'"),
        (("hidden_size", "hiden_size"), "hidden_size"),
        (("pairs = 2", "pairs = 0"), "pairs=0"),
        (("pairs = 2", "pears = 2"), "config.pairs"),
        (("gravity", "gravty"), "gravity"),
        (("[5.0, 15.0]", "[15.0, 5.0]"), "tasks.gravity"),
        (("[5.0, 15.0]", "5.0"), "tasks.gravity"),
        (("num_envs = 8", "num_evs = 8"), "num_envs"),
        (("max_steps = 200", "max_stps = 20"), "max_steps"),
        (('env = "CartPole-v1"', 'env = "CartPole-v1"\nsteps = 3'), "inner.steps"),
        (("steps = 1024", 'steps = 1024\nlearner = "evolution"'), "meta_evolution"),
        (("steps = 1024", "steps = 0"), "steps = 0"),
        (("[settings]", "[settings"), "not TOML"),
    ],
)
def test_what_is_wrong_in_a_config_is_named(change, words, folder, capsys):
    """One line with the value and the way out, and the exit code of a wrong command line."""
    Path("bad.toml").write_text(TINY.replace(change[0], change[1], 1))
    assert cli.main(["meta-train", "bad.toml", "--quiet"]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("meta-train", "Name a config"),
        ("meta-train nothing", "there is no such config"),
        ("meta-train ppo.toml", "a config of `fastrl train`"),
        ("meta-train tiny.toml --hparams.sigm 1", "--hparams.sigma"),
        ("meta-test", "Name the folder"),
        ("meta-test tiny.toml --seeds 0", "--seeds 0"),
        ("meta-test tiny.toml", "holds no learned objective"),
    ],
)
def test_what_is_wrong_in_a_command_is_named(command, words, folder, capsys):
    """Mistakes end before anything is trained."""
    Path("ppo.toml").write_text('env = "CartPole-v1"\n')
    assert cli.main(command.split()) in (1, 2)
    assert words in capsys.readouterr().err


def test_a_config_says_the_same_again():
    """What a run folder keeps builds the same meta-training, also under other defaults."""
    first = meta_config.from_toml(tomllib.loads(TINY), "")
    again = meta_config.from_toml(tomllib.loads(meta_config.dumps(first)), "")
    assert again == first
    assert "sigma" in meta_config.dumps(first)


@pytest.mark.parametrize("path", sorted((files.SHIPPED / "meta").glob("*.toml")), ids=str)
def test_shipped_configs_build(path):
    """Every shipped config is valid and says in its first line what it reaches."""
    meta_config.build(meta_config.from_toml(tomllib.loads(path.read_text()), str(path)))
    assert path.read_text().startswith("# ")


def test_tasks_are_drawn_from_their_ranges():
    """A sampler that ignores its key, or leaves the range."""
    built = meta_config.from_toml(tomllib.loads(TINY), "")
    params = meta_config.config.build(built.inner).task
    sampler = meta_config._sampler(params, built.tasks)
    draw = jax.vmap(lambda key: sampler(key, params).gravity)
    drawn = np.asarray(draw(jax.random.split(jax.random.key(0), 500)))
    assert drawn.min() >= 5.0
    assert drawn.max() <= 15.0
    assert drawn.std() > 2.0
