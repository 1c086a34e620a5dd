"""Meta-training of LPG by fastrl's meta-gradients."""

from typing import Any

import jax
import meta_training

import fastrl
from fastrl.envs.grid_world import GridWorld
from fastrl.meta import lpg, lpg_agent, meta_gradient
from fastrl.types import Algorithm


def main(settings: dict[str, Any]) -> None:
    """Serves rounds of `updates` meta-updates."""
    fastrl.use_cpu_devices(settings["devices"])
    outer = build(settings)
    run = fastrl.run(outer, settings["updates"] * outer.steps_per_iteration)
    meta_training.serve(
        jax, settings, lambda key: run(key, outer.default_hparams, ()),
        fastrl.key(settings["seed"]), "fastrl", "jax",
    )  # fmt: skip


def build(settings: dict[str, Any]) -> Algorithm:
    """The meta-learner."""
    rule = lpg.LPG(hidden_size=settings["hidden_size"])
    inner = lpg_agent.make(
        GridWorld(settings["mode"]),
        lpg_agent.Config(num_envs=settings["workers"], num_steps=settings["rollout"]),
        objective=rule,
    )  # fmt: skip
    config = meta_gradient.Config(
        num_lives=settings["agents"], chunk=settings["chunk"], window=settings["window"],
        keep=settings["keep"], devices=settings["devices"],
    )  # fmt: skip
    return meta_gradient.make(inner, rule.init, config)
