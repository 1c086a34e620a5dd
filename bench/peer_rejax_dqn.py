"""DQN by rejax; whole trainings in one program, its evaluations left out of the time.

Its networks have two layers of 64 whatever is asked for.  Its target network is copied by
environment steps.
"""

# Peers are installed in environments of their own.
# pyright: reportMissingImports=false

from typing import Any

import rejax_training
from rejax import DQN


def main(settings: dict[str, Any]) -> None:
    """Serves rounds of `steps` environment steps (of each member)."""
    h = settings["hparams"]
    algorithm = DQN.create(
        env=settings["env"], num_envs=settings["num_envs"], num_epochs=1,
        batch_size=settings["batch_size"], buffer_size=settings["buffer_size"],
        fill_buffer=settings["learning_starts"], ddqn=settings["double"],
        learning_rate=h["learning_rate"], gamma=h["gamma"], max_grad_norm=h["max_grad_norm"],
        eps_start=h["epsilon"], eps_end=h["final_epsilon"],
        exploration_fraction=h["exploration_steps"] / settings["steps"],
        target_update_freq=h["target_period"] * settings["num_envs"], polyak=0.0,
        total_timesteps=settings["steps"], eval_freq=settings["steps"],
        skip_initial_evaluation=True, agent_kwargs={"activation": settings["activation"]},
    )  # fmt: skip
    rejax_training.serve(algorithm, settings)
