"""fastrl from nothing to the end of the first iteration of PPO, phase by phase."""

import time
from typing import Any

import worker


class Phases:
    """Seconds by name, each from the end of the one before."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def end(self, name: str) -> None:
        """Ends the phase `name`."""
        now = time.perf_counter()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self._last
        self._last = now


def main(settings: dict[str, Any]) -> None:
    """Says what each phase took, at the end of the first iteration."""
    phases = Phases()
    import jax

    import fastrl

    phases.end("import")
    if settings["through"] == "train":
        _train(settings)
        phases.end("train")
    else:
        _parts(settings, jax, fastrl, phases)
    worker.say(phases=phases.seconds, versions=worker.versions("fastrl", "jax"))


def _train(settings: dict[str, Any]) -> None:
    """As a user would: `fastrl.train`, of one iteration, without a run folder."""
    import own_training

    import fastrl

    algorithm, hparams = own_training.build(settings)
    steps = algorithm.steps_per_iteration
    fastrl.train(algorithm, hparams, steps=steps, seed=0, eval_every=0, progress=False)


def _parts(settings: dict[str, Any], jax: Any, fastrl: Any, phases: Phases) -> None:
    """`init` and `step`, each traced, lowered and compiled."""
    import own_training

    algorithm, hparams = own_training.build(settings)
    task, key = algorithm.env.default_params(), fastrl.key(settings["seed"])
    phases.end("build")

    def prepared(function: Any, *args: Any) -> Any:
        traced = jax.jit(function).trace(*args)
        phases.end("trace")
        lowered = traced.lower()
        phases.end("lower")
        program = lowered.compile()
        phases.end("compile")
        return program

    init = prepared(algorithm.init, key, hparams, task)
    state = jax.block_until_ready(init(key, hparams, task))
    phases.end("init")
    step = prepared(algorithm.step, state, hparams, task)
    jax.block_until_ready(step(state, hparams, task))
    phases.end("first run")
