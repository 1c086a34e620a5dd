"""PPO by rejax; whole trainings in one program, its evaluations left out of the time.

It has no annealing of the learning rate.
"""

# Peers are installed in environments of their own.
# pyright: reportMissingImports=false

from typing import Any

import rejax_training
from rejax import PPO


def main(settings: dict[str, Any]) -> None:
    """Serves rounds of `steps` environment steps (of each member)."""
    h = settings["hparams"]
    algorithm = PPO.create(
        env=settings["env"], num_envs=settings["num_envs"], num_steps=settings["num_steps"],
        num_epochs=settings["num_epochs"], num_minibatches=settings["num_minibatches"],
        learning_rate=h["learning_rate"], gamma=h["gamma"], gae_lambda=h["gae_lambda"],
        clip_eps=h["clip"], ent_coef=h["entropy_coefficient"], vf_coef=h["value_coefficient"],
        max_grad_norm=h["max_grad_norm"], total_timesteps=settings["steps"],
        eval_freq=settings["steps"], skip_initial_evaluation=True,
        agent_kwargs={
            "activation": settings["activation"], "hidden_layer_sizes": settings["hidden_sizes"],
        },
    )  # fmt: skip
    rejax_training.serve(algorithm, settings)
