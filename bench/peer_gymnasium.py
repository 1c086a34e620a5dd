"""Random-action stepping by Gymnasium's vector CartPole in NumPy, its fastest.

Actions are drawn beforehand, and the step in which an episode is reset counts as a step.
"""

# Peers are installed in environments of their own.
# pyright: reportMissingImports=false

from typing import Any

import gymnasium
import numpy as np
import stepping
import worker


def main(settings: dict[str, Any]) -> None:
    """Serves rounds of `seconds`."""
    n, steps = settings["num_envs"], settings["steps"]
    env = gymnasium.make_vec(settings["env"], num_envs=n, vectorization_mode="vector_entry_point")
    env.reset(seed=settings["seed"])
    actions = np.random.default_rng(settings["seed"]).integers(0, 2, (steps, n))
    stored = np.empty((steps, n, 4), np.float32) if settings["store"] else None

    def rollout() -> tuple[float, int]:
        total, episodes = 0.0, 0
        for t in range(steps):
            observation, reward, terminated, truncated, _ = env.step(actions[t])
            total += float(reward.sum())
            episodes += int((terminated | truncated).sum())
            if stored is not None:
                stored[t] = observation
        return total, episodes

    versions = worker.versions("gymnasium", "numpy")
    stepping.serve(settings, rollout, compile_seconds=0.0, versions=versions)
