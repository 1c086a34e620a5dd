"""`fastrl meta-train` and `fastrl meta-test`, and the shipped configs of meta-trainings."""

import tomllib
from pathlib import Path

import jax
import numpy as np
import pytest

import fastrl
from fastrl import cli, meta
from fastrl.cli import meta_config
from fastrl.config import files
from fastrl.hparams import as_arrays
from fastrl.meta import disco, intrinsic

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


REWARD = """
# Tiny: for tests.
rule = "reward"
learner = "intrinsic_meta"
steps = 64

[settings]
hidden_size = 3

[config]
num_lives = 2
window = 2
lifetime = 4

[inner]
env = "grid/Debug-v0"
algorithm = "intrinsic"

[inner.config]
num_envs = 2
num_steps = 4

[inner.hparams.agent]
learning_rate = 10.0
"""


@pytest.mark.slow
def test_a_reward_is_learned_saved_and_used(folder, capsys):
    """A reward that is saved with the outer learner's value function, without what it takes from
    the environment, or that `meta-test` does not give its agents."""
    Path("reward.toml").write_text(REWARD)
    assert cli.main(["meta-train", "reward.toml", "--run-dir", "run", "--quiet"]) == 0
    assert "run/objective" in capsys.readouterr().out
    loaded = meta.load("run")
    assert loaded.rule == intrinsic.Reward(3, input_size=loaded.rule.input_size)
    algorithm = intrinsic.make(
        fastrl.make("grid/Debug-v0"), intrinsic.Config(2, 4), objective=loaded
    )
    assert algorithm.recipe is not None
    assert algorithm.recipe.objective is loaded
    test = ["meta-test", "run", "--steps", "16", "--seeds", "2", "--episodes", "2"]
    assert cli.main([*test, "--against", "none", "--hparams.agent.learning-rate", "1"]) == 0
    assert capsys.readouterr().out.startswith("learned ")
    assert cli.main([*test, "--env", "tabular/Lock-v0"]) == 2
    assert "this reward sees so many numbers of a step" in capsys.readouterr().err
    assert cli.main(["meta-test", "tiny.toml"]) != 0
    assert "holds no learned objective" in capsys.readouterr().err


@pytest.mark.slow
def test_disco_is_meta_trained_by_gradients_from_a_config(folder, monkeypatch, capsys):
    """A view into the agent that a config can't name, numbers that are lost on the way into the
    run folder, or a rule that is not saved.  Nothing is compiled: a meta-gradient of it takes a
    minute and more (`full` in test_disco.py)."""
    flags = ["--run-dir", "run", "--quiet", "--seed", "3", "--hparams.policy-entropy", "0.25"]
    seen = []

    def trained(algorithm, hparams, task, **options):
        hparams, task = as_arrays(hparams), as_arrays(task)
        start = jax.eval_shape(algorithm.init, jax.random.key(0), hparams, task)
        state, metrics = jax.eval_shape(algorithm.step, start, hparams, task)
        assert jax.tree.map(lambda x: (x.shape, x.dtype), state) == jax.tree.map(
            lambda x: (x.shape, x.dtype), start
        )
        assert {"grad_norm", "prediction_entropy", "inner_z_loss", "diverged"} <= set(metrics)
        seen.append((hparams, options))
        return state._replace(eta=jax.tree.map(lambda x: np.ones(x.shape, x.dtype), state.eta))

    monkeypatch.setattr("fastrl.cli.meta.run_training", trained)
    monkeypatch.setattr("fastrl.cli.meta.picture", lambda *_: "none")
    assert cli.main(["meta-train", "disco_debug", *flags]) == 0
    hparams, options = seen[0]
    assert float(hparams.policy_entropy) == 0.25
    kept = meta_config.from_toml(tomllib.loads(options["config_text"]), "")
    assert kept.inner.hparams.weights == disco.Weights(value=1.0)
    assert (kept.seed, kept.hparams.policy_entropy) == (3, 0.25)
    loaded = meta.load("run")
    assert isinstance(loaded.rule, disco.Disco)
    assert all((x == 1).all() for x in jax.tree.leaves(loaded.eta))
    built = meta_config.config.build(kept.inner, objective=loaded)  # as meta-test does
    assert built.algorithm.recipe is not None
    assert built.algorithm.recipe.objective is loaded


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("[settings]", "[hparams]\ninner = 3\n[settings]"), "hparams.inner"),
        (("learning_rate = 10.0", "learning_rat = 10.0"), "'hparams.agent.learning_rate'"),
        (("[inner.hparams.agent]\nlearning_rate = 10.0", "[inner.hparams]\nagent = 3"),
         "expected a table"),
        (("hidden_size = 3", "input_size = 7"), "input_size=7"),
        (("lifetime = 4", "lifetime = 5"), "lifetime=5"),
        (('learner = "intrinsic_meta"', 'learner = "meta_gradient"'), "inner is intrinsic"),
        (('"reward"', '"lpo"'), "is no reward"),
        (('"intrinsic"', '"lpg_agent"'), "unknown key 'hparams.agent'"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_config_of_a_reward_is_named(change, words, folder, capsys):
    """A rule, an agent and a learner that do not belong together; nested hyper-parameters."""
    assert change[0] in REWARD
    Path("bad.toml").write_text(REWARD.replace(change[0], change[1], 1))
    assert cli.main(["meta-train", "bad.toml", "--quiet"]) in (1, 2)
    assert words in capsys.readouterr().err


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
    keys = jax.random.split(jax.random.key(0), 500)
    drawn = np.asarray(draw(keys))
    whole = meta_config._sampler(params._replace(max_steps=7), {"max_steps": (2.0, 4.0)})
    counts = np.asarray(jax.vmap(lambda key: whole(key, params).max_steps)(keys))
    assert sorted(set(counts.tolist())) == [2, 3, 4]
    with pytest.raises(ValueError, match=r"max_steps = 2\.5"):
        meta_config._sampler(params, {"max_steps": (2.5, 4.0)})
    assert drawn.min() >= 5.0
    assert drawn.max() <= 15.0
    assert drawn.std() > 2.0
