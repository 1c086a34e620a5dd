"""PPO under the driver: the numbers of `run`, through files and new processes too."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from fastrl.algorithms import ppo
from fastrl.envs.classic.cartpole import CartPole
from fastrl.loop import NonFiniteError
from fastrl.run import run
from fastrl.tracking import read_rows
from fastrl.train import train

CONFIG = ppo.Config(num_envs=16, num_steps=32, normalize_observation=True, normalize_reward=True)
ALGORITHM = ppo.make(CartPole(), CONFIG)
ITERATION = 16 * 32


def equal(a: Any, b: Any) -> bool:
    return all(jax.tree.leaves(jax.tree.map(lambda x, y: bool((x == y).all()), a, b)))


def test_numbers_are_those_of_run_on_cartpole(tmp_path):
    """With evaluations and checkpoints between; one more operation in the loop could round."""
    state = train(
        ALGORITHM, ppo.HParams(1e-3), steps=20 * ITERATION, seed=3, run_dir=tmp_path,
        progress=False, eval_episodes=4, checkpoint_every=7 * ITERATION,
    )  # fmt: skip
    expected, _ = jax.jit(run(ALGORITHM, 20 * ITERATION))(
        jax.random.key(3), ppo.HParams(1e-3), CartPole().default_params()
    )
    assert equal(state, expected)


def test_rows_tell_that_cartpole_is_learned(tmp_path):
    train(
        ALGORITHM, ppo.HParams(2.5e-3), steps=60 * ITERATION, run_dir=tmp_path, progress=False,
        eval_episodes=16,
    )  # fmt: skip
    rows = read_rows(tmp_path / "metrics.jsonl")
    evaluations = [r["evaluation_return"] for r in rows if "evaluation_return" in r]
    assert len(evaluations) == 10
    assert max(evaluations) > 4 * rows[0]["episode_return"]
    best = max(int(p.name) for p in (tmp_path / "checkpoints").iterdir())
    assert best == 60


def test_exploding_ppo_names_metric_and_weights(tmp_path):
    """What a user meets: too large a learning rate, found in the iteration where it happens."""
    with pytest.raises(NonFiniteError, match=r"iteration \d+: metric .*not finite.*saved in"):
        train(
            ALGORITHM, ppo.HParams(1e30, max_grad_norm=1e30, entropy_coefficient=1e20),
            steps=50 * ITERATION, run_dir=tmp_path, progress=False,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("anneal_steps", "says"),
    [
        (2 * ITERATION, ""),
        (2.01 * ITERATION, ""),
        (np.inf, ""),
        (8 * ITERATION, "anneal_steps is 4,096, but this run takes 1,024 steps: it ends before"),
        (ITERATION, "anneal_steps is 512, but this run takes 1,024 steps: from there on"),
    ],
)
def test_another_number_of_annealing_steps_is_said(anneal_steps, says, capsys):
    """`--steps` on an annealed config would otherwise end at an unexpected rate, silently."""
    train(ALGORITHM, ppo.HParams(anneal_steps=anneal_steps), steps=2 * ITERATION)
    said = capsys.readouterr().err
    assert ("anneal_steps" in said) == bool(says)
    assert says in said


PROCESS = """
import sys
from fastrl.train import train
from fastrl.algorithms import ppo
{make}
train(
    ppo.make(env, config), steps=int(sys.argv[2]), seed=1, run_dir=sys.argv[1], resume=True,
    progress=False, eval_every=0, checkpoint_every=0,
)
"""
CARTPOLE = """
from fastrl.envs.classic.cartpole import CartPole
env, config = CartPole(), ppo.Config(num_envs=16, num_steps=32, normalize_observation=True)
"""
BRAX = """
from fastrl.envs.adapters.brax import Brax
env, config = Brax("inverted_pendulum", backend="spring"), ppo.Config(num_envs=8, num_steps=16)
"""


def weights(folder: Path, iteration: int) -> dict[str, np.ndarray]:
    """The arrays of a checkpoint, read without the algorithm."""
    import orbax.checkpoint as ocp

    return ocp.PyTreeCheckpointer().restore(folder / f"checkpoints/{iteration:010d}/arrays")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "steps"), [(CARTPOLE, 512), (BRAX, 128)], ids=["cartpole", "brax"]
)
def test_half_and_half_in_two_processes_is_the_whole(tmp_path, make, steps):
    """n iterations, a file, n more in a new process: 2n iterations, bit for bit."""

    def process(folder: str, iterations: int) -> None:
        script = [sys.executable, "-c", PROCESS.format(make=make)]
        subprocess.run([*script, str(tmp_path / folder), str(iterations * steps)], check=True)

    process("whole", 12)
    process("halves", 6)
    process("halves", 12)
    whole, halves = weights(tmp_path / "whole", 12), weights(tmp_path / "halves", 12)
    assert whole.keys() == halves.keys()
    for name in whole:
        np.testing.assert_array_equal(np.asarray(whole[name]), np.asarray(halves[name]), name)
