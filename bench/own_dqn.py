"""DQN by fastrl: whole trainings in one program; with `members` above 1, that many seeds."""

import math
from typing import Any

import jax
import worker

import fastrl
from fastrl import dqn


def main(settings: dict[str, Any]) -> None:
    """Serves rounds of `steps` environment steps (of each member)."""
    if settings.get("devices"):
        fastrl.use_cpu_devices(settings["devices"])
    members, steps = settings.get("members", 1), settings["steps"]
    algorithm = dqn.make(fastrl.make(settings["env"]), dqn.Config(**config(settings)))
    task, hparams = algorithm.env.default_params(), dqn.HParams(**settings["hparams"])
    training = (fastrl.run if members == 1 else fastrl.members)(algorithm, steps)
    taken = math.ceil(steps / algorithm.steps_per_iteration) * algorithm.steps_per_iteration
    now = {"key": fastrl.key(settings["seed"])}

    def keys() -> Any:
        now["key"], draw = jax.random.split(now["key"])
        return draw if members == 1 else jax.random.split(draw, members)

    program, seconds = worker.compiled(jax, training, keys(), hparams, task)

    def round_() -> dict[str, Any]:
        seeds = jax.block_until_ready(keys())
        (now["state"], _), spent = worker.timed(
            lambda: jax.block_until_ready(program(seeds, hparams, task))
        )
        return {"steps": taken * members, **spent}

    def finish() -> dict[str, Any]:
        state = now["state"] if members == 1 else jax.tree.map(lambda x: x[0], now["state"])
        return {"return": fastrl.evaluate(algorithm, state, episodes=128).mean_return}

    round_()
    versions = worker.versions("fastrl", "jax")
    worker.serve(round_, finish, compile_seconds=seconds, versions=versions)


def config(settings: dict[str, Any]) -> dict[str, Any]:
    """One step of every environment, then one update, as rejax does it; 100 of these at once."""
    return {
        "num_envs": settings["num_envs"], "num_steps": 1, "num_rounds": 100,
        "hidden_sizes": tuple(settings["hidden_sizes"]), "activation": settings["activation"],
        **{k: settings[k] for k in ("batch_size", "buffer_size", "learning_starts", "double")},
    }  # fmt: skip
