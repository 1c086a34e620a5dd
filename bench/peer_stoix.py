"""PPO by Stoix, from its checkout; all rounds are parts of one training, of its Anakin kind.

Written after Stoix's sources of March 2026 and not run by its author: Stoix installs from git
repositories only and wants a JAX below 0.6.
"""

# Peers are installed in environments of their own.
# pyright: reportMissingImports=false

from pathlib import Path
from typing import Any

import jax
import numpy as np
import worker
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from stoix.systems.ppo.anakin.ff_ppo import learner_setup
from stoix.utils import make_env
from stoix.utils.total_timestep_checker import check_total_timesteps


def main(settings: dict[str, Any]) -> None:
    """Serves rounds of `steps` environment steps."""
    config = _config(settings)
    keys = jax.random.split(jax.random.PRNGKey(settings["seed"]), 3)
    learn, _, state = learner_setup(make_env.make(config=config)[0], tuple(keys), config)
    now = {"state": state}

    def part() -> Any:
        out = jax.block_until_ready(learn(now["state"]))
        now["state"] = out.learner_state
        return out.episode_metrics

    def round_() -> dict[str, Any]:
        metrics, spent = worker.timed(part)
        ended = np.asarray(metrics["is_terminal_step"])
        returns = np.asarray(metrics["episode_return"])[ended]
        mean = float(returns.mean()) if returns.size else None
        return {"steps": settings["steps"], "return": mean, **spent}

    _, first = worker.timed(part)
    versions = worker.versions("stoix", "jax")
    worker.serve(round_, compile_seconds=first["seconds"], versions=versions)


def _config(settings: dict[str, Any]) -> Any:
    """Stoix's configuration with the settings of the case; rounds are its evaluations."""
    h, sizes = settings["hparams"], list(settings["hidden_sizes"])
    torsos = [f"network.{net}_network.pre_torso" for net in ("actor", "critic")]
    configs = Path(settings["checkout"]) / "stoix" / "configs"
    parts = 64  # more than anyone asks for
    with initialize_config_dir(str(configs / "default" / "anakin"), version_base="1.2"):
        config = compose("default_ff_ppo", overrides=[
            f"hydra.searchpath=[file://{configs}]",
            "env=gymnax/cartpole", f"arch.total_num_envs={settings['num_envs']}",
            f"arch.total_timesteps={parts * settings['steps']}", f"arch.num_evaluation={parts}",
            f"system.rollout_length={settings['num_steps']}",
            f"system.epochs={settings['num_epochs']}",
            f"system.num_minibatches={settings['num_minibatches']}",
            f"system.actor_lr={h['learning_rate']}", f"system.critic_lr={h['learning_rate']}",
            f"system.gamma={h['gamma']}", f"system.gae_lambda={h['gae_lambda']}",
            f"system.clip_eps={h['clip']}", f"system.ent_coef={h['entropy_coefficient']}",
            f"system.vf_coef={h['value_coefficient']}", "system.decay_learning_rates=False",
            f"system.max_grad_norm={h['max_grad_norm']}",
            *(f"{torso}.layer_sizes={sizes}" for torso in torsos),
            *(f"{torso}.activation={settings['activation']}" for torso in torsos),
        ])  # fmt: skip
    OmegaConf.set_struct(config, False)
    config.num_devices = len(jax.devices())
    return check_total_timesteps(config)
