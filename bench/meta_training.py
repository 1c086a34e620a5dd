"""Rounds of meta-training, the same for fastrl and its peer, and the memory they take."""

from collections.abc import Callable
from typing import Any

import worker


def serve(
    jax: Any, settings: dict[str, Any], training: Callable[[Any], Any], key: Any, *packages: str
) -> None:
    """Serves rounds of the JAX program `training(key)`: `updates` meta-updates from the start.

    All environment steps that agents learn from count, on either side by the same formula: those
    of `window` updates and of the rollout after them.  Memory, in bytes: `held`, what the
    process' peak in a round is above what it holds before, and `planned`, XLA's own account.
    """
    rollouts = settings["window"] + 1
    steps = rollouts * settings["agents"] * settings["workers"] * settings["rollout"]
    now = {"key": key}
    program, seconds = worker.compiled(jax, training, key)

    def round_() -> dict[str, Any]:
        now["key"], draw = jax.random.split(now["key"])
        jax.block_until_ready(draw)
        before = worker.forget_peak()
        _, spent = worker.timed(lambda: jax.block_until_ready(program(draw)))
        held = worker.peak() - before
        return {"steps": settings["updates"] * steps, "held": held, **spent}

    round_()
    account = program.memory_analysis()
    planned = account.temp_size_in_bytes + account.output_size_in_bytes
    versions = worker.versions(*packages)
    worker.serve(round_, compile_seconds=seconds, versions=versions, planned=planned)
