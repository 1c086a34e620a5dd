"""PPO with the fused rollout's interface in place of its own rollout: the same training."""

import warnings
from typing import Any

import jax
import numpy as np
import pytest

import fastrl
from fastrl import normalize, ppo
from fastrl.algorithms import collectors, on_policy
from fastrl.envs.classic import MountainCarContinuous
from fastrl.envs.probe import TimeLimit
from fastrl.kernels.fused_rollout import Kept, reference_rollout

ENV = MountainCarContinuous()
CONFIG = ppo.Config(num_envs=8, num_steps=16, num_minibatches=2, num_epochs=2, hidden_sizes=(16,),
                    normalize_observation=True)  # fmt: skip


def trained(config):
    """Two iterations, with a time limit that cuts episodes off."""
    algorithm = ppo.make(ENV, config)
    hparams = algorithm.default_hparams
    task = ENV.default_params()._replace(max_steps=10)
    state = jax.jit(algorithm.init)(fastrl.key(3), hparams, task)
    step = jax.jit(algorithm.step)
    return step(step(state, hparams, task)[0], hparams, task)


def test_a_rollout_of_the_kernels_interface_trains_as_the_scan(monkeypatch):
    """Fails if samples, ends, values of cut episodes, statistics or metrics get lost between the
    kernel and the learner; the kernel's own numbers are compared in test_fused_rollout.py."""
    expected, metrics = trained(CONFIG)
    kernel = reference_rollout(
        ENV, CONFIG.network, kept=Kept(value=False), preprocess=normalize.normalize
    )
    monkeypatch.setattr(collectors.Collector, "_kernel", lambda self, key: kernel)
    ppo._make.cache_clear()
    got, other = trained(CONFIG)
    ppo._make.cache_clear()
    for a, b in zip(*map(jax.tree.leaves, (expected.params, got.params)), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5)
    assert int(metrics["episode_return"].weight) == int(other["episode_return"].weight) > 0
    np.testing.assert_allclose(metrics["episode_return"].total, other["episode_return"].total, 1e-5)


def test_final_values_are_the_same_after_the_rollout(monkeypatch):
    """Fails if the values of cut episodes depend on when they are computed, as GPUs do it late."""

    def samples():
        env = TimeLimit()
        algorithm = ppo.make(env, ppo.Config(num_envs=4, num_steps=16, num_minibatches=1))
        task = env.default_params()
        state = algorithm.init(fastrl.key(0), algorithm.default_hparams, task)
        return jax.jit(algorithm.step)(state, algorithm.default_hparams, task)[0].params

    ppo._make.cache_clear()
    expected = samples()
    monkeypatch.setattr(on_policy, "_branches_are_cheap", lambda: False)
    ppo._make.cache_clear()
    got = samples()
    ppo._make.cache_clear()
    for a, b in zip(*map(jax.tree.leaves, (expected, got)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_on_a_gpu_the_rollout_is_the_kernel(monkeypatch):
    """Fails if PPO's own program for NVIDIA GPUs does not hold the kernel, or can't be lowered."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    ppo._make.cache_clear()
    algorithm = ppo.make(ENV, CONFIG)
    ppo._make.cache_clear()
    task, hparams = ENV.default_params(), algorithm.default_hparams
    state = jax.eval_shape(algorithm.init, fastrl.key(0), hparams, task)
    lowered = jax.jit(algorithm.step).trace(state, hparams, task)
    with warnings.catch_warnings():  # JAX 0.11 calls its Triton lowering deprecated
        warnings.simplefilter("ignore", DeprecationWarning)
        text = lowered.lower(lowering_platforms=("cuda",)).as_text()
    assert "fused_rollout" in text


@pytest.mark.parametrize("fused", [True, False])
def test_on_a_cpu_no_kernel_is_asked_for(fused):
    """Fails if CPUs import or run what is for GPUs, or the switch has no field."""
    config = ppo.Config(fused_rollout=fused)
    step: Any = ppo.make(ENV, config).step  # a functools.partial
    collector = step.args[0].collector
    assert collector._kernel(fastrl.key(0)) is None
    assert collector.fused == fused
