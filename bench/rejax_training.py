"""What rejax's peers share: whole trainings in one program, its evaluations left out of the time.

The return is that of 128 episodes after training.
"""

# Peers are installed in environments of their own.
# pyright: reportMissingImports=false

from typing import Any

import jax
import worker
from rejax.evaluate import evaluate

EPISODES = 128


def serve(algorithm: Any, settings: dict[str, Any]) -> None:
    """Serves rounds of `steps` environment steps (of each member)."""
    members = settings.get("members", 1)
    algorithm = algorithm.replace(eval_callback=lambda algorithm, state, key: ())
    now = {"key": jax.random.PRNGKey(settings["seed"])}

    def keys() -> Any:
        now["key"], draw = jax.random.split(now["key"])
        return draw if members == 1 else jax.random.split(draw, members)

    function = algorithm.train if members == 1 else jax.vmap(algorithm.train)
    program, seconds = worker.compiled(jax, function, keys())

    def round_() -> dict[str, Any]:
        seeds = jax.block_until_ready(keys())
        (now["state"], _), spent = worker.timed(lambda: jax.block_until_ready(program(seeds)))
        return {"steps": settings["steps"] * members, **spent}

    def finish() -> dict[str, Any]:
        state = now["state"] if members == 1 else jax.tree.map(lambda x: x[0], now["state"])
        params = algorithm.env_params
        _, returns = evaluate(
            algorithm.make_act(state), now["key"], algorithm.env, params, EPISODES,
            params.max_steps_in_episode,
        )  # fmt: skip
        return {"return": float(returns.mean())}

    round_()
    versions = worker.versions("rejax", "gymnax", "jax")
    worker.serve(round_, finish, compile_seconds=seconds, versions=versions)
