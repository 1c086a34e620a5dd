"""Configs: every mistake is named, what is written is read back, a description repeats a run."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fastrl
from fastrl import config, objectives, ppo, registry
from fastrl import reset as resets
from fastrl.config import files, values
from fastrl.envs.adapters import Brax
from fastrl.envs.classic import CartPole
from fastrl.transforms import FrameStack, TimeLimit

CARTPOLE = 'env = "CartPole-v1"\n'
TRANSFORMED = [n for n in registry.names() if n.startswith("continual/")]
LIMITED = 'env = "CartPole-v1"\ntransforms = [{name = "time_limit", max_steps = 20}]\n'

# What is wrong, and what the error must say: the value, and the way out where there is one.
MALFORMED = {
    'env = "CartPole"': ["CartPole", "'CartPole-v1'"],
    'env = "cartpole-V1"': ["cartpole-V1", "'CartPole-v1'"],
    'env = "brax/hoper"': ["brax/hoper", "'brax/hopper'"],
    'env = "MountainCar"': ["MountainCar", "'MountainCar-v0'"],
    "env = 3": ["env = 3", "text"],
    'env = ["CartPole-v1"]': ["['CartPole-v1']", "text"],
    'env = "os:system"': ["os:system", "runs no code"],
    "steps = 5": ["env is missing"],
    'environment = "CartPole-v1"': ["'environment'", "known: ", "env"],
    CARTPOLE + 'algorithm = "pppo"': ["pppo", "'ppo'"],
    CARTPOLE + "algorithm = 1": ["algorithm = 1", "text"],
    CARTPOLE + 'algoritm = "ppo"': ["algoritm", "'algorithm'"],
    CARTPOLE + "steps = 0": ["steps = 0", "from 1"],
    CARTPOLE + "steps = -5": ["steps = -5", "from 1"],
    CARTPOLE + "steps = 1.5": ["steps = 1.5", "integer"],
    CARTPOLE + 'steps = "5e5"': ["'5e5'", "without quotes"],
    CARTPOLE + "steps = inf": ["steps = inf", "integer"],
    CARTPOLE + "steps = true": ["steps = true", "integer"],
    CARTPOLE + "steps = 1979-05-27": ["steps = ", "1979", "integer"],
    CARTPOLE + "steps = 99999999999999999999": ["99999999999999999999"],
    CARTPOLE + "seed = -1": ["seed = -1", "from 0"],
    CARTPOLE + "seed = 4294967296": ["seed = 4294967296", "4294967295"],
    CARTPOLE + 'seed = "zero"': ["'zero'", "integer"],
    CARTPOLE + "devices = 0": ["devices = 0", "from 1"],
    CARTPOLE + "learning_rate = 1e-3": ["learning_rate", "'hparams.learning_rate'"],
    CARTPOLE + "num_envs = 8": ["num_envs", "'config.num_envs'"],
    CARTPOLE + "hparams = 3": ["hparams = 3", "[hparams]"],
    CARTPOLE + "[[hparams]]\ngamma = 1": ["expected a table", "[hparams]"],
    CARTPOLE + "[hparam]\ngamma = 1": ["'hparam'", "'hparams'"],
    CARTPOLE + "[hparams]\nlearnin_rate = 1": ["learnin_rate", "'hparams.learning_rate'"],
    CARTPOLE + "[hparams]\nnum_envs = 1": ["hparams.num_envs", "'config.num_envs'"],
    CARTPOLE + "[hparams]\nlearning_rate = 'fast'": ["learning_rate = 'fast'", "a number"],
    CARTPOLE + "[hparams]\nlearning_rate = true": ["learning_rate = true", "a number"],
    CARTPOLE + "[hparams]\nlearning_rate = '1e-3'": ["'1e-3'", "without quotes"],
    CARTPOLE + "[hparams]\nlearning_rate = nan": ["learning_rate = nan"],
    CARTPOLE + "[hparams]\nlearning_rate = [1e-3, 1e-2]": ["[0.001, 0.01]", "fastrl sweep"],
    CARTPOLE + "[hparams]\nlearning_rate = 1e300": ["1e+300", "learning_rate"],
    CARTPOLE + "[hparams]\nlearning_rate.x = 1": ["{'x': 1}", "a number"],
    CARTPOLE + "[hparams]\nobjective = 1": ["hparams.objective"],
    CARTPOLE + "[config]\nnum_env = 8": ["config.num_env", "'config.num_envs'"],
    CARTPOLE + "[config]\ngamma = 0.9": ["config.gamma", "'hparams.gamma'"],
    CARTPOLE + "[config]\nnum_envs = 0": ["num_envs=0", "at least 1"],
    CARTPOLE + "[config]\nnum_envs = -4": ["num_envs=-4", "at least 1"],
    CARTPOLE + "[config]\nnum_envs = 2.5": ["num_envs = 2.5", "integer"],
    CARTPOLE + "[config]\nnum_envs = true": ["num_envs = true", "integer"],
    CARTPOLE + "[config]\nnum_envs = [8, 16]": ["[8, 16]", "fastrl sweep"],
    CARTPOLE + "[config]\nnum_minibatches = 7": ["num_minibatches=7", "divisible"],
    CARTPOLE + "[config]\nactivation = 'tanhh'": ["'tanhh'", "'tanh'", "'relu'"],
    CARTPOLE + "[config]\nactivation = 3": ["activation = 3", "'tanh'"],
    CARTPOLE + "[config]\nhidden_sizes = 64": ["hidden_sizes = 64", "a list"],
    CARTPOLE + "[config]\nhidden_sizes = [64, 'b']": ["[64, 'b']", "a list"],
    CARTPOLE + "[config]\nhidden_sizes = [0]": ["hidden_sizes=(0,)", "positive"],
    CARTPOLE + "[config]\nstop_on_kl = 1": ["stop_on_kl = 1", "true or false"],
    CARTPOLE + "[config]\ntorso = 'conv'": ["conv"],
    CARTPOLE + "[params]\ngravty = 1": ["params.gravty", "'params.gravity'"],
    CARTPOLE + "[params]\ngravity = 'low'": ["gravity = 'low'", "a number"],
    CARTPOLE + "[params]\nmax_steps = 1.5": ["max_steps = 1.5", "integer"],
    CARTPOLE + "[params.gravity]\nx = 1": ["{'x': 1}", "a number"],
    LIMITED + "[params]\nhalf_length = 1": ["params.half_length", "'params.env.half_length'"],
    LIMITED + "[params]\nhalf_lenth = 1": ["params.half_lenth", "'params.env.half_length'"],
    LIMITED + "[params.env]\nmax_step = 1": ["max_step", "'params.env.max_steps'"],
    LIMITED + "[params.env.env]\nmax_steps = 1": ["'params.env.env'", "'params.env'"],
    CARTPOLE + "params = 1": ["params = 1", "[params]"],
    CARTPOLE + "[env_options]\nsize = 1": ["'size'", "none"],
    'env = "brax/ant"\n[env_options]\nbackend = "spin"': ["'spin'", "'spring'"],
    'env = "brax/ant"\n[env_options]\nbackend = 1': ["backend = 1", "text"],
    'env = "brax/ant"\n[env_options]\nbakend = "mjx"': ["'bakend'", "'backend'"],
    CARTPOLE + "[reset]\nkind = 'pol'": ["'pol'", "'pool'"],
    CARTPOLE + "[reset]\nsize = 8": ["reset.kind is missing", "'pool'"],
    CARTPOLE + "[reset]\nkind = 'pool'\nsize = 0": ["size=0", "at least one"],
    CARTPOLE + "[reset]\nkind = 'pool'\nsiz = 8": ["reset.siz", "'reset.size'"],
    CARTPOLE + "[reset]\nkind = 'fresh'\nsize = 8": ["reset.size"],
    CARTPOLE + "transforms = 'frame_stack'": ["'frame_stack'", "[[transforms]]"],
    CARTPOLE + "transforms = ['frame_stack']": ["'frame_stack'", "a table"],
    CARTPOLE + "[[transforms]]\nsize = 4": ["transforms[0].name is missing"],
    CARTPOLE + "[[transforms]]\nname = 'frame_stak'": ["'frame_stak'", "'frame_stack'"],
    CARTPOLE + "[[transforms]]\nname = 'frame_stack'\nsze = 4": ["sze", "'transforms[0].size'"],
    CARTPOLE + "[[transforms]]\nname = 'frame_stack'\nsize = 0": ["transforms[0]", "size=0"],
    CARTPOLE + "[[transforms]]\nname = 'time_limit'": ["transforms[0].max_steps is missing"],
    CARTPOLE + "[[transforms]]\nname = 'one_hot_observation'": ["transforms[0]", "discrete"],
    CARTPOLE + "[train]\neval_evry = 3": ["train.eval_evry", "'train.eval_every'"],
    CARTPOLE + "[train]\nkeep = 'all'": ["keep = 'all'", "integer"],
    CARTPOLE + "objective = 'my_module:mine'": ["my_module:mine", "objective="],
    CARTPOLE + "task = 'my_module:Levels'": ["my_module:Levels", "task="],
    CARTPOLE + "algorithm = 'custom'": ["custom", "algorithm="],
    CARTPOLE + "steps = ": ["TOML", "line 2"],
    CARTPOLE + "seed = 1\nseed = 2": ["TOML", "line 3"],
    CARTPOLE + "x = " + "[" * 20_000: ["nested too deeply"],
}


@pytest.mark.parametrize("text", MALFORMED)
def test_malformed(text: str) -> None:
    """A wrong config gives one line that names file, value and way out, never another error."""
    with pytest.raises(ValueError, match=r"^runs/x\.toml: ") as caught:
        config.build(config.loads(text, "runs/x.toml"))
    message = str(caught.value)
    assert "\n" not in message
    for part in MALFORMED[text]:
        assert part in message, message


def test_precise_values() -> None:
    """Numbers are taken as meant: 5e5 is a number of steps, 1 a learning rate, 0.1 exact."""
    run = config.loads(
        CARTPOLE + "steps = 5e5\n[hparams]\nlearning_rate = 1\ngamma = 0.1\nvalue_clip = inf\n"
        "[config]\nhidden_sizes = []\n[train]\neval_every = 'none'"
    )
    assert run.steps == 500_000
    assert type(run.steps) is int
    assert run.hparams == ppo.HParams(learning_rate=1.0, gamma=0.1)
    assert type(run.hparams.learning_rate) is float
    assert run.config.hidden_sizes == ()
    assert run.train.eval_every is None


FULL = """
env = "brax/ant"
algorithm = "ppo"
steps = 1000
seed = 7
devices = 2
[env_options]
backend = "positional"
[params]
max_steps = 500
[[transforms]]
name = "frame_stack"
size = 3
[[transforms]]
name = "time_limit"
max_steps = 77
[reset]
kind = "pool"
size = 64
[config]
num_envs = 16
hidden_sizes = [32, 16]
shared_torso = true
[hparams]
learning_rate = 0.30000000000000004
clip = inf
[train]
eval_every = 0
keep = 2
"""


NESTED = """
env = "grid/Debug-v0"
algorithm = "disco_agent"
[hparams]
gamma = 0.9
[hparams.weights]
z = 3.0
"""


def test_numbers_within_numbers() -> None:
    """A record in `hparams` that no table of a config means, or whose other fields are lost."""
    run = config.loads(NESTED)
    assert run.hparams.weights._asdict() == {
        "policy": 1.0, "y": 1.0, "z": 3.0, "next_policy": 1.0, "value": 0.2,
    }  # fmt: skip
    with pytest.raises(ValueError, match=r"did you mean 'hparams\.weights\.z'"):
        config.loads(NESTED.replace("z = 3.0", "zz = 3.0"))
    with pytest.raises(ValueError, match=r"expected a table, \[hparams\.weights\]"):
        config.loads(NESTED.replace("[hparams.weights]\nz = 3.0", "weights = 1.0"))


@pytest.mark.parametrize("text", [CARTPOLE, FULL, NESTED])
@pytest.mark.parametrize("full", [False, True])
def test_dumps_then_loads(text: str, full: bool) -> None:
    """What is written is read back as the same config, to the last digit."""
    run = config.loads(text)
    assert config.loads(config.dumps(run, full)) == run


def test_dumps_holds_what_differs() -> None:
    """A short config holds nothing that is a default, a full one holds every field."""
    run = config.loads(CARTPOLE + "[hparams]\ngamma = 0.9")
    short, full = config.dumps(run), config.dumps(run, full=True)
    assert "gamma = 0.9" in short
    assert "clip" not in short
    assert "[config]" not in short
    for field in (*ppo.Config.__dataclass_fields__, *ppo.HParams._fields[:-1]):
        assert f"{field} = " in full


@pytest.mark.parametrize("seed", range(5))
def test_random_configs_round_trip(seed: int) -> None:
    """No float32 or float64 loses a digit on the way through a file."""
    rng = np.random.default_rng(seed)
    names = [n for n in ppo.HParams._fields if n != "objective"]
    exact = ppo.HParams(**{n: float(rng.lognormal(0, 5)) for n in names})
    run = config.RunConfig("CartPole-v1", hparams=exact)
    assert config.loads(config.dumps(run)).hparams == exact
    narrow = exact._replace(**{n: jnp.float32(getattr(exact, n)) for n in names})
    again = config.loads(config.dumps(dataclasses.replace(run, hparams=narrow))).hparams
    for name in names:
        assert np.float32(getattr(again, name)) == getattr(narrow, name), name


def repeated(text: str, **given: object) -> config.Built:
    return config.build(config.loads(text), **given)  # type: ignore[arg-type]


def assert_same(a: config.Built, b: config.Built) -> None:
    """The same environment, config, reset and numbers, by value."""
    assert a.algorithm.recipe is not None
    assert b.algorithm.recipe is not None
    assert a.algorithm.recipe._replace(reset=None) == b.algorithm.recipe._replace(reset=None)
    for x, y in ((a.hparams, b.hparams), (a.task, b.task)):
        assert jax.tree.structure(x) == jax.tree.structure(y)
        for p, q in zip(jax.tree.leaves(x), jax.tree.leaves(y), strict=True):
            np.testing.assert_array_equal(np.float32(p), np.float32(q))


def test_describe_repeats_a_script() -> None:
    """The text of a script's run builds the same run: env, transforms, numbers, reset."""
    env = TimeLimit(FrameStack(CartPole(), size=2), 50)
    algorithm = ppo.make(
        env, ppo.Config(num_envs=4, num_steps=8), reset=functools.partial(resets.pool, size=9)
    )
    params = env.default_params()
    task = params._replace(max_steps=40, env=params.env._replace(gravity=jnp.float32(5.1)))
    hparams = ppo.HParams(learning_rate=jnp.float32(1e-3), gamma=0.9)
    text = config.describe(algorithm, hparams, task, steps=1e4, seed=3, devices=2, keep=4)
    assert_same(repeated(text), config.Built(algorithm, hparams, task))
    run = config.loads(text)
    assert (run.env, run.steps, run.seed, run.devices) == ("CartPole-v1", 10_000, 3, 2)
    assert run.train == config.TrainOptions(keep=4)
    assert run.reset == {"kind": "pool", "size": 9}
    assert [t["name"] for t in run.transforms] == ["frame_stack", "time_limit"]
    assert "learning_rate = 0.001" in text
    assert "gravity = 5.1" in text


def test_describe_brax() -> None:
    """An environment registered with a bound name is found again with its options."""
    options = {"terminate_when_unhealthy": False}
    env = Brax("hopper", backend="positional", options=options)
    assert registry.find(env) == ("brax/hopper", {"backend": "positional", "options": env.options})
    algorithm = ppo.make(env, ppo.Config(num_envs=4, num_steps=8))
    task = env.default_params()
    text = config.describe(algorithm, ppo.HParams(), task, steps=1)
    assert_same(repeated(text), config.Built(algorithm, ppo.HParams(), task))


@dataclasses.dataclass(frozen=True)
class Mine(CartPole):
    """Not registered."""

    size: int = 3


def my_objective(eta: object, inputs: object, hparams: object) -> object:
    return objectives.clip(eta, inputs, hparams)  # type: ignore[arg-type]


def test_describe_what_only_code_has() -> None:
    """An unregistered environment or objective is named, and can be given when building."""
    algorithm = ppo.make(Mine(), objective=my_objective)  # type: ignore[arg-type]
    task = Mine().default_params()
    text = config.describe(algorithm, ppo.HParams(), task, steps=1)
    with pytest.raises(ValueError, match=r"test_config:Mine.*pass env="):
        repeated(text)
    with pytest.raises(ValueError, match=r"test_config:my_objective.*pass objective="):
        repeated(text, env=Mine())
    built = repeated(text, env=Mine(), objective=my_objective)
    assert_same(built, config.Built(algorithm, ppo.HParams(), task))


def test_describe_tasks_that_are_no_params() -> None:
    """A data set is named and not written out; building asks for it."""
    algorithm = ppo.make(CartPole())
    levels = jax.tree.map(lambda x: jnp.full(1000, x), CartPole().default_params())
    text = config.describe(algorithm, ppo.HParams(), levels, steps=1)
    with pytest.raises(ValueError, match="pass task="):
        repeated(text)
    assert repeated(text, task=CartPole().default_params()).task == CartPole().default_params()


def test_describe_without_recipe() -> None:
    """An algorithm of a script's own is described all the same; building asks for it."""
    algorithm = ppo.make(CartPole())._replace(recipe=None)
    text = config.describe(algorithm, ppo.HParams(), CartPole().default_params(), steps=9, seed=2)
    run = config.loads(text)
    assert (run.steps, run.seed) == (9, 2)
    with pytest.raises(ValueError, match="algorithm="):
        config.build(run)


@pytest.fixture
def own_registry(monkeypatch) -> None:
    """What the test registers is forgotten after it."""
    registry.names()
    for table in ("_factories", "_summaries"):
        monkeypatch.setattr(registry, table, dict(getattr(registry, table)))


@pytest.mark.usefixtures("own_registry")
def test_find_takes_the_shortest_description() -> None:
    """Of several names for a class the one that needs the fewest options is written."""
    registry.register("test/Mine", Mine)
    registry.register("test/Mine-9", functools.partial(Mine, size=9))
    assert registry.find(Mine()) == ("test/Mine", {})
    assert registry.find(Mine(size=9)) == ("test/Mine-9", {})
    assert registry.find(Mine(size=4)) in [("test/Mine", {"size": 4}), ("test/Mine-9", {"size": 4})]
    assert registry.find(object()) is None


@pytest.mark.usefixtures("own_registry")
def test_register_guards() -> None:
    """A name is not silently taken over, and bad registrations say so."""
    with pytest.raises(ValueError, match="CartPole-v1"):
        fastrl.register("CartPole-v1", Mine)
    with pytest.raises(ValueError, match="empty"):
        fastrl.register(" ", Mine)
    with pytest.raises(ValueError, match="class or a function"):
        fastrl.register("test/none", 3)  # type: ignore[arg-type]
    registry.register("test/Sized", Mine)
    with pytest.raises(ValueError, match=r"'sze'.*'size'"):
        registry.make("test/Sized", sze=1)


def test_files(tmp_path, monkeypatch) -> None:
    """Missing files, folders, bytes that are no text: a line each, with the nearest name."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "mine.toml").write_text("# Mine: a test\n" + CARTPOLE)
    (tmp_path / "latin.toml").write_bytes(b'env = "\xff"')
    (tmp_path / "bom.toml").write_bytes(b"\xef\xbb\xbf" + CARTPOLE.encode())
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.toml").write_text(CARTPOLE)
    assert config.load("bom.toml") == config.load("mine") == config.load("configs/mine.toml")
    assert config.load("ppo_cartpole").env == "CartPole-v1"  # shipped, from any folder
    assert config.load("configs/ppo_cartpole.toml").env == "CartPole-v1"
    for name, error, words in (
        ("mine.tom", FileNotFoundError, "'mine'"),
        ("ppo_cartpol", FileNotFoundError, "'ppo_cartpole'"),
        ("other/mine.toml", FileNotFoundError, "other/mine.toml"),
        ("x" * 5000, FileNotFoundError, "xxx"),
        ("latin.toml", ValueError, "UTF-8"),
        ("configs", ValueError, "folder"),
        ("run", ValueError, r"run/config\.toml"),
        ("/dev/null", ValueError, "regular file"),
        ("", ValueError, "empty"),
    ):
        with pytest.raises(error, match=words):
            config.load(name)


@pytest.mark.parametrize("name", sorted(files.available()))
def test_shipped_configs_build(name: str) -> None:
    """Every shipped config is valid and says in its first line what it reaches."""
    run = config.load(name)
    built = config.build(run)
    assert built.algorithm.steps_per_iteration > 0
    assert files.summary(files.available()[name])


@pytest.mark.parametrize(
    ("words", "hint", "expected"),
    [
        (["5e5"], int, 500_000),
        (["500_000"], int, 500_000),
        (["-1e-3"], float, -1e-3),
        (["inf"], float, float("inf")),
        (["True"], bool, True),
        (["64", "32"], tuple[int, ...], (64, 32)),
        (["[64, 32]"], tuple[int, ...], (64, 32)),
        ([], tuple[int, ...], ()),
        (["none"], int | None, None),
        (["7"], int | None, 7),
        (["7"], str, "7"),
        (["true"], str, "true"),
        (["2"], float | jax.Array, 2.0),
    ],
)
def test_words(words: list[str], hint: object, expected: object) -> None:
    """Words of the command line become what the type asks for."""
    got = values.read(words, hint, "--x")
    assert got == expected
    assert type(got) is type(expected)


@pytest.mark.parametrize("name", TRANSFORMED)
def test_names_of_transforms_are_kept(name):
    """The transform taken for one that a script put on: a run that can't be gone on with."""
    algorithm = ppo.make(fastrl.make(name), ppo.Config(num_envs=4, num_minibatches=1))
    text = config.describe(algorithm, ppo.HParams(), algorithm.env.default_params(), steps=100)
    described = config.loads(text)
    assert described.env == name
    assert not described.transforms
    assert config.build(described).algorithm.env == algorithm.env
