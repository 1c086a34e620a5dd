"""Rounds of random-action stepping, the same for fastrl and its peers. Standard library only."""

from collections.abc import Callable
from typing import Any

import worker

# One whole rollout: returns the sum of its rewards and the number of episodes that ended.
Rollout = Callable[[], tuple[float, int]]


def serve(settings: dict[str, Any], rollout: Rollout, **ready: Any) -> None:
    """Serves rounds of as many rollouts as fit into `seconds`.

    The return is that of all rollouts so far: rewards per episode that ended.
    """
    counted = {"reward": 0.0, "episodes": 0}

    def once() -> None:
        reward, episodes = rollout()
        counted["reward"] += reward
        counted["episodes"] += episodes

    def round_() -> dict[str, Any]:
        calls, spent = worker.until(settings["seconds"], once)
        steps = calls * settings["steps"] * settings["num_envs"]
        return {"steps": steps, "return": counted["reward"] / max(counted["episodes"], 1), **spent}

    once()
    worker.serve(round_, **ready)


def serve_scan(
    jax: Any, settings: dict[str, Any], init: Callable[..., Any], run: Callable[..., Any],
    key: Any, *packages: str,
) -> None:  # fmt: skip
    """Serves the JAX program `run(carry, key) -> carry, (rewards, episodes), stored`.

    `init(key)` gives the first carry.  Both are compiled ahead.
    """
    keys = jax.random.split(key, 2)
    first, init_seconds = worker.compiled(jax, init, keys[0])
    now = {"carry": first(keys[0]), "key": keys[1]}
    program, seconds = worker.compiled(jax, run, now["carry"], keys[1])

    def rollout() -> tuple[float, int]:
        now["key"], draw = jax.random.split(now["key"])
        now["carry"], (reward, episodes), _ = jax.block_until_ready(program(now["carry"], draw))
        return float(reward), int(episodes)

    serve(
        settings,
        rollout,
        compile_seconds=init_seconds + seconds,
        versions=worker.versions(*packages),
    )
