"""DQN, SAC and TD3 by rejax; whole trainings in one program, its evaluations left out of the time.

The networks of its DQN and TD3 have two layers of 64 whatever is asked for.  Target networks follow
by environment steps, and the noise of TD3 is in units of the environment.
"""

# Peers are installed in environments of their own.
# pyright: reportMissingImports=false

from typing import Any

import rejax
import rejax_training


def main(settings: dict[str, Any]) -> None:
    """Serves rounds of `steps` environment steps (of each member)."""
    c, h, steps = settings["config"], settings["hparams"], settings["steps"]
    make, own = {"dqn": _dqn, "sac": _sac, "td3": _td3}[settings["algorithm"]](c, h, steps)
    algorithm = make.create(
        env=settings["env"], num_envs=c["num_envs"], num_epochs=1, batch_size=c["batch_size"],
        buffer_size=c["buffer_size"], fill_buffer=c["learning_starts"],
        learning_rate=h["learning_rate"], gamma=h["gamma"], total_timesteps=steps,
        eval_freq=steps, skip_initial_evaluation=True, **own,
    )  # fmt: skip
    rejax_training.serve(algorithm, settings)


def _dqn(c: dict[str, Any], h: dict[str, Any], steps: int) -> tuple[Any, dict[str, Any]]:
    return rejax.DQN, {
        "ddqn": c["double"], "max_grad_norm": h["max_grad_norm"], "eps_start": h["epsilon"],
        "eps_end": h["final_epsilon"], "exploration_fraction": h["exploration_steps"] / steps,
        "target_update_freq": h["target_period"] * c["num_envs"], "polyak": 0.0,
        "agent_kwargs": {"activation": c["activation"]},
    }  # fmt: skip


def _sac(c: dict[str, Any], h: dict[str, Any], steps: int) -> tuple[Any, dict[str, Any]]:
    return rejax.SAC, {
        "hidden_layer_sizes": c["hidden_sizes"], "polyak": 1.0 - h["tau"],
        "agent_kwargs": {"activation": c["activation"]},
    }  # fmt: skip


def _td3(c: dict[str, Any], h: dict[str, Any], steps: int) -> tuple[Any, dict[str, Any]]:
    half = 2.0  # half of the range of Pendulum's actions
    return rejax.TD3, {
        "policy_delay": c["policy_delay"], "polyak": 1.0 - h["tau"],
        "exploration_noise": half * h["noise"], "target_noise": half * h["target_noise"],
        "target_noise_clip": half * h["target_noise_clip"],
        "actor_kwargs": {"activation": c["activation"]},
        "critic_kwargs": {"activation": c["activation"]},
    }  # fmt: skip
