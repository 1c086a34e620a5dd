"""`Policy` and `load`: a trained policy used on observations, and read from run folders."""

import dataclasses
import functools
import json
import shutil
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fastrl.algorithms import ppo
from fastrl.checkpoint import CheckpointError, MismatchError
from fastrl.envs.classic.cartpole import CartPole, Params
from fastrl.files import RunFolderError
from fastrl.policy import Policy, load
from fastrl.run import run
from fastrl.spaces import Box, Discrete
from fastrl.streaming import stream_q
from fastrl.train import train
from fastrl.types import Algorithm

CONFIG = ppo.Config(num_envs=8, num_steps=16, num_epochs=1, num_minibatches=1, hidden_sizes=(8,))
HPARAMS = ppo.HParams(learning_rate=1e-3)
TASK = Params(force=8.0)
STEPS = 6 * 8 * 16  # six iterations


@dataclasses.dataclass(frozen=True)
class Unregistered(CartPole):
    """An environment that belongs to a script."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: Any) -> Path:
    """A finished run of six iterations, with checkpoints after 2, 4 and 6."""
    path = tmp_path_factory.mktemp("runs") / "cartpole"
    train(
        ppo.make(CartPole(), CONFIG), HPARAMS, TASK, steps=STEPS, seed=3, run_dir=path,
        eval_every=256, eval_episodes=4, checkpoint_every=256, keep=9, progress=False,
    )  # fmt: skip
    return path


@pytest.fixture(scope="module")
def policy(folder: Path) -> Policy:
    return load(folder, checkpoint="last")


OBSERVATIONS = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)


@functools.cache
def trained() -> Any:
    """The state that the same training gives without a host."""
    program = jax.jit(run(ppo.make(CartPole(), CONFIG), STEPS))
    return program(jax.random.key(3), HPARAMS, TASK)[0]


@pytest.mark.slow
def test_load_gives_what_was_trained(policy: Policy):
    """State, env, task and hparams, exactly, and the actions of the state that was trained."""
    expected = trained()
    jax.tree.map(np.testing.assert_array_equal, policy.state.params, expected.params)
    assert policy.env == CartPole()
    assert policy.params == TASK
    assert policy.hparams.learning_rate == np.float32(1e-3)
    actions = ppo.make(CartPole(), CONFIG).act(expected, (), jnp.asarray(OBSERVATIONS), None)[0]
    np.testing.assert_array_equal(policy(OBSERVATIONS), actions)


def test_which_checkpoint(folder: Path):
    """A number is that of an iteration; "best" has the highest evaluation return."""
    for iteration in (2, 4, 6):
        assert load(folder, checkpoint=iteration).state.iteration == iteration
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    returns = {r["iteration"]: r["evaluation_return"] for r in rows if "evaluation_return" in r}
    best = load(folder).state.iteration
    assert returns[int(best)] == max(returns.values())


def test_loaded_policy_evaluates_like_the_state(policy: Policy):
    a = policy.evaluate(10, seed=1)
    b = Policy(ppo.make(CartPole(), CONFIG), trained(), params=TASK).evaluate(10, seed=1)
    np.testing.assert_array_equal(a.returns, b.returns)
    c = policy.evaluate(10, seed=1, deterministic=False)
    assert (a.returns != c.returns).any()


def test_loading_runs_no_code(folder: Path, tmp_path: Path):
    """Names in a config are looked up among the registered ones, never imported or run."""
    evil = tmp_path / "evil.py"
    evil.write_text("raise SystemExit('imported')")
    copy = shutil.copytree(folder, tmp_path / "run")
    text = (copy / "config.toml").read_text()
    for name in ("evil:Env", "os:system", "__import__('os')"):
        (copy / "config.toml").write_text(text.replace("CartPole-v1", name))
        with pytest.raises(ValueError, match="env"):
            load(copy)


def test_one_observation_or_many(policy: Policy):
    """The batch is the same as one by one, lists and other precisions are converted."""
    many = np.asarray(policy(OBSERVATIONS))
    assert many.shape == (5,)
    assert [int(policy(x)) for x in OBSERVATIONS] == many.tolist()
    assert policy(OBSERVATIONS[0].tolist()).shape == ()
    np.testing.assert_array_equal(policy(OBSERVATIONS.astype(np.float64)), many)
    np.testing.assert_array_equal(policy(OBSERVATIONS[None, :, None]), many[None, :, None])
    np.testing.assert_array_equal(jax.vmap(policy)(jnp.asarray(OBSERVATIONS)), many)


def test_sampling_needs_a_key(policy: Policy):
    same = np.zeros((200, 4), np.float32)
    drawn = [np.asarray(policy(same, jax.random.key(k))) for k in (0, 0, 1)]
    assert set(drawn[0].tolist()) == {0, 1}
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert (drawn[0] != drawn[2]).any()
    assert len(set(np.asarray(policy(same)).tolist())) == 1
    with pytest.raises(TypeError, match="expected a typed key"):
        policy(same, 3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("observation", "message"),
    [
        (np.zeros(3), r"shape \(3,\), expected \(4,\) or \(batch, 4\)"),
        (np.zeros((4, 3)), r"shape \(4, 3\), expected \(4,\)"),
        (0.0, r"shape \(\), expected \(4,\)"),
        ({"x": np.zeros(4)}, r"of type object|shape"),
        ([[0.0] * 4, [0.0] * 3], "no array of numbers"),
        (["a", "b", "c", "d"], r"of type <U1, expected float32"),
        (None, r"shape \(\)|structured like"),
        (np.zeros(4, complex), r"of type complex128, expected float32"),
    ],
)
def test_wrong_observations(policy: Policy, observation: Any, message: str):
    with pytest.raises(ValueError, match=message):
        policy(observation)


def test_wrong_states():
    """A batch of states, as from vmapped training, or the output of `run`, is refused at once."""
    algorithm = ppo.make(CartPole(), CONFIG)
    state = jax.eval_shape(algorithm.init, jax.random.key(0), ppo.HParams(), TASK)
    several = jax.tree.map(lambda x: jax.ShapeDtypeStruct((3, *x.shape), x.dtype), state)
    for wrong in (several, (state, {}), state.params):
        with pytest.raises(ValueError, match=r"one \(unbatched\) state of this algorithm"):
            Policy(algorithm, wrong)


class Seen(NamedTuple):
    picture: Any
    count: Any


class Pictures(CartPole):
    """Observes a uint8 picture and a number."""

    version: ClassVar[int] = 1

    def observation_space(self, params: Any) -> Any:
        return Seen(Box(0, 255, (2, 2), np.dtype(np.uint8)), Discrete(7))


def recall(state: Any, carry: Any, observation: Any, key: Any) -> Any:
    """Acts 1 if the count is larger than the last one, which it remembers."""
    return (observation.count > carry).astype(jnp.int32), observation.count


RECALL = Algorithm(
    init=lambda key, hparams, task: (), step=lambda state, hparams, task: (state, {}),
    act=recall, steps_per_iteration=1, default_hparams=(), env=Pictures(),
    initial_carry=lambda batch_shape: jnp.zeros(batch_shape, jnp.int32),
)  # fmt: skip


def test_memory():
    """`act` hands the carry on; calling such a policy, or another carry, is an error."""
    policy = Policy(RECALL, ())
    carry, acted = policy.initial_carry((2,)), []
    for count in ([1, 0], [1, 2], [3, 1]):
        seen = Seen(np.zeros((2, 2, 2), np.uint8), count)
        action, carry = policy.act(seen, carry)
        acted.append(action.tolist())
    assert acted == [[1, 0], [0, 1], [1, 0]]
    one = Seen(np.zeros((2, 2), np.int64), 3)
    assert int(policy.act(one, policy.initial_carry())[0]) == 1
    with pytest.raises(ValueError, match=r"has memory: use policy.act\(observation, carry\)"):
        policy(one)
    with pytest.raises(ValueError, match=r"carry has shapes \(2,\), expected \(\)"):
        policy.act(one, carry)


def test_structured_observations():
    policy = Policy(RECALL, ())
    with pytest.raises(ValueError, match=r"structured like Seen\(picture=\(2, 2\), count=\(\)\)"):
        policy.act(np.zeros((2, 2)), policy.initial_carry())
    with pytest.raises(ValueError, match="several batch shapes"):
        policy.act(Seen(np.zeros((3, 2, 2), np.uint8), 1), policy.initial_carry())
    with pytest.raises(ValueError, match="of type float64, expected uint8"):
        policy.act(Seen(np.zeros((2, 2)), 1), policy.initial_carry())


def test_hparams_that_are_whole_numbers(tmp_path: Path):
    """Types that the run had and its config can't say: 25,000 exploration steps as an integer."""
    algorithm = stream_q.make(CartPole(), stream_q.Config(num_steps=10, hidden_sizes=(4,)))
    state = train(algorithm, steps=20, run_dir=tmp_path / "run", progress=False)
    loaded = load(tmp_path / "run").state
    jax.tree.map(np.testing.assert_array_equal, loaded.params, state.params)


def test_not_a_run(tmp_path: Path):
    for path, message in (
        (tmp_path / "nowhere", "nowhere: there is no such run folder"),
        (tmp_path, "is not a run folder .it has no config.toml"),
    ):
        with pytest.raises(RunFolderError, match=message):
            load(path)
    with pytest.raises(ValueError, match=r"run_dir=None: needs the path"):
        load(None)  # type: ignore[arg-type]


def test_no_checkpoint_yet(folder: Path, tmp_path: Path):
    copy = shutil.copytree(folder, tmp_path / "run")
    shutil.rmtree(copy / "checkpoints")
    with pytest.raises(CheckpointError, match="has no checkpoint yet"):
        load(copy)


@pytest.mark.parametrize("which", [3, -1, "latest", None, True, 2.5])
def test_no_such_checkpoint(folder: Path, which: Any):
    with pytest.raises(ValueError, match=r"choose 'best', 'last' or one of .* 2, 4, 6 of"):
        load(folder, checkpoint=which)


def test_damaged_checkpoints(folder: Path, tmp_path: Path):
    """The best of the sound ones stands in, with a warning; one that was named does not."""
    copy = shutil.copytree(folder, tmp_path / "run")
    for iteration in (2, 4):
        (copy / "checkpoints" / f"{iteration:010d}" / "meta.json").write_text("{")
    assert int(load(copy).state.iteration) == 6
    with pytest.raises(CheckpointError, match="0000000004 is damaged"):
        load(copy, checkpoint=4)
    (copy / "checkpoints" / "0000000006" / "meta.json").unlink()
    with pytest.raises(CheckpointError, match=r"no sound checkpoint: .*6.*4.*2"):
        load(copy, checkpoint="last")


def test_broken_config(folder: Path, tmp_path: Path):
    copy = shutil.copytree(folder, tmp_path / "run")
    text = (copy / "config.toml").read_text()
    for broken, message in (
        ("env = [", "config.toml: is not TOML"),
        (text.replace("CartPole-v1", "CartPoel-v1"), "did you mean 'CartPole-v1'"),
        (text.replace("num_envs", "num_env"), "did you mean 'config.num_envs'"),
    ):
        (copy / "config.toml").write_text(broken)
        with pytest.raises(ValueError, match=message):
            load(copy)


def test_another_network_than_the_checkpoint(folder: Path):
    larger = ppo.make(CartPole(), dataclasses.replace(CONFIG, hidden_sizes=(9,)))
    with pytest.raises(MismatchError, match=r"params.*\[8,2\] in the checkpoint.*\[9,2\] here"):
        load(folder, algorithm=larger)


def test_environment_of_a_script(tmp_path: Path):
    """Its config names it; loading says to pass it, and then works."""
    path = tmp_path / "run"
    algorithm = ppo.make(Unregistered(), CONFIG)
    train(algorithm, HPARAMS, steps=256, run_dir=path, progress=False, eval_episodes=1)
    with pytest.raises(ValueError, match=r"Unregistered.*pass env="):
        load(path)
    assert load(path, env=Unregistered()).env == Unregistered()
    assert load(path, algorithm=algorithm).env == Unregistered()


def test_algorithm_of_a_script(tmp_path: Path):
    """One without a recipe is passed whole."""
    path = tmp_path / "run"
    algorithm = ppo.make(CartPole(), CONFIG)._replace(recipe=None)
    train(algorithm, HPARAMS, steps=256, run_dir=path, progress=False, eval_episodes=1)
    with pytest.raises(ValueError, match="pass it as algorithm="):
        load(path)
    assert load(path, algorithm=algorithm).hparams.learning_rate == np.float32(1e-3)


def test_repr_is_short(policy: Policy):
    assert repr(policy) == "Policy(env=CartPole())"
