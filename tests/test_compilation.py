"""Compiler settings that importing fastrl makes."""

import os
import subprocess
import sys

import jax
import pytest

from fastrl import VecEnv, compilation, reset, rollout
from fastrl.envs.classic import CartPole
from fastrl.kernels import prng

OPTION = "--xla_backend_extra_options=xla_cpu_use_multi_output_fusion=1"
OTHER = "--xla_backend_extra_options=xla_cpu_something=1"


@pytest.mark.parametrize(
    ("before", "chosen", "after"),
    [
        (None, None, OPTION),
        ("--xla_cpu_ftz=true", None, f"--xla_cpu_ftz=true {OPTION}"),
        (OTHER, None, OTHER),
        (None, "", None),
        ("--xla_cpu_ftz=true", "", "--xla_cpu_ftz=true"),
        (None, "--xla_cpu_ftz=true", "--xla_cpu_ftz=true"),
    ],
)
def test_xla_flags_are_added_to_and_never_overruled(monkeypatch, before, chosen, after):
    for name, value in (("XLA_FLAGS", before), ("FASTRL_XLA_FLAGS", chosen)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    compilation.fuse_several_outputs()
    compilation.fuse_several_outputs()
    assert os.environ.get("XLA_FLAGS") == after


def test_an_environments_next_state_is_computed_in_common_loops():
    """Were the option renamed in another jaxlib, stepping would be three times as slow."""
    env = CartPole()
    task = jax.tree.map(jax.numpy.asarray, env.default_params())
    batch = VecEnv(env, 64, reset.fresh(env))

    def play(key, state, task):
        actions = jax.numpy.zeros(64, jax.numpy.int32)
        return rollout(batch, lambda key, observation: (actions, ()), key, state, task, 4)

    state = jax.jit(batch.init)(prng.key(0), task)
    text = jax.jit(play).lower(prng.key(1), state, task).compile().as_text() or ""
    assert text.count(" floor(") == 1  # of the angle: each of its readers would compute it anew


def test_whole_loops_come_too_late_once_jax_has_started():
    """Without an error a script would go on at a quarter of the speed and not know why."""
    jax.devices()
    with pytest.raises(RuntimeError, match="top of the script"):
        compilation.whole_loops()


@pytest.mark.slow
@pytest.mark.parametrize("users", ["", OTHER])
def test_a_stream_is_one_kernel_after_whole_loops(users):
    """Were the option renamed, or a stream's loop made of other operations, it would be slow;
    what users have chosen themselves holds."""
    environment = {**os.environ, "XLA_FLAGS": users, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", _STREAM],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout.split() == (["False"] if users else ["True"]), done.stderr


_STREAM = """
import jax
import fastrl
from fastrl import compilation, stream_q

compilation.whole_loops()
env = fastrl.make("CartPole-v1")
learner = stream_q.make(env, stream_q.Config(num_steps=10, hidden_sizes=(8,)))
state = jax.eval_shape(learner.init, fastrl.key(0), learner.default_hparams, env.default_params())
step = jax.jit(learner.step).lower(state, learner.default_hparams, env.default_params())
print('xla_cpu_small_call="true"' in step.compile().as_text())
"""
