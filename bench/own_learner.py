"""A learner by fastrl: whole trainings in one program; with `members` above 1, that many seeds."""

from typing import Any

import jax
import worker
from own_training import last_tenth, whole

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
    algorithm, hparams = build(settings)
    trainings = whole(settings, algorithm, hparams)
    now: dict[str, Any] = {}

    def round_() -> dict[str, Any]:
        (now["state"], now["metrics"]), spent = trainings.run()
        return spent

    def finish() -> dict[str, Any]:
        if settings["algorithm"] == "pqn":
            return {"return": last_tenth(now["metrics"], trainings.iterations)}
        state = now["state"]
        if settings.get("members", 1) > 1:
            state = jax.tree.map(lambda x: x[0], state)
        return {"return": fastrl.evaluate(algorithm, state, episodes=128).mean_return}

    round_()
    versions = worker.versions("fastrl", "jax")
    worker.serve(round_, finish, compile_seconds=trainings.compile_seconds, versions=versions)


def build(settings: dict[str, Any]) -> tuple[fastrl.Algorithm, Any]:
    """The algorithm of the case and its hyper-parameters."""
    module = MODULES[settings["algorithm"]]
    asked = settings["config"] | settings.get("set", {})
    fields = {k: tuple(v) if isinstance(v, list) else v for k, v in asked.items()}
    algorithm = module.make(fastrl.make(settings["env"]), module.Config(**fields))
    return algorithm, module.HParams(**settings["hparams"])
