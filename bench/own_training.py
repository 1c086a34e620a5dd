"""PPO by fastrl: whole trainings in one program, or rounds that go on with one training.

With `members` above 1 that many seeds train in one program.
"""

import contextlib
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import worker

import fastrl
from fastrl import metrics as fm
from fastrl import ppo, sharding


def main(settings: dict[str, Any]) -> None:
    """Serves rounds of `steps` environment steps (of each member)."""
    if settings.get("devices"):
        fastrl.use_cpu_devices(settings["devices"])
    algorithm, hparams = build(settings)
    serve = _serve_one if settings.get("goes_on") else _serve_whole
    with _mesh(settings):
        serve(settings, algorithm, hparams)


def _mesh(settings: dict[str, Any]) -> contextlib.AbstractContextManager[Any]:
    """One training is spread over its devices by environment; members spread by themselves."""
    if (settings.get("devices") or 1) == 1 or settings.get("members", 1) > 1:
        return contextlib.nullcontext()
    return jax.set_mesh(sharding.mesh(settings["devices"]))


def build(settings: dict[str, Any]) -> tuple[fastrl.Algorithm, ppo.HParams]:
    """PPO with the settings of the case; None among them is fastrl's default."""
    config = ppo.Config(
        num_envs=settings["num_envs"], num_steps=settings["num_steps"],
        num_epochs=settings["num_epochs"], num_minibatches=settings["num_minibatches"],
        hidden_sizes=tuple(settings["hidden_sizes"]), activation=settings["activation"],
        normalize_observation=settings.get("normalize_observation", False),
        **settings.get("set", {}),
    )  # fmt: skip
    hparams = ppo.HParams(**settings["hparams"])
    env = fastrl.make(settings["env"], **settings.get("env_options", {}))
    return ppo.make(env, config), hparams


def _serve_whole(settings: dict[str, Any], algorithm: Any, hparams: Any) -> None:
    """Every round is a training from the start, with other seeds."""
    trainings = whole(settings, algorithm, hparams)

    def round_() -> dict[str, Any]:
        (_, metrics), spent = trainings.run()
        return {"return": last_tenth(metrics, trainings.iterations), **spent}

    round_()
    versions = worker.versions("fastrl", "jax")
    worker.serve(round_, compile_seconds=trainings.compile_seconds, versions=versions)


class Trainings(NamedTuple):
    """Whole trainings, compiled: `run()` gives `(state, metrics)` and the steps and time spent."""

    run: Callable[[], tuple[Any, dict[str, Any]]]
    iterations: int
    compile_seconds: float


def whole(settings: dict[str, Any], algorithm: Any, hparams: Any) -> Trainings:
    """Trainings of `steps` steps from the start, of so many `members`; other seeds each time."""
    members, task = settings.get("members", 1), algorithm.env.default_params()
    make = fastrl.run if members == 1 else fastrl.members
    options = {} if members == 1 else {"batching": settings.get("batching", "auto")}
    training = make(algorithm, settings["steps"], **options)
    iterations = math.ceil(settings["steps"] / algorithm.steps_per_iteration)
    steps = iterations * algorithm.steps_per_iteration * members
    now = {"key": fastrl.key(settings["seed"])}

    def keys() -> Any:
        now["key"], draw = jax.random.split(now["key"])
        return draw if members == 1 else jax.random.split(draw, members)

    program, seconds = worker.compiled(jax, training, keys(), hparams, task)

    def run() -> tuple[Any, dict[str, Any]]:
        seeds = jax.block_until_ready(keys())
        done, spent = worker.timed(lambda: jax.block_until_ready(program(seeds, hparams, task)))
        return done, {"steps": steps, **spent}

    return Trainings(run, iterations, seconds)


def _serve_one(settings: dict[str, Any], algorithm: Any, hparams: Any) -> None:
    """All rounds are parts of one training; at the end its policy is evaluated."""
    task = algorithm.env.default_params()
    iterations = math.ceil(settings["steps"] / algorithm.steps_per_iteration)

    def part(state: Any) -> Any:
        step = lambda state, _: algorithm.step(state, hparams, task)  # noqa: E731
        state, metrics = jax.lax.scan(step, state, None, iterations)
        return state, fm.fold(metrics)

    key = fastrl.key(settings["seed"])
    init, init_seconds = worker.compiled(jax, algorithm.init, key, hparams, task)
    now = {"state": init(key, hparams, task)}
    program, seconds = worker.compiled(jax, part, now["state"])

    def round_() -> dict[str, Any]:
        (now["state"], metrics), spent = worker.timed(
            lambda: jax.block_until_ready(program(now["state"]))
        )
        value = fm.compute(metrics)["episode_return"]
        done = {"steps": iterations * algorithm.steps_per_iteration, **spent}
        return done | {"return": None if np.isnan(value) else float(value)}

    def finish() -> dict[str, Any]:
        episodes = settings.get("episodes")  # of the evaluation
        if not episodes:
            return {}
        return {"return": fastrl.evaluate(algorithm, now["state"], episodes=episodes).mean_return}

    for _ in range(settings.get("warmups", 1)):
        round_()
    versions = worker.versions("fastrl", "jax", "brax")
    worker.serve(round_, finish, compile_seconds=init_seconds + seconds, versions=versions)


def last_tenth(metrics: fm.Metrics, iterations: int) -> float | None:
    """The mean return of the episodes that ended in the last tenth of the training, all members."""
    counted = metrics["episode_return"]
    start = iterations - max(1, iterations // 10)
    total = np.asarray(counted.total)[..., start:].sum(dtype=np.float64)
    weight = np.asarray(counted.weight)[..., start:].sum(dtype=np.float64)
    return float(total / weight) if weight else None
