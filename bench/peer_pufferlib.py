"""PufferLib's PPO on its own CartPole, with its own network, batches and number of environments.

Its environments are C, its trainer PyTorch, and its settings belong together, so this row says
how fast another design is and not how fast the same work is done.  Written after PufferLib's
sources of 2025 (`pufferlib.pufferl`) and not run by its author.
"""

# Peers are installed in environments of their own.
# pyright: reportMissingImports=false

from typing import Any

import numpy as np
import torch
import worker
from pufferlib import pufferl

ENV = "puffer_cartpole"


def main(settings: dict[str, Any]) -> None:
    """Serves rounds of at least `steps` environment steps."""
    chosen = pufferl.load_config(ENV)
    chosen["train"]["device"] = "cuda" if torch.cuda.is_available() else "cpu"
    chosen["train"]["env"] = ENV
    envs = pufferl.load_env(ENV, chosen)
    trainer = pufferl.PuffeRL(chosen["train"], envs, pufferl.load_policy(chosen, envs))

    def part() -> int:
        before = trainer.global_step
        while trainer.global_step - before < settings["steps"]:
            trainer.evaluate()
            trainer.train()
        return trainer.global_step - before

    def round_() -> dict[str, Any]:
        steps, spent = worker.timed(part)
        returns = trainer.stats.get("episode_return") or trainer.last_stats.get("episode_return")
        mean = float(np.mean(returns)) if returns else None
        return {"steps": steps, "return": mean, **spent}

    _, first = worker.timed(part)
    versions = worker.versions("pufferlib", "torch")
    worker.serve(round_, compile_seconds=first["seconds"], versions=versions)
