"""Compiler settings that importing fastrl makes."""

import os

import jax
import pytest

from fastrl import VecEnv, compilation, reset, rollout
from fastrl.envs.classic import CartPole
from fastrl.kernels import prng

OPTION = "--xla_backend_extra_options=xla_cpu_use_multi_output_fusion"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, f"{OPTION}=1"),
        ("--xla_cpu_enable_fast_math=false", f"--xla_cpu_enable_fast_math=false {OPTION}=1"),
        (f"{OPTION}=0", f"{OPTION}=0"),
    ],
)
def test_xla_flags_are_added_to_and_never_overruled(monkeypatch, before, after):
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    if before is not None:
        monkeypatch.setenv("XLA_FLAGS", before)
    compilation.fuse_several_outputs()
    compilation.fuse_several_outputs()
    assert os.environ["XLA_FLAGS"] == after


def test_an_environments_next_state_is_computed_in_common_loops():
    """Were the option renamed in another jaxlib, stepping would be three times as slow."""
    env = CartPole()
    task = jax.tree.map(jax.numpy.asarray, env.default_params())
    batch = VecEnv(env, 64, reset.fresh(env))

    def play(key, state, task):
        actions = jax.numpy.zeros(64, jax.numpy.int32)
        return rollout(batch, lambda key, observation: (actions, ()), key, state, task, 4)

    state = jax.jit(batch.init)(prng.key(0), task)
    text = jax.jit(play).lower(prng.key(1), state, task).compile().as_text()
    several = [line for line in text.splitlines() if " fusion(" in line and " = (" in line]
    assert any(line.count("f32[64]") >= 4 for line in several)
