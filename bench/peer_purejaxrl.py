"""PPO by PureJaxRL, from its checkout and unchanged; whole trainings in one program.

Its wrappers import brax and navix, which CartPole does not use: here they are empty modules, so
start-up is that of what is used.
"""

# Peers are installed in environments of their own.
# pyright: reportMissingImports=false

import sys
import types
from pathlib import Path
from typing import Any

import worker

_UNUSED = {
    "navix": (),
    "brax": ("envs",),
    "brax.envs": (),
    "brax.envs.wrappers": (),
    "brax.envs.wrappers.training": ("EpisodeWrapper", "AutoResetWrapper"),
}


def make_train(settings: dict[str, Any]) -> Any:
    """PureJaxRL's `make_train` for the settings of the case: a function of a key."""
    for name, attributes in _UNUSED.items():
        module = types.ModuleType(name)
        for attribute in attributes:
            setattr(module, attribute, None)
        sys.modules[name] = module
    checkout = Path(settings["checkout"])
    sys.path[:0] = [str(checkout), str(checkout / "purejaxrl")]
    import ppo

    if settings["hidden_sizes"] != [64, 64]:
        raise ValueError(f"hidden_sizes={settings['hidden_sizes']}: PureJaxRL's are 64, 64")
    h = settings["hparams"]
    return ppo.make_train({
        "LR": h["learning_rate"], "NUM_ENVS": settings["num_envs"],
        "NUM_STEPS": settings["num_steps"], "TOTAL_TIMESTEPS": settings["steps"],
        "UPDATE_EPOCHS": settings["num_epochs"], "NUM_MINIBATCHES": settings["num_minibatches"],
        "GAMMA": h["gamma"], "GAE_LAMBDA": h["gae_lambda"], "CLIP_EPS": h["clip"],
        "ENT_COEF": h["entropy_coefficient"], "VF_COEF": h["value_coefficient"],
        "MAX_GRAD_NORM": h["max_grad_norm"], "ACTIVATION": settings["activation"],
        "ENV_NAME": settings["env"], "ANNEAL_LR": "anneal_steps" in h, "DEBUG": False,
    })  # fmt: skip


def main(settings: dict[str, Any]) -> None:
    """Serves rounds of `steps` environment steps (of each member); with `first` it trains once."""
    import jax

    training, members = make_train(settings), settings.get("members", 1)
    iteration = settings["num_envs"] * settings["num_steps"]
    iterations = settings["steps"] // iteration
    now = {"key": jax.random.PRNGKey(settings["seed"])}

    def keys() -> Any:
        now["key"], draw = jax.random.split(now["key"])
        return draw if members == 1 else jax.random.split(draw, members)

    function = training if members == 1 else jax.vmap(training)
    if settings.get("first"):
        jax.block_until_ready(jax.jit(function)(keys()))
        worker.say(phases={}, versions=worker.versions("gymnax", "jax"))
        return
    program, seconds = worker.compiled(jax, function, keys())

    def round_() -> dict[str, Any]:
        seeds = jax.block_until_ready(keys())
        out, spent = worker.timed(lambda: jax.block_until_ready(program(seeds)))
        steps = iterations * iteration * members
        return {"steps": steps, "return": _last_tenth(out["metrics"], iterations), **spent}

    round_()
    versions = worker.versions("gymnax", "jax")
    worker.serve(round_, compile_seconds=seconds, versions=versions)


def _last_tenth(metrics: Any, iterations: int) -> float | None:
    """The mean return of the episodes that ended in the last tenth of the training."""
    import numpy as np

    returns = np.asarray(metrics["returned_episode_returns"])
    ended = np.asarray(metrics["returned_episode"])
    first = iterations - max(1, iterations // 10)
    shape = (-1, iterations, *ended.shape[-2:])
    last, mask = returns.reshape(shape)[:, first:], ended.reshape(shape)[:, first:]
    return float(last[mask].mean()) if mask.any() else None
