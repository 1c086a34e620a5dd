"""PQN by PureJaxQL, from its checkout and unchanged; whole trainings in one program.

What its scripts import to log, to read configs and to save is not used, and stands here as mocks.
"""

# Peers are installed in environments of their own.
# pyright: reportMissingImports=false

import importlib
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import worker

_UNUSED = ("hydra", "omegaconf", "wandb", "safetensors", "safetensors.flax")


def make_train(settings: dict[str, Any]) -> Any:
    """PureJaxQL's `make_train` for the settings of the case: a function of a key."""
    sys.modules.update({name: mock.MagicMock() for name in _UNUSED})
    sys.path.insert(0, str(Path(settings["checkout"]) / "purejaxql"))
    c, h, steps = settings["config"], settings["hparams"], settings["steps"]
    conv, env = c.get("torso") == "conv", settings["env"]
    if conv:
        env = env.removeprefix("MinAtar/").removesuffix("-v1") + "-MinAtar"
    return importlib.import_module("pqn_minatar" if conv else "pqn_gymnax").make_train({
        "ENV_NAME": env, "NUM_ENVS": c["num_envs"], "NUM_STEPS": c["num_steps"],
        "NUM_EPOCHS": c["num_epochs"], "NUM_MINIBATCHES": c["num_minibatches"],
        "TOTAL_TIMESTEPS": steps, "TOTAL_TIMESTEPS_DECAY": steps,
        "HIDDEN_SIZE": c["hidden_sizes"][0], "NUM_LAYERS": len(c["hidden_sizes"]),
        "NORM_TYPE": "layer_norm", "LR": h["learning_rate"], "LR_LINEAR_DECAY": True,
        "GAMMA": h["gamma"], "LAMBDA": h["q_lambda"], "EPS_START": h["epsilon"],
        "EPS_FINISH": h["final_epsilon"], "EPS_DECAY": h["exploration_steps"] / steps,
        "REW_SCALE": h["reward_scale"], "MAX_GRAD_NORM": h["max_grad_norm"],
        "WANDB_MODE": "disabled",
    })  # fmt: skip


def main(settings: dict[str, Any]) -> None:
    """Serves rounds of `steps` environment steps (of each member).

    The return is the mean over the last tenth of the training, step by step, of that of each
    environment's latest whole episode.
    """
    import jax
    import numpy as np

    training, members, c = make_train(settings), settings.get("members", 1), settings["config"]
    iterations = settings["steps"] // (c["num_envs"] * c["num_steps"])
    steps = iterations * c["num_envs"] * c["num_steps"] * members
    now = {"key": jax.random.PRNGKey(settings["seed"])}

    def keys() -> Any:
        now["key"], draw = jax.random.split(now["key"])
        return draw if members == 1 else jax.random.split(draw, members)

    function = training if members == 1 else jax.vmap(training)
    program, seconds = worker.compiled(jax, function, keys())

    def round_() -> dict[str, Any]:
        seeds = jax.block_until_ready(keys())
        out, spent = worker.timed(lambda: jax.block_until_ready(program(seeds)))
        returns = np.asarray(out["metrics"]["returned_episode_returns"])
        last = returns[..., iterations - max(1, iterations // 10) :]
        return {"steps": steps, "return": float(last.mean()), **spent}

    round_()
    versions = worker.versions("gymnax", "jax")
    worker.serve(round_, compile_seconds=seconds, versions=versions)
