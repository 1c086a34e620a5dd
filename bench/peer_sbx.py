"""PPO by SBX (Stable-Baselines in JAX); all rounds are parts of one training."""

# Peers are installed in environments of their own.
# pyright: reportMissingImports=false

from typing import Any

import flax.linen as nn
import numpy as np
import worker
from sbx import PPO
from stable_baselines3.common.env_util import make_vec_env


def main(settings: dict[str, Any]) -> None:
    """Serves rounds of `steps` environment steps; the return is that of the last 100 episodes."""
    h, n, steps = settings["hparams"], settings["num_envs"], settings["num_steps"]
    model = PPO(
        "MlpPolicy", make_vec_env(settings["env"], n_envs=n, seed=settings["seed"]),
        learning_rate=h["learning_rate"], n_steps=steps,
        batch_size=n * steps // settings["num_minibatches"], n_epochs=settings["num_epochs"],
        gamma=h["gamma"], gae_lambda=h["gae_lambda"], clip_range=h["clip"],
        ent_coef=h["entropy_coefficient"], vf_coef=h["value_coefficient"],
        max_grad_norm=h["max_grad_norm"], seed=settings["seed"],
        policy_kwargs={
            "net_arch": settings["hidden_sizes"],
            "activation_fn": getattr(nn, settings["activation"]),
        },
    )  # fmt: skip

    def learn(steps: int) -> Any:
        return model.learn(steps, reset_num_timesteps=False)

    def round_() -> dict[str, Any]:
        before = model.num_timesteps
        _, spent = worker.timed(lambda: learn(settings["steps"]))
        returns = [episode["r"] for episode in model.ep_info_buffer or ()]
        mean = float(np.mean(returns)) if returns else None
        return {"steps": model.num_timesteps - before, "return": mean, **spent}

    _, first = worker.timed(lambda: learn(n * steps))
    round_()
    versions = worker.versions("sbx-rl", "stable-baselines3", "gymnasium", "jax")
    worker.serve(round_, compile_seconds=first["seconds"], versions=versions)
