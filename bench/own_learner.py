"""A learner by fastrl: whole trainings in one program; with `members` above 1, that many seeds."""

import math
from typing import Any

import jax
import worker
from own_training import last_tenth

import fastrl
from fastrl import dqn, pqn, sac, td3

MODULES = {"dqn": dqn, "pqn": pqn, "sac": sac, "td3": td3}


def main(settings: dict[str, Any]) -> None:
    """Serves rounds of `steps` environment steps (of each member).

    The return is that of the episodes that ended in the last tenth of the training, where peers
    say that of theirs (PQN), or else of 128 episodes after it.
    """
    if settings.get("devices"):
        fastrl.use_cpu_devices(settings["devices"])
    members, steps = settings.get("members", 1), settings["steps"]
    algorithm, hparams = build(settings)
    task = algorithm.env.default_params()
    training = (fastrl.run if members == 1 else fastrl.members)(algorithm, steps)
    iterations = math.ceil(steps / algorithm.steps_per_iteration)
    taken = iterations * algorithm.steps_per_iteration
    now: dict[str, Any] = {"key": fastrl.key(settings["seed"])}

    def keys() -> Any:
        now["key"], draw = jax.random.split(now["key"])
        return draw if members == 1 else jax.random.split(draw, members)

    program, seconds = worker.compiled(jax, training, keys(), hparams, task)

    def round_() -> dict[str, Any]:
        seeds = jax.block_until_ready(keys())
        (now["state"], now["metrics"]), spent = worker.timed(
            lambda: jax.block_until_ready(program(seeds, hparams, task))
        )
        return {"steps": taken * members, **spent}

    def finish() -> dict[str, Any]:
        if settings["algorithm"] == "pqn":
            return {"return": last_tenth(now["metrics"], iterations)}
        state = now["state"] if members == 1 else jax.tree.map(lambda x: x[0], now["state"])
        return {"return": fastrl.evaluate(algorithm, state, episodes=128).mean_return}

    round_()
    versions = worker.versions("fastrl", "jax")
    worker.serve(round_, finish, compile_seconds=seconds, versions=versions)


def build(settings: dict[str, Any]) -> tuple[fastrl.Algorithm, Any]:
    """The algorithm of the case and its hyper-parameters."""
    module = MODULES[settings["algorithm"]]
    fields = {k: tuple(v) if isinstance(v, list) else v for k, v in settings["config"].items()}
    algorithm = module.make(fastrl.make(settings["env"]), module.Config(**fields))
    return algorithm, module.HParams(**settings["hparams"])
